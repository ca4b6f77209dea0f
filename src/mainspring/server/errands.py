"""Runs that a server starts in processes of their own, and what becomes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mainspring.choose.services import Services

__all__ = ["LOG_BYTES", "ended", "started"]

LOG_BYTES = 8_388_608
"""Beyond which the log of such runs is put aside, in place of the one that was put aside before."""


def started(services: Services, words: Sequence[str], reason: str, log: str) -> subprocess.Popen[bytes]:
    """Start ``mainspring run`` of the project.

    Args:
        services: the project's ports.
        words: what is run, and its arguments.
        reason: why, for the record.
        log: the file in the state folder that its output is appended to.
    """
    where = ["--profile", services.settings.profile, "--project", str(services.project)]
    command = [sys.executable, "-m", "mainspring.cli", "run", *words, *where, "--reason", reason]
    path = services.state / log
    _put_aside(path)
    with open(path, "ab") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(os.environ))


def ended(process: subprocess.Popen[bytes], what: str, log: str) -> str | None:
    """What is to be told of a run that is over: that it failed, and where it says why; None if it did well."""
    status = process.poll()
    return None if not status else f"{what} failed with status {status}: its output is in .mainspring/{log}"


def _put_aside(path: Path) -> None:
    """Keep what is in the log as ``NAME.1`` when it is large; runs under way go on writing there."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
