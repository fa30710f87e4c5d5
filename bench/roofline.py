"""The roofline picture (Williams, Waterman and Patterson 2009): rate over arithmetic intensity, one point per row.

No computation that moves its operands once can be faster than its intensity times the memory's rate, nor, counted as
direct convolution, than the chip's FMAs; Winograd, which saves multiplications, may rise above the roof's flat part.
"""

from pathlib import Path

import numpy as np

from bench.report import OURS, Result

BLUE, ORANGE = "#2c6fbb", "#e8833a"
FIGURE_SPACE = "\u2007"  # as wide as a digit


def draw(results: list[Result], peak_gflops: float, memory_gb_s: float, path: Path) -> None:
    """Draw the forward rows whose memory traffic is known; nothing if there is none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [(result, result.flop / result.bytes) for result in results if result.bytes and result.mode == "forward"]
    if not shown:
        return
    shown.sort(key=lambda pair: pair[1])
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    intensities = np.geomspace(shown[0][1] / 2, shown[-1][1] * 2, 200)
    axes.plot(intensities, np.minimum(peak_gflops, intensities * memory_gb_s), color="black", linewidth=1.5)
    axes.annotate(f"{peak_gflops:.0f} GFLOP/s", (intensities[-1], peak_gflops), ha="right", va="bottom", fontsize=9)
    for number, (result, intensity) in enumerate(shown, 1):
        best = min((seconds for name, seconds in result.seconds.items() if name != OURS), default=None)
        if best:
            axes.plot(
                [intensity] * 2, [result.flop / best / 1e9, result.gflops], color="#bbbbbb", linewidth=0.8, zorder=1
            )
            axes.scatter(intensity, result.flop / best / 1e9, color=ORANGE, s=26, zorder=2)
        axes.scatter(intensity, result.gflops, color=BLUE, s=120, zorder=3, edgecolors="white", linewidths=0.6)
        axes.text(
            intensity,
            result.gflops,
            str(number),
            ha="center",
            va="center_baseline",
            color="white",
            fontsize=7,
            zorder=4,
        )
    axes.scatter([], [], color=BLUE, s=60, label="Faltung")
    if any(len(result.seconds) > 1 for result, _ in shown):
        axes.scatter([], [], color=ORANGE, s=26, label="PyTorch, its better memory format")
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel(f"FLOP per byte that has to move (memory: {memory_gb_s:.0f} GB/s)")
    axes.set_ylabel("GFLOP/s, counted as direct convolution")
    axes.set_title("Forward convolutions under the roofline")
    axes.grid(which="major", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    names = "\n".join(
        f"{str(number).rjust(2, FIGURE_SPACE)}  {result.row}" for number, (result, _) in enumerate(shown, 1)
    )
    axes.text(1.02, 1.0, names, transform=axes.transAxes, va="top", fontsize=8, linespacing=1.6)
    figure.savefig(path, dpi=130, facecolor="white")
