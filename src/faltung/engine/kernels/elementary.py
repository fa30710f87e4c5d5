"""Elementary functions on float32 lanes, as polynomials. Errors in units of the last place (ulp), measured
over all floats.

| function | largest error | special values |
| --- | --- | --- |
| exp | 1.1 ulp, results below 2^-126 included | exp(-inf) = 0, overflow gives inf |
| expm1 | 1.6 ulp | |
| log | 0.9 ulp, subnormal arguments included | log(0) = -inf, NaN below zero |
| log1p | 1.5 ulp | log1p(-1) = -inf, NaN below |
| tanh | 1.5 ulp | |
| sigmoid | 2 ulp | never overflows |
| erf | 1.5 ulp | |
| log1p_exp_negative(a) = log(1 + exp(-a)), a >= 0 | 2 ulp | |

NaN gives NaN everywhere. The coefficients are minimax fits of the stated remainders on the stated intervals. Argument
reduction follows Cody and Waite: exp on r = x - n ln 2 with ln 2 split in two parts; log on a mantissa in [2/3, 4/3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from faltung.engine.emit import Emitter, Vec, VecLike, f32, i32

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6  # the high part's products with n are exact
_ROUNDER = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
_ROUNDER_BITS = 0x4B400000
_SMALLEST_NORMAL = 1.17549435e-38

# exp(r) = 1 + r + r^2 Q(r), |r| <= 0.5 ln 2: highest power first, as everywhere below
_EXP = (0.0013951717410236597, 0.008369598537683487, 0.0416661873459816, 0.16666512191295624, 0.5)
# log(1 + f) = f - f^2 / 2 + f^3 R(f), |f| <= 1/3
_LOG = (
    -0.12912163138389587,
    0.1400463730096817,
    -0.12180018424987793,
    0.1400212198495865,
    -0.16680759191513062,
    0.20010609924793243,
    -0.24999792873859406,
    0.3333321213722229,
)
# tanh(x) = x + x^3 T(x^2), |x| <= 0.6
_TANH = (
    -0.00590586056932807,
    0.020805377513170242,
    -0.05378668010234833,
    0.13331958651542664,
    -0.33333298563957214,
)
# erf(x) = x + x S(x^2), |x| <= 0.93
_ERF = (
    8.345225069206208e-05,
    -0.0008137437398545444,
    0.005200634244829416,
    -0.02685927040874958,
    0.11283694207668304,
    -0.37612634897232056,
    0.12837916612625122,
)
# log(1 - erf(x)), 0.93 <= x <= 4
_LOG_ERFC = (
    0.00019822070316877216,
    -0.0030654999427497387,
    0.02231524884700775,
    -0.10411374270915985,
    -0.6369760036468506,
    -1.127797245979309,
    -0.00016643907292746007,
)


def exp(e: Emitter, x: Vec) -> Vec:
    """e to the x."""
    small, first, second = _reduced_exp(e, x)
    return (small + 1.0) * first * second


def expm1(e: Emitter, x: Vec) -> Vec:
    """exp(x) - 1, accurate near zero."""
    small, first, second = _reduced_exp(e, x)
    return e.fma(small, first, first - 1.0 / second) * second  # all but the fma is exact, or too small to matter


def _reduced_exp(e: Emitter, x: Vec) -> tuple[Vec, Vec, Vec]:
    """exp(r) - 1 and two powers of two: exp(x) is exp(r) times both, |r| <= 0.5 ln 2."""
    x = e.minimum(e.maximum(x, -105.0), 90.0)
    shifted = e.fma(x, _LOG2_E, _ROUNDER)
    n = shifted - _ROUNDER
    r = e.fma(n, -_LN2_LOW, e.fma(n, -_LN2_HIGH, x))
    small = e.fma(r * r, polynomial(e, r, _EXP), r)
    # n reaches from -151 to 130, beyond the exponents of normal numbers: scale in two halves
    exponent = e.ir.sub(_bits(e, shifted), _int(x, _ROUNDER_BITS))
    half = e.ir.ashr(exponent, _int(x, 1))
    return small, _power_of_two(e, x, half), _power_of_two(e, x, e.ir.sub(exponent, half))


def log(e: Emitter, x: Vec) -> Vec:
    """Natural logarithm."""
    tiny = x.compare("<", _SMALLEST_NORMAL)
    scaled = e.select(tiny, x * 8388608.0, x)
    # 0x3F2AAAAB is 2/3: the exponent counts from there, so that the mantissa lies in [2/3, 4/3)
    exponent = e.ir.ashr(e.ir.sub(_bits(e, scaled), _int(x, 0x3F2AAAAB)), _int(x, 23))
    mantissa = _float(e, e.ir.sub(_bits(e, scaled), e.ir.shl(exponent, _int(x, 23))))
    n = Vec(e, e.ir.sitofp(exponent, x.value.type)) - e.select(tiny, e.constant(23.0, x.lanes), 0.0)
    f = mantissa - 1.0
    square = f * f
    remainder = e.fma(square * f, polynomial(e, f, _LOG), square * -0.5)
    result = e.fma(n, _LN2_HIGH, f + e.fma(n, _LN2_LOW, remainder))
    result = e.select(x.compare_or_nan("<", 0.0), float("nan"), result)
    result = e.select(x.compare("==", 0.0), float("-inf"), result)
    return e.select(x.compare("==", float("inf")), x, result)


def tanh(e: Emitter, x: Vec) -> Vec:
    """Hyperbolic tangent."""
    magnitude, square = e.unary("fabs", x), x * x
    small = e.fma(square * x, polynomial(e, square, _TANH), x)
    large = 1.0 - 2.0 / (exp(e, magnitude + magnitude) + 1.0)
    return e.select(magnitude.compare("<", 0.6), small, with_sign_of(e, large, x))


def sigmoid(e: Emitter, x: Vec) -> Vec:
    """1 / (1 + exp(-x)), from exp(-|x|), which never overflows and keeps the digits of very negative x."""
    z = exp(e, -e.unary("fabs", x))
    return e.select(x.compare(">=", 0.0), 1.0, z) / (z + 1.0)


def erf(e: Emitter, x: Vec) -> Vec:
    """The error function."""
    magnitude, square = e.unary("fabs", x), x * x
    small = e.fma(x, polynomial(e, square, _ERF), x)
    large = 1.0 - exp(e, polynomial(e, e.minimum(magnitude, 4.0), _LOG_ERFC))
    return e.select(magnitude.compare("<", 0.93), small, with_sign_of(e, large, x))


def log1p(e: Emitter, x: Vec) -> Vec:
    """log(1 + x), accurate near zero."""
    total = x + 1.0
    # where rounding 1 + x lost something, total is finite and not zero
    lost = e.select(total.compare("==", x), 0.0, x - (total - 1.0))
    return log(e, total) + e.select(lost.compare("==", 0.0), 0.0, lost / total)


def log1p_exp_negative(e: Emitter, magnitude: Vec) -> Vec:
    """log(1 + exp(-magnitude)) for magnitude >= 0."""
    z = exp(e, -magnitude)
    total = z + 1.0
    return log(e, total) + (z - (total - 1.0)) / total  # the second term is what rounding 1 + z lost


def polynomial(e: Emitter, x: Vec, coefficients: Sequence[float]) -> Vec:
    """By Horner's rule, highest power first."""
    result: VecLike = coefficients[0]
    for coefficient in coefficients[1:]:
        result = e.fma(x, result, coefficient)
    assert isinstance(result, Vec)
    return result


def with_sign_of(e: Emitter, magnitude: Vec, sign: Vec) -> Vec:
    """`magnitude` with the sign bits of `sign`."""
    kind = sign.value.type
    name = f"llvm.copysign.v{kind.count}f32" if sign.lanes > 1 else "llvm.copysign.f32"
    return Vec(e, e.ir.call(e.declare(name, kind, [kind, kind]), [magnitude.value, sign.value]))


def _int_type(like: Vec) -> Any:
    return i32 if like.lanes == 1 else ir.VectorType(i32, like.lanes)


def _int(like: Vec, value: int) -> Any:
    kind = _int_type(like)
    return ir.Constant(kind, value if like.lanes == 1 else [value] * like.lanes)


def _bits(e: Emitter, x: Vec) -> Any:
    return e.ir.bitcast(x.value, _int_type(x))


def _float(e: Emitter, bits: Any) -> Vec:
    kind = bits.type
    return Vec(e, e.ir.bitcast(bits, f32 if kind == i32 else ir.VectorType(f32, kind.count)))


def _power_of_two(e: Emitter, like: Vec, exponent: Any) -> Vec:
    return _float(e, e.ir.shl(e.ir.add(exponent, _int(like, 127)), _int(like, 23)))
