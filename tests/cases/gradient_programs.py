"""Small programs about gradients: backward, grad, hooks, modes, custom functions.

Each program takes a library (this one, or PyTorch) and returns tensors, plain values and names of exception classes.
What PyTorch returns is stored in tests/data; `python -m tests.programs` records it anew.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import copy
import pickle
from typing import Any

from tests.programs import error_of, program


@program
def twice(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    y = (x * x).sum()
    y.backward()
    return error_of(lambda: y.backward())


@program
def twice_ok(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    y = (x + x).sum()
    y.backward()
    y.backward()
    return x.grad


@program
def retain(t: Any) -> Any:
    x = t.ones(3, requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


@program
def hooks_order(t: Any) -> Any:
    log = []
    x = t.ones(2, requires_grad=True)
    y = x * 2
    h1 = y.register_hook(lambda g: (log.append(("y1", g.tolist())), g * 2)[1])
    y.retain_grad()
    y.register_hook(lambda g: log.append(("y2", g.tolist())))
    x.register_hook(lambda g: (log.append(("x", g.tolist())), g + 1)[1])
    x.register_post_accumulate_grad_hook(lambda p: log.append(("post", p.grad.tolist())))
    z = (y * 3).sum()
    z.backward()
    h1.remove()
    return (log, y.grad, x.grad)


@program
def hook_remove(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x * 2
    h = y.register_hook(lambda g: g * 0)
    h.remove()
    h.remove()
    y.sum().backward()
    return x.grad


@program
def grad_fn(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = t.ones(2, requires_grad=True)
    z = x * y + x
    g = t.autograd.grad(z.sum(), [x, y], create_graph=True)
    g2 = t.autograd.grad(g[0].sum(), y)
    return (g, g2)


@program
def grad_unused(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = t.ones(2, requires_grad=True)
    z = (x * 2).sum()
    return (
        error_of(lambda: t.autograd.grad(z, [x, y])),
        t.autograd.grad((x * 2).sum(), [x, y], allow_unused=True),
        t.autograd.grad((x * 2).sum(), [x, y], materialize_grads=True),
    )


@program
def grad_nonleaf(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    return (t.autograd.grad(z, [y, x]), x.grad)


@program
def backward_inputs(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = t.ones(2, requires_grad=True)
    h = x * y
    (h * h).sum().backward(inputs=[x])
    return (x.grad, y.grad)


@program
def backward_inputs_nonleaf(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    h = x * 3
    h.retain_grad()
    (h * h).sum().backward(inputs=[h])
    return (x.grad, h.grad)


@program
def accumulate(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    g = x.grad
    (x * 3).sum().backward()
    return (x.grad, g is x.grad, g)


@program
def accumulate_create(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    g.sum().backward()
    return (g, x.grad, g.requires_grad)


@program
def no_alias(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = t.ones(2, requires_grad=True)
    (x + y).backward(t.tensor([1.0, 2.0]))
    x.grad.mul_(10)
    return (x.grad, y.grad)


@program
def nonscalar(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    return (
        error_of(lambda: (x * 2).backward()),
        error_of(lambda: (x * 2).backward(t.ones(3))),
        error_of(lambda: t.ones(1).backward()),
    )


@program
def inference(t: Any) -> Any:
    with t.inference_mode():
        x = t.ones(2)
        y = x * 2
    w = t.ones(2, requires_grad=True)
    return (
        y.is_inference(),
        error_of(lambda: (x * 3).add_(x) is None),
        error_of(lambda: w * y),
        w + y,
        error_of(lambda: y.requires_grad_()),
        y.clone().is_inference(),
        error_of(lambda: y._version),
        w.detach() * y,
        error_of(lambda: x.add_(1)),
    )


@program
def modes(t: Any) -> Any:
    out = []

    @t.no_grad()
    def f():
        return t.is_grad_enabled()

    @t.no_grad
    def f2():
        return t.is_grad_enabled()

    @t.no_grad()
    def gen():
        yield t.is_grad_enabled()
        yield t.is_grad_enabled()

    out += [f(), f2()]
    for v in gen():
        out += [v, t.is_grad_enabled()]
    with t.set_grad_enabled(False):
        out.append(t.is_grad_enabled())
        with t.enable_grad():
            out.append(t.is_grad_enabled())
    t.set_grad_enabled(False)
    out.append(t.is_grad_enabled())
    t.set_grad_enabled(True)
    with t.no_grad(), t.inference_mode(False):
        out.append(t.is_grad_enabled())
    return out


@program
def function_basic(t: Any) -> Any:

    class Sq(t.autograd.Function):
        @staticmethod
        def forward(ctx, x, k):
            ctx.save_for_backward(x)
            ctx.k = k
            return x * x * k

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return (2 * x * g * ctx.k, None)

    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = Sq.apply(x, 3)
    (g,) = t.autograd.grad(y.sum(), x, create_graph=True)
    (gg,) = t.autograd.grad(g.sum(), x)
    return (y, g, gg)


@program
def function_setup(t: Any) -> Any:

    class F(t.autograd.Function):
        @staticmethod
        def forward(a, b):
            return (a * b, a + b)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g1, g2):
            a, b = ctx.saved_tensors
            return (g1 * b + g2, g1 * a + g2)

    a = t.tensor([2.0], requires_grad=True)
    b = t.tensor([3.0], requires_grad=True)
    u, _ = F.apply(a, b)
    (u * 2).sum().backward()
    return (a.grad, b.grad)


@program
def function_dirty(t: Any) -> Any:

    class F(t.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            a.mul_(2)
            ctx.mark_dirty(a)
            return a

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = t.ones(2, requires_grad=True)
    y = x * 1
    z = F.apply(y)
    z.sum().backward()
    return (x.grad, z is y, y)


@program
def function_nondiff(t: Any) -> Any:

    class F(t.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            i = a.argmax()
            m = a > 0
            ctx.mark_non_differentiable(m)
            ctx.set_materialize_grads(False)
            return (a * 2, i, m)

        @staticmethod
        def backward(ctx, g, gi, gm):
            return g * 2 if g is not None else None

    x = t.ones(2, requires_grad=True)
    y, i, m = F.apply(x)
    y.sum().backward()
    return (x.grad, i.requires_grad, m.requires_grad)


@program
def function_wrong_count(t: Any) -> Any:

    class F(t.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, g):
            return g

    x = t.ones(2, requires_grad=True)
    return error_of(lambda: F.apply(x, x).sum().backward())


@program
def function_return_input(t: Any) -> Any:

    class F(t.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            return a

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = t.ones(2, requires_grad=True)
    y = F.apply(x)
    y.sum().backward()
    return (x.grad, y is x)


@program
def once(t: Any) -> Any:

    class F(t.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            ctx.save_for_backward(a)
            return a * a

        @staticmethod
        @t.autograd.function.once_differentiable
        def backward(ctx, g):
            (a,) = ctx.saved_tensors
            return 2 * a * g

    x = t.ones(2, requires_grad=True)
    y = F.apply(x)
    (g,) = t.autograd.grad(y.sum(), x, create_graph=True)
    return (g, error_of(lambda: t.autograd.grad(g.sum(), x)))


@program
def deepcopy(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    x.grad = t.ones(2)
    c = copy.deepcopy(x)
    y = x * 2
    return (c, c.grad, c.requires_grad, error_of(lambda: copy.deepcopy(y)), c is x)


@program
def pickles(t: Any) -> Any:
    x = t.ones(2, 3, requires_grad=True)
    c = pickle.loads(pickle.dumps(x))
    z = pickle.loads(pickle.dumps(t.arange(6).view(2, 3).t()))
    return (c, c.requires_grad, z, z.stride())


@program
def autograd_misc(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x * 2
    return (
        x.is_leaf,
        y.is_leaf,
        x.grad_fn is None,
        y.grad_fn.name()[:11],
        y.grad_fn.next_functions[0][0].name().split("::")[-1],
        error_of(lambda: y.requires_grad_(False)),
        error_of(lambda: t.ones(2, dtype=t.int64, requires_grad=True)),
        error_of(lambda: t.ones(2).register_hook(print)),
        error_of(lambda: t.ones(2).int().requires_grad_()),
        y.detach_().requires_grad,
        x.requires_grad_(False).requires_grad,
        (t.ones(2, requires_grad=True) > 0).requires_grad,
        error_of(lambda: t.ones(2, requires_grad=True).numpy()),
    )


@program
def grad_assign(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    return (
        error_of(lambda: setattr(x, "grad", t.ones(3))),
        error_of(lambda: setattr(x, "grad", 1)),
        error_of(lambda: setattr(x, "grad", t.ones(2).double())),
        setattr(x, "grad", None),
    )


@program
def double_backward(t: Any) -> Any:
    x = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
    outs = []
    for f in [
        lambda v: (v**3).sum(),
        lambda v: v.exp().sum(),
        lambda v: v.sin().prod(),
        lambda v: (v / (v + 1)).sum(),
        lambda v: v.log().cumsum(0).sum(),
        lambda v: v.std(),
        lambda v: v.norm(),
        lambda v: t.softmax(v, 0)[0],
        lambda v: v.max() * v.min(),
        lambda v: (v.view(3, 1) @ v.view(1, 3)).pow(2).sum(),
        lambda v: v[t.tensor([0, 0, 1])].pow(2).sum(),
        lambda v: v.clamp(1.5).pow(2).sum(),
        lambda v: v.sigmoid().sum(),
        lambda v: v.tanh().sum(),
        lambda v: v.logsumexp(0),
    ]:
        (g,) = t.autograd.grad(f(x), x, create_graph=True)
        (h,) = t.autograd.grad((g * t.tensor([1.0, 2.0, 3.0])).sum(), x)
        outs += [g, h]
    return outs


@program
def hooks_node(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x * 2
    log = []
    y.grad_fn.register_hook(lambda gi, go: log.append((len(gi), [g.tolist() for g in go])))
    y.grad_fn.register_prehook(lambda go: (go[0] * 3,))
    y.sum().backward()
    return (log, x.grad)


@program
def accum_hook(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    log = []
    a = x.expand_as(x).grad_fn.next_functions[0][0]
    a.register_hook(lambda *g: log.append("acc"))
    (x * 2).sum().backward()
    return (log, a.variable is x)


@program
def jac(t: Any) -> Any:

    def f(x):
        return (x**2).sum(1)

    x = t.arange(6.0).view(2, 3)
    return (
        t.autograd.functional.jacobian(f, x),
        t.autograd.functional.hessian(lambda x: (x**3).sum(), x),
        t.autograd.functional.vjp(f, x, t.ones(2)),
        t.autograd.functional.jvp(f, x, t.ones(2, 3)),
        t.autograd.functional.hvp(lambda x: (x**3).sum(), x, t.ones(2, 3)),
    )


@program
def batched(t: Any) -> Any:
    x = t.arange(3.0).requires_grad_()
    y = x**2
    return t.autograd.grad(y, x, t.eye(3), is_grads_batched=True)


@program
def loops(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    h = t.zeros(2)
    for i in range(50):
        h = (h * 0.9 + x * i).tanh()
    h.sum().backward()
    return x.grad


@program
def deep(t: Any) -> Any:
    x = t.ones(1, requires_grad=True)
    y = x
    for _ in range(3000):
        y = y + 1
    y.backward()
    return x.grad
