"""The team has its usual size again after every test."""

from collections.abc import Iterator

import pytest

from faltung.engine import registry, team


@pytest.fixture(autouse=True)
def _usual_threads() -> Iterator[None]:
    before = team.get_num_threads()
    yield
    team.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _generated_code() -> None:
    if not registry._can_generate():
        pytest.skip("llvmlite is not here")
