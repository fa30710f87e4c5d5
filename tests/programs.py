"""Programs that run with this library and with PyTorch, and how their results are stored and compared.

`python -m tests.programs` runs every program with PyTorch and writes the results to tests/data/programs.npz.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STORE = Path(__file__).parent / "data" / "programs.npz"
TABLES = ("inplace_programs", "gradient_programs", "tensor_programs", "arithmetic_programs")

Program = Callable[[Any], Any]


def program(function: Program) -> Program:
    """Marks a function of a table as a program."""
    function.is_program = True  # type: ignore[attr-defined]
    return function


def error_of(action: Callable[[], Any]) -> Any:
    """What an action returns, or the name of the exception class it raises."""
    try:
        return action()
    except Exception as error:
        known = (AssertionError, RuntimeError, IndexError, TypeError, ValueError)
        kinds = [kind.__name__ for kind in known if isinstance(error, kind)]
        return kinds[0] if kinds else type(error).__name__


def programs() -> dict[str, Program]:
    """Every program by its name."""
    found = {}
    for table in TABLES:
        module = importlib.import_module(f"tests.cases.{table}")
        found.update({name: f for name, f in vars(module).items() if getattr(f, "is_program", False)})
    return found


def describe(value: Any, arrays: list[np.ndarray]) -> Any:
    """A result as plain JSON values; tensors become records that refer to `arrays`."""
    if hasattr(value, "requires_grad") and hasattr(value, "detach"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays.append(np.array(value.detach().tolist(), dtype=_numpy_type(value)).reshape(tuple(value.shape)))
        return {
            "dtype": str(value.dtype).split(".")[-1],
            "shape": list(value.shape),
            "requires_grad": bool(value.requires_grad),
            "array": len(arrays) - 1,
        }
    if isinstance(value, (list, tuple)):
        return [describe(item, arrays) for item in value]
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, (np.floating, np.integer, np.bool_)):
        return describe(value.item(), arrays)
    return value if isinstance(value, (int, str, bool)) or value is None else repr(value)


def _numpy_type(tensor: Any) -> Any:
    kind = str(tensor.dtype).split(".")[-1]
    return {"bfloat16": "float32"}.get(kind, kind)


def run(function: Program, library: Any) -> tuple[Any, list[np.ndarray]]:
    """A program's results: their description, and the values of the tensors in it."""
    arrays: list[np.ndarray] = []
    return describe(function(library), arrays), arrays


def stored() -> dict[str, tuple[Any, list[np.ndarray]]]:
    """What PyTorch gave for every program."""
    with np.load(STORE) as file:
        texts = json.loads(str(file["descriptions"]))
        return {
            name: (entry["result"], [file[f"{name}.{i}"] for i in range(entry["arrays"])])
            for name, entry in texts.items()
        }


def difference(ours: Any, theirs: Any, our_arrays: Any, their_arrays: Any, place: str = "result") -> str | None:
    """Where two results differ, or None."""
    if isinstance(theirs, list) and isinstance(ours, list):
        if len(ours) != len(theirs):
            return f"{place}: {len(ours)} items, PyTorch gives {len(theirs)}"
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            found = difference(mine, other, our_arrays, their_arrays, f"{place}[{index}]")
            if found:
                return found
        return None
    if isinstance(theirs, dict) and isinstance(ours, dict) and "array" in theirs and "array" in ours:
        mine, other = {**ours, "array": 0}, {**theirs, "array": 0}
        if mine != other:
            return f"{place}: {mine}, PyTorch gives {other}"
        a, b = our_arrays[ours["array"]], their_arrays[theirs["array"]]
        if not np.allclose(a, b, rtol=3e-5, atol=1e-6, equal_nan=True):
            return f"{place}: {a}, PyTorch gives {b}"
        return None
    if isinstance(theirs, dict) and isinstance(ours, dict) and "float" in theirs and "float" in ours:
        same = np.isclose(float(ours["float"]), float(theirs["float"]), rtol=1e-6, equal_nan=True)
        return None if same else f"{place}: {ours}, PyTorch gives {theirs}"
    return None if ours == theirs else f"{place}: {ours!r}, PyTorch gives {theirs!r}"


def record() -> None:
    """Run all programs with PyTorch and store what they give."""
    import torch

    texts, arrays = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, function in sorted(programs().items()):
            result, values = run(function, torch)
            texts[name] = {"result": result, "arrays": len(values)}
            arrays.update({f"{name}.{i}": value for i, value in enumerate(values)})
    np.savez_compressed(STORE, descriptions=np.array(json.dumps(texts)), **arrays)


if __name__ == "__main__":
    record()
