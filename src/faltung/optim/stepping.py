"""From tensors to one call of the engine: the step that all built-in optimizers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from faltung.autograd.modes import enable_grad, no_grad, settle_all
from faltung.dtypes import float32, float64, get_default_dtype
from faltung.optim.optimizer import Closure, Optimizer
from faltung.tensor import Tensor

__all__ = [
    "Batch",
    "SteppingOptimizer",
    "check_betas",
    "check_nonnegative",
    "scalar",
    "scalar_tensor",
    "zeros_like",
]


def scalar(value: Any) -> float:
    """An option as a number: learning rates and betas may be tensors of one element."""
    return float(value._data.item()) if isinstance(value, Tensor) else value


def scalar_tensor(value: float) -> Tensor:
    """A 0-d tensor for state that counts: float32, or float64 where that is the default."""
    kind = np.float64 if get_default_dtype() is float64 else float32.np
    return Tensor._wrap(np.array(value, dtype=kind))


def zeros_like(param: Tensor, fill: float | complex = 0.0) -> Tensor:
    """State of the parameter's shape, dtype and strides, filled with one value."""
    return Tensor._wrap(np.full_like(param._data, fill))


def check_nonnegative(optimizer: object, **options: Any) -> None:
    """Refuse negative options and tensors of more than one element, with PyTorch's ValueError."""
    titles = {"lr": "learning rate", "eps": "epsilon value"}
    for name, value in options.items():
        where = type(optimizer).__name__
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"{where}: Tensor {name} must be 1-element, got shape {tuple(value.shape)}.")
        if not scalar(value) >= 0:
            title = titles.get(name, f"{name} value")
            raise ValueError(f"{where}: Invalid {title}: {value}. Expected {name} >= 0.")


def check_betas(optimizer: object, betas: tuple[Any, Any]) -> None:
    """Refuse averaging weights outside [0, 1), with PyTorch's ValueError."""
    for index in (0, 1):
        if not 0 <= scalar(betas[index]) < 1:
            raise ValueError(
                f"{type(optimizer).__name__}: Invalid beta parameter at index {index}: {betas[index]}. "
                "Expected 0 <= beta < 1."
            )


def _real_array(tensor: Tensor) -> np.ndarray:
    """The tensor's array; a complex one as reals with one more dimension, (..., 2)."""
    array = tensor._data
    if array.dtype.kind != "c":
        return array
    part = array.real.dtype
    return np.lib.stride_tricks.as_strided(array.real, (*array.shape, 2), (*array.strides, part.itemsize))


class Batch:
    """The parameters of one group that have gradients, as the lists of arrays that the engine takes."""

    def __init__(self, params: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> None:
        settle_all()
        self._tensors = params
        self._states = states
        self.params = [_real_array(param) for param in params]
        self.grads = [_real_array(param.grad) for param in params]  # type: ignore[arg-type]  # only those with one

    def __len__(self) -> int:
        return len(self._tensors)

    def arrays(self, key: str) -> list[np.ndarray]:
        """The state `key` of every parameter."""
        return [_real_array(state[key]) for state in self._states]

    def optional_arrays(self, key: str) -> list[np.ndarray | None]:
        """The state `key` of every parameter, None where it has none."""
        return [_real_array(state[key]) if key in state else None for state in self._states]

    def numbers(self, key: str) -> list[float]:
        """The scalar state `key` of every parameter."""
        return [scalar(state[key]) for state in self._states]

    def set_numbers(self, key: str, values: Sequence[float]) -> None:
        """Write back the scalar state `key`."""
        for state, value in zip(self._states, values, strict=True):
            if not isinstance(state[key], Tensor):  # loaded from a state_dict with plain numbers
                state[key] = scalar_tensor(0.0)
            state[key]._data[...] = value

    def advance(self) -> list[float]:
        """Count this step, and return the counts."""
        steps = [step + 1 for step in self.numbers("step")]
        self.set_numbers("step", steps)
        return steps

    def missing(self, key: str) -> list[bool]:
        """Which parameters don't have the state `key`; they get room for it, uninitialised."""
        missing = [state.get(key) is None for state in self._states]
        for absent, state, param in zip(missing, self._states, self._tensors, strict=True):
            if absent:
                state[key] = Tensor._wrap(np.empty_like(param._data))
        return missing

    def finish(self) -> None:
        """Tell autograd, and the engine's caches, that the parameters changed in place."""
        for param in self._tensors:
            param._storage.bump()


class SteppingOptimizer(Optimizer):
    """An optimizer whose step updates each parameter group by one call into the engine.

    Subclasses say what state a parameter starts with (`_new_state`) and make the call (`_update`).
    """

    refuses_complex: ClassVar[bool] = False

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        where = type(self).__name__
        if defaults.get("differentiable"):
            raise NotImplementedError(
                f"{where}: differentiable=True is not supported: steps run in the engine, outside autograd. "
                "Write the update with tensor operations where gradients have to flow through it."
            )
        if defaults.get("fused") and defaults.get("foreach"):
            raise RuntimeError(f"{where}: `fused` and `foreach` cannot be `True` together. Every step is fused here.")
        super().__init__(params, defaults)

    @no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: computes the loss anew, calls backward() and returns it.

        Returns:
            What `closure` returned, else None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        states = []
        for param in params:
            if self.refuses_complex and param.is_complex():
                raise RuntimeError(f"{type(self).__name__} does not support complex parameters, got {param.dtype}.")
            states.append(self.state.get(param) or self._new_state(param, group))
        batch = Batch(params, states)
        self._update(group, batch)
        batch.finish()
        for param, state in zip(params, states, strict=True):
            if state:
                self.state[param] = state

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter before its first step."""
        raise NotImplementedError

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        """Update all of `batch` by one call into the engine."""
        raise NotImplementedError
