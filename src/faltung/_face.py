"""The library's functions by the names that scripts use: a table, from which `faltung` fills its namespace.

A name before the bar takes `out=`; the names after it don't.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faltung import convenience, linalg, random
from faltung.ops import (
    activation,
    arithmetic,
    combine,
    compare,
    complex_numbers,
    composed,
    convert,
    creation,
    diagonals,
    distinct,
    einsum,
    extremes,
    gather,
    index,
    join,
    masks,
    matmul,
    order,
    powers,
    reduce,
    scan,
    scatter_reduce,
    shape,
    special,
    split,
    trigonometry,
    unary,
)
from faltung.ops import random as random_tensors
from faltung.ops.keywords import numpy_names
from faltung.ops.write import inplace, with_out

_FUNCTIONS: dict[Any, str] = {
    arithmetic: "add sub mul div floor_divide remainder fmod | rsub",
    powers: "pow",
    extremes: "maximum minimum fmax fmin",
    compare: (
        "eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor "
        "bitwise_not bitwise_left_shift bitwise_right_shift isposinf isneginf signbit | isnan isinf isfinite isreal "
        "isclose allclose equal"
    ),
    unary: (
        "neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal square abs floor ceil trunc frac round "
        "sign | positive"
    ),
    trigonometry: "sin cos tan asin acos atan sinh cosh asinh acosh atanh rad2deg deg2rad",
    complex_numbers: "sgn angle | real imag",
    reduce: "sum nansum mean nanmean var std prod any all logsumexp | var_mean std_mean count_nonzero",
    shape: (
        "| reshape flatten ravel unflatten permute transpose t movedim unsqueeze squeeze broadcast_to broadcast_shapes "
        "broadcast_tensors as_strided"
    ),
    join: (
        "cat stack hstack vstack dstack column_stack | atleast_1d atleast_2d atleast_3d tile flip fliplr flipud "
        "roll rot90"
    ),
    split: "| narrow split chunk tensor_split select unbind",
    matmul: "matmul mm bmm mv dot vdot inner outer addmm addmv addr baddbmm addbmm tensordot chain_matmul",
    convert: "| clone fill_ zero_",
    creation: (
        "empty zeros ones full arange linspace logspace eye complex | tensor as_tensor asarray from_numpy frombuffer "
        "scalar_tensor empty_like zeros_like ones_like full_like"
    ),
    index: "| index_put index_put_",
    masks: (
        "where masked_select nonzero clamp clamp_min clamp_max nan_to_num heaviside tril triu | masked_fill "
        "masked_scatter argwhere clamp_"
    ),
    gather: (
        "gather scatter scatter_add take_along_dim index_select index_add index_copy take | index_fill put"
    ),
    order: (
        "amax amin aminmax argmax argmin max min argsort sort msort topk kthvalue median nanmedian mode"
    ),
    scatter_reduce: "scatter_reduce",
    combine: (
        "kron cross float_power polar histc trapezoid cumulative_trapezoid | repeat_interleave split_with_sizes "
        "hsplit vsplit dsplit select_scatter slice_scatter block_diag unravel_index combinations view_as_real "
        "view_as_complex cdist cov corrcoef"
    ),
    distinct: "searchsorted bucketize | unique unique_consecutive bincount",
    scan: "cumsum cumprod cummax cummin logcumsumexp diff",
    composed: (
        "atan2 hypot logaddexp logaddexp2 copysign nextafter gcd lcm ldexp xlogy lerp addcmul addcdiv norm renorm "
        "quantile nanquantile isin | dist"
    ),
    diagonals: (
        "diag | diagonal diag_embed diagflat diagonal_scatter trace meshgrid cartesian_prod tril_indices "
        "triu_indices"
    ),
    einsum: "| einsum",
    special: "erf erfc erfinv lgamma digamma polygamma sinc i0 logit",
    activation: "sigmoid tanh | relu relu_ sigmoid_ tanh_",
    random_tensors: (
        "| bernoulli multinomial normal rand rand_like randint randint_like randn randn_like randperm"
    ),
    random: "| Generator default_generator fork_rng get_rng_state initial_seed manual_seed seed set_rng_state",
    convenience: (
        "| numel is_floating_point is_complex is_nonzero is_same_size is_inference get_num_interop_threads "
        "set_num_interop_threads set_default_device set_default_tensor_type softmax log_softmax save load "
        "detach is_signed typename get_default_device set_flush_denormal"
    ),
}  # fmt: skip

_ALIASES: dict[Any, str] = {  # further names, each with the one it stands for
    arithmetic: "subtract=sub multiply=mul divide=div true_divide=div",
    combine: "trapz=trapezoid",
    compare: "greater=gt greater_equal=ge less=lt less_equal=le not_equal=ne",
    complex_numbers: "conj=conjugate conj_physical=conjugate",
    composed: "arctan2=atan2",
    join: "concat=cat concatenate=cat row_stack=vstack",
    linalg: "det=det inverse=inv matrix_power=matrix_power",
    masks: "clip=clamp",
    matmul: "ger=outer",
    shape: "swapaxes=transpose swapdims=transpose moveaxis=movedim",
    split: "unsafe_chunk=chunk unsafe_split=split",
    trigonometry: "arcsin=asin arccos=acos arctan=atan arcsinh=asinh arccosh=acosh arctanh=atanh",
    unary: "absolute=abs negative=neg fix=trunc",
}

# torch.exp_(x) and its like: in-place forms that are functions too
_INPLACE: dict[Any, str] = {
    unary: "abs ceil exp exp2 expm1 floor frac log log10 log1p log2 neg reciprocal round rsqrt sqrt square trunc",
    trigonometry: "acos asin atan cos cosh sin sinh tan",
    special: "erf erfc",
}


def functions() -> dict[str, Callable[..., Any]]:
    """Every public function by its name."""
    found: dict[str, Callable[..., Any]] = {}
    for module, names in _FUNCTIONS.items():
        with_result, _, plain = names.partition("|")
        for name in with_result.split():
            found[name] = with_out(numpy_names(getattr(module, name)))
        for name in plain.split():
            found[name] = numpy_names(getattr(module, name)) if module is not random else getattr(module, name)
    for module, pairs in _ALIASES.items():
        for name, _, original in (pair.partition("=") for pair in pairs.split()):
            found[name] = found.get(original) or with_out(getattr(module, original))
    for module, names in _INPLACE.items():
        for name in names.split():
            found[name + "_"] = inplace(getattr(module, name), name + "_")
    return found
