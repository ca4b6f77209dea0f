"""The scripted engine, from a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mainspring.adapters.fake.settings import FakeSettings
from mainspring.errors import ConfigError
from mainspring.testing.engine import Answer, FakeEngine

__all__ = ["open_engine"]


def open_engine(settings: FakeSettings, place: Path) -> FakeEngine:
    """The engine that the settings describe; a script's path is relative to the project.

    Raises:
        ConfigError: MS-3073, the script cannot be read.
    """
    script: list[Answer] = []
    if settings.script is not None:
        path = place.parent / settings.script
        try:
            script = msgspec.json.decode(path.read_bytes(), type=list[Answer])
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"the script {settings.script} of the fake language model cannot be read",
                code="MS-3073",
                why=str(error),
                fix='write a list of answers: [{"when": "hello", "text": "Hello!"}]',
            ) from error
    return FakeEngine(script, models=(settings.model,), context=settings.context, dims=settings.dims)
