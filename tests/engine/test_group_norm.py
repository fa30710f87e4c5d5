"""Group and instance norm kernels: both memory orders, one launch or three, forward and backward."""

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernel import Kernel
from faltung.engine.kernels import column_moments, group_norm
from tests.engine.assembly import CHIPS, assert_stays_in_registers
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes

Case = tuple[tuple[int, ...], int]


def cases() -> list[Case]:
    """(shape, groups): channels around vectors, positions around blocks, small and large samples."""
    around = [lanes() - 1, lanes(), lanes() + 1, 4 * lanes() - 1, 4 * lanes(), 4 * lanes() + 1]
    longest = column_moments.LONGEST_BLOCK
    return [
        *(((2, channels, 5, 3), groups) for channels in around for groups in (1, channels)),
        *(((1, 6, 1, count), 3) for count in (longest - 1, longest, longest + 1, 3 * longest + 5)),
        ((3, 12, 4), 4),
        ((9, 12), 3),
        ((5, 4, 2, 3, 2), 2),
        ((2, 3, 1, 1), 1),
        ((2, 3, 1, 1), 3),  # one element
        ((1, 2, 1, 5), 2),
        ((9, 20, 31, 31), 5),  # all steps in a chunk
        ((2, 20, 61, 61), 5),  # a launch for each step
        ((1, 3, 300, 200), 1),
        ((1, 3, 300, 200), 3),
        ((70, 40, 3, 3), 8),  # several samples in a chunk
    ]


def check_both(x: np.ndarray, groups: int, affine: bool, offset: float = 0.0) -> None:
    weight, bias = (floats(x.shape[1], seed) if affine else None for seed in (1, 2))
    # the mean itself is rounded to float32
    _, mean, var = check("norm.group_forward", x, groups, weight, bias, 1e-5, rtol=1e-5, atol=1e-5 + offset * 2e-7)
    # a small group may have next to no variance, by which rounding is divided
    check("norm.group_backward", floats(x.shape, 3), x, mean, var, groups, weight, 1e-2, rtol=3e-5, atol=3e-4)


@pytest.mark.parametrize("affine", [True, False])
def test_against_the_reference(affine: bool) -> None:
    for shape, groups in cases():
        x = floats(shape, scale=3.0)
        check_both(x, groups, affine)
        check_both(channels_last(x), groups, affine)


def test_large_means() -> None:
    for shape in ((2, 24, 9, 9), (2, 24, 61, 61)):
        x = floats(shape) + np.float32(1000)
        check_both(x, 6, True, offset=1000)
        check_both(channels_last(x), 6, True, offset=1000)


def test_gaps_and_other_orders() -> None:
    wide = floats((3, 10, 6, 14))
    for x in (wide[..., ::2], wide[:, ::-1], wide[::2], wide.transpose(0, 1, 3, 2), wide.transpose(1, 3, 2, 0)):
        for groups in (1, 2):
            check_both(x, groups, True)


def test_a_gradient_in_another_order() -> None:
    x, gy = floats((2, 20, 9, 9)), floats((2, 20, 9, 9), 3)
    _, mean, var = registry.call("norm.group_forward", x, 4, None, None, 1e-5)
    for value in (x, channels_last(x)):
        for gradient in (gy, channels_last(gy), gy[:, :, ::-1]):
            check("norm.group_backward", gradient, value, mean, var, 4, None, 1e-5, rtol=3e-5, atol=3e-4)


def test_one_launch_or_three_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x, gy, weight = floats((9, 20, 31, 31)), floats((9, 20, 31, 31), 3), floats(20, 1)
    for value, gradient in ((x, gy), (channels_last(x), channels_last(gy))):
        found = []
        for fewest in (1, 1 << 30):
            monkeypatch.setattr(group_norm, "FEWEST_CHUNKS", fewest)
            group_norm.plan_for.cache_clear()
            y, mean, var = registry.call("norm.group_forward", value, 5, weight, None, 1e-5)
            gradients = registry.call("norm.group_backward", gradient, value, mean, var, 5, weight, 1e-5)
            found.append([part.tobytes() for part in (y, mean, var, *gradients)])
            launches = group_norm.plan_for(x.shape, 5, value is not x, "forward").launches
            assert len(launches) == (1 if fewest == 1 else 3)
        assert found[0] == found[1]
    group_norm.plan_for.cache_clear()


def test_results_keep_the_memory_order() -> None:
    x = floats((2, 6, 4, 5))
    for value in (x, channels_last(x)):
        assert registry.call("norm.group_forward", value, 3, None, None, 1e-5)[0].strides == value.strides


@pytest.mark.parametrize("last", [True, False])
def test_constant_groups_and_nan(last: bool) -> None:
    x = np.full((2, 6, 5, 5), 123.456, np.float32)
    x[1, 4, 0, 0] = np.nan
    y, mean, var = registry.call("norm.group_forward", channels_last(x) if last else x, 3, None, None, 1e-5)
    assert np.isnan(y[1, 4:]).all()
    assert not np.isnan(y[0]).any()
    assert not np.isnan(y[1, :4]).any()
    np.testing.assert_allclose(mean[0], 123.456, rtol=1e-7)
    np.testing.assert_allclose(var[0], 0, atol=1e-9)


def test_refusals() -> None:
    refuse, _ = kernel("norm.group_forward")
    x = floats((2, 4, 3, 3))
    assert "float64" in refuse(x.astype(np.float64), 2, None, None, 1e-5)
    assert "nothing" in refuse(x[:0], 2, None, None, 1e-5)
    assert "contiguous" in refuse(x, 2, floats(8)[::2], None, 1e-5)
    assert registry.call("norm.group_forward", x[:0], 2, None, None, 1e-5)[0].shape == (0, 4, 3, 3)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_channels_stay_in_registers(chip: str, way: str) -> None:
    fields, step = (group_norm.FORWARD, "apply") if way == "forward" else (group_norm.BACKWARD, "descend")
    vectors = group_norm.vectors_held(64, True, way, CHIPS[chip].registers)
    schedule = group_norm.Schedule((step,), True, vectors)
    step_alone = Kernel(f"group_norm_{step}", fields, schedule, group_norm.emit)
    assert_stays_in_registers(step_alone, chip, at_least=vectors)
