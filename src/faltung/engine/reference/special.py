"""The error function, which NumPy lacks: rational approximations from Sun's fdlibm (s_erf.c), to 1 ulp of float64."""

from __future__ import annotations

import numpy as np

# Coefficients from the highest power down, one pair (numerator, denominator) per interval of |x|.
_SMALL = (  # |x| < 0.84375, in z = x**2: erf = x + x * p(z) / q(z)
    (
        -2.37630166566501626084e-05,
        -5.77027029648944159157e-03,
        -2.84817495755985104766e-02,
        -3.25042107247001499370e-01,
        1.28379167095512558561e-01,
    ),
    (
        -3.96022827877536812320e-06,
        1.32494738004321644526e-04,
        5.08130628187576562776e-03,
        6.50222499887672944485e-02,
        3.97917223959155352819e-01,
        1.0,
    ),
)
_MIDDLE = (  # 0.84375 <= |x| < 1.25, in s = |x| - 1: erf = ERX + p(s) / q(s)
    (
        -2.16637559486879084300e-03,
        3.54783043256182359371e-02,
        -1.10894694282396677476e-01,
        3.18346619901161753674e-01,
        -3.72207876035701323847e-01,
        4.14856118683748331666e-01,
        -2.36211856075265944077e-03,
    ),
    (
        1.19844998467991074170e-02,
        1.36370839120290507362e-02,
        1.26171219808761642112e-01,
        7.18286544141962662868e-02,
        5.40397917702171048937e-01,
        1.06420880400844228286e-01,
        1.0,
    ),
)
_ERX = 8.45062911510467529297e-01
_LARGE = (  # 1.25 <= |x| < 1/0.35, in s = 1/x**2: erfc = exp(-x**2 - 0.5625 + p(s) / q(s)) / |x|
    (
        -9.81432934416914548592e00,
        -8.12874355063065934246e01,
        -1.84605092906711035994e02,
        -1.62396669462573470355e02,
        -6.23753324503260060396e01,
        -1.05586262253232909814e01,
        -6.93858572707181764372e-01,
        -9.86494403484714822705e-03,
    ),
    (
        -6.04244152148580987438e-02,
        6.57024977031928170135e00,
        1.08635005541779435134e02,
        4.29008140027567833386e02,
        6.45387271733267880336e02,
        4.34565877475229228821e02,
        1.37657754143519042600e02,
        1.96512716674392571292e01,
        1.0,
    ),
)
_TAIL = (  # |x| >= 1/0.35, the same form
    (
        -4.83519191608651397019e02,
        -1.02509513161107724954e03,
        -6.37566443368389627722e02,
        -1.60636384855821916062e02,
        -1.77579549177547519889e01,
        -7.99283237680523006574e-01,
        -9.86494292470009928597e-03,
    ),
    (
        -2.24409524465858183362e01,
        4.74528541206955367215e02,
        2.55305040643316442583e03,
        3.19985821950859553908e03,
        1.53672958608443695994e03,
        3.25792512996573918826e02,
        3.03380607434824582924e01,
        1.0,
    ),
)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    return np.polyval(coefficients[0], x) / np.polyval(coefficients[1], x)


def _erfc_above(magnitude: np.ndarray) -> np.ndarray:
    """erfc of magnitudes >= 1.25."""
    inverse = 1.0 / (magnitude * magnitude)
    exponent = np.where(magnitude < 1 / 0.35, _ratio(_LARGE, inverse), _ratio(_TAIL, inverse))
    # exp(-x**2) loses digits to the rounding of x**2; splitting x as fdlibm does keeps them.
    head = magnitude.astype(np.float32).astype(np.float64)
    return np.exp(-head * head - 0.5625) * np.exp((head - magnitude) * (head + magnitude) + exponent) / magnitude


def _erf64(x: np.ndarray) -> np.ndarray:
    magnitude = np.abs(x)
    result = np.where(np.isnan(x), x, np.sign(x))
    small = magnitude < 0.84375
    z = x[small]
    result[small] = z + z * _ratio(_SMALL, z * z)
    middle = (magnitude >= 0.84375) & (magnitude < 1.25)
    z = magnitude[middle]
    result[middle] = np.copysign(_ERX + _ratio(_MIDDLE, z - 1), x[middle])
    large = (magnitude >= 1.25) & (magnitude < 6)
    z = magnitude[large]
    result[large] = np.copysign(1 - _erfc_above(z), x[large])
    return result


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of every element, in the dtype of `x` (float32 is computed in float64)."""
    wide = np.asarray(x, dtype=np.float64, order="K")
    result = _erf64(wide) if wide.ndim else _erf64(wide.reshape(1)).reshape(())
    return result.astype(x.dtype, copy=False)


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x) without cancellation for large `x`, in the dtype of `x`."""
    wide = np.atleast_1d(np.asarray(x, dtype=np.float64, order="K"))
    result = 1 - _erf64(wide)
    large = wide >= 1.25
    z = np.minimum(wide[large], 30.0)  # erfc(27.3) is already below the smallest subnormal
    result[large] = _erfc_above(z)
    return result.reshape(np.shape(x)).astype(x.dtype, copy=False)
