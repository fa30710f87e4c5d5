"""Every optimizer makes PyTorch's steps: stored (data/optimizers.npz), and live where PyTorch is installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faltung
from faltung import Tensor, optim
from faltung.engine.reference import optimizer as reference
from tests.cases.optim import BFLOAT16, OPTIMIZERS, REAL_ONLY, train

STORED = Path(__file__).parents[1] / "data" / "optimizers.npz"


def make(array: np.ndarray) -> Tensor:
    return faltung.tensor(array)


def tolerances(name: str, dtype: str) -> dict[str, float]:
    if OPTIMIZERS[name][0] in BFLOAT16:
        return {"rtol": 2e-3, "atol": 2e-3}
    return {"rtol": 1e-9, "atol": 1e-10} if dtype == "float64" else {"rtol": 2e-6, "atol": 1e-6}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_pytorchs(name: str) -> None:
    stored = np.load(STORED)
    params, _ = train(optim, make, name)
    for number, param in enumerate(params):
        np.testing.assert_allclose(
            param.detach().numpy(), stored[f"{name}.{number}"], **tolerances(name, "float32"), err_msg=str(number)
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resuming_from_a_state_dict_changes_nothing(name: str) -> None:
    whole, _ = train(optim, make, name, steps=12)
    cls, options = OPTIMIZERS[name]
    params, first = train(optim, make, name, steps=5)
    copies = [param.detach().clone().requires_grad_() for param in params]
    second = getattr(optim, cls)(copies, **options)
    second.load_state_dict(first.state_dict())

    random = np.random.RandomState(0)
    shapes = [tuple(param.shape) for param in copies]
    for shape in shapes:
        random.randn(*shape)
    for step in range(12):
        for param, shape in zip(copies, shapes, strict=True):
            noise = np.asarray(random.randn(*shape)).astype(np.float32)
            if step >= 5:
                param.grad = make(np.asarray(noise + param.detach().numpy() * np.float32(2 / 7)))
        if step >= 5:
            second.step()
    for expected, got in zip(whole, copies, strict=True):
        np.testing.assert_array_equal(got.detach().numpy(), expected.detach().numpy())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layout_of_parameter_and_gradient_does_not_matter(name: str) -> None:
    cls, options = OPTIMIZERS[name]
    random = np.random.RandomState(1)
    shape = (6, 4) if cls == "Muon" else (4, 3, 5, 5)
    values, slopes = random.randn(*shape).astype("f"), random.randn(3, *shape).astype("f")
    turned = tuple(reversed(range(len(shape))))
    results = []
    for param_order, grad_order in ((None, None), (turned, None), (None, turned)):
        array = values if param_order is None else np.ascontiguousarray(values.transpose(turned)).transpose(turned)
        param = Tensor._wrap(array.copy(order="K")).requires_grad_()
        optimizer = getattr(optim, cls)([param], **options)
        for slope in slopes:
            grad = slope if grad_order is None else np.ascontiguousarray(slope.transpose(turned)).transpose(turned)
            param.grad = Tensor._wrap(grad.copy(order="K"))
            optimizer.step()
        results.append(param.detach().numpy())
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_not_written_and_versions_go_up(name: str) -> None:
    cls, options = OPTIMIZERS[name]
    param = faltung.randn(4, 3, requires_grad=True)
    param.grad = faltung.randn(4, 3)
    before, version = param.grad.clone(), param._version
    getattr(optim, cls)([param], **options).step()
    assert faltung.equal(param.grad, before)
    assert param._version > version


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    weight = faltung.ones(3, requires_grad=True)
    x = faltung.ones(3, requires_grad=True)
    loss = (weight * x).sum()
    weight.grad = faltung.ones(3)
    optim.SGD([weight], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", ["sgd_nesterov", "adam_amsgrad"])
def test_engine_and_reference_agree(name: str) -> None:
    """What the engine chooses against the NumPy reference, at sizes around a vector and above a chunk."""
    cls, options = OPTIMIZERS[name]
    for count in (1, 7, 8, 9, 31, 33, 1000, 70_001):
        values = np.random.RandomState(2).randn(count).astype("f")
        param, copy = (faltung.tensor(values).requires_grad_() for _ in range(2))
        optimizer = getattr(optim, cls)([param], **options)
        buffers: dict[str, Any] = {}
        for step in range(1, 4):
            grad = np.random.RandomState(step).randn(count).astype("f")
            param.grad = faltung.tensor(grad)
            optimizer.step()
            if cls == "SGD":
                buffer = buffers.setdefault("buffer", np.zeros(count, "f"))
                reference.sgd(
                    [copy.detach().numpy()], [grad], [buffer], [step == 1], lr=0.1, momentum=0.9, dampening=0.0,
                    weight_decay=0.01, nesterov=True, maximize=False,
                )  # fmt: skip
            else:
                lists = [[buffers.setdefault(key, np.zeros(count, "f"))] for key in ("m", "v", "max")]
                reference.adam(
                    [copy.detach().numpy()], [grad], *lists, [float(step)], lr=0.01, beta1=0.8, beta2=0.99, eps=1e-6,
                    weight_decay=0.1, maximize=False, decoupled_weight_decay=False,
                )  # fmt: skip
        np.testing.assert_allclose(param.detach().numpy(), copy.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_sgd_by_hand() -> None:
    """Two steps of Nesterov momentum in plain numbers."""
    param = faltung.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([param], lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.1)
    value, buffer = 1.0, None
    for grad in (2.0, -1.0):
        param.grad = faltung.tensor([grad])
        optimizer.step()
        slope = grad + 0.1 * value
        buffer = slope if buffer is None else 0.5 * buffer + slope
        value -= 0.1 * (slope + 0.5 * buffer)
        assert param.item() == pytest.approx(value, rel=1e-6)


def test_learning_rates_may_be_tensors() -> None:
    param = faltung.zeros(2, requires_grad=True)
    param.grad = faltung.ones(2)
    lr = faltung.tensor(0.5)
    optimizer = optim.SGD([param], lr=lr)
    optimizer.step()
    lr.fill_(0.25)
    optimizer.step()
    assert param.tolist() == [-0.75, -0.75]
    optim.Adam([param], lr=lr, betas=(faltung.tensor(0.9), faltung.tensor(0.99))).step()


def test_rosenbrock_with_lbfgs() -> None:
    for dtype, close in ((faltung.float64, 1e-4), (faltung.float32, 1e-2)):
        param = faltung.tensor([-1.2, 1.0], dtype=dtype, requires_grad=True)
        optimizer = optim.LBFGS([param], line_search_fn="strong_wolfe", max_iter=50)

        def closure() -> Tensor:
            optimizer.zero_grad()  # noqa: B023
            x, y = param[0], param[1]  # noqa: B023
            loss = (1 - x) ** 2 + 100 * (y - x * x) ** 2
            loss.backward()
            return loss

        first = optimizer.step(closure)
        assert first.item() == pytest.approx(24.2)
        optimizer.step(closure)
        np.testing.assert_allclose(param.detach().numpy(), [1, 1], atol=close)
        clone = optim.LBFGS([param], line_search_fn="strong_wolfe")
        clone.load_state_dict(optimizer.state_dict())
        clone.step(closure)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_live(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    if dtype == "complex64" and OPTIMIZERS[name][0] in REAL_ONLY:
        pytest.skip("complex parameters are refused")
    ours, optimizer = train(optim, make, name, dtype, steps=40)
    theirs, expected = train(torch.optim, torch.from_numpy, name, dtype, steps=40)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), **tolerances(name, dtype))
    state, expected_state = optimizer.state_dict(), expected.state_dict()
    assert {k: set(v) for k, v in state["state"].items()} == {k: set(v) for k, v in expected_state["state"].items()}
    assert state["param_groups"] == expected_state["param_groups"]
    assert repr(optimizer) == repr(expected)


@pytest.mark.torch
@pytest.mark.parametrize(
    "options",
    [
        {"lr": 1e-3},
        {"line_search_fn": "strong_wolfe"},
        {"lr": 0.5, "max_iter": 7, "history_size": 3, "line_search_fn": "strong_wolfe"},
        {"lr": 1e-3, "max_eval": 5, "history_size": 2},
    ],
    ids=str,
)
def test_lbfgs_live(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    losses = []
    for library in (faltung, torch):
        param = library.tensor([-1.2, 1.0], dtype=library.float64, requires_grad=True)
        optimizer = library.optim.LBFGS([param], **options)

        def closure() -> Any:
            optimizer.zero_grad()  # noqa: B023
            x, y = param[0], param[1]  # noqa: B023
            loss = (1 - x) ** 2 + 100 * (y - x * x) ** 2
            loss.backward()
            return loss

        losses.append([optimizer.step(closure).item() for _ in range(6)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6, atol=1e-9)
