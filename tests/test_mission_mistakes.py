"""A beginner's CNN written with nn.functional, mistake by mistake, each met by an error that says what to do.

The network is the one of the well-known comparison of nn.Conv2d with F.conv2d, as it was written there.
"""

import re

import pytest

import faltung as torch
import faltung.nn as nn
import faltung.nn.functional as F


class AsWritten(nn.Module):
    """Parameters as in the document: the linear weight is (in, out), which is the fifth mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn1_weight = nn.Parameter(torch.rand(16, 1, 5, 5))
        self.bias1_weight = nn.Parameter(torch.rand(16))
        self.cnn2_weight = nn.Parameter(torch.rand(32, 16, 5, 5))
        self.bias2_weight = nn.Parameter(torch.rand(32))
        self.linear1_weight = nn.Parameter(torch.rand(4 * 4 * 32, 10))
        self.bias3_weight = nn.Parameter(torch.rand(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(x.size(0), -1)
        out = F.conv2d(x, self.cnn1_weight, self.bias1_weight)
        out = F.relu(out)
        out = F.max_pool2d(out)
        out = F.conv2d(x, self.cnn2_weight, self.bias2_weight)
        out = F.relu(out)
        out = F.max_pool2d(out)
        return F.linear(x, self.linear1_weight, self.bias3_weight)


class NotFlattenedFirst(AsWritten):
    """The first line is gone: convolution gets images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(F.conv2d(x, self.cnn1_weight, self.bias1_weight))
        out = F.max_pool2d(out)
        return out


class PooledBySize(AsWritten):
    """Pooling has its size; the second convolution still takes x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = F.max_pool2d(F.relu(F.conv2d(x, self.cnn1_weight, self.bias1_weight)), 2)
        out = F.max_pool2d(F.relu(F.conv2d(x, self.cnn2_weight, self.bias2_weight)), 2)
        return F.linear(x, self.linear1_weight, self.bias3_weight) + out + pooled


class SecondConvolutionTakesOut(AsWritten):
    """The second convolution takes out; linear still takes x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.max_pool2d(F.relu(F.conv2d(x, self.cnn1_weight, self.bias1_weight)), 2)
        out = F.max_pool2d(F.relu(F.conv2d(out, self.cnn2_weight, self.bias2_weight)), 2)
        return F.linear(x, self.linear1_weight, self.bias3_weight) + out


class LinearTakesOut(AsWritten):
    """Linear takes out, which is not flat."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.max_pool2d(F.relu(F.conv2d(x, self.cnn1_weight, self.bias1_weight)), 2)
        out = F.max_pool2d(F.relu(F.conv2d(out, self.cnn2_weight, self.bias2_weight)), 2)
        return F.linear(out, self.linear1_weight, self.bias3_weight)


class Flattened(AsWritten):
    """All but the weight's order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.max_pool2d(F.relu(F.conv2d(x, self.cnn1_weight, self.bias1_weight)), 2)
        out = F.max_pool2d(F.relu(F.conv2d(out, self.cnn2_weight, self.bias2_weight)), 2)
        return F.linear(out.flatten(1), self.linear1_weight, self.bias3_weight)


class Right(Flattened):
    """With the weight (out, in)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1_weight = nn.Parameter(torch.rand(10, 4 * 4 * 32))


MISTAKES = [
    ("x flattened before conv2d", AsWritten, RuntimeError,
     r"conv2d: input must be 4-d .* got 2-d \(8, 784\)\n.*flattened.*x\.view\(-1, 1, 28, 28\)"),
    ("max_pool2d without a size", NotFlattenedFirst, TypeError, r"max_pool2d\(\).*kernel_size"),
    ("second conv2d fed with x", PooledBySize, RuntimeError,
     r"conv2d: weight \(32, 16, 5, 5\) with groups=1 needs an input with 16 channels, got input \(8, 1, 28, 28\)"),
    ("linear fed with x", SecondConvolutionTakesOut, RuntimeError,
     r"linear: weight \(512, 10\) needs an input whose last dimension is 10, got input \(8, 1, 28, 28\)\n"
     r"input\.flatten\(1\) would make it \(8, 784\)"),
    ("linear without flatten, weight (in, out)", LinearTakesOut, RuntimeError,
     r"linear: .* got input \(8, 32, 4, 4\)\ninput\.flatten\(1\) would make it \(8, 512\); .*weight\.t\(\)"),
    ("weight (in, out)", Flattened, RuntimeError,
     r"linear: weight \(512, 10\) needs .* dimension is 10, got input \(8, 512\)\n.*transposed, use weight\.t\(\)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "kind", "pattern"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_mistake(network: type[nn.Module], kind: type[Exception], pattern: str) -> None:
    with pytest.raises(kind) as caught:
        network()(torch.rand(8, 1, 28, 28))
    assert re.search(pattern, str(caught.value)), str(caught.value)


def test_right_at_last() -> None:
    assert Right()(torch.rand(8, 1, 28, 28)).shape == (8, 10)


def test_nn_version_of_the_document_flattens_too_early_as_well() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Conv2d(1, 16, 5))
    with pytest.raises(RuntimeError, match=r"x\.view\(-1, 1, 28, 28\)"):
        model(torch.rand(8, 1, 28, 28))
