"""How a new version takes over: step by step, and which versions are loaded beside the one that answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from mainspring.declare.duration import microseconds, spell
from mainspring.declare.origin import here
from mainspring.errors import DeclarationError

__all__ = ["RolloutStep", "Versions", "read_rollout", "read_share", "read_versions", "spell_step"]

Versions = int | Literal["all"] | Sequence[int]
"""Which versions are loaded: so many of the newest, all, or these."""

_STEP = re.compile(r"\s*(?:(?P<share>\d+(?:\.\d+)?)\s*%|(?P<shadow>shadow))\s+for\s+(?P<length>\S+)\s*")
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


class RolloutStep(msgspec.Struct, frozen=True):
    """A stretch of a rollout.

    Attributes:
        share: the share of callers that the new version answers, in [0, 1).
        for_us: how long, in microseconds; 0 is until somebody decides.
        shadow: whether it is asked beside, and nobody gets its answers.
    """

    share: float
    for_us: int = 0
    shadow: bool = False


def read_rollout(steps: Sequence[str]) -> tuple[RolloutStep, ...]:
    """Steps as they are declared: ``["shadow for 10m", "5% for 10m", "25% for 30m"]``; after the last comes all of it.

    Raises:
        DeclarationError: MS-2720, a step is none, or a share is less than the one before; MS-1001, MS-1002.
    """
    if isinstance(steps, str) or not all(isinstance(step, str) for step in steps):
        raise _no_step(steps)
    found: list[RolloutStep] = []
    for text in steps:
        match = _STEP.fullmatch(text)
        share = float(match["share"] or 0) / 100 if match is not None else 0.0
        if match is None or not (match["shadow"] or 0 < share < 1) or (found and share < found[-1].share):
            raise _no_step(text)
        length = microseconds(match["length"], what="a step of a rollout")
        found.append(RolloutStep(share, length, bool(match["shadow"])))
    return tuple(found)


def read_share(text: str) -> float:
    """A share as it is written on a command line: ``10%`` or ``0.1``.

    Raises:
        ValueError: it is none above 0 and below 1.
    """
    match = _SHARE.fullmatch(text)
    share = float(match[1]) / (100 if match[2] else 1) if match is not None else 0.0
    if not 0 < share < 1:
        raise ValueError(f"no share: {text!r}")
    return share


def read_versions(versions: Versions) -> Versions:
    """Which versions are loaded, checked.

    Raises:
        DeclarationError: MS-2721, it is no number of versions, ``"all"`` or version numbers.
    """
    numbers = [versions] if isinstance(versions, int) else versions
    fits = versions == "all" or (
        not isinstance(numbers, str)
        and isinstance(numbers, Sequence)
        and all(type(number) is int and number > 0 for number in numbers)
    )
    if not fits:
        raise DeclarationError(
            f"versions={versions!r} are no versions",
            code="MS-2721",
            why="it says which versions are loaded beside the one that answers",
            origin=str(here()),
            fix='write versions=2 for the newest two, versions="all", or versions=[3, 5]',
        )
    return versions if isinstance(versions, (int, str)) else tuple(versions)


def spell_step(step: RolloutStep) -> str:
    """A step as it is written: ``5% for 10m``."""
    what = "shadow" if step.shadow else f"{step.share * 100:g}%"
    return f"{what} for {spell(step.for_us)}" if step.for_us else f"{what} until told"


def _no_step(text: object) -> DeclarationError:
    return DeclarationError(
        f"{text!r} is no step of a rollout",
        code="MS-2720",
        why="a step is a share of the callers, growing from step to step, and a length of time",
        origin=str(here()),
        fix='write rollout=["shadow for 10m", "5% for 10m", "25% for 30m"]; the whole comes by itself',
    )
