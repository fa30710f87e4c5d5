"""The table and the JSON of a run."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

OURS = "faltung"


@dataclass
class Result:
    """What was measured for one row in one mode."""

    row: str
    mode: str
    batch: int
    flop: int
    bytes: int | None  # least memory traffic, where it is known
    error: float  # of a sample against float64, in shares of the largest value
    seconds: dict[str, float]  # per contender
    peak_share: float  # rate counted as direct convolution, over the FMA peak of the same rounds
    ratios: dict[str, float] = field(default_factory=dict)  # how many times longer the others take

    @property
    def gflops(self) -> float:
        return self.flop / self.seconds[OURS] / 1e9

    @property
    def ratio(self) -> float | None:
        """Against the best of the others."""
        return min(self.ratios.values()) if self.ratios else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"gflops": self.gflops, "ratio": self.ratio}


def header(others: list[str]) -> str:
    columns = f"{'row':22} {'mode':10} {'batch':>5} {'ms':>9} {'GFLOP/s':>8} {'of peak':>7} {'error':>7}"
    return columns + "".join(f" {name + ' ms':>13} {'ratio':>6}" for name in others)


def line(result: Result) -> str:
    """One row of the table."""
    text = (
        f"{result.row:22} {result.mode:10} {result.batch:5d} {result.seconds[OURS] * 1e3:9.3f} {result.gflops:8.1f} "
        f"{result.peak_share:7.0%} {result.error:7.0e}"
    )
    return text + "".join(f" {result.seconds[name] * 1e3:13.3f} {ratio:6.2f}" for name, ratio in result.ratios.items())


def summary(results: list[Result]) -> list[str]:
    """Geometric means of the ratios against the better of the others, per mode."""
    lines = []
    for mode in dict.fromkeys(result.mode for result in results):
        ratios = {r.row: r.ratio for r in results if r.mode == mode and r.ratio is not None}
        if ratios:
            mean = float(np.exp(np.mean(np.log(list(ratios.values())))))
            worst = min(ratios, key=ratios.__getitem__)
            lines.append(
                f"{mode}: {mean:.2f} times the speed of PyTorch's better mode (geometric mean of {len(ratios)}), "
                f"at least {ratios[worst]:.2f} ({worst})"
            )
    return lines
