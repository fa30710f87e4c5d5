"""Memory: who shares it, in which order it lies, who is told of writes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import faltung as t


def engine_made(*shape: int) -> Any:
    """A tensor as the engine makes it: physically channels last, strides that no user chose."""
    order = (0, *range(2, len(shape)), 1)
    array = np.arange(np.prod(shape), dtype=np.float32).reshape([shape[i] for i in order])
    return t.Tensor._wrap(np.moveaxis(array, -1, 1))


class TestViewOfEngineResults:
    def test_view_lays_the_memory_out_anew_and_shares_it(self) -> None:
        x = engine_made(2, 3, 4, 5)
        logical = x.detach().clone().numpy().copy()
        x = engine_made(2, 3, 4, 5)
        flat = x.view(2, -1)
        np.testing.assert_array_equal(flat.numpy(), logical.reshape(2, -1))
        flat.zero_()
        assert x.abs().sum().item() == 0

    def test_view_copies_where_others_use_the_memory(self) -> None:
        x = engine_made(2, 3, 4, 5)
        other = x[0]
        flat = x.view(-1)
        x.add_(1)
        assert other[0, 0, 0].item() == 1
        assert flat[0].item() == 0

    def test_a_part_of_an_engine_result(self) -> None:
        x = engine_made(2, 3, 4, 5)
        assert x[0].view(3, 20).shape == (3, 20)
        assert x[:, 1].view(2, 20).shape == (2, 20)
        with pytest.raises(RuntimeError, match=r"Use \.reshape"):
            x[:, :2].view(-1)

    def test_a_users_own_strides_are_refused(self) -> None:
        with pytest.raises(RuntimeError, match=r"view size is not compatible"):
            t.zeros(2, 3).t().view(-1)

    def test_gradients_pass(self) -> None:
        x = engine_made(2, 3, 4, 5).requires_grad_()
        ((x * 1).view(2, -1) ** 2).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy())

    @pytest.mark.parametrize("operation", ["relu", "exp", "neg", "sqrt"])
    def test_elementwise_operations_keep_the_order(self, operation: str) -> None:
        x = engine_made(2, 3, 4, 5)
        assert getattr(x, operation)().stride() == x.stride()
        assert (x + 1).stride() == x.stride()
        assert (x * x).stride() == x.stride()
        assert t.zeros_like(x).stride() == x.stride()
        assert x.clone().stride() == x.stride()


class TestEngineCache:
    def test_it_lasts_until_a_write(self) -> None:
        w = t.ones(3)
        w.engine_cache()["packed"] = 1
        assert w.engine_cache() == {"packed": 1}
        w.add_(1)
        assert w.engine_cache() == {}

    @pytest.mark.parametrize(
        "write",
        [
            lambda w: w.data.add_(1),
            lambda w: w[1:].zero_(),
            lambda w: w.detach().mul_(2),
            lambda w: w.data.data.fill_(3),
            lambda w: setattr(w, "data", w.data * 2),
            lambda w: w.__setitem__(0, 5),
            lambda w: w.data[0].add_(1),
        ],
    )
    def test_every_way_to_write_empties_it(self, write: Any) -> None:
        w = t.ones(3, requires_grad=True)
        w.engine_cache()["packed"] = 1
        with t.no_grad():
            write(w)
        assert w.engine_cache() == {}

    def test_there_is_none_where_writes_go_unnoticed(self) -> None:
        w = t.ones(3)
        w.numpy()
        assert w.engine_cache() is None
        assert t.from_numpy(np.ones(3)).engine_cache() is None
        p = t.ones(3, requires_grad=True)
        p.data.numpy()
        assert p.engine_cache() is None


class TestSharing:
    def test_numpy(self) -> None:
        array = np.zeros(3, np.float32)
        x = t.from_numpy(array)
        x[0] = 1
        array[1] = 2
        x.numpy()[2] = 3
        assert x.tolist() == array.tolist() == [1, 2, 3]

    def test_tensor_copies_and_as_tensor_shares(self) -> None:
        array = np.zeros(2)
        t.tensor(array).add_(1)
        assert array.tolist() == [0, 0]
        t.as_tensor(array).add_(1)
        assert array.tolist() == [1, 1]

    def test_read_only_memory_refuses_writes(self) -> None:
        array = np.zeros(3)
        array.flags.writeable = False
        with pytest.raises(RuntimeError, match="clone"):
            t.from_numpy(array).add_(1)

    def test_expanded_memory_refuses_writes(self) -> None:
        with pytest.raises(RuntimeError, match="more than one element"):
            t.zeros(1, 3).expand(2, 3).add_(1)

    def test_strides_of_negative_steps(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            t.from_numpy(np.arange(3)[::-1])


class TestCopies:
    def test_pickle_keeps_the_order_of_memory(self) -> None:
        x = engine_made(2, 3, 4, 5)
        y = pickle.loads(pickle.dumps(x))
        assert y.stride() == x.stride()
        assert t.equal(x, y)

    def test_deepcopy_copies_attributes_and_gradients(self) -> None:
        x = t.ones(2, requires_grad=True)
        x.note = ["a"]
        (x * 2).sum().backward()
        y = copy.deepcopy(x)
        assert y.note == ["a"]
        assert y.note is not x.note
        assert y.grad.tolist() == [2, 2]
        assert y.grad is not x.grad

    def test_deepcopy_meets_shared_tensors_once(self) -> None:
        x = t.ones(2)
        a, b = copy.deepcopy([x, x])
        assert a is b

    def test_deepcopy_of_a_result(self) -> None:
        with pytest.raises(RuntimeError, match="graph leaves"):
            copy.deepcopy(t.ones(2, requires_grad=True) * 2)


def test_subclasses_and_attributes() -> None:
    class Marked(t.Tensor):
        pass

    x = t.ones(2).as_subclass(Marked)
    x.note = 3
    assert isinstance(x, Marked)
    assert x.note == 3
    assert vars(t.ones(2)) == {}
    assert type(x + 1) is t.Tensor


def test_devices() -> None:
    assert t.ones(2).device == t.device("cpu") == t.ones(2, device="cpu").device
    assert str(t.device("cuda", 1)) == "cuda:1"
    assert t.ones(2).to("cpu").device.type == "cpu"
    for action in (lambda: t.ones(2, device="cuda"), lambda: t.ones(2).cuda(), lambda: t.ones(2).to("cuda:0")):
        with pytest.raises(AssertionError, match="CPUs only"):
            action()
    with pytest.raises(RuntimeError, match="expected one of"):
        t.device("tpu")


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ((0, slice(None), [0, 1]), (3, 2)),  # integers select first, as in PyTorch; NumPy would give (2, 3)
        (([0, 1], slice(None), [0, 1]), (2, 3)),
        ((slice(None), [0, 1], [0, 1]), (2, 2)),
        ((None, 0, Ellipsis), (1, 3, 4)),
        ((True,), (1, 2, 3, 4)),
        ((Ellipsis, None), (2, 3, 4, 1)),
    ],
)
def test_shapes_of_indices(index: Any, expected: tuple[int, ...]) -> None:
    assert t.zeros(2, 3, 4)[index].shape == expected
