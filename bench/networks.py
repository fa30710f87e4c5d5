"""Rows that are whole networks: one answer in eval mode, or one training step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import models
from bench.frameworks import Framework

EVAL, STEP = "eval", "train step"
TOLERANCE = 1e-3  # of the largest score, float32 against float64 through a whole network
CHECKED_SIZE = 64  # pixels of the images on which float64 is affordable


@dataclass(frozen=True)
class NetworkRow:
    """A network, the size of its images, and the batch of each mode."""

    name: str
    make: Callable[[Any], Any]
    image: tuple[int, int, int]
    classes: int
    batches: dict[str, int]

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(self.batches)

    def case(self, mode: str) -> "NetworkCase":
        return NetworkCase(self, mode)


ROWS = (
    NetworkRow("MNIST CNN", models.mission_cnn, (1, 28, 28), 10, {STEP: 64}),
    NetworkRow("VGG-like CIFAR", models.vgg_cifar, (3, 32, 32), 10, {STEP: 64}),
    NetworkRow("ResNet-18", models.resnet18, (3, 224, 224), 1000, {EVAL: 1, STEP: 8}),
    NetworkRow("ResNet-50", models.resnet50, (3, 224, 224), 1000, {EVAL: 1}),
    NetworkRow("VGG-16", models.vgg16, (3, 224, 224), 1000, {EVAL: 1}),
    NetworkRow("MobileNetV2", models.mobilenet_v2, (3, 224, 224), 1000, {EVAL: 1, STEP: 8}),
)


class NetworkCase:
    """A network in one mode."""

    def __init__(self, row: NetworkRow, mode: str) -> None:
        self.row, self.mode, self.batch = row, mode, row.batches[mode]
        self.flop: int | None = None  # known after the first `call`
        self.bytes: int | None = None  # depends on what is fused

    def call(self, framework: Framework) -> Callable[[], Any]:
        """One run: returns the scores, or the loss before the step."""
        lib = framework.lib
        model = framework.model(self.row.make)
        x = framework.data(_images(self.batch, self.row.image), is_image=True)
        if self.flop is None:
            self.flop = count_flop(lib, model, x) * (1 if self.mode == EVAL else 3)
        model.train(self.mode == STEP)

        def answer() -> Any:
            with lib.no_grad():
                return model(x)

        if self.mode == EVAL:
            return answer
        labels = lib.from_numpy(np.arange(self.batch, dtype=np.int64) % self.row.classes)
        optimizer = lib.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

        def step() -> Any:
            optimizer.zero_grad()
            loss = lib.nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def check(self, framework: Framework) -> float:
        """Compare the scores of two small images with those of the same network in float64; the relative error.

        Raises:
            AssertionError: the error is above `TOLERANCE`.
        """
        lib = framework.lib
        channels, height, width = self.row.image
        x = framework.data(_images(2, (channels, min(height, CHECKED_SIZE), min(width, CHECKED_SIZE))), is_image=True)
        model = framework.model(self.row.make).eval()
        with lib.no_grad():
            got = model(x).numpy().astype(np.float64)
            expected = model.double()(x.double()).numpy()
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        if not error <= TOLERANCE:
            raise AssertionError(f"{self.row.name}: {framework.name} is off by {error:.1e} of the largest score")
        return error


def count_flop(lib: Any, model: Any, x: Any) -> int:
    """Twice the multiplications in the convolutions and linear layers of one forward pass."""
    total = 0

    def count(module: Any, _: Any, y: Any) -> None:
        nonlocal total
        per_output = module.weight[0].numel()  # every output value is a sum over one row of the weight
        total += 2 * per_output * y.numel()

    layers = [layer for layer in model.modules() if isinstance(layer, lib.nn.Conv2d | lib.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with lib.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return total


def _images(batch: int, image: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).random((batch, *image), np.float32)
