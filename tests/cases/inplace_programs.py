"""Small programs about in-place writes: histories of views and bases, versions, leaves.

Each program takes a library (this one, or PyTorch) and returns tensors, plain values and names of exception classes.
What PyTorch returns is stored in tests/data; `python -m tests.programs` records it anew.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

from tests.programs import error_of, program


@program
def view_inplace(t: Any) -> Any:
    w = t.ones(2, requires_grad=True)
    b = t.zeros(4)
    v = b[1:3]
    v.mul_(w)
    v += w * 3
    b.sum().backward()
    return (b, v, w.grad, b.requires_grad, v.requires_grad)


@program
def inplace_base_then_view(t: Any) -> Any:
    x = t.arange(4.0).requires_grad_()
    y = x * 2
    v = y.view(2, 2)[0]
    y.mul_(3)
    (v * v).sum().backward()
    return (x.grad, v)


@program
def inplace_nested(t: Any) -> Any:
    x = t.arange(6.0).requires_grad_()
    y = (x * 1).view(2, 3)
    a = y[0]
    b = a[1:]
    b.copy_(x[:2] * 5)
    a.mul_(2)
    y[1] += a
    (y**2).sum().backward()
    return (x.grad, y, a, b)


@program
def version_err(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    y = x.exp()
    y.add_(1)
    return error_of(lambda: y.sum().backward())


@program
def version_err2(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    w = t.ones(3, requires_grad=True)
    y = w * 1
    z = x * y
    y.add_(1)
    return error_of(lambda: z.sum().backward())


@program
def version_ok(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    y = x * 2
    y.add_(1)
    y.sum().backward()
    return x.grad


@program
def leaf_err(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    return (
        error_of(lambda: x.add_(1)),
        error_of(lambda: x[0].add_(1)),
        error_of(lambda: x.view(3).zero_()),
        error_of(lambda: x.__setitem__(0, 1)),
        error_of(lambda: x.exp_()),
    )


@program
def leaf_nograd(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    with t.no_grad():
        x.add_(1)
        x[0] = 5
        v = x[1:]
        v.mul_(2)
    return (x, x._version, x.requires_grad, v.requires_grad, error_of(lambda: v.mul_(2)))


@program
def retain_inplace(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x * 2
    y.retain_grad()
    y.mul_(3)
    (y * 5).sum().backward()
    return (y.grad, x.grad)


@program
def hook_inplace(t: Any) -> Any:
    log = []
    x = t.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: log.append(g.tolist()))
    y.mul_(3)
    y.register_hook(lambda g: log.append(g.tolist()))
    (y * 5).sum().backward()
    return log


@program
def detach_share(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x * 2
    d = y.detach()
    z = (y * y).sum()
    d.add_(1)
    return (error_of(lambda: z.backward()), d.requires_grad, d.is_leaf, y._version)


@program
def data_share(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    y.data.add_(1)
    z.backward()
    return (x.grad, y._version)


@program
def data_set(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    x.data = t.zeros(3)
    return (x, x.requires_grad, x.is_leaf)


@program
def nested_view_hist(t: Any) -> Any:
    x = t.ones(2, 2, requires_grad=True)
    y = x.clone()
    a = y[0]
    b = y[1]
    a.mul_(2)
    b.mul_(3)
    return (y, t.autograd.grad(y.sum(), x))


@program
def chunk_inplace(t: Any) -> Any:
    x = t.ones(4, requires_grad=True)
    y = x * 1
    s = y.narrow(0, 0, 2)
    s.mul_(3)
    return t.autograd.grad((y * y).sum(), x)


@program
def saved_out_inplace(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = t.sigmoid(x)
    y.mul_(2)
    return error_of(lambda: y.sum().backward())


@program
def mul_inplace_self(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    w = t.tensor([3.0, 4.0], requires_grad=True)
    y = x * 1
    y.mul_(w)
    y.sum().backward()
    return (x.grad, w.grad)


@program
def zero_grad_flow(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    y = x * 2
    y.zero_()
    y.sum().backward()
    return x.grad


@program
def fill_grad(t: Any) -> Any:
    v = t.tensor(3.0, requires_grad=True)
    y = t.zeros(3)
    y.fill_(v)
    y[0] = v * 2
    y.sum().backward()
    return (v.grad, y)


@program
def inplace_view_of_view_after(t: Any) -> Any:
    x = t.arange(4.0).requires_grad_()
    y = x.clone()
    v = y.view(2, 2)
    r = v[0]
    y.add_(1)
    r.mul_(5)
    v.t()[1].add_(2)
    return (y, v, r, t.autograd.grad((y**2).sum(), x))
