"""Ready-made parametrisations: weight norm and spectral norm."""

from __future__ import annotations

from typing import Any, TypeVar

from faltung.autograd import no_grad
from faltung.nn.modules.module import Module
from faltung.tensor import Tensor

from ._power_method import as_matrix, default_dim, improve, normalized, singular_value
from .parametrize import register_parametrization
from .weight_norm import norm_except_dim

M = TypeVar("M", bound=Module)

__all__ = ["spectral_norm", "weight_norm"]


class _WeightNorm(Module):
    """original0 = magnitude g, original1 = direction v."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitude and direction of a given weight."""
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: M, name: str = "weight", dim: int = 0) -> M:
    """Trains magnitude (one per index of `dim`) and direction of the parameter `name` separately.

    State dicts of the older `nn.utils.weight_norm` load as well.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def rename_older_keys(state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        old = (f"{prefix}{name}_g", f"{prefix}{name}_v")
        if all(key in state_dict for key in old):
            for i, key in enumerate(old):
                state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(rename_older_keys)
    return module


class _SpectralNorm(Module):
    """The weight over its largest singular value, which the buffers _u and _v track."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        ndim = weight.dim()
        if not -ndim <= dim < ndim:
            raise IndexError(f"Dimension out of range (expected to be in range of [-{ndim}, {ndim - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.dim = dim % ndim
        self.eps = eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            with no_grad():
                matrix = as_matrix(weight, self.dim)
                u = matrix.new_empty(matrix.shape[0]).normal_(0, 1)
                v = matrix.new_empty(matrix.shape[1]).normal_(0, 1)
                self.register_buffer("_u", normalized(u, eps))
                self.register_buffer("_v", normalized(v, eps))
                improve(matrix, self._u, self._v, 15, eps)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return normalized(weight, self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            with no_grad():
                improve(matrix, self._u, self._v, self.n_power_iterations, self.eps)
        return weight / singular_value(matrix, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value itself: it is normalised when read."""
        return value


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divides the parameter or buffer `name` by its largest singular value whenever it is read.

    Each read in training mode does `n_power_iterations` steps of power iteration. `dim`: that of the output channels,
    by default 0, or 1 for transposed convolutions.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    dim = default_dim(module) if dim is None else dim
    register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))
    return module
