"""Batch and instance normalisation: layers that may keep running statistics."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from faltung import dtypes
from faltung.nn import functional as F
from faltung.nn import init
from faltung.nn.functional._checks import message, shape_text
from faltung.nn.functional.norm import batch_norm_activation
from faltung.nn.modules.lazy import LazyModuleMixin
from faltung.nn.modules.module import Module
from faltung.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter
from faltung.ops.creation import empty, ones, zeros
from faltung.ops.norm import count_up
from faltung.tensor import Tensor

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "SyncBatchNorm",
]


class _NormBase(Module):
    """Weight, bias and running statistics of C channels.

    Args: `num_features` C; `momentum`, the share of a new batch in the running statistics (None: plain average of all
    batches); `affine`, whether weight (and with `bias` a bias) are learned; `track_running_stats`, whether statistics
    are kept for evaluation.
    """

    _version = 2
    __constants__: ClassVar[list[str]] = ["track_running_stats", "momentum", "eps", "num_features", "affine"]
    ranks: ClassVar[tuple[int, ...]]  # numbers of dimensions that the input may have

    weight: Parameter | None  # (C,)
    bias: Parameter | None  # (C,)
    running_mean: Tensor | None  # (C,)
    running_var: Tensor | None  # (C,)
    num_batches_tracked: Tensor | None  # ()
    num_features: int
    eps: float
    momentum: float | None
    affine: bool
    track_running_stats: bool

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, present in (("weight", affine), ("bias", affine and bias)):
            values = empty((num_features,), device=device, dtype=dtype) if present else None
            self.register_parameter(name, None if values is None else Parameter(values))
        if track_running_stats:
            self.register_buffer("running_mean", zeros((num_features,), device=device, dtype=dtype))
            self.register_buffer("running_var", ones((num_features,), device=device, dtype=dtype))
            self.register_buffer("num_batches_tracked", zeros((), device=device, dtype=dtypes.int64))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Sets the running statistics to mean 0, variance 1, no batches."""
        if self.track_running_stats:
            for statistic, start in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
                if statistic is not None:
                    statistic.fill_(start)

    def reset_parameters(self) -> None:
        """Sets weight to 1, bias to 0 and resets the running statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self.ranks:
            wanted = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(
                message(
                    type(self).__name__, f"expected {wanted} input, got {input.dim()}D input {shape_text(input.shape)}"
                )
            )

    def extra_repr(self) -> str:
        """All arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        """State dicts of version 1 had no batch counter."""
        version = local_metadata.get("version")
        key = prefix + "num_batches_tracked"
        if (version is None or version < 2) and self.track_running_stats and key not in state_dict:
            state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class _BatchNorm(_NormBase):
    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same."""
        return self._normalise(input)

    def _normalise(self, input: Tensor, activation: str = "") -> Tensor:
        """Forward, with an activation behind it in the same pass."""
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        counter = self.num_batches_tracked
        if self.training and self.track_running_stats and counter is not None:
            count_up(counter)
            if self.momentum is None:
                momentum = 1.0 / float(counter)
        mean, var = self.running_mean, self.running_var
        by_batch = self.training or (mean is None and var is None)
        tracks = not self.training or self.track_running_stats
        return batch_norm_activation(
            input,
            mean if tracks else None,
            var if tracks else None,
            self.weight,
            self.bias,
            training=by_batch,
            momentum=momentum,
            eps=self.eps,
            activation=activation,
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) (Ioffe and Szegedy 2015). Functional twin: `F.batch_norm`."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W). Functional twin: `F.batch_norm`."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W). Functional twin: `F.batch_norm`."""

    ranks = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of (N, C, ...). In a single process it is what the others are."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(message("SyncBatchNorm", f"expected at least 2D input, got {shape_text(input.shape)}"))
        if input.shape[1] == 0:
            raise ValueError(
                message("SyncBatchNorm", f"number of input channels should be non-zero, got {shape_text(input.shape)}")
            )

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any | None = None) -> Module:
        """`module` with every batch norm in it replaced by one of this class that shares its parameters and buffers."""
        converted = module
        if isinstance(module, _BatchNorm):
            converted = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
                bias=module.bias is not None,
            )
            if module.affine:
                converted.weight = module.weight
                converted.bias = module.bias
            converted.running_mean = module.running_mean
            converted.running_var = module.running_var
            converted.num_batches_tracked = module.num_batches_tracked
            converted.training = module.training
        for name, child in module.named_children():
            converted.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return converted


class _InstanceNorm(_NormBase):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) or (C, ...) -> the same."""
        self._check_input_dim(input)
        unbatched = input.dim() == min(self.ranks)
        dim = 0 if unbatched else 1
        if input.shape[dim] != self.num_features:
            text = (
                f"expected input's size at dim={dim} to match num_features ({self.num_features}), got input "
                f"{shape_text(input.shape)}"
            )
            if self.affine:
                raise ValueError(message(type(self).__name__, text))
            warnings.warn(f"{type(self).__name__}: {text}. Without affine it has no effect.", stacklevel=3)
        y = F.instance_norm(
            input.unsqueeze(0) if unbatched else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_input_stats=self.training or not self.track_running_stats,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
        )
        return y.squeeze(0) if unbatched else y

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """State dicts without a version tracked statistics by default, which this layer does not."""
        if local_metadata.get("version") is None and not self.track_running_stats:
            stray = [prefix + name for name in ("running_mean", "running_var") if prefix + name in state_dict]
            if stray:
                names = " and ".join(f'"{key}"' for key in stray)
                error_msgs.append(
                    f"Unexpected running stats buffer(s) {names} for {type(self).__name__} with "
                    f"track_running_stats=False. "
                    "Remove these keys, or set track_running_stats=True."
                )
            for key in stray:
                state_dict.pop(key)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L) (Ulyanov et al. 2016). Functional twin: `F.instance_norm`."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (N, C, H, W) or (C, H, W). Functional twin: `F.instance_norm`."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W). Functional twin: `F.instance_norm`."""

    ranks = (4, 5)


class _LazyNorm(LazyModuleMixin, _NormBase):
    """Learns `num_features` from its first input, then becomes the layer that it stands for."""

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype, bias=False)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(device=device, dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(device=device, dtype=dtype)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(device=device, dtype=dtype)
            self.running_var = UninitializedBuffer(device=device, dtype=dtype)
            self.num_batches_tracked = zeros((), device=device, dtype=dtypes.int64)

    def reset_parameters(self) -> None:
        """Sets parameters and statistics to their first values; nothing happens before the first input."""
        if not self.has_uninitialized_params() and self.num_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Takes `num_features` from dimension 1 of `input`."""
        if not self.has_uninitialized_params():
            return
        self.num_features = input.shape[1]
        for tensor in (self.weight, self.bias, self.running_mean, self.running_var):
            if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
                tensor.materialize((self.num_features,))
        self.reset_parameters()


class LazyBatchNorm1d(_LazyNorm, _BatchNorm):
    """`BatchNorm1d` that takes `num_features` from its first input."""

    cls_to_become = BatchNorm1d
    ranks = BatchNorm1d.ranks


class LazyBatchNorm2d(_LazyNorm, _BatchNorm):
    """`BatchNorm2d` that takes `num_features` from its first input."""

    cls_to_become = BatchNorm2d
    ranks = BatchNorm2d.ranks


class LazyBatchNorm3d(_LazyNorm, _BatchNorm):
    """`BatchNorm3d` that takes `num_features` from its first input."""

    cls_to_become = BatchNorm3d
    ranks = BatchNorm3d.ranks


class LazyInstanceNorm1d(_LazyNorm, _InstanceNorm):
    """`InstanceNorm1d` that takes `num_features` from its first input."""

    cls_to_become = InstanceNorm1d
    ranks = InstanceNorm1d.ranks


class LazyInstanceNorm2d(_LazyNorm, _InstanceNorm):
    """`InstanceNorm2d` that takes `num_features` from its first input."""

    cls_to_become = InstanceNorm2d
    ranks = InstanceNorm2d.ranks


class LazyInstanceNorm3d(_LazyNorm, _InstanceNorm):
    """`InstanceNorm3d` that takes `num_features` from its first input."""

    cls_to_become = InstanceNorm3d
    ranks = InstanceNorm3d.ranks
