"""What the training looked like, as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, RED, GREY = "#2c6fbb", "#e8833a", "#c8322b", "#666666"


def save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)  # draws without a display, and without pyplot's global state
    figure.savefig(path, dpi=130, facecolor="white")


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean over `width` steps; the first values average what there is."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def draw_losses(losses: dict[str, list[float]], batch: int, path: Path) -> None:
    """Both loss curves in one picture; where they are one curve, the dashes of the second lie on the first."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    styles: list[dict[str, Any]] = [
        {"color": BLUE, "linewidth": 4.0, "alpha": 0.55},
        {"color": ORANGE, "linewidth": 1.6, "linestyle": (0, (4, 3))},
    ]
    for (name, values), style in zip(losses.items(), styles, strict=True):
        seen = np.arange(1, len(values) + 1) * batch
        axes.plot(seen, values, color=GREY, linewidth=0.4, alpha=0.12)
        axes.plot(seen, smooth(np.asarray(values), 50), label=name, **style)
    first, second = (np.asarray(values) for values in losses.values())
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(1e-3, min(np.percentile(first, 1), np.percentile(second, 1))))
    axes.set_xlim(0, len(first) * batch)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    axes.set_xlabel("training images seen")
    axes.set_ylabel("cross entropy (mean of 50 steps; thin: each step)")
    axes.set_title(f"One network, written twice: largest difference of the losses {np.abs(first - second).max():g}")
    axes.grid(which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)


def draw_filters(before: np.ndarray, after: np.ndarray, path: Path) -> None:
    """The first layer's filters, (16, 1, 5, 5) each, before and after training, on one scale."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    bound = float(max(np.abs(before).max(), np.abs(after).max()))
    parts: Any = figure.subfigures(1, 3, wspace=0.04, width_ratios=(1, 1, 0.22))
    left, right, scale = parts
    for part, filters, title in ((left, before, "before training"), (right, after, "after training")):
        part.suptitle(title)
        grid = part.subplots(4, 4)
        for axes, kernel in zip(grid.flat, filters[:, 0], strict=True):
            image = axes.imshow(kernel, cmap=colormaps["RdBu_r"], vmin=-bound, vmax=bound)
            bare(axes)
    scale.colorbar(image, cax=scale.add_axes((0.1, 0.06, 0.18, 0.8)))
    save(figure, path)


def draw_digits(images: np.ndarray, labels: np.ndarray, predictions: np.ndarray, path: Path) -> None:
    """A sheet of test digits with their predictions: the first of the test set, then mistakes, framed in red."""
    columns, usual_rows, wrong_rows = 12, 5, 2
    wrong = np.flatnonzero(predictions != labels)
    usual = np.arange(min(columns * usual_rows, len(images)))
    shown_wrong = wrong[: columns * wrong_rows]
    figure = Figure(figsize=(10, 7.6), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(usual_rows, wrong_rows))
    top, bottom = parts
    top.suptitle(f"The first {len(usual)} test digits and what the network read", fontsize=11)
    bottom.suptitle(
        f"The first {len(shown_wrong)} of its {len(wrong)} mistakes in {len(images):,} digits", fontsize=11, color=RED
    )
    for part, chosen, rows in ((top, usual, usual_rows), (bottom, shown_wrong, wrong_rows)):
        grid = part.subplots(rows, columns)
        for axes in grid.flat:
            axes.axis("off")
        for axes, i in zip(grid.flat, chosen, strict=False):
            axes.axis("on")
            axes.imshow(images[i], cmap="gray_r", vmin=0, vmax=255)
            bare(axes)
            mark(axes, int(predictions[i]), int(labels[i]))
    save(figure, path)


def mark(axes: Axes, prediction: int, label: int) -> None:
    """Write the prediction above a digit; a wrong one in red, with the truth."""
    if prediction == label:
        axes.set_title(str(prediction), fontsize=9, color=GREY, pad=3)
        axes.spines[:].set_color("#dddddd")
    else:
        axes.set_title(f"{prediction}, is {label}", fontsize=9, color=RED, fontweight="bold", pad=3)
        axes.spines[:].set(color=RED, linewidth=1.8)


def bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
