"""Named convolution cases: sizes around the kernels' blocks, and every argument in one to three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Ints = tuple[int, ...]


@dataclass(frozen=True)
class ConvCase:
    """One convolution, or with `transposed` one transposed convolution."""

    name: str
    input: Ints  # (N, I, *spatial)
    weight: Ints  # (O, I/groups, *kernel); transposed: (I, O/groups, *kernel)
    stride: int | Ints = 1
    padding: str | int | Ints = 0
    dilation: int | Ints = 1
    groups: int = 1
    bias: bool = True
    output_padding: int | Ints = 0
    transposed: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.weight) - 2

    @property
    def function(self) -> str:
        """Name of the function in nn.functional."""
        return f"conv_transpose{self.ndim}d" if self.transposed else f"conv{self.ndim}d"

    @property
    def out_channels(self) -> int:
        """Number of channels of the result."""
        return self.weight[1] * self.groups if self.transposed else self.weight[0]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the function."""
        options: dict[str, Any] = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        if self.transposed:
            options["output_padding"] = self.output_padding
        return options


# Around a vector (8), two vectors (16) and a tile of pixels (4 to 6): below, at, above.
WIDTHS = [
    ConvCase(
        f"out {channels} of in {inner} at width {width}", (2, inner, 3, width + 2), (channels, inner, 3, 3), padding=1
    )
    for channels, inner, width in [
        (1, 1, 1),
        (7, 3, 4),
        (8, 8, 5),
        (9, 7, 6),
        (15, 9, 7),
        (16, 16, 11),
        (17, 15, 12),
        (31, 2, 13),
        (32, 17, 3),
        (33, 4, 2),
    ]
]

PLAIN = [
    ConvCase("1x1", (2, 5, 6, 7), (9, 5, 1, 1)),
    ConvCase("1x1 stride 2", (2, 8, 7, 6), (16, 8, 1, 1), stride=2),
    ConvCase("3x3 pad 1", (2, 3, 8, 9), (4, 3, 3, 3), padding=1),
    ConvCase("3x3 no bias", (1, 4, 5, 5), (8, 4, 3, 3), bias=False),
    ConvCase("3x3 on exactly 3x3", (2, 4, 3, 3), (5, 4, 3, 3)),
    ConvCase("5x5 of the MNIST example", (2, 1, 28, 28), (16, 1, 5, 5)),
    ConvCase("5x5 second of the MNIST example", (2, 16, 12, 12), (32, 16, 5, 5)),
    ConvCase("7x7 stem", (1, 3, 20, 22), (8, 3, 7, 7), stride=2, padding=3),
    ConvCase("kernel as large as the padded input", (1, 2, 4, 5), (3, 2, 6, 7), padding=1),
    ConvCase("stride larger than kernel", (2, 3, 11, 10), (4, 3, 2, 2), stride=3),
    ConvCase("stride leaves a rest", (1, 3, 9, 10), (4, 3, 3, 3), stride=2),
    ConvCase(
        "uneven everything", (2, 4, 9, 12), (6, 2, 3, 2), stride=(2, 3), padding=(2, 1), dilation=(1, 2), groups=2
    ),
    ConvCase("padding beyond the kernel", (1, 2, 3, 4), (3, 2, 2, 3), padding=(3, 4)),
    ConvCase("dilation 2", (2, 3, 9, 9), (4, 3, 3, 3), dilation=2, padding=2),
    ConvCase("dilation 3 stride 2", (1, 3, 12, 11), (4, 3, 3, 3), dilation=3, stride=2, padding=1),
    ConvCase("same, odd kernel", (1, 3, 6, 7), (4, 3, 3, 5), padding="same"),
    ConvCase("same, even kernel", (1, 3, 6, 7), (4, 3, 2, 4), padding="same"),
    ConvCase("same, even kernel, dilated", (1, 3, 8, 9), (4, 3, 4, 2), padding="same", dilation=(1, 3)),
    ConvCase("valid", (1, 3, 6, 7), (4, 3, 3, 3), padding="valid"),
    ConvCase("groups 2", (2, 6, 5, 5), (4, 3, 3, 3), groups=2),
    ConvCase("groups 8 as in the mission document, small", (2, 32, 9, 8), (64, 4, 3, 3), groups=8),
    ConvCase("depthwise", (2, 9, 6, 7), (9, 1, 3, 3), groups=9, padding=1),
    ConvCase("depthwise, multiplier 2, stride 2", (2, 8, 7, 7), (16, 1, 3, 3), groups=8, stride=2, padding=1),
    ConvCase("depthwise 5x5, dilated", (1, 16, 11, 12), (16, 1, 5, 5), groups=16, padding=4, dilation=2),
    ConvCase("groups of one output", (1, 6, 4, 4), (3, 2, 1, 1), groups=3),
    ConvCase("one pixel", (3, 5, 1, 1), (4, 5, 1, 1)),
    ConvCase("one row", (2, 5, 1, 9), (4, 5, 1, 3), padding=(0, 1)),
    ConvCase("empty batch", (0, 3, 5, 5), (4, 3, 3, 3), padding=1),
    ConvCase("1d", (2, 3, 10), (4, 3, 3), padding=1),
    ConvCase("1d strided, dilated, grouped", (2, 4, 15), (6, 2, 3), stride=2, padding=2, dilation=2, groups=2),
    ConvCase("1d same, even kernel", (1, 3, 7), (2, 3, 4), padding="same"),
    ConvCase("1d depthwise", (2, 7, 9), (7, 1, 3), groups=7),
    ConvCase("3d", (2, 3, 4, 5, 6), (4, 3, 3, 3, 3), padding=1),
    ConvCase("3d uneven", (1, 4, 5, 6, 7), (6, 2, 1, 2, 3), stride=(1, 2, 2), padding=(0, 1, 2), groups=2),
    ConvCase("3d dilated", (1, 2, 6, 5, 7), (3, 2, 2, 2, 2), dilation=(3, 2, 1)),
]

TRANSPOSED = [
    ConvCase("transposed 1d", (2, 3, 5), (3, 4, 3), transposed=True),
    ConvCase(
        "transposed 1d stride 3", (2, 4, 5), (4, 3, 4), stride=3, padding=1, output_padding=2, groups=2, transposed=True
    ),
    ConvCase("transposed 2d", (2, 3, 4, 5), (3, 4, 3, 3), transposed=True),
    ConvCase("transposed 2d stride 2", (2, 8, 4, 5), (8, 6, 2, 2), stride=2, transposed=True),
    ConvCase("transposed 2d DCGAN", (2, 9, 4, 4), (9, 7, 4, 4), stride=2, padding=1, bias=False, transposed=True),
    ConvCase("transposed 2d extra", (1, 4, 4, 3), (4, 3, 3, 3), stride=2, padding=1, output_padding=1, transposed=True),
    ConvCase("transposed 2d groups", (1, 4, 4, 3), (4, 3, 3, 2), stride=(2, 1), groups=2, transposed=True),
    ConvCase(
        "transposed 2d dilated", (1, 2, 4, 3), (2, 3, 3, 3), stride=2, dilation=3, output_padding=2, transposed=True
    ),
    ConvCase("transposed 2d stride beyond kernel", (1, 2, 3, 3), (2, 3, 1, 2), stride=3, transposed=True),
    ConvCase("transposed 2d cut by padding", (1, 2, 5, 5), (2, 3, 3, 3), padding=2, transposed=True),
    ConvCase("transposed 2d empty batch", (0, 2, 5, 5), (2, 3, 3, 3), transposed=True),
    ConvCase("transposed 3d", (1, 2, 3, 2, 4), (2, 3, 2, 3, 2), stride=(1, 2, 2), padding=(0, 1, 0), transposed=True),
]

CASES = [*PLAIN, *WIDTHS, *TRANSPOSED]
