"""L-BFGS, a quasi-Newton method, with a line search for the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from faltung.autograd.modes import enable_grad, no_grad, settle_all
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
    slope: float = math.nan  # where nobody asks for it


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

    @property
    def _params(self) -> list[Tensor]:
        params: list[Tensor] = self.param_groups[0]["params"]
        return params

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
        settle_all()
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
        state["func_evals"] += 1
        point = _Point(0.0, float(first_loss), self._gather_flat_grad())
        if not point.grad.size or np.abs(point.grad).max() <= group["tolerance_grad"]:
            return first_loss

        evaluations = 1
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, point.grad, group["history_size"])
            state["prev_flat_grad"], state["prev_loss"] = Tensor._wrap(point.grad.copy()), point.loss
            state["d"], state["t"] = Tensor._wrap(direction), scalar(group["lr"])
            if state["n_iter"] == 1:
                state["t"] *= min(1.0, 1.0 / float(np.abs(point.grad).sum()))
            slope = float(point.grad @ direction)
            if slope > -group["tolerance_change"]:
                break

            start = replace(point, t=0.0, slope=slope)
            last = iteration == group["max_iter"]
            point, used = self._advance(evaluate, start, direction, state["t"], group["max_eval"] - evaluations, last)
            state["t"] = point.t
            evaluations += used
            state["func_evals"] += used
            if (
                evaluations >= group["max_eval"]
                or np.abs(point.grad).max() <= group["tolerance_grad"]
                or np.abs(direction * point.t).max() <= group["tolerance_change"]
                or abs(point.loss - state["prev_loss"]) < group["tolerance_change"]
            ):
                break
        return first_loss

    def _advance(
        self, closure: Closure, start: _Point, direction: np.ndarray, t: float, budget: int, last: bool
    ) -> tuple[_Point, int]:
        """Move the parameters along the direction: the point they come to, and the evaluations that it took."""
        group, origin = self.param_groups[0], self._clone_param()
        if group["line_search_fn"] is not None:
            search = _LineSearch(partial(self._evaluate, closure, origin, direction), start, direction, budget)
            point = search.run(t, group["tolerance_change"])
            self._move(origin, point.t, direction)
            return point, search.evaluations
        self._move(origin, t, direction)
        if last:  # nobody needs the gradient after the last move
            return replace(start, t=t), 0
        loss = float(closure())
        return _Point(t, loss, self._gather_flat_grad()), 1

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


class _LineSearch:
    """Looks for a point along a line that satisfies the strong Wolfe conditions (Nocedal & Wright, algorithm 3.5)."""

    def __init__(
        self,
        evaluate: Callable[[float], tuple[float, np.ndarray]],
        origin: _Point,
        direction: np.ndarray,
        budget: int,
    ) -> None:
        self._evaluate = evaluate
        self._origin = origin
        self._direction = direction
        self._budget = budget  # rounds that may be made
        self._rounds = 0
        self.evaluations = 0

    def _at(self, t: float) -> _Point:
        self.evaluations += 1
        loss, grad = self._evaluate(t)
        return _Point(t, loss, grad, float(grad @ self._direction))

    def _too_high(self, point: _Point) -> bool:
        return point.loss > self._origin.loss + _SUFFICIENT_DECREASE * point.t * self._origin.slope

    def _flat_enough(self, point: _Point) -> bool:
        return abs(point.slope) <= -_CURVATURE * self._origin.slope

    def run(self, t: float, tolerance_change: float) -> _Point:
        """The point that is found, beginning with step length `t`."""
        found = self._enclose(self._at(t))
        return found if isinstance(found, _Point) else self._narrow(*found, tolerance_change)

    def _enclose(self, point: _Point) -> _Point | tuple[_Point, _Point]:
        """Walk outwards until two points enclose a minimum, or one will do."""
        previous = self._origin
        while self._rounds < self._budget:
            if self._too_high(point) or (self._rounds > 1 and point.loss >= previous.loss):
                return previous, point
            if self._flat_enough(point):
                return point
            if point.slope >= 0:
                return previous, point
            bounds = point.t + 0.01 * (point.t - previous.t), point.t * 10
            length = _cubic_minimum(previous, point, bounds)
            previous, point = point, self._at(length)
            self._rounds += 1
        return self._origin, point

    def _narrow(self, first: _Point, second: _Point, tolerance_change: float) -> _Point:
        """Shrink the stretch between two points until one will do."""
        low, high = (first, second) if first.loss <= second.loss else (second, first)
        widest = float(np.abs(self._direction).max())
        stalled = False
        while self._rounds < self._budget and abs(high.t - low.t) * widest >= tolerance_change:
            left, right = min(low.t, high.t), max(low.t, high.t)
            length = _cubic_minimum(low, high)
            margin = 0.1 * (right - left)
            close = min(right - length, length - left) < margin
            if close and (stalled or length >= right or length <= left):  # twice close to an end is no progress
                length = right - margin if abs(length - right) < abs(length - left) else left + margin
                stalled = False
            else:
                stalled = close
            point = self._at(length)
            self._rounds += 1
            if self._too_high(point) or point.loss >= low.loss:
                high = point
                if high.loss < low.loss:
                    low, high = high, low
                continue
            if self._flat_enough(point):
                return point
            if point.slope * (high.t - low.t) >= 0:
                high = low
            low = point
        return low
