"""Rows that are one convolution: the layers of common networks, and those of the document the project grew from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bench.frameworks import Framework

FORWARD, TRAINING = "forward", "fwd+bwd"
DIRECT = "direct"  # forward without Winograd
CHECKED = 64  # positions of each result that are computed again in float64
TOLERANCE = 1e-4  # of the largest value, for float32 sums of up to a million products


@dataclass(frozen=True)
class ConvRow:
    """One square 2-d convolution with bias."""

    name: str
    in_channels: int
    out_channels: int
    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    batch: int | None = None  # None: 1 forward, 8 with backward, as whole networks are measured
    is_image: bool = False  # the input is what a user brings, (N, C, H, W) in memory as well
    modes: tuple[str, ...] = (FORWARD, TRAINING)

    def case(self, mode: str) -> "ConvCase":
        return ConvCase(self, mode, self.batch or (8 if mode == TRAINING else 1))


ROWS = (
    ConvRow("3x3 64->64 @56", 64, 64, 56, 3, padding=1, modes=(FORWARD, DIRECT, TRAINING)),
    ConvRow("3x3 128->128 @28", 128, 128, 28, 3, padding=1, modes=(FORWARD, DIRECT, TRAINING)),
    ConvRow("3x3 256->256 @14", 256, 256, 14, 3, padding=1, modes=(FORWARD, DIRECT, TRAINING)),
    ConvRow("3x3 512->512 @7", 512, 512, 7, 3, padding=1),
    ConvRow("1x1 64->256 @56", 64, 256, 56, 1),
    ConvRow("1x1 1024->256 @14", 1024, 256, 14, 1),
    ConvRow("3x3 s2 128->256 @28", 128, 256, 28, 3, stride=2, padding=1),
    ConvRow("7x7 s2 3->64 @224", 3, 64, 224, 7, stride=2, padding=3, is_image=True),
    ConvRow("5x5 16->32 @12 b64", 16, 32, 12, 5, batch=64),
    ConvRow("3x3 dw 144 @56", 144, 144, 56, 3, padding=1, groups=144),
    ConvRow("3x3 3->64 @244 b64", 3, 64, 244, 3, padding=1, batch=64, is_image=True),
    ConvRow("3x3 g8 32->64 @100 b8", 32, 64, 100, 3, padding=1, groups=8, batch=8, is_image=True),
)


class ConvCase:
    """A row in one mode: its numbers, its calls, and the check of what they return."""

    def __init__(self, row: ConvRow, mode: str, batch: int) -> None:
        self.row, self.mode, self.batch = row, mode, batch
        self.output = (row.size + 2 * row.padding - row.kernel) // row.stride + 1
        products = row.kernel**2 * row.in_channels // row.groups * row.out_channels * self.output**2 * batch
        self.flop = 2 * products * (3 if mode == TRAINING else 1)
        x, y = (c * size**2 * batch for c, size in ((row.in_channels, row.size), (row.out_channels, self.output)))
        weight = row.kernel**2 * row.in_channels // row.groups * row.out_channels
        # Forward and each of the two gradients move x, weight and y (or their gradients) once.
        self.bytes = 4 * ((x + weight + y) * (3 if mode == TRAINING else 1))

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """x, weight, bias and the gradient of y, from a fixed seed."""
        row, rng = self.row, np.random.default_rng(0)
        shapes = (
            (self.batch, row.in_channels, row.size, row.size),
            (row.out_channels, row.in_channels // row.groups, row.kernel, row.kernel),
            (row.out_channels,),
            (self.batch, row.out_channels, self.output, self.output),
        )
        wanted = shapes[: 4 if self.mode == TRAINING else 3]
        return tuple(rng.random(shape, np.float32) - np.float32(0.5) for shape in wanted)

    def call(self, framework: Framework) -> Callable[[], Any]:
        """One run of this case: returns y, or the gradients of x, weight and bias."""
        lib, row = framework.lib, self.row
        x = framework.data(self.arrays[0], row.is_image)
        weight, bias = (framework.parameter(array) for array in self.arrays[1:3])
        settings = {"stride": row.stride, "padding": row.padding, "groups": row.groups}

        def forward() -> Any:
            with lib.no_grad():
                return lib.nn.functional.conv2d(x, weight, bias, **settings)

        def direct() -> Any:
            with lib.backends.cpu.flags(winograd=False):
                return forward()

        if self.mode == DIRECT and framework.channels_last is None:
            return direct
        if self.mode != TRAINING:
            return forward
        x.requires_grad_(True)
        gradient = framework.data(self.arrays[3])

        def training() -> Any:
            x.grad = weight.grad = bias.grad = None
            lib.nn.functional.conv2d(x, weight, bias, **settings).backward(gradient)
            return x.grad, weight.grad, bias.grad

        return training

    def check(self, framework: Framework) -> float:
        """Run once, compare a sample with float64, and return the largest error in shares of the largest value.

        Raises:
            AssertionError: the error is above `TOLERANCE`.
        """
        result = self.call(framework)()
        results = list(result) if self.mode == TRAINING else [result]
        samplers = [self._x_gradient_at, self._weight_gradient_at] if self.mode == TRAINING else [self._y_at]
        rng = np.random.default_rng(1)
        worst = 0.0
        for tensor, sampler in zip(results, samplers, strict=False):
            array = tensor.detach().numpy()
            places = [tuple(int(rng.integers(n)) for n in array.shape) for _ in range(CHECKED)]
            got = np.array([array[place] for place in places], np.float64)
            expected = np.array([sampler(*place) for place in places])
            worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
        if not worst <= TOLERANCE:
            raise AssertionError(f"{self.row.name} {self.mode}: {framework.name} is off by {worst:.1e} of the maximum")
        return worst

    @cached_property
    def _padded(self) -> np.ndarray:
        pad = self.row.padding
        return np.pad(self.arrays[0], ((0, 0), (0, 0), (pad, pad), (pad, pad)))

    def _group(self, channel: int) -> slice:
        """The input channels that an output channel sees."""
        wide = self.row.in_channels // self.row.groups
        group = channel // (self.row.out_channels // self.row.groups)
        return slice(group * wide, (group + 1) * wide)

    def _y_at(self, n: int, o: int, h: int, w: int) -> float:
        k, top, left = self.row.kernel, h * self.row.stride, w * self.row.stride
        window = self._padded[n, self._group(o), top : top + k, left : left + k].astype(np.float64)
        return float((window * self.arrays[1][o]).sum() + self.arrays[2][o])

    def _weight_gradient_at(self, o: int, i: int, kh: int, kw: int) -> float:
        stride, reach = self.row.stride, self.row.stride * (self.output - 1) + 1
        seen = self._padded[:, self._group(o).start + i, kh : kh + reach : stride, kw : kw + reach : stride]
        return float((seen.astype(np.float64) * self.arrays[3][:, o]).sum())

    def _x_gradient_at(self, n: int, i: int, h: int, w: int) -> float:
        row, wide = self.row, self.row.out_channels // self.row.groups
        group = i // (row.in_channels // row.groups)
        out = slice(group * wide, (group + 1) * wide)
        weight = self.arrays[1][out, i % (row.in_channels // row.groups)].astype(np.float64)
        total = 0.0
        for kh in range(row.kernel):
            for kw in range(row.kernel):
                oh, rest_h = divmod(h + row.padding - kh, row.stride)
                ow, rest_w = divmod(w + row.padding - kw, row.stride)
                if rest_h == rest_w == 0 and 0 <= oh < self.output and 0 <= ow < self.output:
                    total += float(self.arrays[3][n, out, oh, ow] @ weight[:, kh, kw])
        return total
