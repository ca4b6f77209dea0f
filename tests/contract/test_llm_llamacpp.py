"""llama.cpp with a real small model, against the one contract, and what is its own: its process, its template."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import orjson
import pytest

from mainspring.adapters.llamacpp import ADAPTER
from mainspring.adapters.llamacpp.engine import LlamaCppEngine, model_path, open_engine
from mainspring.adapters.llamacpp.health import health
from mainspring.adapters.llamacpp.settings import LlamaCppSettings
from mainspring.choose.services import Services
from mainspring.errors import ConfigError
from mainspring.ports.llm import (
    EmbedRequest,
    End,
    Error,
    Failed,
    Generation,
    Message,
    Ready,
    Relay,
    Sampling,
    Schema,
    Start,
    Text,
    ToolChoice,
)
from mainspring.testing.llm import (
    CLOCK,
    GREEDY,
    WEATHER,
    EngineContract,
    OnLoop,
    all_of,
    calls_of,
    chat,
    ended,
    text_of,
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
