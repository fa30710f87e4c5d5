"""Classification and regression losses: values, gradients of any order, and what bad input gets."""

import math
import re
import warnings

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck
from tests.cases.loss import CLASSES, NUMBERS, ClassCase, NumberCase
from tests.oracle import loss as oracle

REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
DTYPES = pytest.mark.parametrize("dtype", [faltung.float32, faltung.float64], ids=str)
TOLERANCE = {"float32": {"rtol": 1e-5, "atol": 1e-5}, "float64": {"rtol": 1e-12, "atol": 1e-12}}


def class_operands(case: ClassCase) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(0)
    target = rng.integers(0, case.shape[1], (case.shape[0], *case.shape[2:]))
    if case.ignore_index >= 0:
        target.reshape(-1)[::3] = case.ignore_index
    weight = rng.uniform(0.2, 2, case.shape[1]) if case.weight else None
    return rng.standard_normal(case.shape) * 3, target, weight


def class_options(case: ClassCase, weight: np.ndarray | None, dtype: faltung.dtype) -> dict:
    return {
        "weight": None if weight is None else faltung.from_numpy(weight).to(dtype),
        "ignore_index": case.ignore_index,
        "label_smoothing": case.label_smoothing,
    }


@REDUCTIONS
@DTYPES
@pytest.mark.parametrize("case", CLASSES, ids=str)
def test_cross_entropy_values(case: ClassCase, dtype: faltung.dtype, reduction: str) -> None:
    scores, target, weight = class_operands(case)
    losses, total = oracle.cross_entropy(scores, target, weight, case.ignore_index, case.label_smoothing)
    options = class_options(case, weight, dtype)
    got = F.cross_entropy(
        faltung.from_numpy(scores).to(dtype), faltung.from_numpy(target), **options, reduction=reduction
    )
    assert got.dtype is dtype
    np.testing.assert_allclose(got.numpy(), oracle.reduced(losses, reduction, total), **TOLERANCE[dtype.name])


@REDUCTIONS
@pytest.mark.parametrize("case", CLASSES, ids=str)
def test_cross_entropy_derivatives(case: ClassCase, reduction: str) -> None:
    scores, target, weight = class_operands(case)
    labels, options = faltung.from_numpy(target), class_options(case, weight, faltung.float64)

    def function(x: faltung.Tensor) -> faltung.Tensor:
        return F.cross_entropy(x, labels, **options, reduction=reduction)

    assert gradcheck(function, [faltung.from_numpy(scores).requires_grad_()])
    assert gradgradcheck(function, [faltung.from_numpy(scores).requires_grad_()])


@REDUCTIONS
@pytest.mark.parametrize("case", [case for case in CLASSES if not case.label_smoothing], ids=str)
def test_nll_loss(case: ClassCase, reduction: str) -> None:
    scores, target, weight = class_operands(case)
    losses, total = oracle.cross_entropy(scores, target, weight, case.ignore_index, from_scores=False)
    options = class_options(case, weight, faltung.float64)
    del options["label_smoothing"]

    def function(x: faltung.Tensor) -> faltung.Tensor:
        return F.nll_loss(x, faltung.from_numpy(target), **options, reduction=reduction)

    x = faltung.from_numpy(scores).requires_grad_()
    np.testing.assert_allclose(function(x).detach().numpy(), oracle.reduced(losses, reduction, total), rtol=1e-12)
    assert gradcheck(function, [x])
    assert gradgradcheck(function, [x])


@REDUCTIONS
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (1, 4)], ids=str)
def test_class_probabilities(shape: tuple[int, ...], weighted: bool, smoothing: float, reduction: str) -> None:
    rng = np.random.default_rng(1)
    scores, target = rng.standard_normal(shape), rng.dirichlet(np.ones(shape[1]), shape[:1] + shape[2:])
    target = np.moveaxis(target, -1, 1).copy()
    weight = rng.uniform(0.5, 2, shape[1]) if weighted else None
    losses = oracle.probability_cross_entropy(scores, target, weight, smoothing)
    weights = None if weight is None else faltung.from_numpy(weight)

    def function(x: faltung.Tensor, t: faltung.Tensor) -> faltung.Tensor:
        return F.cross_entropy(x, t, weights, label_smoothing=smoothing, reduction=reduction)

    inputs = [faltung.from_numpy(scores).requires_grad_(), faltung.from_numpy(target).requires_grad_()]
    np.testing.assert_allclose(function(*inputs).detach().numpy(), oracle.reduced(losses, reduction), rtol=1e-12)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("function", [F.cross_entropy, F.nll_loss])
def test_classes_of_one_sample(function) -> None:
    x = faltung.randn(4)
    batched = function(x[None], faltung.tensor([2]))
    assert function(x, faltung.tensor(2)).item() == batched.item()
    assert function(x, faltung.tensor([2]), reduction="none").shape == (1,)
    assert function(x, faltung.tensor(2), reduction="none").shape == ()
    assert function(x, faltung.tensor(2, dtype=faltung.uint8)).item() == batched.item()


@pytest.mark.parametrize("function", [F.cross_entropy, F.nll_loss])
def test_nothing_to_average(function) -> None:
    assert math.isnan(function(faltung.zeros(0, 3), faltung.zeros(0).long()).item())
    assert function(faltung.zeros(0, 3), faltung.zeros(0).long(), reduction="sum").item() == 0
    assert math.isnan(function(faltung.zeros(2, 3), faltung.full((2,), -100)).item())


def test_cross_entropy_of_large_scores() -> None:
    x = faltung.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = F.cross_entropy(x, faltung.tensor([0, 0]), reduction="none")
    assert loss.tolist() == [0, 20000]
    loss.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0], [-1, 1]])


# --- numbers


def numbers(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    made = {
        "real": lambda: rng.standard_normal(shape) * 1.5,
        "probability": lambda: rng.uniform(0.05, 0.95, shape),
        "positive": lambda: rng.uniform(0.2, 3, shape),
        "count": lambda: rng.integers(0, 6, shape).astype(float),
        "sign": lambda: rng.choice([-1.0, 1.0], shape),
    }
    return made[kind]()


def quiet(case: NumberCase, *tensors: faltung.Tensor, reduction: str) -> faltung.Tensor:
    """kl_div warns that "mean" is not the divergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if case.function == "kl_div" else "error")
        return getattr(F, case.function)(*tensors, **case.options, reduction=reduction)


@REDUCTIONS
@DTYPES
@pytest.mark.parametrize("case", NUMBERS, ids=str)
def test_losses_of_numbers(case: NumberCase, dtype: faltung.dtype, reduction: str) -> None:
    rng = np.random.default_rng(2)
    for shape in ((3, 5), (), (2, 3, 1, 7)):
        x, t = numbers(case.inputs, rng, shape), numbers(case.targets, rng, shape)
        expected = oracle.reduced(oracle.each(case.formula, x, t), reduction)
        tensors = [faltung.tensor(a, dtype=dtype) for a in (x, t)]
        got = quiet(case, *tensors, reduction=reduction)
        assert got.dtype is dtype
        np.testing.assert_allclose(got.numpy(), expected, **TOLERANCE[dtype.name])
        if case.module:
            options = {**case.options, "reduction": reduction}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.testing.assert_array_equal(getattr(nn, case.module)(**options)(*tensors).numpy(), got.numpy())


@REDUCTIONS
@pytest.mark.parametrize("case", NUMBERS, ids=str)
def test_derivatives_of_numbers(case: NumberCase, reduction: str) -> None:
    rng = np.random.default_rng(3)
    x, t = numbers(case.inputs, rng, (3, 4)), numbers(case.targets, rng, (3, 4))
    inputs = [faltung.from_numpy(x).requires_grad_(), faltung.from_numpy(t)]
    if case.targets not in ("count", "sign"):
        inputs[1].requires_grad_()
    assert gradcheck(lambda x, t: quiet(case, x, t, reduction=reduction), inputs)
    assert gradgradcheck(lambda x, t: quiet(case, x, t, reduction=reduction), inputs)


@REDUCTIONS
@pytest.mark.parametrize("weights", [(3, 4), (4,), (3, 1)], ids=str)
def test_weighted_binary_cross_entropy(weights: tuple[int, ...], reduction: str) -> None:
    rng = np.random.default_rng(4)
    x, t = rng.standard_normal((3, 4)), rng.uniform(0, 1, (3, 4))
    w, positive = rng.uniform(0.5, 2, weights), rng.uniform(0.5, 2, weights)

    def formula(x: float, t: float, w: float, positive: float) -> float:
        p = 1 / (1 + math.exp(-x))
        return -w * (positive * t * math.log(p) + (1 - t) * math.log1p(-p))

    expected = oracle.reduced(oracle.each(formula, x, t, w, positive), reduction)
    inputs = [faltung.from_numpy(a).requires_grad_() for a in (x, t)]
    extra = {"weight": faltung.from_numpy(w), "pos_weight": faltung.from_numpy(positive), "reduction": reduction}

    def with_logits(x: faltung.Tensor, t: faltung.Tensor) -> faltung.Tensor:
        return F.binary_cross_entropy_with_logits(x, t, **extra)

    np.testing.assert_allclose(with_logits(*inputs).detach().numpy(), expected, rtol=1e-12)
    assert gradcheck(with_logits, inputs)
    assert gradgradcheck(with_logits, inputs)
    module = nn.BCEWithLogitsLoss(**extra)
    np.testing.assert_array_equal(module(*inputs).detach().numpy(), with_logits(*inputs).detach().numpy())

    def plain(p: faltung.Tensor, t: faltung.Tensor) -> faltung.Tensor:
        return F.binary_cross_entropy(p, t, weight=extra["weight"], reduction=reduction)

    expected = oracle.reduced(oracle.each(lambda *args: formula(*args, 1.0), x, t, w), reduction)
    inputs[0] = faltung.from_numpy(1 / (1 + np.exp(-x))).requires_grad_()
    np.testing.assert_allclose(plain(*inputs).detach().numpy(), expected, rtol=1e-10)
    assert gradcheck(plain, inputs)
    assert gradgradcheck(plain, inputs)


def test_binary_cross_entropy_at_the_ends() -> None:
    """Logarithms stop at -100, so that a certain wrong answer costs 100."""
    p = faltung.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = F.binary_cross_entropy(p, faltung.tensor([0.0, 1.0, 1.0, 0.0]), reduction="none")
    assert loss.tolist() == [0, 0, 100, 100]
    loss.sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), [0, 0, -1e12, 1e12])


def test_logits_may_be_large() -> None:
    x = faltung.tensor([1000.0, -1000.0, 1000.0, -1000.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, faltung.tensor([1.0, 0.0, 0.0, 1.0]), reduction="none")
    assert loss.tolist() == [0, 0, 1000, 1000]
    loss.sum().backward()
    assert x.grad.tolist() == [0, 0, 1, -1]


@pytest.mark.parametrize("function", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss])
def test_shapes_that_differ_broadcast_with_a_warning(function) -> None:
    with pytest.warns(
        UserWarning, match=re.escape("target size ((4,)) that is different to the input size ((3, 4))")
    ) as seen:
        loss = function(faltung.ones(3, 4), faltung.zeros(4), reduction="none")
    assert seen[0].filename == __file__
    assert loss.shape == (3, 4)


@pytest.mark.parametrize(("function", "power"), [(F.mse_loss, 2), (F.l1_loss, 1)])
def test_weights_of_numbers(function, power: int) -> None:
    x, t, w = (faltung.rand(3, 4, dtype=faltung.float64) for _ in "xtw")
    expected = abs(x.numpy() - t.numpy()) ** power * w.numpy()
    np.testing.assert_allclose(function(x, t, weight=w).item(), expected.sum() / w.numpy().sum(), rtol=1e-12)
    np.testing.assert_allclose(function(x, t, weight=w, reduction="none").numpy(), expected, rtol=1e-12)


@REDUCTIONS
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("sizes", [(3, 4), (3, 1), (3,)], ids=str)
def test_gaussian_nll_loss(sizes: tuple[int, ...], full: bool, reduction: str) -> None:
    rng = np.random.default_rng(5)
    x, t, var = rng.standard_normal((3, 4)), rng.standard_normal((3, 4)), rng.uniform(0.3, 2, sizes)

    def formula(x: float, t: float, v: float) -> float:
        return 0.5 * (math.log(v) + (x - t) ** 2 / v) + (0.5 * math.log(2 * math.pi) if full else 0)

    expected = oracle.reduced(oracle.each(formula, x, t, var if var.ndim == 2 else var[:, None]), reduction)
    inputs = [faltung.from_numpy(a).requires_grad_() for a in (x, t, var)]

    def function(*tensors: faltung.Tensor) -> faltung.Tensor:
        return F.gaussian_nll_loss(*tensors, full=full, reduction=reduction)

    np.testing.assert_allclose(function(*inputs).detach().numpy(), expected, rtol=1e-12)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_batchmean_is_the_divergence() -> None:
    x, t = faltung.randn(3, 4).log_softmax(1), faltung.rand(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        total = F.kl_div(x, t, reduction="sum").item()
        assert F.kl_div(x, t, reduction="batchmean").item() == pytest.approx(total / 3)
    with pytest.warns(UserWarning, match="'batchmean' divides only by the batch size"):
        assert F.kl_div(x, t).item() == pytest.approx(total / 12)


# --- connectionist temporal classification


CTC = [  # (T, C, targets, input lengths, blank)
    (4, 3, [[1, 2], [2, 1]], [4, 4], 0),
    (4, 3, [[1, 1], [2]], [4, 3], 0),
    (5, 3, [[0, 1, 0], []], [5, 2], 2),
    (3, 3, [[1, 1, 1], [1]], [3, 3], 0),
    (1, 2, [[1]], [1], 0),
]


@pytest.mark.parametrize(("steps", "classes", "targets", "lengths", "blank"), CTC)
def test_ctc_loss(steps: int, classes: int, targets: list, lengths: list, blank: int) -> None:
    rng = np.random.default_rng(6)
    scores = faltung.from_numpy(rng.standard_normal((steps, len(targets), classes))).requires_grad_()
    flat = faltung.tensor([label for target in targets for label in target], dtype=faltung.int64)
    sizes = [len(target) for target in targets]

    def function(x: faltung.Tensor) -> faltung.Tensor:
        return F.ctc_loss(x.log_softmax(2), flat, lengths, sizes, blank, "none", zero_infinity=True)

    probs = scores.detach().log_softmax(2).numpy()
    found = [oracle.ctc(probs[: lengths[n], n], target, blank) for n, target in enumerate(targets)]
    expected = [0 if math.isinf(value) else value for value in found]
    np.testing.assert_allclose(function(scores).detach().numpy(), expected, rtol=1e-10)
    assert gradcheck(function, [scores])
    plain = F.ctc_loss(scores.log_softmax(2), flat, lengths, sizes, blank, "none")
    np.testing.assert_allclose(plain.detach().numpy(), found, rtol=1e-10)


def test_ctc_loss_forms() -> None:
    """Padded and concatenated targets, tensors and lists of lengths, one sample without a batch, reductions."""
    x = faltung.randn(6, 2, 4).log_softmax(2)
    padded, flat = faltung.tensor([[1, 2], [3, 0]]), faltung.tensor([1, 2, 3])
    losses = F.ctc_loss(x, padded, [6, 5], [2, 1], reduction="none")
    again = F.ctc_loss(x, flat, faltung.tensor([6, 5]), faltung.tensor([2, 1]), reduction="none")
    assert losses.tolist() == again.tolist()
    assert F.ctc_loss(x, flat, [6, 5], [2, 1], reduction="sum").item() == pytest.approx(losses.sum().item())
    assert F.ctc_loss(x, flat, [6, 5], [2, 1]).item() == pytest.approx((losses[0] / 2 + losses[1]).item() / 2)
    one = F.ctc_loss(x[:, 0], padded[0], faltung.tensor(6), faltung.tensor(2), reduction="none")
    assert one.shape == ()
    assert one.item() == pytest.approx(losses[0].item())
    assert nn.CTCLoss(reduction="none")(x, flat, (6, 5), (2, 1)).tolist() == losses.tolist()


# --- bad input

X, Y = faltung.ones(4, 5), faltung.tensor([0, 1, 2, 4])
T = faltung.rand(2, 3)
P = faltung.rand(6, 2, 4).log_softmax(2)
LABELS = faltung.tensor([1, 2, 3])
BAD = [
    (lambda: F.cross_entropy(X, Y + 1), IndexError, "Target 5 is out of bounds: expected class indices from 0 to 4"),
    (lambda: F.cross_entropy(X, Y - 1), IndexError, "Target -1 is out of bounds"),
    (lambda: F.nll_loss(X, Y + 1), IndexError, "the input has 5 classes"),
    (lambda: F.cross_entropy(X, Y[:3]), ValueError, "batch_size (4) to match target batch_size (3)"),
    (lambda: F.cross_entropy(X, Y.float()), RuntimeError, "Class indices are integers: target.long()"),
    (lambda: F.cross_entropy(X, Y.int()), RuntimeError, "expected target dtype to be int64 or uint8"),
    (lambda: F.cross_entropy(X, Y[:, None]), RuntimeError, "target.squeeze(-1)"),
    (lambda: F.cross_entropy(X, faltung.eye(5)[Y].long()), RuntimeError, "target.argmax(1)"),
    (lambda: F.cross_entropy(X, [0, 1, 2, 3]), TypeError, "cross_entropy: target must be a Tensor, got list"),
    (lambda: F.cross_entropy(X, Y, faltung.ones(4)), RuntimeError, "all 5 classes or no classes"),
    (lambda: F.cross_entropy(X, Y, faltung.ones(5).double()), RuntimeError, "weight.to(faltung.float32)"),
    (lambda: F.cross_entropy(X, Y, label_smoothing=1.5), RuntimeError, "between 0.0 and 1.0, got 1.5"),
    (lambda: F.cross_entropy(X, X, ignore_index=1), RuntimeError, "ignore_index is not supported"),
    (lambda: F.cross_entropy(X, X, faltung.ones(4)), RuntimeError, "one number for each of 5 classes, got (4,)"),
    (lambda: F.cross_entropy(X.long(), Y), NotImplementedError, "cross_entropy: not implemented for faltung.int64"),
    (lambda: F.cross_entropy(X, Y, reduction="avg"), ValueError, "avg is not a valid value for reduction"),
    (lambda: F.cross_entropy(X[0], Y[:2]), ValueError, "For 1D input (C,), 1D target must have size 1"),
    (lambda: F.nll_loss(faltung.ones(()), faltung.tensor(0)), ValueError, "Expected 1 or more dimensions"),
    (lambda: F.cross_entropy(faltung.ones(2, 3, 4, 4), faltung.zeros(2, 4, 5).long()), RuntimeError, "(2, 4, 4)"),
    (lambda: F.mse_loss(T, T[:, :2]), RuntimeError, "sizes must match (or be 1)"),
    (lambda: F.mse_loss(T.long(), T.long()), NotImplementedError, "mse_loss: not implemented for faltung.int64"),
    (lambda: F.mse_loss(T, T, weight=T[0]), ValueError, "Weights and input must have the same size"),
    (lambda: F.mse_loss(T, 1.0), TypeError, "target must be a Tensor, got float"),
    (lambda: F.smooth_l1_loss(T, T, beta=-1.0), RuntimeError, "negative values for beta, got -1.0"),
    (lambda: F.huber_loss(T, T, delta=0.0), RuntimeError, "non-positive values for delta, got 0.0"),
    (lambda: nn.HuberLoss(delta="1"), TypeError, "delta must be a float or int, got '1' (str)"),
    (lambda: F.binary_cross_entropy(T, T[0]), ValueError, "target size ((3,))"),
    (lambda: F.binary_cross_entropy(T + 1, T), RuntimeError, "should be between 0 and 1"),
    (lambda: F.binary_cross_entropy(T * math.nan, T), RuntimeError, "should be between 0 and 1"),
    (lambda: F.binary_cross_entropy(T, T + 1), RuntimeError, "elements of target should be between 0 and 1"),
    (lambda: F.binary_cross_entropy(T, T.double()), RuntimeError, "must have one dtype"),
    (lambda: F.binary_cross_entropy(T, T, faltung.ones(2)), RuntimeError, "sizes must match"),
    (lambda: F.binary_cross_entropy_with_logits(T, T[0]), ValueError, "must be the same as input size ((2, 3))"),
    (lambda: F.binary_cross_entropy_with_logits(T, T.long()), RuntimeError, "target must be floating point"),
    (
        lambda: F.binary_cross_entropy_with_logits(T[0], T[0], pos_weight=T),
        RuntimeError,
        "pos_weight must broadcast to input (3,), got (2, 3)",
    ),
    (lambda: F.kl_div(T, T.long(), reduction="sum"), RuntimeError, "Integral inputs not supported"),
    (lambda: F.gaussian_nll_loss(T, T, -T), ValueError, "var has negative entry/entries"),
    (lambda: F.gaussian_nll_loss(T, T, faltung.ones(5)), ValueError, "var is of incorrect size"),
    (lambda: F.poisson_nll_loss(T, T, reduction="avg"), ValueError, "avg is not a valid value for reduction"),
    (lambda: F.ctc_loss(P, LABELS, [6, 5], [2, 2]), RuntimeError, "the sum of target_lengths, 4, got 3"),
    (lambda: F.ctc_loss(P, LABELS, [7, 5], [2, 1]), RuntimeError, "input_lengths to have value at most 6, got 7"),
    (lambda: F.ctc_loss(P, LABELS, [6], [2, 1]), RuntimeError, "input_lengths must be of size batch_size 2, got 1"),
    (lambda: F.ctc_loss(P, LABELS, [6, 5], [4, -1]), RuntimeError, "target_lengths to have value at least 0"),
    (lambda: F.ctc_loss(P, LABELS, [6, 5], [2, 1], blank=4), RuntimeError, "in label range 0 to 3, got 4"),
    (lambda: F.ctc_loss(P, LABELS + 1, [6, 5], [2, 1]), RuntimeError, "labels must be classes from 0 to 3"),
    (lambda: F.ctc_loss(P, LABELS, faltung.ones(2), [2, 1]), RuntimeError, "input_lengths must be integral"),
    (lambda: F.ctc_loss(P, LABELS[None], [6, 5], [2, 1]), RuntimeError, "targets must have size at least (2, 2)"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_messages(call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()


def test_old_reduction_flags_warn() -> None:
    for flags, wanted in (({"size_average": False}, "sum"), ({"reduce": False}, "none"), ({"reduce": True}, "mean")):
        with pytest.warns(UserWarning, match=f"please use reduction='{wanted}' instead"):
            assert nn.MSELoss(**flags).reduction == wanted
        with pytest.warns(UserWarning, match=f"please use reduction='{wanted}' instead"):
            F.mse_loss(T, T, **flags)
