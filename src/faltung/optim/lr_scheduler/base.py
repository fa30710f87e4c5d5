"""What all learning rate schedulers share: counting steps, writing the rates into the optimizer, saving and loading."""

from __future__ import annotations

import contextlib
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from faltung.optim.optimizer import Optimizer
from faltung.optim.stepping import scalar
from faltung.tensor import Tensor

__all__ = ["LRScheduler"]


def check_optimizer(scheduler: object, optimizer: Any) -> None:
    """Refuse what is no optimizer, with PyTorch's TypeError."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(scheduler).__name__}: {type(optimizer).__name__} is not an Optimizer.")


def group_values(optimizer: Optimizer, key: str) -> list[Any]:
    """The option `key` of every parameter group; tensors are copied."""
    return [_copied(group[key]) for group in optimizer.param_groups]


def set_group_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Write an option of a parameter group; a tensor keeps its identity and takes the number."""
    if isinstance(group[key], Tensor):
        group[key].fill_(scalar(value))
    else:
        group[key] = value


def per_group(scheduler: object, name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value for each parameter group, from one number or a list of that length."""
    count = len(optimizer.param_groups)
    if isinstance(value, (list, tuple)):
        if len(value) != count:
            raise ValueError(
                f"{type(scheduler).__name__}: {name} must have the same length as optimizer.param_groups: expected "
                f"{count} values, got {len(value)}."
            )
        return [_copied(entry) for entry in value]
    return [_copied(value) for _ in range(count)]


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


class LRScheduler:
    """Base class: every `step()` asks `get_lr()` for the rates of all parameter groups and writes them there.

    Call `optimizer.step()` first, `scheduler.step()` second.

    Args:
        optimizer: whose `param_groups[i]["lr"]` follow the schedule.
        last_epoch: number of the last step when resuming; -1 starts anew from the rates in the groups.

    Attributes:
        base_lrs: the rates at the start, one for each group.
        last_epoch: how many steps were made.
    """

    _get_lr_called_within_step: bool = False
    _is_initial: bool = False
    _unsaved: tuple[str, ...] = ("optimizer",)  # attributes that state_dict leaves out

    optimizer: Optimizer
    base_lrs: list[Any]
    last_epoch: int
    _last_lr: list[Any]
    _step_count: int

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(self, optimizer)
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: param 'initial_lr' is not specified in param_groups[{number}] when "
                    "resuming "
                    f"a scheduler with last_epoch={last_epoch}. Load the optimizer's state_dict first, or start with "
                    "last_epoch=-1."
                )
        self.base_lrs = group_values(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        if not optimizer._scheduled:
            optimizer._scheduled, optimizer._opt_called = True, False
        self._initial_step()

    def _initial_step(self) -> None:
        """Set the rates of step 0."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key not in self._unsaved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict()` returned."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[Any]:
        """The rates that the last step set, one for each group."""
        return self._last_lr

    def get_lr(self) -> list[Any]:
        """The rates of step `last_epoch`, one for each group; what a scheduler defines."""
        raise NotImplementedError(f"{type(self).__name__}.get_lr: a scheduler has to define it.")

    def _closed_form(self) -> list[Any] | None:
        """The rates of step `last_epoch` from the base rates alone; None where only `get_lr` knows."""
        return None

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next step. `epoch`, which jumps to a step, is deprecated."""
        if self._step_count == 1 and not self.optimizer._opt_called:
            warnings.warn(
                f"{type(self).__name__}: Detected call of `lr_scheduler.step()` before `optimizer.step()`: the first "
                "value of the schedule is never used. Call optimizer.step() first, scheduler.step() second.",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is not None:
            warn_epoch(self)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        with self._asking():
            if epoch is None:
                self.last_epoch += 1
                values = self.get_lr()
            else:
                self.last_epoch = epoch
                closed = self._closed_form()
                values = self.get_lr() if closed is None else closed
        self._write(values)

    def _write(self, values: Sequence[Any]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            set_group_value(group, "lr", value)
        self._last_lr = group_values(self.optimizer, "lr")

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Mark that get_lr() is called by step(), and not by a user who wants get_last_lr()."""
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _check_called_by_step(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                f"{type(self).__name__}.get_lr: To get the last learning rate computed by the scheduler, please use "
                "`get_last_lr()`.",
                UserWarning,
                stacklevel=3,
            )

    def _current(self) -> list[Any]:
        """The rates as they are."""
        return group_values(self.optimizer, "lr")

    def _scaled(self, factor: float) -> list[Any]:
        """The rates times a factor."""
        return [group["lr"] * factor for group in self.optimizer.param_groups]


def warn_epoch(scheduler: object) -> None:
    """Warn of the deprecated argument of `step`."""
    warnings.warn(
        f"{type(scheduler).__name__}.step: The epoch parameter in `scheduler.step()` is deprecated. Call it without.",
        UserWarning,
        stacklevel=3,
    )


def function_states(functions: Sequence[Callable[..., Any]]) -> list[dict[str, Any] | None]:
    """What to save of functions: the attributes of callable objects; plain functions can't be saved."""
    return [None if isinstance(function, types.FunctionType) else function.__dict__.copy() for function in functions]
