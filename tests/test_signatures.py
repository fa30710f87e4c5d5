"""Every public name that exists has the signature that PyTorch 2.13 gives it; what does not yet stands in a list."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import faltung
from faltung import nn, optim
from faltung.optim import lr_scheduler
from faltung.utils import data

CONTRACT = json.loads((Path(__file__).parent / "data" / "signatures.json").read_text())
PLACES: dict[str, Any] = {
    "nn": nn,
    "nn.functional": nn.functional,
    "nn.init": nn.init,
    "nn.Module methods": nn.Module,
    "optim": optim,
    "optim.lr_scheduler": lr_scheduler,
    "utils.data": data,
}
NO_API = {"nn.functional": {"Optional"}}  # an import of the standard library that PyTorch's module lets through

# Not there yet. A name that comes into being must leave this list, so it can only shrink.
MISSING = {
    "nn": {
        "AdaptiveLogSoftmaxWithLoss", "GRU", "GRUCell", "LSTM", "LSTMCell", "LinearCrossEntropyLoss",
        "MultiheadAttention", "RNN", "RNNBase", "RNNCell", "RNNCellBase", "Transformer", "TransformerDecoder",
        "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer",
    },
    "nn.functional": {
        "linear_cross_entropy", "multi_head_attention_forward",
        "scaled_dot_product_attention",
    },
    "optim": set(),
    "optim.lr_scheduler": set(),
    "utils.data": {  # data pipes, which PyTorch keeps for old scripts only
        "DFIterDataPipe", "DataChunk", "IterDataPipe", "MapDataPipe", "_DatasetKind", "argument_validation",
        "functional_datapipe", "guaranteed_datapipes_determinism", "non_deterministic", "runtime_validation",
        "runtime_validation_disabled",
    },
}  # fmt: skip

# Same calls, written differently; each with its reason.
EXCEPTIONS = {
    # `(*args, **kwargs)` in PyTorch only because a dispatcher stands in front; here the arguments have names.
    "nn.functional.adaptive_max_pool1d", "nn.functional.adaptive_max_pool2d", "nn.functional.adaptive_max_pool3d",
    "nn.functional.max_pool1d", "nn.functional.max_pool2d", "nn.functional.max_pool3d",
    "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d",
    "nn.Module methods.forward",
}  # fmt: skip


def rows() -> list[tuple[str, str]]:
    return [
        (place, name)
        for place in PLACES
        for name in CONTRACT[place]
        if name not in NO_API.get(place, set()) | MISSING.get(place, set())
    ]


def normal_form(signature: str) -> str:
    """Spelling that does not matter: spaces, 1. for 1.0, fractions, reprs of objects, annotations' absence."""
    text = re.sub(r"<[^>]*>", "OBJECT", signature)
    text = re.sub(r"\s*=\s*", "=", text)
    text = re.sub(r"=(1e-[0-9]+|[-0-9./e]+)", lambda m: f"={number(m.group(1))}", text)
    return text.replace('"', "'")


def number(text: str) -> str:
    if "/" in text:
        numerator, denominator = text.split("/")
        return repr(float(numerator) / float(denominator))
    value = float(text)
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def own_signature(thing: Callable[..., Any], method: bool) -> str:
    parameters = list(inspect.signature(thing).parameters.values())
    parameters = parameters[1:] if method else parameters
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(plain))


@pytest.mark.parametrize(("place", "name"), rows(), ids=lambda value: value)
def test_signature(place: str, name: str) -> None:
    thing = getattr(PLACES[place], name)
    expected = CONTRACT[place][name]
    if expected is None or f"{place}.{name}" in EXCEPTIONS:
        return
    if expected in ("(*args, **kwargs)", "(*args, **kwds)"):
        assert callable(thing)  # PyTorch hides the arguments
        return
    own = own_signature(thing, method=place == "nn.Module methods")
    assert normal_form(own) == normal_form(expected)


@pytest.mark.parametrize("place", MISSING)
def test_missing_names_are_missing(place: str) -> None:
    there = {name for name in MISSING[place] if hasattr(PLACES[place], name)}
    assert not there, f"{place}: {sorted(there)} exist now: take them out of MISSING"
    assert MISSING[place] <= set(CONTRACT[place])


def test_public_names_are_listed() -> None:
    for module in (nn, nn.functional, nn.init, nn.utils, faltung):
        if hasattr(module, "__all__"):
            for name in module.__all__:
                assert hasattr(module, name), f"{module.__name__}.{name}"
