"""Folding a batch norm in evaluation mode into the layer before it."""

from __future__ import annotations

import copy
from typing import TypeVar

from faltung.nn.modules.module import Module
from faltung.nn.parameter import Parameter
from faltung.tensor import Tensor

Layer = TypeVar("Layer", bound=Module)


def fuse_conv_bn_eval(conv: Layer, bn: Module, transpose: bool = False) -> Layer:
    """A copy of `conv` that computes what `conv` and then `bn` compute. Both must be in evaluation mode.

    transpose=True for a transposed convolution, whose weight has its output channels second.
    """
    _expect_eval("fuse_conv_bn_eval", conv, bn)
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("fuse_conv_bn_eval: the batch norm has no running statistics (track_running_stats=False).")
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose
    )
    return fused


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the fused convolution."""
    shape = [1, -1] if transpose else [-1, 1]
    shape += [1] * (conv_w.dim() - 2)
    return _fold(conv_w, conv_b, (bn_rm, bn_rv, bn_eps, bn_w, bn_b), shape)


def fuse_linear_bn_eval(linear: Layer, bn: Module) -> Layer:
    """A copy of `linear` that computes what `linear` and then `bn` compute. Both must be in evaluation mode."""
    _expect_eval("fuse_linear_bn_eval", linear, bn)
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("fuse_linear_bn_eval: the batch norm has no running statistics (track_running_stats=False).")
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise ValueError(
            f"fuse_linear_bn_eval: linear gives {linear.out_features} features, the batch norm takes {bn.num_features}."
        )
    fused = copy.deepcopy(linear)
    fused.weight, fused.bias = fuse_linear_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    return fused


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the fused linear layer."""
    return _fold(linear_w, linear_b, (bn_rm, bn_rv, bn_eps, bn_w, bn_b), [-1, 1])


Statistics = tuple[Tensor, Tensor, float, Tensor | None, Tensor | None]  # mean, variance, eps, weight, bias


def _fold(weight: Tensor, bias: Tensor | None, norm: Statistics, shape: list[int]) -> tuple[Parameter, Parameter]:
    """(x w + b - mean) scale + shift = x (w scale) + ((b - mean) scale + shift), scale = gamma / sqrt(var + eps)."""
    mean, variance, eps, gamma, beta = norm
    scale = (variance + eps).rsqrt()
    if gamma is not None:
        scale = scale * gamma
    offset = -mean if bias is None else bias - mean
    shift = offset * scale
    if beta is not None:
        shift = shift + beta
    fused_weight = (weight * scale.reshape(shape)).to(weight.dtype)
    fused_bias = shift.to(weight.dtype if bias is None else bias.dtype)
    wants_bias_grad = weight.requires_grad if bias is None else bias.requires_grad
    return Parameter(fused_weight, weight.requires_grad), Parameter(fused_bias, wants_bias_grad)


def _expect_eval(where: str, layer: Module, bn: Module) -> None:
    if layer.training or bn.training:
        raise AssertionError(f"{where}: Fusion only for eval! Call .eval() on both modules first.")
