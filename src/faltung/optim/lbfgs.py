"""L-BFGS, a quasi-Newton method, with a line search for the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from faltung.autograd.modes import enable_grad, no_grad
from faltung.optim.optimizer import Closure, Optimizer, ParamsT
from faltung.optim.stepping import check_nonnegative, scalar
from faltung.tensor import Tensor

__all__ = ["LBFGS"]

_SUFFICIENT_DECREASE = 1e-4  # c1 of Nocedal & Wright, Numerical Optimization, algorithm 3.5
_CURVATURE = 0.9  # c2


@dataclass
class _Point:
    """A point on the search line: step length, loss, gradient, and the gradient along the line."""

    t: float
    loss: float
    grad: np.ndarray
    slope: float


class LBFGS(Optimizer):
    """L-BFGS (Liu & Nocedal 1989): each step makes up to `max_iter` iterations and evaluates the closure many times.

    All parameters form one vector and one group. It keeps `2 history_size + 4` vectors of that length.

    Args:
        params: tensors; only one parameter group.
        lr: length of a step without a line search.
        max_iter: iterations in a step.
        max_eval: evaluations of the closure in a step; 1.25 max_iter by default.
        tolerance_grad: stop where no gradient is larger.
        tolerance_change: stop where loss or parameters change less.
        history_size: number of gradient changes that are remembered.
        line_search_fn: None, or "strong_wolfe".
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_nonnegative(self, lr=lr)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError(
                "LBFGS doesn't support per-parameter options (parameter groups): expected 1 group, got "
                f"{len(self.param_groups)}."
            )
        self._params: list[Tensor] = self.param_groups[0]["params"]

    # --- the parameters as one vector; complex ones as pairs of reals

    def _gather_flat_grad(self) -> np.ndarray:
        parts = []
        for param in self._params:
            values = np.zeros_like(param._data) if param.grad is None else param.grad._data
            parts.append(_flat(values))
        return np.concatenate(parts)

    def _clone_param(self) -> list[np.ndarray]:
        return [param._data.copy() for param in self._params]

    def _move(self, start: list[np.ndarray], t: float, direction: np.ndarray) -> None:
        """Set the parameters to start + t direction."""
        offset = 0
        for param, values in zip(self._params, start, strict=True):
            count = _flat(values).size
            move = _unflat(direction[offset : offset + count], values)
            param._data[...] = values + move * t
            param._storage.bump()
            offset += count

    def _evaluate(
        self, closure: Closure, start: list[np.ndarray], direction: np.ndarray, t: float
    ) -> tuple[float, np.ndarray]:
        """Loss and gradient at start + t direction; the parameters are back at `start` afterwards."""
        self._move(start, t, direction)
        loss = float(closure())
        grad = self._gather_flat_grad()
        self._move(start, 0.0, direction)
        return loss, grad

    # --- the step

    @no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Make up to `max_iter` iterations.

        Args:
            closure: clears the gradients, computes the loss, calls backward() and returns the loss. Required.

        Returns:
            The loss of the first evaluation.
        """
        if closure is None:
            raise TypeError("LBFGS.step: missing the argument `closure`, which computes the loss anew.")
        evaluate: Closure = enable_grad()(closure)
        group = self.param_groups[0]
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError(
                f"LBFGS: only 'strong_wolfe' is supported, got line_search_fn={group['line_search_fn']!r}."
            )
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        first_loss = evaluate()
        loss = float(first_loss)
        evaluations = 1
        state["func_evals"] += 1
        grad = self._gather_flat_grad()
        if not grad.size or np.abs(grad).max() <= group["tolerance_grad"]:
            return first_loss

        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, grad, group["history_size"])
            state["prev_flat_grad"] = Tensor._wrap(grad.copy())
            state["prev_loss"] = loss
            t = scalar(group["lr"])
            if state["n_iter"] == 1:
                t *= min(1.0, 1.0 / float(np.abs(grad).sum()))
            state["d"], state["t"] = Tensor._wrap(direction), t
            slope = float(grad @ direction)
            if slope > -group["tolerance_change"]:
                break

            used = 0
            start = self._clone_param()
            if group["line_search_fn"] is not None:
                best, used = _strong_wolfe(
                    partial(self._evaluate, evaluate, start, direction),
                    _Point(0.0, loss, grad, slope),
                    t,
                    direction,
                    group["tolerance_change"],
                    group["max_eval"] - evaluations,
                )
                loss, grad, t = best.loss, best.grad, best.t
                state["t"] = t
                self._move(start, t, direction)
            else:
                self._move(start, t, direction)
                if iteration != group["max_iter"]:  # after the last move nobody needs its gradient
                    loss = float(evaluate())
                    grad = self._gather_flat_grad()
                    used = 1
            evaluations += used
            state["func_evals"] += used

            if (
                evaluations >= group["max_eval"]
                or np.abs(grad).max() <= group["tolerance_grad"]
                or np.abs(direction * t).max() <= group["tolerance_change"]
                or abs(loss - state["prev_loss"]) < group["tolerance_change"]
            ):
                break
        return first_loss

    def _direction(self, state: dict[str, Any], grad: np.ndarray, history_size: int) -> np.ndarray:
        """Minus the approximate inverse Hessian times the gradient, by the two-loop recursion."""
        if state["n_iter"] == 1:
            state["old_dirs"], state["old_stps"], state["ro"], state["H_diag"] = [], [], [], 1.0
            return -grad
        change = grad - state["prev_flat_grad"]._data
        move = state["d"]._data * state["t"]
        along = float(change @ move)
        if along > 1e-10:
            for history, entry in (("old_dirs", change), ("old_stps", move), ("ro", 1.0 / along)):
                if len(state[history]) == history_size:
                    state[history].pop(0)
                state[history].append(entry if isinstance(entry, float) else Tensor._wrap(entry))
            state["H_diag"] = along / float(change @ change)

        changes = [tensor._data for tensor in state["old_dirs"]]
        moves = [tensor._data for tensor in state["old_stps"]]
        inverse = state["ro"]
        weights = [0.0] * len(changes)
        vector = -grad
        for i in reversed(range(len(changes))):
            weights[i] = float(moves[i] @ vector) * inverse[i]
            vector -= changes[i] * weights[i]
        vector *= state["H_diag"]
        for i in range(len(changes)):
            vector += moves[i] * (weights[i] - float(changes[i] @ vector) * inverse[i])
        return vector


def _flat(values: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _unflat(part: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(part, dtype=like.real.dtype).view(like.dtype).reshape(like.shape)


def _cubic_minimum(a: _Point, b: _Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points and their slopes is lowest, within bounds (Nocedal & Wright, eq. 3.59)."""
    low, high = bounds or (min(a.t, b.t), max(a.t, b.t))
    if b.t < a.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = math.sqrt(square)
    denominator = b.slope - a.slope + 2 * d2
    if denominator == 0:
        return (low + high) / 2
    return min(max(b.t - (b.t - a.t) * ((b.slope + d2 - d1) / denominator), low), high)


def _strong_wolfe(
    evaluate: Callable[[float], tuple[float, np.ndarray]],
    origin: _Point,
    t: float,
    direction: np.ndarray,
    tolerance_change: float,
    max_evaluations: int,
) -> tuple[_Point, int]:
    """A point along the line that satisfies the strong Wolfe conditions, and how many evaluations it took."""

    def at(length: float) -> _Point:
        loss, grad = evaluate(length)
        return _Point(length, loss, grad, float(grad @ direction))

    def too_high(point: _Point) -> bool:
        return point.loss > origin.loss + _SUFFICIENT_DECREASE * point.t * origin.slope

    def flat_enough(point: _Point) -> bool:
        return abs(point.slope) <= -_CURVATURE * origin.slope

    point, previous = at(t), origin
    evaluations, rounds = 1, 0
    bracket: list[_Point] = []
    while rounds < max_evaluations:  # walk outwards until two points enclose a minimum
        if too_high(point) or (rounds > 1 and point.loss >= previous.loss):
            bracket = [previous, point]
            break
        if flat_enough(point):
            return point, evaluations
        if point.slope >= 0:
            bracket = [previous, point]
            break
        bounds = point.t + 0.01 * (point.t - previous.t), point.t * 10
        length = _cubic_minimum(previous, point, bounds)
        previous, point = point, at(length)
        evaluations += 1
        rounds += 1
    if not bracket:
        bracket = [origin, point]

    stalled = False
    low, high = sorted(bracket, key=lambda p: p.loss)  # stable: on a tie the first is the low one
    widest = float(np.abs(direction).max())
    while rounds < max_evaluations and abs(high.t - low.t) * widest >= tolerance_change:  # narrow it down
        left, right = min(low.t, high.t), max(low.t, high.t)
        length = _cubic_minimum(low, high)
        margin = 0.1 * (right - left)
        if min(right - length, length - left) < margin:  # too close to an end: once is fine, twice is no progress
            if stalled or length >= right or length <= left:
                length = right - margin if abs(length - right) < abs(length - left) else left + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        point = at(length)
        evaluations += 1
        rounds += 1
        if too_high(point) or point.loss >= low.loss:
            high = point
            if high.loss < low.loss:
                low, high = high, low
        else:
            if flat_enough(point):
                return point, evaluations
            if point.slope * (high.t - low.t) >= 0:
                high = low
            low = point
    return low, evaluations
