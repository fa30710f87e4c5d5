"""Random programs inside a module's forward: what waits gives the values, strides and versions of computing at once."""

import random
from collections.abc import Callable
from typing import Any

import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd.modes import waiting

Step = Callable[[Any, random.Random, Any, Any], Any]


class Net(nn.Module):
    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        faltung.manual_seed(seed)
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels) for _ in range(2)])
        for norm in self.norms:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        self.seed = seed
        self.eval()

    def forward(self, x: Any) -> list[Any]:
        draw, held = random.Random(self.seed), [x]
        for _ in range(draw.randint(3, 14)):
            at = draw.randrange(len(held))
            step = draw.choice(STEPS)
            if step is None:
                if len(held) > 1:
                    del held[at]
                continue
            result = step(self, draw, held[at], draw.choice(held))
            if result is not None:
                held.append(result)
        return held


def _nothing(_: Any) -> None:
    """The result of a step that only writes."""


def _through_numpy(y: Any) -> None:
    array = y.numpy()
    array *= 0.9


STEPS: list[Step | None] = [
    *[lambda net, draw, y, z: draw.choice(net.convs)(y)] * 4,
    *[lambda net, draw, y, z: draw.choice(net.norms)(y)] * 3,
    *[lambda net, draw, y, z: y + z] * 2,
    lambda net, draw, y, z: _nothing(y.add_(z)),
    lambda net, draw, y, z: F.relu(y),
    lambda net, draw, y, z: _nothing(F.relu_(y)),
    lambda net, draw, y, z: F.relu6(y),
    lambda net, draw, y, z: F.silu(y),
    lambda net, draw, y, z: F.hardswish(y),
    lambda net, draw, y, z: _nothing(F.hardswish(y, inplace=True)),
    lambda net, draw, y, z: _nothing(y.mul_(0.5)),
    lambda net, draw, y, z: _nothing(y[:, 1].zero_()),
    lambda net, draw, y, z: _nothing(y.__setitem__(0, 0.3)),
    lambda net, draw, y, z: _nothing(draw.choice(net.convs).weight.mul_(1.1)),
    lambda net, draw, y, z: _nothing(draw.choice(net.norms).running_mean.add_(0.1)),
    lambda net, draw, y, z: _nothing(setattr(y, "data", z.clone())),
    lambda net, draw, y, z: _through_numpy(y),
    lambda net, draw, y, z: y[:, ::1],
    lambda net, draw, y, z: y.permute(0, 1, 3, 2),
    lambda net, draw, y, z: y.detach(),
    lambda net, draw, y, z: y.clone(),
    lambda net, draw, y, z: faltung.cat([y, z], 1)[:, : y.shape[1]],
    lambda net, draw, y, z: F.relu(net.norms[0](y)),
    None,  # let go of one
]


def run(seed: int, at_once: bool) -> list[Any] | str:
    net = Net((4, 16, 20)[seed % 3], seed)
    x = faltung.randn(2, net.norms[0].num_features, 5, 5)
    if seed % 2:
        x = x.to(memory_format=faltung.channels_last)
    with faltung.no_grad():
        try:
            return net.forward(x) if at_once else net(x)
        except RuntimeError as error:
            return str(error)


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_programs(first: int) -> None:
    for seed in range(first, first + 100):
        expected, found = run(seed, True), run(seed, False)
        assert not waiting
        if isinstance(expected, str) or isinstance(found, str):
            assert found == expected, seed
            continue
        assert len(found) == len(expected), seed
        for ours, theirs in zip(found, expected, strict=True):
            assert type(ours) is faltung.Tensor
            assert (ours.stride(), ours._version) == (theirs.stride(), theirs._version), seed
            assert faltung.allclose(ours, theirs, 0, 0, equal_nan=True), seed
