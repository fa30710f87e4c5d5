"""Small programs about arithmetic: promotion, broadcasting, comparisons, reductions, products.

Each program takes a library (this one, or PyTorch) and returns tensors, plain values and names of exception classes.
What PyTorch returns is stored in tests/data; `python -m tests.programs` records it anew.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

from tests.programs import error_of, program


@program
def promotion(t: Any) -> Any:
    i = t.tensor([1, 2])
    f = t.tensor([1.0, 2.0])
    d = f.double()
    b = t.tensor([True, False])
    u = i.to(t.uint8)
    z = t.tensor(3.0, dtype=t.float64)
    h = f.half()
    outs = [
        i + f,
        i + d,
        i + 1,
        i + 1.5,
        i / 2,
        i // 2,
        b + b,
        b + 1,
        b * 2.5,
        u + i,
        u + 1,
        u - 3,
        f + z,
        i + z,
        h + f,
        h + 1.5,
        f * True,
        i**2,
        f**2,
        2**i,
        2.0**i,
        i * b,
        -i,
        u + 300,
        i % 2,
        f // 0.3,
        7 % i,
        1 / f,
        1 - f,
        2 / i,
        t.tensor(2) + t.tensor(3.0),
    ]
    return (
        outs,
        [str(o.dtype).split(".")[-1] for o in outs],
        error_of(lambda: i.add_(1.5)),
        error_of(lambda: i.div_(2)),
        error_of(lambda: b - b),
        error_of(lambda: -b),
        error_of(lambda: i // 0),
        f.add_(1),
        f.mul_(d),
        error_of(lambda: u.add_(f)),
        b.bitwise_or_(b),
    )


@program
def broadcast(t: Any) -> Any:
    a = t.ones(3, 1, requires_grad=True)
    b = t.ones(4, requires_grad=True)
    c = t.ones((), requires_grad=True)
    y = (a * b * c + b).pow(2).sum()
    y.backward()
    return (
        a.grad,
        b.grad,
        c.grad,
        error_of(lambda: t.ones(3) + t.ones(4)),
        error_of(lambda: t.ones(3).add_(t.ones(2, 3))),
    )


@program
def inplace_dtype(t: Any) -> Any:
    x = t.ones(2)
    x += t.ones(2).double()
    i = t.ones(2, dtype=t.int64)
    i += True
    i *= 3
    return (
        x.dtype == t.float32,
        i,
        error_of(lambda: i.__itruediv__(2)),
        i.float().sqrt_(),
        error_of(lambda: i.sqrt_()),
        i.clamp_(1, 2),
        error_of(lambda: i.fill_(1.5)),
        i,
    )


@program
def where_grad(t: Any) -> Any:
    x = t.tensor([-1.0, 2.0], requires_grad=True)
    y = t.where(x > 0, x, x * 0.1)
    y.sum().backward()
    return x.grad


@program
def max_named(t: Any) -> Any:
    x = t.tensor([[1.0, 5.0, 2.0], [7.0, 3.0, 7.0]], requires_grad=True)
    r = x.max(1)
    r.values.sum().backward()
    return (
        r.values,
        r.indices,
        x.grad,
        type(r).__name__,
        x.max(),
        x.min(0)[0],
        x.argmax(),
        x.argmax(1, keepdim=True),
        x.sort(1, descending=True)[1],
        x.topk(2).values,
    )


@program
def einsums(t: Any) -> Any:
    a = t.arange(6.0).view(2, 3).requires_grad_()
    b = t.arange(12.0).view(3, 4).requires_grad_()
    c = t.arange(24.0).view(2, 3, 4)
    outs = [
        t.einsum("ij,jk->ik", a, b),
        t.einsum("ij,jk", a, b),
        t.einsum("ij->ji", a),
        t.einsum("ij->", a),
        t.einsum("ij,ij->i", a, a),
        t.einsum("...j,jk->...k", a, b),
        t.einsum("ijk,jk->i", c, b),
        t.einsum("i,j->ij", a[0], b[0]),
        t.einsum("ii->i", a[:, :2]),
        t.einsum("ii", a[:, :2]),
        t.einsum("ij,jk,k->i", a, b, b[0]),
    ]
    sum((o**2).sum() for o in outs).backward()
    return (outs, a.grad, b.grad)


@program
def chained_cmp(t: Any) -> Any:
    x = t.tensor([1, 2, 3])
    return (
        x == 2,
        x != 2,
        x < 2,
        x >= t.tensor([1, 3, 3]),
        x.eq(2),
        ~(x == 2),
        (x > 1) & (x < 3),
        (x > 1) | (x < 3),
        x == "a",
        error_of(lambda: x < "a"),
        2 + x,
        t.equal(x, x),
        t.allclose(x.float(), x.float() + 1e-09),
    )


@program
def reductions(t: Any) -> Any:
    x = t.arange(24.0).view(2, 3, 4)
    return (
        x.sum(),
        x.sum(0),
        x.sum((0, 2)),
        x.sum(1, keepdim=True),
        x.mean((1, 2)),
        x.var(),
        x.var(0),
        x.var(0, unbiased=False),
        x.std(1, correction=0),
        x.std((0, 1)),
        t.var_mean(x, 1),
        x.prod(),
        x.prod(1),
        x.amax((0, 1)),
        x.amin(2, True),
        x.any(),
        x.all(1),
        x.logsumexp((0, 1)),
        x.norm(),
        x.norm(1),
        x.norm(2, 1),
        x.cumsum(1),
        x.cumprod(2),
        x.median(),
        x.median(1),
        x.argmin(1),
        error_of(lambda: x.sum(3)),
        error_of(lambda: x.sum((0, 0))),
        error_of(lambda: x.long().mean()),
        error_of(lambda: x[:0].max()),
        x[:0].sum(),
        x[:0].mean(),
        x.bool().sum(),
        x.long().sum(),
        x.int().sum().dtype == t.int64,
        x.half().sum().dtype == t.float16,
        error_of(lambda: x[:0].argmax()),
        x.unique(),
        x.sum(dtype=t.float64).dtype == t.float64,
        x.aminmax(),
        x.count_nonzero(),
        x.nansum(),
        x.mode(),
        x.kthvalue(2),
    )


@program
def matmuls(t: Any) -> Any:
    a = t.arange(6.0).view(2, 3)
    return (
        a @ a.t(),
        a @ t.ones(3),
        t.ones(2) @ a,
        t.ones(3) @ t.ones(3),
        t.ones(5, 2, 3) @ t.ones(3, 4),
        (t.ones(2, 1, 2, 3) @ t.ones(4, 3, 2)).shape,
        error_of(lambda: a @ a),
        error_of(lambda: t.mm(t.ones(2), a)),
        error_of(lambda: a @ a.t().double()),
        t.addmm(t.ones(2), a, a.t(), beta=2, alpha=3),
        t.bmm(t.ones(2, 3, 4), t.ones(2, 4, 1)),
        error_of(lambda: t.bmm(a, a)),
        error_of(lambda: t.dot(t.ones(2), t.ones(3))),
        t.outer(t.ones(2), t.ones(3)),
        t.tensordot(a, a, ([0, 1], [0, 1])),
        a.long() @ a.long().t(),
        (t.ones(0, 3) @ t.ones(3, 2)).shape,
        t.ones(2, 0) @ t.ones(0, 3),
    )
