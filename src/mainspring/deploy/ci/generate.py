"""The files of a flavour: generated, compared with what is there, written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from mainspring.deploy.ci.blocks import is_touched, merged, sealed
from mainspring.deploy.ci.github import workflows
from mainspring.deploy.ci.gitlab import pipeline
from mainspring.deploy.ci.integration import Integration
from mainspring.deploy.ci.jenkins import jenkinsfile
from mainspring.errors import UsageError

__all__ = ["FLAVOURS", "Made", "flavours_in", "made"]

FLAVOURS: Mapping[str, Callable[[Integration], dict[str, str]]] = MappingProxyType(
    {"github": workflows, "gitlab": pipeline, "jenkins": jenkinsfile}
)
_FIRST = {"github": ".github/workflows/mainspring.yml", "gitlab": ".gitlab-ci.yml", "jenkins": "Jenkinsfile"}


class Made(msgspec.Struct, frozen=True):
    """A generated file beside what is there.

    Attributes:
        path: below the repository.
        text: as it is to be, with what is the user's of the file that is there.
        state: ``new``, ``same`` or ``changed``.
        touched: whether what is there was changed outside of the user's blocks.
    """

    path: str
    text: str
    state: Literal["new", "same", "changed"]
    touched: bool


def made(flavour: str, found: Integration, root: Path) -> list[Made]:
    """The files of a flavour.

    Args:
        flavour: a key of `FLAVOURS`.
        found: what is generated.
        root: the repository.

    Raises:
        UsageError: MS-2786, a block of the user's has no place any more; MS-2778, a file cannot be read.
    """
    files = []
    for path, text in FLAVOURS[flavour](found).items():
        comment = "//" if flavour == "jenkins" else "#"
        new, place = sealed(text, comment), root / path
        if not place.exists():
            files.append(Made(path, new, "new", False))
            continue
        old = _read(place)
        whole = merged(new, old, path)
        files.append(Made(path, whole, "same" if whole == old else "changed", is_touched(old)))
    return files


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read", code="MS-2778", why=str(error), fix="move it out of the way"
        ) from error


def flavours_in(root: Path) -> list[str]:
    """The flavours whose files are in a repository."""
    return [flavour for flavour, path in _FIRST.items() if (root / path).exists()]
