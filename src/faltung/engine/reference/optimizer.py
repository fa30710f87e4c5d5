"""Optimizer steps in plain NumPy: the oracle of the generated kernels, and the fallback without them.

One call updates all parameters of a group. Every list runs over the parameters: `params`, `grads` and the state lists
hold arrays of equal shape per index (any strides; the grads are never written), `steps` holds how many steps each
parameter has taken, this one included. Parameters and state are updated in place; nothing is returned. Scalars are
floats.

sgd(params, grads, momentum_buffers, fresh, *, lr, momentum, dampening, weight_decay, nesterov, maximize)
    `momentum_buffers` is empty when momentum is 0; `fresh[i]` says that buffer i holds nothing yet.
adam(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, *, lr, beta1, beta2, eps, weight_decay, maximize,
     decoupled_weight_decay)
    `max_exp_avg_sqs` is empty unless AMSGrad is wanted. `decoupled_weight_decay` makes it AdamW.
adamax(params, grads, exp_avgs, exp_infs, steps, *, lr, beta1, beta2, eps, weight_decay, maximize)
nadam(params, grads, exp_avgs, exp_avg_sqs, mus, mu_nexts, mu_products, steps, *, lr, beta1, beta2, eps, weight_decay,
      maximize, decoupled_weight_decay)
    `mus`, `mu_nexts` and `mu_products` are floats: the momentum of this step, of the next, and the product so far.
radam(params, grads, exp_avgs, exp_avg_sqs, steps, *, lr, beta1, beta2, eps, weight_decay, maximize,
      decoupled_weight_decay)
rmsprop(params, grads, square_avgs, grad_avgs, momentum_buffers, *, lr, alpha, eps, weight_decay, momentum, maximize)
    `grad_avgs` is empty unless centered, `momentum_buffers` unless momentum is above 0.
adagrad(params, grads, sums, steps, *, lr, lr_decay, eps, weight_decay, maximize)
adadelta(params, grads, square_avgs, acc_deltas, *, lr, rho, eps, weight_decay, maximize)
asgd(params, grads, averages, etas, mus, *, lambd, weight_decay, maximize)
    `etas` and `mus` are floats: the step size and the averaging weight of each parameter.
rprop(params, grads, previous, step_sizes, *, eta_minus, eta_plus, step_min, step_max, maximize)
adafactor(params, grads, row_vars, col_vars, variances, steps, *, lr, beta2_decay, eps1, eps2, clip, weight_decay,
          maximize)
    `variances[i]` is None for two and more dimensions, `row_vars[i]` and `col_vars[i]` below.
muon(params, grads, momentum_buffers, *, lrs, lr, weight_decay, momentum, nesterov, coefficients, eps, iterations)
    `lrs` is the step size of each parameter's direction, `lr` the one of the weight decay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faltung.engine.reference.precision import reference

Array = np.ndarray
Arrays = Sequence[np.ndarray]
Floats = Sequence[float]


def _decayed(param: Array, grad: Array, weight_decay: float, maximize: bool) -> Array:
    """The gradient to descend along, with the L2 penalty's share."""
    if maximize:
        grad = -grad
    return grad + param * weight_decay if weight_decay else grad


def _decay_moments(exp_avg: Array, exp_avg_sq: Array, grad: Array, beta1: float, beta2: float) -> None:
    exp_avg += (grad - exp_avg) * (1 - beta1)
    exp_avg_sq *= beta2
    exp_avg_sq += grad * grad * (1 - beta2)


@reference()
def sgd(
    params: Arrays,
    grads: Arrays,
    momentum_buffers: Arrays,
    fresh: Sequence[bool],
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """Stochastic gradient descent with (Nesterov) momentum."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = _decayed(param, grad, weight_decay, maximize)
        if momentum:
            buffer = momentum_buffers[i]
            if fresh[i]:
                buffer[...] = grad
            else:
                buffer *= momentum
                buffer += grad * (1 - dampening)
            grad = grad + buffer * momentum if nesterov else buffer
        param -= grad * lr


@reference()
def adam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays,
    steps: Floats,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    decoupled_weight_decay: bool,
) -> None:
    """Adam and AdamW, with or without AMSGrad (Kingma & Ba 2015; Loshchilov & Hutter 2019; Reddi et al. 2018)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        if weight_decay and decoupled_weight_decay:
            param *= 1 - lr * weight_decay
        grad = _decayed(param, grad, 0.0 if decoupled_weight_decay else weight_decay, maximize)
        exp_avg, exp_avg_sq = exp_avgs[i], exp_avg_sqs[i]
        _decay_moments(exp_avg, exp_avg_sq, grad, beta1, beta2)
        second = exp_avg_sq
        if max_exp_avg_sqs:
            second = max_exp_avg_sqs[i]
            np.maximum(second, exp_avg_sq, out=second)
        bias1, bias2 = 1 - beta1 ** steps[i], 1 - beta2 ** steps[i]
        denominator = np.sqrt(second)
        denominator /= bias2**0.5
        denominator += eps
        param -= exp_avg / denominator * (lr / bias1)


@reference()
def adamax(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_infs: Arrays,
    steps: Floats,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Adam with the infinity norm in place of the second moment (Kingma & Ba 2015, section 7)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = _decayed(param, grad, weight_decay, maximize)
        exp_avg, exp_inf = exp_avgs[i], exp_infs[i]
        exp_avg += (grad - exp_avg) * (1 - beta1)
        exp_inf *= beta2
        np.maximum(exp_inf, np.abs(grad) + eps, out=exp_inf)
        param -= exp_avg / exp_inf * (lr / (1 - beta1 ** steps[i]))


@reference()
def nadam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    mus: Floats,
    mu_nexts: Floats,
    mu_products: Floats,
    steps: Floats,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    decoupled_weight_decay: bool,
) -> None:
    """Adam with Nesterov momentum (Dozat 2016)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        if weight_decay and decoupled_weight_decay:
            param *= 1 - lr * weight_decay
        grad = _decayed(param, grad, 0.0 if decoupled_weight_decay else weight_decay, maximize)
        exp_avg, exp_avg_sq = exp_avgs[i], exp_avg_sqs[i]
        _decay_moments(exp_avg, exp_avg_sq, grad, beta1, beta2)
        denominator = np.sqrt(exp_avg_sq / (1 - beta2 ** steps[i])) + eps
        param -= grad / denominator * (lr * (1 - mus[i]) / (1 - mu_products[i]))
        param -= exp_avg / denominator * (lr * mu_nexts[i] / (1 - mu_products[i] * mu_nexts[i]))


@reference()
def radam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    steps: Floats,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    decoupled_weight_decay: bool,
) -> None:
    """Adam with the variance of its step size rectified (Liu et al. 2020)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        if weight_decay and decoupled_weight_decay:
            param *= 1 - lr * weight_decay
        grad = _decayed(param, grad, 0.0 if decoupled_weight_decay else weight_decay, maximize)
        exp_avg, exp_avg_sq, step = exp_avgs[i], exp_avg_sqs[i], steps[i]
        _decay_moments(exp_avg, exp_avg_sq, grad, beta1, beta2)
        update = exp_avg / (1 - beta1**step) * lr
        bias2 = 1 - beta2**step
        rho_limit = 2 / (1 - beta2) - 1
        rho = rho_limit - 2 * step * beta2**step / bias2  # length of the average that the second moment amounts to
        if rho > 5:
            rectified = (rho - 4) * (rho - 2) * rho_limit / ((rho_limit - 4) * (rho_limit - 2) * rho)
            update = update * (bias2**0.5 / (np.sqrt(exp_avg_sq) + eps)) * rectified**0.5
        param -= update


@reference()
def rmsprop(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    grad_avgs: Arrays,
    momentum_buffers: Arrays,
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
) -> None:
    """Gradient over its running root mean square (Hinton 2012; centered: Graves 2013)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = _decayed(param, grad, weight_decay, maximize)
        square_avg = square_avgs[i]
        square_avg *= alpha
        square_avg += grad * grad * (1 - alpha)
        if grad_avgs:
            grad_avg = grad_avgs[i]
            grad_avg += (grad - grad_avg) * (1 - alpha)
            average = np.sqrt(square_avg - grad_avg * grad_avg)
        else:
            average = np.sqrt(square_avg)
        average += eps
        if momentum > 0:
            buffer = momentum_buffers[i]
            buffer *= momentum
            buffer += grad / average
            param -= buffer * lr
        else:
            param -= grad / average * lr


@reference()
def adagrad(
    params: Arrays,
    grads: Arrays,
    sums: Arrays,
    steps: Floats,
    *,
    lr: float,
    lr_decay: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Gradient over the root of the sum of its squares (Duchi et al. 2011)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = _decayed(param, grad, weight_decay, maximize)
        total = sums[i]
        total += grad * grad
        param -= grad / (np.sqrt(total) + eps) * (lr / (1 + (steps[i] - 1) * lr_decay))


@reference()
def adadelta(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    acc_deltas: Arrays,
    *,
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Step sizes from running averages of squared gradients and squared steps (Zeiler 2012)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = _decayed(param, grad, weight_decay, maximize)
        square_avg, acc_delta = square_avgs[i], acc_deltas[i]
        square_avg *= rho
        square_avg += grad * grad * (1 - rho)
        delta = np.sqrt(acc_delta + eps) / np.sqrt(square_avg + eps) * grad
        acc_delta *= rho
        acc_delta += delta * delta * (1 - rho)
        param -= delta * lr


@reference()
def asgd(
    params: Arrays,
    grads: Arrays,
    averages: Arrays,
    etas: Floats,
    mus: Floats,
    *,
    lambd: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Averaged stochastic gradient descent (Polyak & Juditsky 1992)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = _decayed(param, grad, weight_decay, maximize)
        param *= 1 - lambd * etas[i]
        param -= grad * etas[i]
        average = averages[i]
        if mus[i] == 1:
            average[...] = param
        else:
            average += (param - average) * mus[i]


@reference()
def rprop(
    params: Arrays,
    grads: Arrays,
    previous: Arrays,
    step_sizes: Arrays,
    *,
    eta_minus: float,
    eta_plus: float,
    step_min: float,
    step_max: float,
    maximize: bool,
) -> None:
    """Resilient backpropagation: the gradient's sign sets the way, its changes the step (Riedmiller & Braun 1993)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = -grad if maximize else grad
        agreement = grad * previous[i]
        factor = np.where(agreement > 0, eta_plus, np.where(agreement < 0, eta_minus, 1.0))
        step_size = step_sizes[i]
        step_size[...] = np.clip(step_size * factor.astype(step_size.dtype), step_min, step_max)
        grad = np.where(agreement < 0, grad.dtype.type(0), grad)  # after a change of sign, stand still for one step
        param -= np.sign(grad) * step_size
        previous[i][...] = grad


@reference()
def adafactor(
    params: Arrays,
    grads: Arrays,
    row_vars: Sequence[Array | None],
    col_vars: Sequence[Array | None],
    variances: Sequence[Array | None],
    steps: Floats,
    *,
    lr: float,
    beta2_decay: float,
    eps1: float | None,
    eps2: float,
    clip: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Adam without momentum, its second moment factored into rows and columns (Shazeer & Stern 2018)."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        grad = -grad if maximize else grad
        floor = float(np.finfo(param.dtype).eps) if eps1 is None else eps1
        weight = steps[i] ** beta2_decay
        rho = min(lr, steps[i] ** -0.5)
        alpha = max(eps2, _root_mean_square(param)) * rho
        if weight_decay:
            param *= 1 - lr * weight_decay
        row_var, col_var, variance = row_vars[i], col_vars[i], variances[i]
        square = grad * grad
        if variance is not None:
            variance += (square - variance) * weight
            estimate = variance
        else:
            assert row_var is not None  # the caller's contract: factors, or a variance
            assert col_var is not None
            row_var += (square.mean(axis=-1, keepdims=True) - row_var) * weight  # (..., rows, 1)
            col_var += (square.mean(axis=-2, keepdims=True) - col_var) * weight  # (..., 1, columns)
            estimate = row_var @ col_var / np.maximum(row_var.mean(axis=-2, keepdims=True), floor)
        update = grad / np.sqrt(np.maximum(estimate, floor * floor))
        param -= update * (alpha / max(1.0, _root_mean_square(update) / clip))


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) if values.size else 0.0


@reference()
def muon(
    params: Arrays,
    grads: Arrays,
    momentum_buffers: Arrays,
    *,
    lrs: Floats,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    coefficients: tuple[float, float, float],
    eps: float,
    iterations: int,
) -> None:
    """Momentum whose direction is made orthogonal by Newton-Schulz iterations (Jordan et al. 2024); matrices only."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        buffer = momentum_buffers[i]
        buffer += (grad - buffer) * (1 - momentum)
        update = buffer + (grad - buffer) * (1 - momentum) if nesterov else buffer
        param *= 1 - lr * weight_decay
        param -= _orthogonal(update, coefficients, eps, iterations).astype(param.dtype) * lrs[i]


def _to_bfloat16(values: Array) -> Array:
    """float32 rounded to bfloat16's 8 bits of precision, nearest even, still stored as float32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _orthogonal(matrix: Array, coefficients: tuple[float, float, float], eps: float, iterations: int) -> Array:
    """Push all singular values towards 1. Every product is rounded to bfloat16, in which Muon is defined."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = _to_bfloat16(matrix.T if tall else matrix)
    norm = max(float(_to_bfloat16(np.sqrt(np.square(x, dtype=np.float64).sum(keepdims=True)))[0, 0]), eps)
    x = _to_bfloat16(x / np.float32(norm))
    for _ in range(iterations):
        gram = _to_bfloat16(x @ x.T)
        gram = _to_bfloat16(gram * np.float32(b) + gram @ gram * np.float32(c))
        x = _to_bfloat16(x * np.float32(a) + gram @ x)
    return x.T if tall else x
