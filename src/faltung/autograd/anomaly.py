"""Finding the operation whose gradient is wrong: each node remembers where it was made, and nan stops backward."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

from faltung.autograd.graph import Node
from faltung.autograd.modes import modes

__all__ = ["check_gradients", "detect_anomaly", "note_origin", "report_origin", "set_detect_anomaly"]


class detect_anomaly:
    """While this context lasts, an error in backward also shows where its operation was called, and nan is an error.

    Args:
        check_nan: raise RuntimeError where a backward gives nan.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan
        self._before: list[str] = []

    def __enter__(self) -> None:
        self._before.append(modes.anomaly)
        modes.anomaly = "nan" if self.check_nan else "trace"

    def __exit__(self, *exc_info: object) -> None:
        modes.anomaly = self._before.pop()


class set_detect_anomaly(detect_anomaly):
    """`detect_anomaly` as a switch: acts at once, and until the block's end as a context manager.

    Args:
        mode: whether to look for anomalies.
        check_nan: raise RuntimeError where a backward gives nan.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        super().__init__(check_nan)
        self._kept = modes.anomaly
        modes.anomaly = ("nan" if check_nan else "trace") if mode else ""

    def __enter__(self) -> None:
        """The switch acted when it was made."""

    def __exit__(self, *exc_info: object) -> None:
        modes.anomaly = self._kept


def note_origin(node: Node) -> None:
    """Remember where the node's operation was called."""
    node.metadata["origin"] = "".join(traceback.format_stack()[:-3])


def report_origin(node: Node) -> None:
    """Warn with the place where the operation of a failing node was called."""
    origin = node.metadata.get("origin", "  (it was recorded before anomaly detection began)\n")
    warnings.warn(
        f"Error detected in {node.name()}. Traceback of forward call that caused the error:\n{origin}", stacklevel=2
    )


def check_gradients(node: Node, grads: tuple[Any, ...]) -> None:
    """RuntimeError where a node's backward gave nan."""
    for position, grad in enumerate(grads):
        if grad is not None and grad._data.dtype.kind in "fc" and (grad._data != grad._data).any():
            report_origin(node)
            raise RuntimeError(f"Function '{node.name()}' returned nan values in its {position}th output.")
