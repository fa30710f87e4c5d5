"""Mixed precision: scripts run, in float32; the scaler scales."""

import pytest

import faltung
from faltung import amp, optim


def test_autocast_leaves_dtypes_alone_and_says_so() -> None:
    with pytest.warns(UserWarning, match="nothing is cast"):
        context = faltung.autocast("cpu", dtype=faltung.bfloat16)
    with context:
        assert (faltung.ones(2, 2) @ faltung.ones(2, 2)).dtype is faltung.float32
        assert not faltung.is_autocast_enabled()
    with pytest.warns(UserWarning, match="CUDA is not available"):
        amp.autocast("cuda")
    with amp.autocast("cuda", enabled=False):
        pass

    @amp.autocast("cpu", enabled=False)
    def double(x: float) -> float:
        return 2 * x

    assert double(2) == 4
    with pytest.raises(RuntimeError, match="unsupported autocast device_type"):
        amp.autocast("abacus")
    with pytest.raises(ValueError, match="type `str`"):
        amp.autocast(5)


def test_a_scaler_for_cuda_is_disabled() -> None:
    with pytest.warns(UserWarning, match="CUDA is not available"):
        scaler = amp.GradScaler()
    assert (scaler.is_enabled(), scaler.get_scale(), scaler.state_dict()) == (False, 1.0, {})
    x = faltung.ones(2, requires_grad=True)
    loss = x.sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    optimizer = optim.SGD([x], lr=1.0)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert x.tolist() == [0, 0]


def test_old_names() -> None:
    from faltung.cuda.amp import GradScaler, autocast

    assert not GradScaler(enabled=False).is_enabled()
    with autocast(enabled=False):
        pass


def test_scaled_training_is_plain_training() -> None:
    x, y = (faltung.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    scaler = amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaled, plain = optim.SGD([x], lr=0.25), optim.SGD([y], lr=0.25)
    for _ in range(3):
        scaled.zero_grad()
        plain.zero_grad()
        scaler.scale(x.square().sum()).backward()
        assert x.grad is not None
        assert x.grad[0].item() == scaler.get_scale() * 2 * x[0].item()
        scaler.unscale_(scaled)
        scaler.step(scaled)
        scaler.update()
        y.square().sum().backward()
        plain.step()
    assert faltung.equal(x, y)
    assert scaler.get_scale() == 2048  # grew once after two good steps
    other = amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()


def test_overflow_skips_the_step_and_halves_the_factor() -> None:
    x = faltung.ones(2, requires_grad=True)
    scaler = amp.GradScaler("cpu", init_scale=8.0)
    optimizer = optim.SGD([x], lr=1.0)
    x.grad = faltung.tensor([1.0, float("inf")])
    assert scaler.step(optimizer) is None
    scaler.update()
    assert x.tolist() == [1, 1]
    assert scaler.get_scale() == 4
    scaler.update(2.0)
    assert scaler.get_scale() == 2
    assert [t.item() for t in scaler.scale([faltung.tensor(1.0), faltung.tensor(3.0)])] == [2, 6]


def test_scaler_refusals() -> None:
    x = faltung.ones(2, requires_grad=True)
    scaler = amp.GradScaler("cpu")
    optimizer = optim.SGD([x], lr=1.0)
    with pytest.raises(AssertionError, match="Call step"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="Call it before"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="Closure"):
        scaler.step(optimizer, closure=lambda: 0)
    with pytest.raises(ValueError, match="iterable of Tensors"):
        scaler.scale(5)
    with pytest.raises(RuntimeError, match="empty"):
        scaler.load_state_dict({})
    with pytest.raises(AssertionError, match="growth factor"):
        amp.GradScaler("cpu", growth_factor=1.0)
    with pytest.raises(AssertionError, match="backoff factor"):
        amp.GradScaler("cpu", backoff_factor=1.0)
