"""Converting a module in place: dtype, device and memory format of every parameter, gradient and buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from faltung.autograd import no_grad
from faltung.dtypes import dtype as _dtype
from faltung.nn.parameter import Parameter
from faltung.tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

Self = TypeVar("Self", bound="ConvertMixin")


class ConvertMixin:
    """The converting half of Module."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    children: Callable[[], Iterator[Module]]

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replaces the data of every parameter, gradient and buffer by `fn` of it; the objects stay the same."""
        if recurse:
            for child in self.children():
                child._apply(fn)
        for param in self._parameters.values():
            if param is None:
                continue
            with no_grad():
                param.data = fn(param)
                if param.grad is not None:
                    param.grad.data = fn(param.grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """`to(dtype)`, `to(device)`, `to(device, dtype)`, `to(tensor)`, `to(memory_format=...)`: converts in place.

        Only floating-point (and complex) parameters and buffers change their dtype. The one device is the CPU.
        """
        device, dtype, non_blocking, memory_format = _parse_to(*args, **kwargs)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}. "
                "Convert single tensors with tensor.to(dtype)."
            )

        def convert(tensor: Tensor) -> Tensor:
            options: dict[str, Any] = {"non_blocking": non_blocking}
            if dtype is not None and (tensor.is_floating_point() or tensor.is_complex()):
                options["dtype"] = dtype
            if device is not None:
                options["device"] = device
            if memory_format is not None and tensor.dim() in (4, 5):
                options["memory_format"] = memory_format
            return tensor.to(**options)

        return self._apply(convert)

    def _cast(self: Self, method: str) -> Self:
        return self._apply(lambda tensor: getattr(tensor, method)() if tensor.is_floating_point() else tensor)

    def float(self: Self) -> Self:
        """All floating-point parameters and buffers to float32, in place."""
        return self._cast("float")

    def double(self: Self) -> Self:
        """All floating-point parameters and buffers to float64, in place."""
        return self._cast("double")

    def half(self: Self) -> Self:
        """All floating-point parameters and buffers to float16, in place."""
        return self._cast("half")

    def bfloat16(self: Self) -> Self:
        """All floating-point parameters and buffers to bfloat16, in place."""
        return self._cast("bfloat16")

    def type(self: Self, dst_type: Any) -> Self:
        """All parameters and buffers to `dst_type`, in place."""
        return self._apply(lambda tensor: tensor.type(dst_type))

    def cpu(self: Self) -> Self:
        """Does nothing: everything is on the CPU."""
        return self._apply(lambda tensor: tensor.cpu())

    def cuda(self: Self, device: Any = None) -> Self:
        """Raises AssertionError: there is no CUDA device."""
        raise AssertionError(_no_device("cuda"))

    def xpu(self: Self, device: Any = None) -> Self:
        """Raises AssertionError: there is no XPU device."""
        raise AssertionError(_no_device("xpu"))

    def mtia(self: Self, device: Any = None) -> Self:
        """Raises AssertionError: there is no MTIA device."""
        raise AssertionError(_no_device("mtia"))

    def ipu(self: Self, device: Any = None) -> Self:
        """Raises RuntimeError: there is no IPU device."""
        raise RuntimeError(_no_device("ipu"))

    def to_empty(self: Self, *, device: Any, recurse: bool = True) -> Self:
        """Parameters and buffers of the same shapes with uninitialised values."""
        return self._apply(lambda tensor: tensor.new_empty(tuple(tensor.shape), device=device), recurse=recurse)

    def share_memory(self: Self) -> Self:
        """Moves parameters and buffers to shared memory, as `Tensor.share_memory_` does."""
        return self._apply(lambda tensor: tensor.share_memory_())

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Accepted for scripts that call it. Layers already run generated code, so the module stays as it is."""


def _no_device(kind: str) -> str:
    return (
        f"Module.{kind}: Faltung runs on the CPU alone. Drop the call, or choose the device by {kind}.is_available()."
    )


def _parse_to(
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    memory_format: Any = None,
    **others: Any,
) -> tuple[Any, Any, bool, Any]:
    """The forms of `Module.to` in one: (device, dtype, non_blocking, memory_format)."""
    if others:
        raise TypeError(f"to() received an invalid keyword argument: {next(iter(others))!r}")
    rest = list(args)
    if rest and isinstance(rest[0], Tensor):
        device, dtype = rest[0].device, rest.pop(0).dtype
    else:
        if rest and not isinstance(rest[0], (_dtype, bool)):
            device = rest.pop(0)
        if rest and (rest[0] is None or isinstance(rest[0], _dtype)):
            dtype = rest.pop(0)
    if rest and isinstance(rest[0], bool):
        non_blocking = rest.pop(0)
    if rest or (dtype is not None and not isinstance(dtype, _dtype)):
        raise TypeError(
            f"to() received an invalid combination of arguments {args!r}: expected (device, dtype, non_blocking), "
            "(dtype, non_blocking) or (tensor, non_blocking)."
        )
    return device, dtype, non_blocking, memory_format
