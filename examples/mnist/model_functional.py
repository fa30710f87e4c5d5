"""The same CNN written with nn.functional: the parameters are ours, and every call is handed what it needs."""

import math

import faltung as torch
import faltung.nn.functional as F
from faltung import nn


class CNN(nn.Module):
    """(N, 1, 28, 28) images to (N, 10) scores.

    The parameters are drawn in the order and from the distributions of `nn.Conv2d` and `nn.Linear`, so that one seed
    gives both models the same numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cnn1_weight, self.cnn1_bias = default_parameters(16, 1, 5, 5)
        self.cnn2_weight, self.cnn2_bias = default_parameters(32, 16, 5, 5)
        self.linear1_weight, self.linear1_bias = default_parameters(10, 4 * 4 * 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.conv2d(x, self.cnn1_weight, self.cnn1_bias)
        out = F.max_pool2d(F.relu(out), 2)  # (N, 16, 12, 12)

        out = F.conv2d(out, self.cnn2_weight, self.cnn2_bias)
        out = F.max_pool2d(F.relu(out), 2)  # (N, 32, 4, 4)

        return F.linear(out.view(x.size(0), -1), self.linear1_weight, self.linear1_bias)


def default_parameters(*shape: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight of this shape, (out, in, ...), and its bias, as nn.Conv2d and nn.Linear draw them."""
    weight = nn.Parameter(torch.empty(*shape))
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    bias = nn.Parameter(torch.empty(shape[0]))
    nn.init.uniform_(bias, -bound, bound)
    return weight, bias
