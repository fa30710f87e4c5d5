"""Small programs about tensors: creation, indexing, views, protocols.

Each program takes a library (this one, or PyTorch) and returns tensors, plain values and names of exception classes.
What PyTorch returns is stored in tests/data; `python -m tests.programs` records it anew.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from tests.programs import error_of, program


@program
def setitems(t: Any) -> Any:
    x = t.zeros(3, 4)
    x[1] = t.arange(4.0)
    x[:, 1] = 7
    x[x > 5] = -1
    x[[0, 2], [0, 3]] = t.tensor([8.0, 9.0])
    x[..., None][0] = 2
    return (
        x,
        error_of(lambda: x.__setitem__(5, 1)),
        error_of(lambda: x.__setitem__((0, 0, 0), 1)),
        error_of(lambda: x.__setitem__(0, t.ones(3))),
    )


@program
def setitem_grad(t: Any) -> Any:
    v = t.ones(2, requires_grad=True)
    x = t.zeros(3, 4)
    x[1, 1:3] = v * 2
    x[t.tensor([0, 2]), 0] = v
    y = x * 1
    y[0] = 0
    (y * y + y).sum().backward()
    return (x, v.grad)


@program
def getitems(t: Any) -> Any:
    x = t.arange(24.0).view(2, 3, 4).requires_grad_()
    i = t.tensor([0, 1])
    m = t.tensor([True, False, True])
    outs = [
        x[0],
        x[:, 1],
        x[..., 0],
        x[None],
        x[:, None, 1:],
        x[i],
        x[:, i],
        x[i, i],
        x[i, :, i],
        x[0, :, i],
        x[:, m],
        x[:, m, 0],
        x[x > 5],
        x[-1, -1, -1],
        x[::1, 1:3:2],
        x[i[:, None], i],
        x[..., i],
        x[[0, 1]],
        x[0, 1],
        x[i, None, i],
        x[0][i],
        x[True],
        x[False],
        x[:, t.tensor(1)],
        x[t.tensor(True)],
    ]
    s = sum((o * o).sum() for o in outs)
    s.backward()
    return (
        outs,
        x.grad,
        error_of(lambda: x[2]),
        error_of(lambda: x[0, 0, 0, 0]),
        error_of(lambda: x[::-1]),
        error_of(lambda: x[t.tensor([5])]),
        error_of(lambda: x[m]),
        error_of(lambda: x[1.0]),
        error_of(lambda: x["a"]),
        error_of(lambda: t.tensor(1.0)[0]),
    )


@program
def fmts(t: Any) -> Any:
    x = t.tensor(1.2345)
    return (
        f"{x:.2f}",
        f"{t.tensor(3)}",
        f"{x}",
        int(t.tensor(3.7)),
        float(t.tensor(3)),
        bool(t.tensor(0)),
        len(t.ones(3, 2)),
        [v.tolist() for v in t.ones(2, 2)],
        3 in t.tensor([1, 3]),
        [10, 20, 30][t.tensor(1)],
        error_of(lambda: bool(t.ones(2))),
        error_of(lambda: float(t.ones(2))),
        error_of(lambda: len(t.tensor(1))),
        error_of(lambda: [1][t.tensor(0.0)]),
        hash(x) == hash(x),
    )


@program
def views(t: Any) -> Any:
    x = t.arange(24).view(2, 3, 4)
    return (
        x.shape == (2, 3, 4),
        tuple(x.size()),
        x.size(1),
        x.stride(),
        x.permute(2, 0, 1).stride(),
        x.transpose(0, 1).is_contiguous(),
        error_of(lambda: x.transpose(0, 1).view(-1)),
        x.transpose(0, 1).reshape(-1),
        x.unfold(2, 2, 1).shape,
        x.expand(5, 2, 3, 4).shape,
        error_of(lambda: x.expand(2, 3, 5)),
        x.squeeze().shape,
        x.unsqueeze(-1).shape,
        error_of(lambda: x.unsqueeze(5)),
        x.mT.shape,
        x.movedim(0, 2).shape,
        error_of(lambda: x.view(5)),
        x.view(-1, 4).shape,
        error_of(lambda: x.view(-1, -1)),
        x.flatten(1).shape,
        x.unflatten(2, (2, 2)).shape,
        x.chunk(2, 2)[1],
        x.split([1, 2], 1)[1],
        [v.shape for v in x.unbind(1)],
        x.narrow(2, 1, 2),
        x.select(1, 2),
        x.repeat(2, 1, 1).shape,
        x.tile(2).shape,
        x.roll(1, 0),
        x.flip(0, 2),
        x.diagonal(0, 1, 2),
        x.swapaxes(0, 1).shape,
        x.view(t.float64).dtype == t.float64,
        x.numel(),
        x.dim(),
        x.nelement(),
        x.element_size(),
        x.is_floating_point(),
    )


@program
def expand_write(t: Any) -> Any:
    x = t.zeros(1, 3).expand(2, 3)
    return (error_of(lambda: x.add_(1)), x.clone().add_(1))


@program
def outs(t: Any) -> Any:
    o = t.empty(0)
    t.add(t.ones(2), 1, out=o)
    r = t.empty(2)
    q = t.mul(t.ones(2), 3, out=r)
    return (
        o,
        r,
        q is r,
        error_of(lambda: t.add(t.ones(2), 1.5, out=t.empty(2, dtype=t.int64))),
        error_of(lambda: t.add(t.ones(2, requires_grad=True), 1, out=t.empty(2))),
    )


@program
def custom_attr(t: Any) -> Any:
    x = t.ones(2)
    x.foo = 3
    return (x.foo, x.clone().__dict__.get("foo"))


@program
def legacy(t: Any) -> Any:
    return (
        t.Tensor(2, 3).shape,
        t.Tensor([1, 2]),
        t.FloatTensor([1, 2]),
        t.LongTensor([1, 2]),
        isinstance(t.ones(1), t.FloatTensor),
        isinstance(t.ones(1), t.LongTensor),
        t.ones(1).type().split(".")[-1],
        t.ones(1).type(t.int32),
        t.Tensor().shape,
        t.Tensor(t.Size([2])).shape,
        t.LongTensor(2).shape,
        isinstance(t.ones(1), t.Tensor),
    )


@program
def creation(t: Any) -> Any:
    return (
        t.tensor([1, 2.5]),
        t.tensor([[1, 2], [3, 4]]),
        t.tensor(True),
        t.tensor([1 + 1j]),
        t.tensor(3).shape,
        error_of(lambda: t.tensor([[1], [1, 2]])),
        error_of(lambda: t.tensor(["a"])),
        error_of(lambda: t.tensor(None)),
        t.arange(1, 10, 3),
        t.arange(0, 1, 0.25),
        t.linspace(0, 1, 5),
        t.full((2,), 7),
        t.full((2,), 1.5),
        t.eye(2, 3),
        t.zeros(2, 3).dtype == t.float32,
        t.zeros(2, dtype=t.int32),
        t.ones_like(t.zeros(2, dtype=t.int8)),
        t.zeros((2, 3)).shape,
        t.zeros([2, 3]).shape,
        t.empty(2, 0).shape,
        error_of(lambda: t.zeros(-1)),
        t.tensor([t.tensor(1.0), t.tensor(2.0)]),
        t.tensor([]).dtype == t.float32,
        t.ones(2).new_zeros(3).dtype == t.float32,
        t.ones(2).new_tensor([1, 2]),
        t.ones(2).new_full((2,), 3),
        t.tensor(5, dtype=t.float64),
        t.as_tensor([1, 2]),
        error_of(lambda: t.zeros(2, device="cuda:0")),
        t.zeros(2, device="cpu"),
        t.zeros(2, device=t.device("cpu")),
    )


@program
def np_interop(t: Any) -> Any:
    a = np.ones(3, np.float32)
    x = t.from_numpy(a)
    a[0] = 5
    x[1] = 7
    y = t.tensor(a)
    z = t.as_tensor(a)
    n = x.numpy()
    n[2] = 9
    return (
        x,
        y,
        z,
        a.tolist(),
        np.asarray(x).tolist(),
        np.sqrt(x.numpy()).tolist(),
        t.tensor(np.float64(1.5)).dtype == t.float64,
        t.tensor(np.array([1, 2], np.int32)).dtype == t.int32,
        t.tensor([np.float64(1.0)]).dtype == t.float64,
        error_of(lambda: t.from_numpy([1])),
        error_of(lambda: t.from_numpy(np.array(["a"]))),
        (x + np.float32(1)).dtype == t.float32,
        (np.float64(2) * x).dtype == t.float32 if hasattr(np.float64(2) * x, "dtype") else 0,
        np.array(x).tolist(),
        float(np.mean(x.numpy())),
        x.__array__().tolist(),
        t.tensor(np.int64(3)),
        x + np.int64(2),
    )


@program
def size_ops(t: Any) -> Any:
    s = t.ones(2, 3).shape
    return (
        tuple(s),
        s[0],
        s[-1:] == (3,),
        s.numel(),
        list(s + (1,) * 2),
        repr(s).split(".")[-1],
        s == [2, 3],
        isinstance(s, tuple),
        tuple(s[::-1]),
        hash(s) == hash((2, 3)),
    )


@program
def out_view_ops(t: Any) -> Any:
    x = t.arange(6.0)
    y = x[::2]
    y += 10
    z = x.view(2, 3).t()
    z[0] = 0
    return (x, y, z)


@program
def setdata_dtype(t: Any) -> Any:
    x = t.ones(2)
    x.data = x.data.double()
    return x.dtype == t.float64


@program
def memory_fmt(t: Any) -> Any:
    x = t.ones(2, 3, 4, 5)
    y = x.to(memory_format=t.channels_last)
    return (
        y.stride(),
        y.is_contiguous(),
        y.is_contiguous(memory_format=t.channels_last),
        (y * 2).stride(),
        y.contiguous().stride(),
        x.contiguous(memory_format=t.channels_last).stride(),
        y.clone().stride(),
        t.empty_like(y).stride(),
        t.zeros_like(y).stride(),
        (y + 1).relu().stride(),
        y.sum(1).shape,
        t.cat([y, y], 1).stride(),
        y.permute(0, 2, 3, 1).is_contiguous(),
        t.empty(2, 3, 4, 5, memory_format=t.channels_last).stride(),
    )
