"""The module system beside PyTorch's own: names, texts, order of hooks, random numbers, normalised weights."""

import warnings
from typing import Any

import numpy as np
import pytest

import faltung
from faltung import nn

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def build_all(nn: Any) -> dict[str, Any]:
    """The same models with either library."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)] + [nn.Conv2d(4, 4, 1)])
            self.heads = nn.ModuleDict({"b": nn.Linear(4, 2), "a": nn.Identity()})
            self.skip = None
            self.add_module("gap", None)
            self.act = nn.LeakyReLU(0.2, inplace=True)

        def extra_repr(self) -> str:
            return "first line\nsecond line"

    return {
        "cnn": nn.Sequential(
            nn.Conv2d(1, 4, 5, stride=2, padding="same" if False else 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten(), nn.Linear(16, 3),
        ),
        "block": Block(),
        "nested": nn.Sequential(nn.Sequential(nn.ReLU(), nn.Sequential()), Block()),
        "embedding": nn.Embedding(5, 3, padding_idx=1, max_norm=2.0),
        "bag": nn.EmbeddingBag(5, 3, mode="sum"),
        "upsample": nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(size=(3, 4)), nn.PixelShuffle(2),
            nn.PixelUnshuffle(2), nn.UpsamplingNearest2d(scale_factor=2), nn.ChannelShuffle(2), nn.Unfold((2, 3)),
            nn.Fold((4, 5), 2), nn.CosineSimilarity(), nn.PairwiseDistance(3.0), nn.Bilinear(1, 2, 3),
        ),
        "empty": nn.ModuleList(),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cnn", "block", "nested", "embedding", "bag", "upsample", "empty"])
def test_text_keys_and_numbers(torch: Any, name: str) -> None:
    torch.manual_seed(3)
    theirs = build_all(torch.nn)[name]
    faltung.manual_seed(3)
    ours = build_all(nn)[name]
    assert repr(ours) == repr(theirs)
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    expected = theirs.state_dict()
    state = ours.state_dict()
    assert list(state) == list(expected)
    assert state._metadata == expected._metadata
    for key in expected:
        np.testing.assert_allclose(state[key].numpy(), expected[key].numpy(), rtol=1e-6, atol=1e-7)


def hook_trace(torch: Any) -> list[str]:
    """What hooks of all kinds see, in order."""
    trace: list[str] = []
    nn = torch.nn

    def note(name: str) -> Any:
        def hook(module: Any, *args: Any) -> None:
            shapes = [
                [None if t is None else tuple(t.shape) for t in (a if isinstance(a, tuple) else (a,))]
                for a in args
                if isinstance(a, (tuple, torch.Tensor))
            ]
            trace.append(f"{name} {type(module).__name__} {shapes}")

        return hook

    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    handles = [
        nn.modules.module.register_module_forward_pre_hook(note("global pre")),
        nn.modules.module.register_module_forward_hook(note("global post")),
        nn.modules.module.register_module_full_backward_pre_hook(note("global backward pre")),
        nn.modules.module.register_module_full_backward_hook(note("global backward")),
    ]
    for module in net.modules():
        module.register_forward_pre_hook(note("pre"))
        module.register_forward_hook(note("post"))
        module.register_full_backward_pre_hook(note("backward pre"))
        module.register_full_backward_hook(note("backward"))
    x = torch.ones(5, 3, requires_grad=True)
    net(x).sum().backward()
    for handle in handles:
        handle.remove()
    return trace


def test_order_of_hooks(torch: Any) -> None:
    assert hook_trace(faltung) == hook_trace(torch)


def load_error(torch: Any) -> str:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = net.state_dict()
    del state["0.bias"], state["1.running_mean"]
    state["0.weight"] = torch.ones(3, 5)
    state["extra.key"] = torch.ones(1)
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(state)
    return str(error.value).replace("faltung.Size", "torch.Size")


def test_text_of_the_loading_error(torch: Any) -> None:
    assert load_error(faltung) == load_error(torch)


def normalised(torch: Any, kind: str) -> list[np.ndarray]:
    torch.manual_seed(1)
    nn = torch.nn
    x = torch.randn(2, 3, 6, 6)
    conv = nn.Conv2d(3, 4, 3)
    place = nn.utils if kind.startswith("old") else nn.utils.parametrizations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = getattr(place, kind.removeprefix("old_"))(conv)
    results = [net(x) for _ in range(3)]
    sum(r.pow(2).mean() for r in results).backward()
    grads = [p.grad for p in net.parameters()]
    return [t.detach().numpy() for t in [*results, *grads, net.weight]]


@pytest.mark.parametrize("kind", ["old_weight_norm", "weight_norm", "old_spectral_norm", "spectral_norm"])
def test_normalised_weights(torch: Any, kind: str) -> None:
    for ours, theirs in zip(normalised(faltung, kind), normalised(torch, kind), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


MODULE_SURFACE = ("Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict")


@pytest.mark.parametrize("name", MODULE_SURFACE)
def test_public_methods(torch: Any, name: str) -> None:
    theirs = {n for n in dir(getattr(torch.nn, name)) if not n.startswith("_") and n not in ("T_destination",)}
    assert theirs - set(dir(getattr(nn, name))) == set()
