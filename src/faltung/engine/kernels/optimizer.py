"""Optimizer steps over all parameters of a group in one launch.

    for chunks:                                   # threads: BLOCK elements of one parameter
        row of the table: element count, addresses of parameter, gradient and state, numbers of this parameter
        for elements, 2 vectors at a time:        # the rest masked
            load, update, store in place

Registers: one per array and number, below 16 for AMSGrad, the longest formula. Bound by memory: every array is read
once, and written once unless it is the gradient.

Parameters, gradients and state must be dense float32; a gradient in another memory order is copied into its
parameter's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine.emit import Emitter, Int, Vec, f32, f64, i64
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import flat

UNROLL = 2

Arrays = Sequence[np.ndarray]
Update = Callable[[dict[str, Vec]], dict[str, Vec]]


@dataclass(frozen=True)
class Sgd:
    """What shapes the code of a gradient descent step; a part that is off costs nothing."""

    momentum: bool
    nesterov: bool
    weight_decay: bool
    maximize: bool

    arrays = ("param", "grad", "buffer")
    numbers = ("fresh",)
    fields = "table lr momentum undamped weight_decay"


@dataclass(frozen=True)
class Adam:
    """What shapes the code of an Adam or AdamW step."""

    amsgrad: bool
    weight_decay: bool
    decoupled: bool
    maximize: bool

    arrays = ("param", "grad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    numbers = ("rate", "root_bias")  # lr / (1 - beta1^step), sqrt(1 - beta2^step)
    fields = "table eps take1 beta2 take2 weight_decay shrink"


Schedule = Sgd | Adam


def emit_sgd(e: Emitter, schedule: Sgd) -> None:
    """v <- momentum v + undamped g (g itself in a fresh buffer); p <- p - lr v, or lr (g + momentum v)."""
    names = ("param", "grad", "buffer") if schedule.momentum else ("param", "grad")

    def update(lanes: int, value: dict[str, Vec], own: dict[str, Vec]) -> dict[str, Vec]:
        lr, momentum, undamped, weight_decay = (e.splat(e.number(name), lanes) for name in schedule.fields.split()[1:])
        grad = _decayed(e, value, schedule.maximize, weight_decay if schedule.weight_decay else None)
        if not schedule.momentum:
            return {"param": e.fma(-lr, grad, value["param"])}
        is_fresh = own["fresh"].compare(">", 0.0)
        buffer = e.select(is_fresh, grad, e.fma(value["buffer"], momentum, grad * undamped))
        step = e.fma(buffer, momentum, grad) if schedule.nesterov else buffer
        return {"param": e.fma(-lr, step, value["param"]), "buffer": buffer}

    _over_chunk(e, schedule, names, update)


def emit_adam(e: Emitter, schedule: Adam) -> None:
    """m and v as running averages of g and g^2; p <- p - rate m / (sqrt(v) / root_bias + eps)."""
    names = schedule.arrays if schedule.amsgrad else schedule.arrays[:-1]

    def update(lanes: int, value: dict[str, Vec], own: dict[str, Vec]) -> dict[str, Vec]:
        eps, take1, beta2, take2, decay, shrink = (
            e.splat(e.number(name), lanes) for name in schedule.fields.split()[1:]
        )
        if schedule.weight_decay and schedule.decoupled:
            value["param"] = value["param"] * shrink
        grad = _decayed(
            e, value, schedule.maximize, decay if schedule.weight_decay and not schedule.decoupled else None
        )
        exp_avg = e.fma(grad - value["exp_avg"], take1, value["exp_avg"])
        exp_avg_sq = e.fma(value["exp_avg_sq"], beta2, grad * grad * take2)
        results = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
        if schedule.amsgrad:
            results["max_exp_avg_sq"] = e.maximum_or_nan(value["max_exp_avg_sq"], exp_avg_sq)
        second = results["max_exp_avg_sq"] if schedule.amsgrad else exp_avg_sq
        denominator = e.unary("sqrt", second) / own["root_bias"] + eps
        results["param"] = value["param"] - exp_avg / denominator * own["rate"]
        return results

    _over_chunk(e, schedule, names, update)


def _decayed(e: Emitter, value: dict[str, Vec], maximize: bool, weight_decay: Vec | None) -> Vec:
    """The gradient to descend along, with the L2 penalty's share."""
    grad = -value["grad"] if maximize else value["grad"]
    return grad if weight_decay is None else e.fma(value["param"], weight_decay, grad)


def _over_chunk(e: Emitter, schedule: Schedule, names: Sequence[str], update: Callable[..., dict[str, Vec]]) -> None:
    """`update(lanes, arrays by name, own numbers by name)` returns what to store, for all elements of this chunk."""
    row = e.pointer("table", i64).at(e.chunk * _row_words(schedule))
    pointers = {
        name: e.pointer_to(row.at(1 + slot).load_int()) for slot, name in enumerate(schedule.arrays) if name in names
    }
    start = 1 + len(schedule.arrays)
    own = {name: _number_at(e, row.at(start + slot)) for slot, name in enumerate(schedule.numbers)}

    def body(offset: Int, lanes: int, mask: Any) -> None:
        value = {name: flat.load(pointer.at(offset), lanes, mask) for name, pointer in pointers.items()}
        spread = {name: e.splat(number, lanes) for name, number in own.items()}
        for name, result in update(lanes, value, spread).items():
            flat.store(pointers[name].at(offset), result, mask)

    flat.over_range(e, e.int(0), row.load_int(), UNROLL, body)


def _row_words(schedule: Schedule) -> int:
    return 1 + len(schedule.arrays) + len(schedule.numbers)


def _number_at(e: Emitter, place: Any) -> Vec:
    return e.convert(Vec(e, e.ir.load(place.value, typ=f64, align=8)), f32)


@lru_cache(maxsize=64)
def _kernel(schedule: Schedule) -> Kernel:
    emit: Any = emit_sgd if isinstance(schedule, Sgd) else emit_adam
    return Kernel(f"optimizer_{type(schedule).__name__.lower()}", schedule.fields, schedule, emit)


# --- the table ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _rows(sizes: tuple[int, ...], words: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(table with nothing but the elements of every chunk, each chunk's parameter, its first byte in an array)."""
    counts = [flat.chunks(size) for size in sizes]
    owners = np.repeat(np.arange(len(sizes)), counts)
    starts = np.concatenate([np.arange(count) for count in counts]) * flat.BLOCK if sizes else np.zeros(0, np.int64)
    table = np.zeros((len(owners), words), np.int64)
    table[:, 0] = np.minimum(np.asarray(sizes, np.int64)[owners] - starts, flat.BLOCK)
    return table, owners, starts[:, None] * 4


def _launch(
    schedule: Schedule, lists: Sequence[Arrays], own: Sequence[Sequence[float]], numbers: Sequence[float]
) -> None:
    """`lists` in the order of the schedule's arrays (missing ones empty), `own` numbers of every parameter."""
    params = lists[0]
    grads = [
        grad if grad.strides == param.strides else flat.matching(grad, param)
        for grad, param in zip(lists[1], params, strict=True)
    ]
    empty, owners, first_bytes = _rows(tuple([param.size for param in params]), _row_words(schedule))
    table, count = empty.copy(), len(params)
    places = [list(map(address, arrays)) or [0] * count for arrays in (params, grads, *lists[2:])]
    behind = 1 + len(schedule.arrays)
    table[:, 1 : 1 + len(places)] = np.array(places, np.int64).T[owners] + first_bytes
    table.view(np.float64)[:, behind:] = np.array(own, np.float64).T[owners]
    _kernel(schedule).launch(len(owners), address(table), *map(bits, numbers))


def _refuse(params: Arrays, grads: Arrays, *states: Arrays) -> str | None:
    for i, param in enumerate(params):
        reason = flat.refuse(param, grads[i])
        if reason:
            return reason
        for arrays in states:
            if arrays and (arrays[i].dtype != flat.FLOAT or arrays[i].strides != param.strides):
                return "state and parameter differ in dtype or memory order"
    return None


# --- the engine's functions -----------------------------------------------------------------------------------------


def refuse_sgd(
    params: Arrays, grads: Arrays, momentum_buffers: Arrays, fresh: Sequence[bool], **options: Any
) -> str | None:
    """The reason against, or None."""
    return _refuse(params, grads, momentum_buffers)


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
    """As `reference.optimizer.sgd`."""
    schedule = Sgd(bool(momentum), bool(nesterov and momentum), bool(weight_decay), bool(maximize))
    own = [fresh] if momentum else [[0.0] * len(params)]
    _launch(schedule, (params, grads, momentum_buffers), own, (lr, momentum, 1 - dampening, weight_decay))


def refuse_adam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays,
    steps: Sequence[float],
    **options: Any,
) -> str | None:
    """The reason against, or None."""
    return _refuse(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)


def adam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays,
    steps: Sequence[float],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    decoupled_weight_decay: bool,
) -> None:
    """As `reference.optimizer.adam`."""
    schedule = Adam(bool(max_exp_avg_sqs), bool(weight_decay), bool(decoupled_weight_decay), bool(maximize))
    rates = [lr / (1 - beta1**step) for step in steps]
    roots = [(1 - beta2**step) ** 0.5 for step in steps]
    numbers = (eps, 1 - beta1, beta2, 1 - beta2, weight_decay, 1 - lr * weight_decay)
    _launch(schedule, (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs), (rates, roots), numbers)
