"""The kernel language: a thin, readable layer over llvmlite's IR builder.

A kernel is a function `void name(int64 *fields, int64 chunk, int64 thread)`: `fields` are the run-time arguments in
the order that the kernel names them, `chunk` says which part of the region to compute, `thread` which scratch memory to
use.

In `emit` functions a Python `for` unrolls now; `with e.loop("oh", n) as oh:` makes a machine loop. Values are `Int`
(64-bit), `Vec` (float32 scalar or vector) and `Ptr`; they take Python operators, and constants fold as they are built.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Union

from llvmlite import ir

from faltung.engine.marks import SCHEDULED
from faltung.engine.target import Target

i1, i8, i32, i64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
f32, f64, pointer = ir.FloatType(), ir.DoubleType(), ir.PointerType()
KERNEL = ir.FunctionType(ir.VoidType(), [pointer, i64, i64])

IntLike = Union["Int", int]
VecLike = Union["Vec", float]
FAST = ("contract", "nsz")  # FMA contraction is ours to choose; NaN and infinity keep their meaning


class Int:
    """A 64-bit integer of the kernel."""

    __slots__ = ("e", "value")

    def __init__(self, e: Emitter, value: Any) -> None:
        self.e, self.value = e, value

    def __add__(self, other: IntLike) -> Int:
        return self if _is(other, 0) else self._op("add", other)

    def __sub__(self, other: IntLike) -> Int:
        return self if _is(other, 0) else self._op("sub", other)

    def __mul__(self, other: IntLike) -> Int:
        return self if _is(other, 1) else self._op("mul", other)

    def __floordiv__(self, other: IntLike) -> Int:
        """Quotient of non-negative numbers."""
        return self if _is(other, 1) else self._op("udiv", other)

    def __mod__(self, other: IntLike) -> Int:
        """Remainder of non-negative numbers."""
        return self._op("urem", other)

    def __and__(self, other: IntLike) -> Int:
        return self._op("and_", other)

    def __lshift__(self, other: IntLike) -> Int:
        return self._op("shl", other)

    def __rshift__(self, other: IntLike) -> Int:
        return self._op("lshr", other)

    def __rsub__(self, other: int) -> Int:
        return self.e.int(other) - self

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: IntLike) -> Any:
        return self._compare("<", other)

    def __le__(self, other: IntLike) -> Any:
        return self._compare("<=", other)

    def __gt__(self, other: IntLike) -> Any:
        return self._compare(">", other)

    def __ge__(self, other: IntLike) -> Any:
        return self._compare(">=", other)

    def equals(self, other: IntLike) -> Any:
        """The bit `self == other` (== itself stays Python's)."""
        return self._compare("==", other)

    def differs(self, other: IntLike) -> Any:
        """The bit `self != other`."""
        return self._compare("!=", other)

    def _op(self, name: str, other: IntLike) -> Int:
        return Int(self.e, getattr(self.e.ir, name)(self.value, self.e.raw(other)))

    def _compare(self, sign: str, other: IntLike) -> Any:
        return self.e.ir.icmp_signed(sign, self.value, self.e.raw(other))


class Vec:
    """A float32 scalar or vector, or one of another type that the kernel loaded; numbers beside it are constants."""

    __slots__ = ("e", "value")

    def __init__(self, e: Emitter, value: Any) -> None:
        self.e, self.value = e, value

    def __add__(self, other: VecLike) -> Vec:
        return Vec(self.e, self.e.ir.fadd(self.value, self.raw(other), flags=FAST))

    def __sub__(self, other: VecLike) -> Vec:
        return Vec(self.e, self.e.ir.fsub(self.value, self.raw(other), flags=FAST))

    def __mul__(self, other: VecLike) -> Vec:
        return Vec(self.e, self.e.ir.fmul(self.value, self.raw(other), flags=FAST))

    def __truediv__(self, other: VecLike) -> Vec:
        return Vec(self.e, self.e.ir.fdiv(self.value, self.raw(other)))

    def __rsub__(self, other: float) -> Vec:
        return Vec(self.e, self.e.ir.fsub(self.raw(other), self.value, flags=FAST))

    def __rtruediv__(self, other: float) -> Vec:
        return Vec(self.e, self.e.ir.fdiv(self.raw(other), self.value))

    def __neg__(self) -> Vec:
        return Vec(self.e, self.e.ir.fneg(self.value))

    __radd__, __rmul__ = __add__, __mul__

    @property
    def lanes(self) -> int:
        """1 for a scalar."""
        return getattr(self.value.type, "count", 1)

    def raw(self, other: VecLike) -> Any:
        """llvmlite's value of `other`, a number spread over as many lanes as this value has."""
        return other.value if isinstance(other, Vec) else _constant(self.value.type, float(other))

    def compare(self, sign: str, other: VecLike) -> Any:
        """Ordered comparison (false with a NaN): a bit, or a vector of bits."""
        return self.e.ir.fcmp_ordered(sign, self.value, self.raw(other))

    def compare_or_nan(self, sign: str, other: VecLike) -> Any:
        """Unordered comparison (true with a NaN): a bit, or a vector of bits."""
        return self.e.ir.fcmp_unordered(sign, self.value, self.raw(other))


class Ptr:
    """Address of float32 elements (or of `element`)."""

    __slots__ = ("e", "element", "value")

    def __init__(self, e: Emitter, value: Any, element: Any = f32) -> None:
        self.e, self.value, self.element = e, value, element

    def at(self, index: IntLike) -> Ptr:
        """Address `index` elements further on."""
        if _is(index, 0):
            return self
        return Ptr(self.e, self.e.ir.gep(self.value, [self.e.raw(index)], source_etype=self.element), self.element)

    def load(self, lanes: int = 1, align: int = 4) -> Vec:
        """One element, or a vector of consecutive ones."""
        return Vec(self.e, self.e.ir.load(self.value, typ=_vector(lanes, self.element), align=align))

    def store(self, value: Vec, align: int = 4, stream: bool = False) -> None:
        """Write a scalar or a vector; `stream` goes past the caches and needs whole-vector alignment."""
        instruction = self.e.ir.store(value.value, self.value, align=align)
        if stream:
            instruction.set_metadata("nontemporal", self.e.module.add_metadata([ir.Constant(i32, 1)]))

    def broadcast(self, lanes: int) -> Vec:
        """One element in every lane."""
        return self.e.splat(self.load(), lanes)

    def repeat(self, count: int, lanes: int) -> Vec:
        """`count` elements, a power of two, over and over: a load that needs no shuffle."""
        if count == 1:
            return self.broadcast(lanes)
        if count == 2:  # as one number of twice the width, which x86 and ARM can spread while they load
            both = self.e.ir.load(self.value, typ=f64, align=4)
            return Vec(
                self.e, self.e.ir.bitcast(self.e.splat(Vec(self.e, both), lanes // 2).value, _vector(lanes, f32))
            )
        some = self.load(count)
        return some if count == lanes else self.e.shuffle(some, some, [lane % count for lane in range(lanes)])

    def load_int(self) -> Int:
        """One 64-bit integer."""
        return Int(self.e, self.e.ir.load(self.value, typ=i64, align=8))

    def store_int(self, value: IntLike) -> None:
        """Write one 64-bit integer."""
        self.e.ir.store(self.e.raw(value), self.value, align=8)

    @property
    def align(self) -> int:
        """Bytes that every element's address is a multiple of."""
        return {f64: 8, i64: 8, i8: 1}.get(self.element, 4)

    def load_masked(self, mask: Any, lanes: int) -> Vec:
        """The lanes that `mask` allows, zero elsewhere; nothing behind a forbidden lane is touched."""
        kind = _vector(lanes, self.element)
        function = self.e.declare(f"llvm.masked.load.{_suffix(kind)}.p0", kind, [pointer, i32, mask.type, kind])
        arguments = [self.value, ir.Constant(i32, self.align), mask, ir.Constant(kind, None)]
        return Vec(self.e, self.e.ir.call(function, arguments))

    def store_masked(self, value: Vec, mask: Any) -> None:
        """Write only the lanes that `mask` allows."""
        kind = value.value.type
        name = f"llvm.masked.store.{_suffix(kind)}.p0"
        function = self.e.declare(name, ir.VoidType(), [kind, pointer, i32, mask.type])
        self.e.ir.call(function, [value.value, self.value, ir.Constant(i32, self.align), mask])


class Loop:
    """A machine loop being built: `index`, the values `carried` into this round, and after it their final `result`."""

    def __init__(self, index: Int, carried: list[Any]) -> None:
        self.index, self.carried = index, carried
        self.result: list[Any] = list(carried)
        self._next: list[Any] | None = None

    def carry(self, values: Sequence[Any]) -> None:
        """Hand `values` to the next round (as many as came in)."""
        self._next = list(values)


class Emitter:
    """Builds one kernel."""

    def __init__(self, name: str, fields: Sequence[str], target: Target) -> None:
        self.target = target
        self.lanes = target.lanes
        self.module = ir.Module(name=name)
        self.function = ir.Function(self.module, KERNEL, name=name)
        self.function.attributes.add("nounwind")
        self.arguments = self.function.args[0]
        self.ir = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.chunk = Int(self, self.function.args[1])
        self.thread = Int(self, self.function.args[2])
        self._slots = {field: slot for slot, field in enumerate(fields)}

    # --- run-time arguments ---

    def field(self, name: str) -> Int:
        """An integer argument."""
        value = self.ir.load(self._slot(name), typ=i64, align=8, name=name)
        value.set_metadata("invariant.load", self.module.add_metadata([]))
        return Int(self, value)

    def fields(self, names: str) -> list[Int]:
        """Several integer arguments, named in one string."""
        return [self.field(name) for name in names.split()]

    def pointer(self, name: str, element: Any = f32) -> Ptr:
        """An address argument."""
        return self.pointer_to(self.field(name), element)

    def pointer_to(self, place: Int, element: Any = f32) -> Ptr:
        """An address that the kernel computed or read."""
        return Ptr(self, self.ir.inttoptr(place.value, pointer), element)

    def number(self, name: str, element: Any = f32) -> Vec:
        """A float argument; the caller stores it as the bits of a double (`kernel.bits`)."""
        value = Vec(self, self.ir.load(self._slot(name), typ=f64, align=8, name=name))
        return self.convert(value, element)

    def _slot(self, name: str) -> Any:
        return self.ir.gep(self.arguments, [ir.Constant(i64, self._slots[name])], source_etype=i64)

    # --- values ---

    def raw(self, value: IntLike) -> Any:
        """llvmlite's value of an Int or of a Python int."""
        return value.value if isinstance(value, Int) else ir.Constant(i64, value)

    def int(self, value: IntLike) -> Int:
        """An Int of a Python int."""
        return value if isinstance(value, Int) else Int(self, ir.Constant(i64, value))

    def constant(self, value: float, lanes: builtins.int = 1) -> Vec:
        """A float constant, in every lane."""
        return Vec(self, _constant(_vector(lanes, f32), value))

    def zero(self, lanes: builtins.int | None = None) -> Vec:
        """0.0 in every lane of a full vector."""
        return self.constant(0.0, self.lanes if lanes is None else lanes)

    def splat(self, scalar: Vec, lanes: builtins.int) -> Vec:
        """A scalar in every lane."""
        if lanes == 1:
            return scalar
        kind = ir.VectorType(scalar.value.type, lanes)
        first = self.ir.insert_element(ir.Constant(kind, ir.Undefined), scalar.value, ir.Constant(i32, 0))
        mask = ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)
        return Vec(self, self.ir.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask))

    def convert(self, a: Int | Vec, element: Any) -> Vec:
        """An integer, or every lane of a vector, as a float of another width."""
        if isinstance(a, Int):
            return Vec(self, self.ir.sitofp(a.value, element))
        kind = _vector(a.lanes, element)
        if a.value.type == kind:
            return a
        return Vec(self, (self.ir.fpext if element == f64 else self.ir.fptrunc)(a.value, kind))

    def smaller(self, a: IntLike, b: IntLike) -> Int:
        """The lesser of two integers."""
        return self.choose(self.int(a) < b, a, b)

    def larger(self, a: IntLike, b: IntLike) -> Int:
        """The greater of two integers."""
        return self.choose(self.int(a) > b, a, b)

    def choose(self, bit: Any, yes: IntLike, no: IntLike) -> Int:
        """One of two integers."""
        return Int(self, self.ir.select(bit, self.raw(yes), self.raw(no)))

    def select(self, bits: Any, yes: VecLike, no: VecLike) -> Vec:
        """Lane by lane, one of two vectors (at most one of them a number)."""
        like = yes if isinstance(yes, Vec) else no
        assert isinstance(like, Vec)
        return Vec(self, self.ir.select(bits, like.raw(yes), like.raw(no)))

    def both(self, a: Any, b: Any) -> Any:
        """Logical and of bits."""
        return self.ir.and_(a, b)

    def any_of(self, a: Any, b: Any) -> Any:
        """Logical or of bits."""
        return self.ir.or_(a, b)

    def fma(self, a: Vec, b: VecLike, c: VecLike) -> Vec:
        """a * b + c, rounded once where the chip can."""
        kind = a.value.type
        name = "llvm.fma" if self.target.fma else "llvm.fmuladd"
        function = self.declare(f"{name}.{_suffix(kind)}", kind, [kind] * 3)
        return Vec(self, self.ir.call(function, [a.value, a.raw(b), a.raw(c)]))

    def maximum(self, a: Vec, b: VecLike) -> Vec:
        """The larger, lane by lane; a NaN in `a` wins, one in `b` loses."""
        return self.select(a.compare_or_nan(">", b), a, b)

    def minimum(self, a: Vec, b: VecLike) -> Vec:
        """The smaller, lane by lane; a NaN in `a` wins, one in `b` loses."""
        return self.select(a.compare_or_nan("<", b), a, b)

    def maximum_or_nan(self, a: Vec, b: Vec) -> Vec:
        """The larger, lane by lane, NaN where either is: a running maximum that NaN travels through."""
        kind = a.value.type
        function = self.declare(f"llvm.maximum.{_suffix(kind)}", kind, [kind, kind])
        return Vec(self, self.ir.call(function, [a.value, b.value], fastmath=("nsz",)))

    def unary(self, intrinsic: str, a: Vec) -> Vec:
        """An LLVM float intrinsic of one argument: sqrt, fabs, floor, ..."""
        kind = a.value.type
        return Vec(self, self.ir.call(self.declare(f"llvm.{intrinsic}.{_suffix(kind)}", kind, [kind]), [a.value]))

    def mask(self, count: IntLike, lanes: builtins.int) -> Any:
        """Bits for the first `count` lanes (none if it is negative)."""
        narrow = self.ir.trunc(self.raw(self.smaller(count, lanes)), i32)
        kind = ir.VectorType(i32, lanes)
        first = self.ir.insert_element(ir.Constant(kind, ir.Undefined), narrow, ir.Constant(i32, 0))
        everywhere = self.ir.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(kind, [0] * lanes))
        return self.ir.icmp_signed("<", ir.Constant(kind, list(range(lanes))), everywhere)

    def shuffle(self, a: Vec, b: Vec, order: Sequence[builtins.int]) -> Vec:
        """Lanes picked from the concatenation of two vectors."""
        return Vec(
            self, self.ir.shuffle_vector(a.value, b.value, ir.Constant(ir.VectorType(i32, len(order)), list(order)))
        )

    def lane(self, a: Vec, index: builtins.int) -> Vec:
        """One lane as a scalar."""
        return Vec(self, self.ir.extract_element(a.value, ir.Constant(i32, index)))

    def fold(self, a: Vec, combine: Callable[[Vec, Vec], Vec]) -> Vec:
        """All lanes combined pairwise, halves first."""
        count = a.lanes
        while count > 1:
            count //= 2
            low, high = list(range(count)), list(range(count, 2 * count))
            a = combine(self.shuffle(a, a, low), self.shuffle(a, a, high))
            if count == 1:
                return self.lane(a, 0)
        return a

    def total(self, a: Vec) -> Vec:
        """Sum of all lanes, halves added pairwise."""
        return self.fold(a, lambda low, high: low + high)

    def stack(self, elements: builtins.int, align: builtins.int = 64) -> Ptr:
        """A fixed array of float32 on the stack."""
        with self.ir.goto_entry_block():
            slot = self.ir.alloca(ir.ArrayType(f32, elements))
            slot.align = align
            slot.type = pointer  # llvmlite types it after the array; everything else here is opaque
        return Ptr(self, slot)

    # --- control ---

    @contextmanager
    def loop(
        self,
        name: str,
        count: IntLike,
        carry: Sequence[Any] = (),
        start: IntLike = 0,
        step: IntLike = 1,
        at_least_once: bool = False,
    ) -> Iterator[Loop]:
        """A machine loop: `index` runs from `start` below `count` by `step`; `carry` values become phi nodes."""
        build = self.ir
        before = build.block
        body, after = self.function.append_basic_block(f"{name}.body"), self.function.append_basic_block(f"{name}.end")
        first, end = self.raw(start), self.raw(count)
        if at_least_once:
            build.branch(body)
        else:
            build.cbranch(build.icmp_signed("<", first, end), body, after)
        build.position_at_end(body)
        index = build.phi(i64, name=name)
        index.add_incoming(first, before)
        phis = [build.phi(value.value.type) for value in carry]
        for phi, value in zip(phis, carry, strict=True):
            phi.add_incoming(value.value, before)
        loop = Loop(Int(self, index), [_like(value, self, phi) for value, phi in zip(carry, phis, strict=True)])
        yield loop
        last = build.block
        onwards = loop._next if loop._next is not None else loop.carried
        following = build.add(index, self.raw(step))
        build.cbranch(build.icmp_signed("<", following, end), body, after)
        index.add_incoming(following, last)
        for phi, value in zip(phis, onwards, strict=True):
            phi.add_incoming(value.value, last)
        build.position_at_end(after)
        loop.result = []
        for value, final in zip(carry, onwards, strict=True):
            result = build.phi(value.value.type)
            result.add_incoming(final.value, last)
            if not at_least_once:
                result.add_incoming(value.value, before)
            loop.result.append(_like(value, self, result))

    @contextmanager
    def when(self, bit: Any, likely: bool | None = None) -> Iterator[None]:
        """Code that runs only if `bit` is set."""
        with self.ir.if_then(bit, likely=likely):
            yield

    @contextmanager
    def either(self, bit: Any) -> Iterator[tuple[Any, Any]]:
        """Two bodies: `with e.either(bit) as (yes, no): with yes: ... with no: ...`."""
        with self.ir.if_else(bit) as branches:
            yield branches

    def declare(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        """An intrinsic or outside function, declared once."""
        found = self.module.globals.get(name)
        return found or ir.Function(self.module, ir.FunctionType(result, list(arguments)), name=name)

    def prefetch(self, address: Ptr, locality: builtins.int = 3) -> None:
        """Ask for a cache line ahead of its use."""
        function = self.declare("llvm.prefetch.p0", ir.VoidType(), [pointer, i32, i32, i32])
        self.ir.call(function, [address.value, ir.Constant(i32, 0), ir.Constant(i32, locality), ir.Constant(i32, 1)])

    def opaque(self, value: Int) -> Int:
        """The same integer, of which the compiler forgets how it was computed: it won't derive other values from it."""
        kept = ir.InlineAsm(ir.FunctionType(i64, [i64]), "", "=r,0")
        return Int(self, self.ir.call(kept, [value.value]))

    def run_kernel(self, place: Int, chunk: Int) -> None:
        """Run another kernel, of the same fields, on this thread."""
        target = self.ir.inttoptr(place.value, KERNEL.as_pointer())
        self.ir.call(target, [self.arguments, chunk.value, self.thread.value])

    def is_scheduled(self) -> None:
        """Tell the JIT that registers and order are planned here, so that it only combines instructions."""
        self.module.add_named_metadata(SCHEDULED)

    def finish(self) -> str:
        """Close the function; the module's IR."""
        self.ir.ret_void()
        return str(self.module)


def _vector(lanes: int, element: Any) -> Any:
    return element if lanes == 1 else ir.VectorType(element, lanes)


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _suffix(kind: Any) -> str:
    """LLVM's name of a type in an intrinsic's name: f32, v8f32, v4i64."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return f"i{kind.width}" if isinstance(kind, ir.IntType) else "f64" if kind == f64 else "f32"


def _like(value: Any, e: Emitter, raw: Any) -> Any:
    return Ptr(e, raw, value.element) if isinstance(value, Ptr) else type(value)(e, raw)


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number
