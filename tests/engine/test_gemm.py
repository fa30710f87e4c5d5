"""Matrix product kernels against float64, around tiles, panels and blocks of k."""

import numpy as np
import pytest

from faltung.engine import memory, registry, team
from faltung.engine.kernels import gemm, gemm_dot, gemm_tile
from tests.engine import assembly
from tests.engine.guard import guarded, guarded_copy

SIZES = [
    *((m, 40, 33) for m in (1, 2, 5, 6, 7, 13, 14, 15, 27, 28, 29, 85)),
    *((20, 40, n) for n in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 129)),
    *((33, k, 35) for k in (1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 191, 192, 193, 255, 256, 257, 513)),
    *((3, k, 9) for k in (7, 8, 15, 16, 17, 31, 32, 33, 64, 100)),  # rows that are read where they lie
    (1, 512, 10),
    (64, 512, 10),
    (1, 1, 1),
    (257, 300, 130),
]
FORMS = ["nn", "nt", "tn", "tt", "strided"]


def operands(m: int, k: int, n: int, form: str, at_end: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """a (m, k) and b (k, n) in float32, transposed in memory as `form` says."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    if form == "strided":
        return np.repeat(np.repeat(a, 2, 1), 2, 0)[::2, ::2], np.repeat(np.repeat(b, 3, 1), 2, 0)[::2, ::3]
    a = guarded_copy(a.T, at_end=at_end).T if form[0] == "t" else guarded_copy(a, at_end=at_end)
    return a, guarded_copy(b.T, at_end=at_end).T if form[1] == "t" else guarded_copy(b, at_end=at_end)


def assert_near(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    scale = np.abs(expected).max(initial=1e-30)
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=3e-6)


@pytest.fixture(params=[True, False], ids=["last byte", "first byte"])
def at_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Which end of every array, results included, adjoins an unmapped page."""
    monkeypatch.setattr(memory, "empty", lambda shape, dtype=np.float32: guarded(shape, dtype, request.param))
    return request.param


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("m, k, n", SIZES)
def test_matmul(m, k, n, form, at_end):
    a, b = operands(m, k, n, form, at_end)
    assert_near(gemm.matmul(a, b), a.astype(np.float64) @ b.astype(np.float64))


@pytest.mark.parametrize("m, k, n", SIZES[::3])
def test_linear_and_its_gradients(m, k, n, at_end):
    rng = np.random.default_rng(4)
    arrays = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k), (n,), (m, n)))
    x, w, bias, gy = (guarded_copy(array, at_end=at_end) for array in arrays)
    wide_x, wide_w, wide_bias, wide_gy = (array.astype(np.float64) for array in (x, w, bias, gy))
    assert_near(gemm.forward(x, w, bias), wide_x @ wide_w.T + wide_bias)
    assert_near(gemm.forward(x, w, None), wide_x @ wide_w.T)
    assert_near(gemm.backward_data(gy, w), wide_gy @ wide_w)
    gw, gb = gemm.backward_weights(x, gy, with_bias=True)
    assert_near(gw, wide_gy.T @ wide_x)
    assert gb is not None
    assert_near(gb, wide_gy.sum(axis=0))
    assert gemm.backward_weights(x, gy)[1] is None


@pytest.mark.parametrize(
    "a_shape, b_shape",
    [
        ((3, 4, 5, 40), (3, 4, 40, 7)),
        ((3, 1, 5, 40), (1, 4, 40, 7)),
        ((5, 40), (4, 40, 7)),
        ((4, 5, 40), (40, 7)),
        ((2, 3, 4, 5, 6), (3, 1, 6, 9)),
        ((2, 1, 3, 5, 6), (4, 1, 6, 9)),
        ((0, 5, 6), (0, 6, 9)),
        ((3, 0, 6), (3, 6, 9)),
        ((3, 5, 0), (3, 0, 9)),
    ],
)
def test_batches_broadcast(a_shape, b_shape):
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal(a_shape).astype(np.float32), rng.standard_normal(b_shape).astype(np.float32)
    assert_near(gemm.matmul(a, b), np.matmul(a.astype(np.float64), b.astype(np.float64)))


def test_heads_of_attention_are_read_where_they_lie():
    rng = np.random.default_rng(6)
    q, k = (rng.standard_normal((2, t, 4, 16)).astype(np.float32).transpose(0, 2, 1, 3) for t in (37, 41))
    assert_near(gemm.matmul(q, k.swapaxes(-1, -2)), q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2))


def test_leading_dimensions_of_linear():
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((2, 3, 40)).astype(np.float32), rng.standard_normal((9, 40)).astype(np.float32)
    for leading in (x, x[0], x[0, 0], x.transpose(1, 0, 2), x[:0]):
        assert_near(gemm.forward(leading, w, None), leading.astype(np.float64) @ w.T.astype(np.float64))


@pytest.mark.parametrize("form", ["nn", "nt", "tn"])
@pytest.mark.parametrize("m, k, n", [(64, 512, 10), (300, 200, 260), (5, 700, 900)])
def test_bits_do_not_depend_on_threads(m, k, n, form):
    a, b = operands(m, k, n, form)
    before = team.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 4):
            team.set_num_threads(count)
            results.append(gemm.matmul(a, b))
    finally:
        team.set_num_threads(before)
    for other in results[1:]:
        assert np.array_equal(results[0], other)


def test_an_infinity_stays_in_its_row_and_column():
    a, b = (array.copy() for array in operands(20, 40, 33, "nn"))
    a[3], b[:, 5] = np.inf, np.nan
    rest = np.delete(np.delete(gemm.matmul(a, b), 3, axis=0), 5, axis=1)
    assert np.isfinite(rest).all()


def test_refusals():
    big, small = np.zeros((64, 64), np.float32), np.zeros((2, 2), np.float32)
    assert gemm.refuse_matmul(big, big) is None
    assert "too small" in str(gemm.refuse_matmul(small, small))
    assert "float64" in str(gemm.refuse_matmul(big.astype(np.float64), big.astype(np.float64)))
    assert "bias" in str(gemm.refuse_forward(big, big, np.zeros(64)))
    assert [label for label, _, _ in registry.candidates("linear.matmul")] == ["gemm", "reference"]


@pytest.mark.parametrize("chip", assembly.CHIPS)
@pytest.mark.parametrize("m, n", [(1000, 1000), (1000, 10), (13, 1000), (1, 1000)])
def test_hot_loops_stay_in_registers(m, n, chip):
    target = assembly.CHIPS[chip]
    schedule = gemm.choose(gemm.Sizes(m, n, 500, 1), True, True, True, target)
    assembly.assert_stays_in_registers(gemm_tile.tile_kernel(schedule), chip, 8)
    schedule = gemm_dot.DotSchedule(*gemm_dot.shape(target, m, n), True)
    assembly.assert_stays_in_registers(gemm_dot.dot_kernel(schedule), chip, 4)
