"""Every program of the tables gives what PyTorch gives, to the class of each exception."""

from __future__ import annotations

from typing import Any

import pytest

import faltung
from tests.programs import difference, programs, run, stored

PROGRAMS = programs()


@pytest.fixture(scope="module")
def expected() -> Any:
    return stored()


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, expected: Any) -> None:
    theirs, their_arrays = expected[name]
    ours, our_arrays = run(PROGRAMS[name], faltung)
    problem = difference(ours, theirs, our_arrays, their_arrays)
    assert problem is None, problem


def test_no_stored_result_is_left_over(expected: Any) -> None:
    assert set(expected) == set(PROGRAMS)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROGRAMS)
def test_stored_results_are_those_of_the_installed_pytorch(name: str, expected: Any) -> None:
    torch = pytest.importorskip("torch")
    theirs, their_arrays = run(PROGRAMS[name], torch)
    problem = difference(*expected[name][:1], theirs, expected[name][1], their_arrays)
    assert problem is None, problem
