"""Results that wait inside a module's forward: the bits of computing at once, and every write seen in its order."""

import copy
import ctypes
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd.modes import modes, waiting
from faltung.backends import cpu as cpu_module
from faltung.engine import registry
from faltung.ops.deferred import Deferred

Forward = Callable[..., Any]


class Net(nn.Module):
    """Layers for a `forward` given from outside."""

    def __init__(self, run: Forward, conv: nn.Module | None = None) -> None:
        super().__init__()
        faltung.manual_seed(3)
        self.conv = conv or nn.Conv2d(20, 20, 3, padding=1)
        self.other = nn.Conv2d(20, 20, 1, bias=False)
        norm = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[self.conv.weight.dim()]
        self.bn, self.bn2 = norm(20), norm(20)
        for layer in (self.bn, self.bn2):
            nn.init.normal_(layer.weight, 1, 2)
            nn.init.normal_(layer.bias, 1, 3)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
        self.run = run
        self.eval()

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def parts(result: Any) -> list[faltung.Tensor]:
    if isinstance(result, faltung.Tensor):
        return [result]
    return [part for item in (result.values() if isinstance(result, dict) else result) for part in parts(item)]


def same(run: Forward, *args: faltung.Tensor, conv: nn.Module | None = None) -> None:
    """`run` inside a module gives the bits that it gives outside of one, and leaves nothing waiting."""
    net = Net(run, conv)
    with faltung.no_grad():
        expected = parts(run(net, *(x.clone() for x in args)))
        found = parts(net(*(x.clone() for x in args)))
    assert not waiting
    assert not modes.inside
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert type(ours) is faltung.Tensor
        assert ours.stride() == theirs.stride()
        assert faltung.equal(ours, theirs)


def image() -> faltung.Tensor:
    faltung.manual_seed(1)
    return 3 * faltung.randn(2, 20, 9, 10)


def operations(run: Forward, monkeypatch: pytest.MonkeyPatch, *args: Any) -> list[str]:
    """The engine's operations that `run` calls inside a module."""
    seen: list[str] = []
    original = registry.call

    def noting(name: str, *given: Any, **options: Any) -> Any:
        seen.append(name)
        return original(name, *given, **options)

    net = Net(run)
    with faltung.no_grad():
        net(*args)  # the norm's affine map is kept from now on
        with monkeypatch.context() as patch:
            patch.setattr("faltung.engine.call", noting)
            patch.setattr("faltung.engine.chosen", lambda name, *given, **options: partial(noting, name))
            net(*args)
    return seen


def _with_norm(net: Net, x: Any) -> Any:
    y = net.conv(x)
    return y, net.bn(y)


def _inplace_residual(net: Net, x: Any) -> Any:
    y = net.bn(net.conv(x))
    y += x
    return F.relu(y, inplace=True)


def _shortcut(net: Net, x: Any) -> Any:
    y = net.bn(net.conv(x))
    y += net.bn2(net.other(x))
    return F.relu_(y)


CHAINS: dict[str, Forward] = {
    "conv": lambda net, x: net.conv(x),
    "norm": lambda net, x: net.bn(net.conv(x)),
    "relu": lambda net, x: F.relu(net.conv(x)),
    "norm, relu": lambda net, x: F.relu(net.bn(net.conv(x))),
    "norm, relu in place": lambda net, x: F.relu(net.bn(net.conv(x)), inplace=True),
    "norm, relu6": lambda net, x: F.relu6(net.bn(net.conv(x)), inplace=True),
    "norm, hardtanh": lambda net, x: F.hardtanh(net.bn(net.conv(x)), -1, 2),
    "norm, hardswish": lambda net, x: F.hardswish(net.bn(net.conv(x))),
    "norm, silu": lambda net, x: F.silu(net.bn(net.conv(x)), inplace=True),
    "norm, gelu": lambda net, x: F.gelu(net.bn(net.conv(x))),
    "residual": lambda net, x: x + net.bn(net.conv(x)),
    "residual behind": lambda net, x: faltung.relu(net.bn(net.conv(x)) + x),
    "residual in place": _inplace_residual,
    "shortcut": _shortcut,
    "two shortcuts": lambda net, x: F.relu(net.bn(net.conv(x)) + net.bn2(net.other(x))),
    "scaled residual": lambda net, x: faltung.add(net.conv(x), x, alpha=2),
    "broadcast residual": lambda net, x: net.conv(x) + x[:1],
    "number": lambda net, x: net.conv(x) + 1,
    "itself": lambda net, x: (lambda y: y + y)(net.conv(x)),
    "two activations": lambda net, x: F.silu(F.relu(net.conv(x))),
    "two residuals": lambda net, x: net.conv(x) + x + x,
    "two norms": lambda net, x: net.bn2(net.bn(net.conv(x))),
    "norm behind relu": lambda net, x: net.bn(F.relu(net.conv(x))),
    "norm first": lambda net, x: net.conv(F.relu(net.bn(x))),
    "norm alone": lambda net, x: net.bn(x),
    "norm of doubles": lambda net, x: net.bn.double()(net.conv.double()(x.double())),
    "used twice": lambda net, x: (lambda y: (y, net.bn(y), F.relu(y), y * 2))(net.conv(x)),
    "held, then changed in place": lambda net, x: (lambda y, z: [F.relu_(z), y])(*_with_norm(net, x)),
    "held, then added to": lambda net, x: (lambda y, z: [F.relu_(z.add_(x)), y])(*_with_norm(net, x)),
    "dict": lambda net, x: {"a": net.conv(x), "b": [net.bn(net.conv(x))]},
    "metadata": lambda net, x: (lambda y: y.reshape(y.shape[0], -1) * y.dim() * y.ndim * y.size(1))(net.conv(x)),
    "views": lambda net, x: (lambda y: (y[:, ::2], y.permute(0, 2, 3, 1), y.flatten(1)))(net.bn(net.conv(x))),
    "copies": lambda net, x: (lambda y: (copy.deepcopy(y), y.clone(), y.detach(), y))(net.conv(x)),
    "chunks": lambda net, x: net.conv(x).chunk(2, 1),
    "unbatched": lambda net, x: net.conv(x[0]),
    "cat": lambda net, x: faltung.cat([net.conv(x), F.relu(net.bn(net.other(x)))], 1),
    "no grad inside": lambda net, x: faltung.no_grad()(lambda: F.relu(net.bn(net.conv(x))))(),
    "training norm": lambda net, x: copy.deepcopy(net.bn).train()(net.conv(x)),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_bits(chain: str) -> None:
    same(CHAINS[chain], image())


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "1d": ((2, 20, 12), lambda: nn.Conv1d(20, 20, 3, padding=1)),
    "3d": ((2, 20, 3, 4, 5), lambda: nn.Conv3d(20, 20, 3, padding=1)),
    "depthwise": ((2, 20, 7, 8), lambda: nn.Conv2d(20, 20, 3, padding=1, groups=20)),
    "grouped": ((2, 20, 7, 8), lambda: nn.Conv2d(20, 20, 3, padding=1, groups=5)),
    "pointwise": ((2, 20, 7, 8), lambda: nn.Conv2d(20, 20, 1, bias=False)),
    "reflected": ((2, 20, 7, 8), lambda: nn.Conv2d(20, 20, 3, padding=1, padding_mode="reflect")),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("chain", ["norm, relu", "residual", "residual in place", "norm, silu"])
def test_bits_of_every_kind(kind: str, chain: str) -> None:
    shape, make = CONVOLUTIONS[kind]
    same(CHAINS[chain], faltung.randn(*shape), conv=make())


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("norm, relu in place", ["conv.forward"]),
        ("residual in place", ["conv.forward"]),
        ("residual", ["conv.forward"]),
        ("residual behind", ["conv.forward"]),
        ("shortcut", ["conv.forward", "conv.forward"]),
        ("norm first", ["norm.batch_inference", "conv.forward"]),
        ("norm, hardswish", ["conv.forward"]),
    ],
)
def test_one_kernel_computes_what_stands_together(
    chain: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = image().to(memory_format=faltung.channels_last)
    assert operations(CHAINS[chain], monkeypatch, x) == expected


def _written(write: Callable[[Net, Any, Any], Any]) -> Forward:
    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)
        write(net, x, y)
        z = net.bn(y)
        write(net, x, y)
        return F.relu(z), y

    return run


def _through_numpy(net: Net, x: Any, y: Any) -> None:
    array = x.numpy()
    array *= 2


def _through_data(net: Net, x: Any, y: Any) -> None:
    x.data += 1


WRITES: dict[str, Callable[[Net, Any, Any], Any]] = {
    "input": lambda net, x, y: x.mul_(2),
    "part of the input": lambda net, x, y: x[:, 3].zero_(),
    "element": lambda net, x, y: x.__setitem__((0, 0), 5.0),
    "out": lambda net, x, y: faltung.add(x, 1, out=x),
    "data": _through_data,
    "numpy": _through_numpy,
    "weight": lambda net, x, y: net.conv.weight.mul_(1.5),
    "bias": lambda net, x, y: net.conv.bias.add_(1),
    "norm": lambda net, x, y: net.bn.running_var.mul_(2),
    "result": lambda net, x, y: y.add_(1),
    "activation": lambda net, x, y: F.relu_(y),
    "data of the result": lambda net, x, y: setattr(y, "data", x.clone()),
    "data of the input": lambda net, x, y: setattr(x, "data", x * 2),
    "random": lambda net, x, y: (faltung.manual_seed(0), x.normal_()),
}


@pytest.mark.parametrize("what", WRITES)
def test_every_write_comes_in_its_order(what: str) -> None:
    run = _written(WRITES[what])
    x = image()
    with faltung.no_grad():
        expected, found = (parts(call(x.clone())) for call in (partial(run, Net(run)), Net(run)))
    for ours, theirs in zip(found, expected, strict=True):
        assert faltung.equal(ours, theirs)


def test_what_is_held_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chain: Forward = lambda net, x: (lambda y: [F.relu(y), F.relu6(y), y + x, net.bn(y), y])(net.conv(x))  # noqa: E731
    assert operations(chain, monkeypatch, image()).count("conv.forward") == 1
    same(chain, image())
    same(chain, image().to(memory_format=faltung.channels_last))


def test_an_array_as_an_operand_may_change() -> None:
    def run(net: Net, x: Any) -> Any:
        ones = np.ones(tuple(x.shape), np.float32)
        y, z = net.conv(x) + ones, ones + net.conv(x)
        kept = net.conv(x)
        kept += ones
        ones[...] = 0
        return F.relu(y), z, kept

    same(run, image().to(memory_format=faltung.channels_last))


def test_writes_from_another_thread() -> None:
    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)

        def write() -> None:
            with faltung.no_grad():
                x.zero_()

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        return F.relu(y)

    same(run, image())


def test_threads_that_ask_at_once() -> None:
    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)

        def write(row: int) -> None:
            with faltung.no_grad():
                y[row] = 100.0 + row

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(len(x))))
        return y

    net = Net(run)
    x = faltung.randn(8, 20, 32, 32)
    with faltung.no_grad():
        for _ in range(20):
            assert faltung.equal(net(x)[:, 0, 0, 0], 100.0 + faltung.arange(8))


def test_threads_with_networks_of_their_own() -> None:
    net, x = Net(_shortcut), image().to(memory_format=faltung.channels_last)
    with faltung.no_grad():
        expected = _shortcut(net, x)

    def answer(_: int) -> bool:
        with faltung.no_grad():
            return all(faltung.equal(net(x), expected) for _ in range(30))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(answer, range(4)))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
def test_a_signal_handler_that_writes() -> None:
    """It may come while a result is being computed."""
    net, x, other = Net(CHAINS["norm, relu"]), faltung.randn(4, 20, 64, 64), faltung.zeros(3)
    with faltung.no_grad():
        expected = net(x)

    def write(*_: Any) -> None:
        with faltung.no_grad():
            other.add_(1)

    before = signal.signal(signal.SIGALRM, write)
    try:
        with faltung.no_grad():
            for step in range(400):
                signal.setitimer(signal.ITIMER_REAL, 2e-4 + step % 40 * 2e-5)
                assert faltung.equal(net(x), expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own() -> None:
    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)
        child = os.fork()
        if not child:
            x.zero_()
            os._exit(int(not faltung.equal(y, expected)))
        assert os.waitpid(child, 0)[1] == 0
        return y

    net, x = Net(run), image()
    with faltung.no_grad():
        expected = net.conv(x)
        assert faltung.equal(net(x), expected)


def test_threads_that_write_elsewhere() -> None:
    """They compute what waits here, in the midst of its becoming something else."""
    net, x = Net(_shortcut), image().to(memory_format=faltung.channels_last)
    with faltung.no_grad():
        expected = _shortcut(net, x)
    stop = threading.Event()

    def write() -> None:
        other = faltung.zeros(3)
        with faltung.no_grad():
            while not stop.is_set():
                other.add_(1)

    threads = [threading.Thread(target=write) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        with faltung.no_grad():
            assert all(faltung.equal(net(x), expected) for _ in range(150))
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()


def test_a_class_of_ones_own() -> None:
    class Own(faltung.Tensor):
        pass

    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)
        assert y.__class__ is faltung.Tensor
        y.__class__ = Own
        return (y + 1).as_subclass(faltung.Tensor)

    same(run, image())


def test_inference_tensors_stay_protected() -> None:
    def run(net: Net, x: Any) -> Any:
        with faltung.inference_mode():
            y = net.conv(x)
        return y.add_(x) if net.bn.eps > 1e-3 else F.relu_(y)

    for eps in (1.0, 1e-5):
        net = Net(run)
        net.bn.eps = eps
        with faltung.no_grad(), pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
            net(image())


def test_writes_to_an_address() -> None:
    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)
        ctypes.memset(x.data_ptr(), 0, x.nbytes)
        return F.relu(y)

    same(run, image())


def test_memory_that_numpy_holds_is_not_waited_for() -> None:
    """A write through NumPy that no tensor can notice."""
    x = image()
    array = x.numpy()

    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)
        array[...] = 0
        return net.bn(y)

    net, expected = Net(run), image()
    with faltung.no_grad():
        assert faltung.equal(net(x), net.bn(net.conv(expected)))


def test_residuals_keep_their_values() -> None:
    def run(net: Net, x: Any) -> Any:
        kept = x * 1
        y = net.conv(x) + kept
        kept.zero_()
        return y

    same(run, image())


cpu: Any = cpu_module  # its switches are properties


def test_switches_hold_where_they_were_set() -> None:
    def run(net: Net, x: Any) -> Any:
        before, cpu.winograd = cpu.winograd, False
        y = net.conv(x)
        cpu.winograd = before
        return y

    x = faltung.randn(1, 20, 40, 40)
    same(run, x)
    net = Net(run)
    with faltung.no_grad():
        assert not faltung.equal(net(x), net.conv(x))  # Winograd rounds otherwise: the switch did something


def test_only_inside_and_only_where_nothing_is_recorded() -> None:
    kinds: list[type] = []
    net = Net(lambda net, x: kinds.append(type(net.conv(x))))
    x = image()
    net(x)
    with faltung.no_grad():
        net.conv.requires_grad_(False)
        kinds.append(type(F.conv2d(x, net.conv.weight)))
        with faltung.enable_grad():
            net(x)
        net(x)
    assert kinds == [faltung.Tensor, faltung.Tensor, faltung.Tensor, Deferred]


def test_whoever_looks_sees_values() -> None:
    def run(net: Net, x: Any) -> Any:
        y = net.bn(net.conv(x))
        assert isinstance(y, faltung.Tensor)
        assert y.dtype is faltung.float32
        assert not y.requires_grad
        assert y.shape == y.size() == x.shape
        buffer = io.BytesIO()
        faltung.save(y, buffer)
        assert repr(y).startswith("tensor(")
        assert type(y) is faltung.Tensor
        y = net.conv(x)
        assert len(y) == 2
        assert y.sum().item() == net.conv(x).sum().item()
        return y

    same(run, image())


def test_hooks_see_values() -> None:
    seen = []
    net = Net(CHAINS["norm, relu"])
    net.bn.register_forward_pre_hook(lambda module, args: seen.append(type(args[0])))
    net.conv.register_forward_hook(lambda module, args, y: seen.append(type(y)))
    with faltung.no_grad():
        net(image())
    assert seen == [faltung.Tensor, faltung.Tensor]


def test_an_error_leaves_nothing_behind() -> None:
    def run(net: Net, x: Any) -> Any:
        y = net.conv(x)
        raise KeyError(y.shape)

    with faltung.no_grad(), pytest.raises(KeyError):
        Net(run)(image())
    assert not waiting
    assert not modes.inside

    def keep(net: Net, x: Any) -> Any:
        net.kept = net.conv(x)
        raise StopIteration

    net, x = Net(keep), image()
    with faltung.no_grad():
        with pytest.raises(StopIteration):
            net(x)
        x.zero_()
        assert type(net.kept) is faltung.Tensor
        assert faltung.equal(net.kept, net.conv(image()))
    with faltung.no_grad(), pytest.raises(RuntimeError, match="needs an input with 20 channels"):
        Net(CHAINS["norm"])(image()[:, :7])


def test_errors_of_the_norm_are_its_own() -> None:
    net = Net(CHAINS["norm"])
    net.bn = nn.BatchNorm2d(7).eval()
    with faltung.no_grad(), pytest.raises(RuntimeError, match="running_mean should contain 20 elements"):
        net(image())


def test_what_a_module_keeps_is_computed() -> None:
    def run(net: Net, x: Any) -> Any:
        net.kept = net.conv(x)
        return net.bn(net.kept)

    net = Net(run)
    with faltung.no_grad():
        net(image())
        assert type(net.kept) is faltung.Tensor
        assert faltung.equal(net.kept, net.conv(image()))


def test_inference_mode() -> None:
    net = Net(CHAINS["norm, relu"])
    with faltung.inference_mode():
        y = net(image())
    assert y.is_inference()
    with faltung.no_grad():
        assert faltung.equal(y, CHAINS["norm, relu"](net, image()))


def test_many_wait() -> None:
    same(lambda net, x: [net.conv(x) for _ in range(100)][::17], image())
