"""The kernel language: loops, masks, carried values and what each word of it computes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from faltung.engine import jit
from faltung.engine.emit import Emitter, Int, Vec, f32, f64, i8, i64
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import flat
from faltung.engine.target import host
from tests.engine.guard import guarded

LANES = host().lanes
_kernels = 0


@pytest.fixture(autouse=True)
def _never_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache knows the engine's source, not that of these kernels."""
    monkeypatch.setattr(jit, "cache_folder", lambda: None)


def run(body: Callable[[Emitter], None], fields: str, *values: int, chunks: int = 1) -> None:
    """Compile a kernel of its own and run it."""
    global _kernels
    _kernels += 1
    Kernel("emit_test", fields, f"{body.__qualname__} {_kernels}", lambda e, _: body(e)).launch(chunks, *values)


def integers(body: Callable[[Emitter], list[Any]], **fields: int) -> list[int]:
    """What the kernel's integers are."""
    out = np.full(16, -99, np.int64)
    count = 0

    def emit(e: Emitter) -> None:
        nonlocal count
        results = body(e)
        count = len(results)
        for i, value in enumerate(results):
            e.pointer("out", i64).at(i).store_int(value)

    run(emit, " ".join(["out", *fields]), address(out), *fields.values())
    return out[:count].tolist()


def floats(body: Callable[[Emitter, Vec, Vec], Vec], a: Any, b: Any = 0.0) -> np.ndarray:
    """A formula over two vectors."""
    x, y = (np.resize(np.asarray(values, np.float32), LANES) for values in (a, b))
    out = np.empty(LANES, np.float32)

    def emit(e: Emitter) -> None:
        e.pointer("out").store(body(e, e.pointer("x").load(LANES), e.pointer("y").load(LANES)))

    run(emit, "out x y", *map(address, (out, x, y)))
    return out[: max(np.size(a), np.size(b))]


def test_integer_operators() -> None:
    def body(e: Emitter) -> list[Any]:
        a, b = e.fields("a b")
        plain = [a + b, a - b, a * b, a // b, a % b, a & 12, a << 2, a >> 1, 100 - a, 2 + a, 3 * a]
        chosen = [e.choose(bit, 1, 2) for bit in (a < b, a.equals(29), a.differs(29))]
        return [*plain, e.smaller(a, b), e.larger(a, b), *chosen]

    assert integers(body, a=29, b=5) == [34, 24, 145, 5, 4, 12, 116, 14, 71, 31, 87, 5, 29, 2, 1, 2]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_loops_carry_values(count: int) -> None:
    def body(e: Emitter) -> list[Any]:
        with e.loop("i", e.field("n"), carry=[e.int(10), e.int(1)]) as i:
            i.carry([i.carried[0] + i.index, i.carried[1] * 2])
        return i.result

    assert integers(body, n=count) == [10 + sum(range(count)), 2**count]


def test_loops_start_step_and_nest() -> None:
    def body(e: Emitter) -> list[Any]:
        with e.loop("i", e.field("n"), carry=[e.int(0)], start=3, step=4) as i:
            with e.loop("j", i.index, carry=i.carried) as j:
                j.carry([j.carried[0] + 1])
            i.carry(j.result)
        with e.loop("once", 0, carry=[e.int(5)], at_least_once=True) as once:
            once.carry([once.carried[0] + 1])
        with e.loop("unchanged", 3, carry=[e.int(7)]) as same:
            pass
        return [i.result[0], once.result[0], same.result[0]]

    assert integers(body, n=13) == [3 + 7 + 11, 6, 7]


def test_branches() -> None:
    def body(e: Emitter) -> list[Any]:
        place = e.pointer("out", i64)
        place.at(2).store_int(0)
        place.at(3).store_int(0)
        for slot, number in ((2, 5), (3, 6)):
            with e.when(e.field("a").equals(number)):
                place.at(slot).store_int(1)
        with e.either(e.field("a") < 3) as (yes, no):
            with yes:
                place.at(4).store_int(1)
            with no:
                place.at(4).store_int(2)
        return [e.field("a"), e.chunk]

    out = np.full(8, -1, np.int64)

    def emit(e: Emitter) -> None:
        for i, value in enumerate(body(e)):
            e.pointer("out", i64).at(i).store_int(value)

    run(emit, "out a", address(out), 5)
    assert out.tolist() == [5, 0, 1, 0, 2, -1, -1, -1]


def test_arithmetic_of_vectors() -> None:
    a, b = [1.5, -2.0, np.inf, np.nan], [2.0, 0.5, 1.0, 1.0]
    for body in (
        lambda e, x, y: x + y,
        lambda e, x, y: x - y,
        lambda e, x, y: x * y,
        lambda e, x, y: x / y,
        lambda e, x, y: -x,
        lambda e, x, y: 2.0 - x,
        lambda e, x, y: 3.0 / y + x * 0.5,
        lambda e, x, y: e.fma(x, y, 1.0),
        lambda e, x, y: e.fma(x, y, x),
        lambda e, x, y: e.unary("fabs", x),
    ):
        x, y = np.asarray(a, np.float32), np.asarray(b, np.float32)
        formula: Any = body
        expected = formula(_NumPy, x, y)
        np.testing.assert_allclose(floats(formula, a, b), expected, rtol=1e-7)


class _NumPy:
    """The emitter's words in NumPy."""

    @staticmethod
    def fma(a: Any, b: Any, c: Any) -> Any:
        return a * b + c

    @staticmethod
    def unary(_: str, a: Any) -> Any:
        return np.abs(a)


def test_larger_and_smaller_with_nan() -> None:
    a, b = [1.0, np.nan, 2.0, 5.0], [2.0, 1.0, np.nan, 3.0]
    larger = floats(lambda e, x, y: e.maximum(x, y), a, b)
    np.testing.assert_array_equal(larger, [2.0, np.nan, 2.0, 5.0])
    smaller = floats(lambda e, x, y: e.minimum(x, y), a, b)
    np.testing.assert_array_equal(smaller, [1.0, np.nan, 2.0, 3.0])
    running = floats(lambda e, x, y: e.maximum_or_nan(x, y), a, b)
    np.testing.assert_array_equal(running, [2.0, np.nan, np.nan, 5.0])
    np.testing.assert_array_equal(floats(lambda e, x, y: e.maximum(x, 1.5), a), [1.5, np.nan, 2.0, 5.0])


def test_comparisons_with_nan() -> None:
    a = [1.0, np.nan, -1.0, 0.0]
    np.testing.assert_array_equal(floats(lambda e, x, y: e.select(x.compare("<=", 0.0), 1.0, y), a), [0, 0, 1, 1])
    np.testing.assert_array_equal(
        floats(lambda e, x, y: e.select(x.compare_or_nan("<=", 0.0), 1.0, y), a), [0, 1, 1, 1]
    )


def test_lanes() -> None:
    x = np.arange(LANES, dtype=np.float32)
    backwards = list(range(LANES))[::-1]
    np.testing.assert_array_equal(floats(lambda e, a, b: e.shuffle(a, a, backwards), x), x[::-1])
    np.testing.assert_array_equal(floats(lambda e, a, b: e.splat(e.lane(a, 2), LANES), x), np.full(LANES, 2))
    np.testing.assert_array_equal(floats(lambda e, a, b: e.splat(e.total(a), LANES), x), np.full(LANES, x.sum()))
    largest = floats(lambda e, a, b: e.splat(e.fold(a, lambda p, q: e.maximum(p, q)), LANES), -x)
    np.testing.assert_array_equal(largest, np.zeros(LANES))


@pytest.mark.skipif(LANES < 8, reason="no masks here")
def test_masks_touch_nothing_behind_them() -> None:
    for count in range(LANES + 1):
        for at_end in (True, False):
            source, target = guarded((count,), at_end=at_end), guarded((count,), at_end=at_end)
            source[...] = np.arange(count)

            def emit(e: Emitter, count: int = count) -> None:
                mask = e.mask(e.field("n"), LANES)
                e.pointer("target").store_masked(e.pointer("source").load_masked(mask, LANES) + 1.0, mask)

            run(emit, "source target n", address(source), address(target), count)
            np.testing.assert_array_equal(target, np.arange(count) + 1)


@pytest.mark.skipif(LANES < 8, reason="no masks here")
@pytest.mark.parametrize("count", [-3, 0, 2, 1000])
def test_counts_of_masks(count: int) -> None:
    out = np.zeros(LANES, np.float32)

    def emit(e: Emitter) -> None:
        e.pointer("out").store(e.select(e.mask(e.field("n"), LANES), e.constant(1.0, LANES), 0.0))

    run(emit, "out n", address(out), count)
    assert out.sum() == min(max(count, 0), LANES)


def test_numbers_and_widths() -> None:
    out, doubles = np.zeros(2, np.float32), np.array([1 / 3], np.float64)

    def emit(e: Emitter) -> None:
        e.pointer("out").store(e.number("number"))
        wide = e.number("number", f64) - Vec(e, e.ir.load(e.pointer("doubles", f64).value, typ=f64, align=8))
        e.pointer("out").at(1).store(e.convert(e.convert(e.int(7), f64) + wide, f32))

    run(emit, "out doubles number", address(out), address(doubles), bits(1 / 3))
    np.testing.assert_array_equal(out, [np.float32(1 / 3), 7.0])


def test_bytes() -> None:
    source = np.arange(LANES, dtype=np.uint8)
    out = np.zeros(LANES, np.uint8)

    def emit(e: Emitter) -> None:
        e.pointer("out", i8).store(e.pointer("source", i8).load(LANES, align=1), align=1)

    run(emit, "out source", address(out), address(source))
    np.testing.assert_array_equal(out, source)


def test_scratch_on_the_stack() -> None:
    out = np.zeros(8, np.float32)

    def emit(e: Emitter) -> None:
        scratch = e.stack(8)
        with e.loop("fill", 8) as i:
            scratch.at(i.index).store(e.convert(i.index, f32))
        with e.loop("copy", 8) as i:
            e.pointer("out").at(i.index).store(scratch.at(7 - i.index).load())

    run(emit, "out", address(out))
    np.testing.assert_array_equal(out, np.arange(8)[::-1])


@pytest.mark.parametrize("unroll", [1, 4])
def test_ranges_are_covered_once(unroll: int) -> None:
    for count in (0, 1, LANES - 1, LANES, LANES + 1, unroll * LANES, 3 * unroll * LANES + LANES + 1):
        out = guarded((count,))
        out[...] = 0

        def emit(e: Emitter) -> None:
            def body(offset: Int, lanes: int, mask: Any) -> None:
                value = flat.load(e.pointer("out").at(offset), lanes, mask) + 1.0
                flat.store(e.pointer("out").at(offset), value, mask)

            flat.over_range(e, e.int(0), e.field("n"), unroll, body)

        run(emit, "out n", address(out), count)
        assert (out == 1).all()


def test_columns_are_covered_once() -> None:
    for count in (0, 1, LANES - 1, LANES, LANES + 1, 4 * LANES, 9 * LANES + 3):
        out = guarded((count,))
        out[...] = 0

        def emit(e: Emitter) -> None:
            for column, vectors, lanes, mask in flat.columns(e, 0, e.field("n"), 4):
                for u in range(vectors):
                    place = e.pointer("out").at(column + u * lanes)
                    flat.store(place, flat.load(place, lanes, mask) + 1.0, mask)

        run(emit, "out n", address(out), count)
        assert (out == 1).all()
