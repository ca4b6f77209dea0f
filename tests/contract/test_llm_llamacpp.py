"""llama.cpp with a real small model, against the one contract, and what is its own: its process, its template."""

import contextlib

import pytest

from mainspring.adapters.llamacpp.engine import open_engine
from mainspring.adapters.llamacpp.settings import LlamaCppSettings
from mainspring.testing.llm import (
    EngineContract,
    OnLoop,
)

SMALL = LlamaCppSettings(context=1024, slots=3, threads=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("project") / ".mainspring"


@pytest.fixture(scope="module")
def llm(place):
    with OnLoop(lambda: open_engine(SMALL, place)) as one:
        yield one


@pytest.fixture
def opening(place):
    with contextlib.ExitStack() as stack:
        yield lambda settings=SMALL, where=place: stack.enter_context(OnLoop(lambda: open_engine(settings, where)))


class TestLlamaCpp(EngineContract):
    @pytest.fixture
    def another(self, opening):
        return opening
