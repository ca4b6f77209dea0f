"""Settings of the scripted language model."""

from typing import Annotated

import msgspec

__all__ = ["FakeSettings"]


class FakeSettings(msgspec.Struct, frozen=True):
    """What it answers.

    Attributes:
        url: unused; the script is in `script`.
        script: JSON file with a list of answers (`mainspring.testing.engine.Answer`), relative to the project;
            without one the last message is repeated.
        model: the name it answers to.
        context: most tokens of prompt and answer together.
        dims: numbers of an embedding.
    """

    url: str | None = None
    script: str | None = None
    model: str = "fake"
    context: Annotated[int, msgspec.Meta(ge=16)] = 4096
    dims: Annotated[int, msgspec.Meta(ge=1)] = 32
