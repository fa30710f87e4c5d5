"""jit, fx and _C: what model files call at import time."""

from __future__ import annotations

import pytest

import faltung
from faltung import fx, jit, nn


class Marked(nn.Module):
    """Carries every mark that model files use."""

    size: jit.Final[int]

    def __init__(self) -> None:
        super().__init__()
        self.size = 2

    @jit.unused
    def unused(self, x: faltung.Tensor) -> faltung.Tensor:
        return x + 1

    @jit.export
    def exported(self, x: faltung.Tensor) -> faltung.Tensor:
        return x + 2

    @jit.ignore
    def ignored(self, x: faltung.Tensor) -> faltung.Tensor:
        return x + 3

    @jit.ignore(drop=True)
    def dropped(self, x: faltung.Tensor) -> faltung.Tensor:
        return x + 4

    @jit._overload_method
    def forward(self, x: list[faltung.Tensor]) -> faltung.Tensor: ...

    def forward(self, x: faltung.Tensor) -> faltung.Tensor:  # type: ignore[no-redef]  # noqa: F811
        return x * self.size


def test_marked_methods_are_plain_ones() -> None:
    model = Marked()
    zero = faltung.zeros(1)
    assert [f(zero).item() for f in (model.unused, model.exported, model.ignored, model.dropped)] == [1, 2, 3, 4]
    assert model(faltung.ones(1)).item() == 2
    assert jit.script(model) is model
    assert jit.trace(model, faltung.ones(1)) is model


def test_functions_run_as_python() -> None:
    @jit.script
    def twice(x: faltung.Tensor) -> faltung.Tensor:
        return x * 2

    assert jit.script_if_tracing(twice)(faltung.ones(1)).item() == 2
    assert not jit.is_scripting()
    assert not jit.is_tracing()


def test_wrap() -> None:
    assert fx.wrap("name") == "name"
    assert fx.wrap(len) is len
    with pytest.raises(RuntimeError, match="Must be either a callable or string name, got int"):
        fx.wrap(3)  # type: ignore[type-var]


def test_names_in_the_package() -> None:
    assert faltung.jit is jit
    assert faltung.fx is fx
    faltung._C._log_api_usage_once("a model was made")
