"""What click or nobody expected, as an error of ours."""

from __future__ import annotations

import difflib
import errno
import traceback
from collections.abc import Iterable
from pathlib import Path

import click

from mainspring.cli import VERBS
from mainspring.errors import InternalError, MainspringError, StoreError, UsageError

__all__ = ["misused", "unexpected", "unknown_verb"]


def misused(error: click.ClickException) -> UsageError:
    """The four-line error of a command line with a wrong verb, option or argument."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "mainspring"
    help_ = f"{path} --help tells what it takes"
    if isinstance(error, click.NoSuchOption):
        options = [] if context is None else [one for item in context.command.params for one in item.opts]
        return _misused(f"{path} has no option {error.option_name}", _near(error.option_name, options) or help_)
    message = error.format_message().rstrip(".")
    return _misused(f"{path}: {message[:1].lower()}{message[1:]}", help_)


def unknown_verb(word: str) -> UsageError:
    """The four-line error of a verb that is none."""
    return _misused(f"no verb is called {word!r}", _near(word, VERBS) or "mainspring --help lists the verbs")


def _misused(what: str, fix: str) -> UsageError:
    return UsageError(what, code="MS-2620", fix=fix)


def _near(word: str, known: Iterable[str]) -> str:
    """The remedy for a misspelt word; empty when none is near. The dashes that all options have do not count."""
    plain = {one.lstrip("-"): one for one in known}
    near = difflib.get_close_matches(word.lstrip("-"), plain, n=1, cutoff=0.7)
    return f"did you mean {plain[near[0]]}?" if near else ""


def unexpected(error: Exception) -> MainspringError:
    """The four-line error of an exception that nobody expected."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("the disk is full", code="MS-4101", why=str(error), fix="free some space and run it again")
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return InternalError(
        "something in Mainspring itself went wrong",
        code="MS-7001",
        why=f"{type(error).__name__}: {error}",
        origin=place,
        fix="run it again with -v and report what it prints",
    )
