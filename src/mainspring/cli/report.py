"""``mainspring report``: what gates found, as the comment on a pull request."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mainspring.cli.emitting import replace_file
from mainspring.cli.options import json_option
from mainspring.cli.output import emit, lines, tell
from mainspring.deploy.ci.comment import GitHub, put_comment
from mainspring.deploy.ci.report import markdown
from mainspring.deploy.ci.verdict import Verdict, read_verdict
from mainspring.errors import DataError, UsageError

__all__ = ["command"]

_MOST = 50


@click.command(short_help="what gates found, as the comment on a pull request")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="write it to a file")
@click.option("--pull-request", "number", type=int, help="put it there as a comment, or change the one that is there")
@click.option("--head", default="", metavar="OWNER:BRANCH", help="the same, for the open pull request of that branch")
@click.option("-v", "--verbose", is_flag=True, help="tracebacks in full", expose_value=False)
@json_option
def command(as_json: bool, files: tuple[Path, ...], out: Path | None, number: int | None, head: str) -> int:
    """Report on the FILES that `mainspring gate --out` wrote, or on all of a folder.

    They may be anybody's: none of what they say becomes markup.
    """
    found = [_read(one) for path in files for one in _listed(path)]
    text = markdown(found)
    if out is not None:
        replace_file(out, text)
    placed = None
    if number is not None or head:
        placed = put_comment(GitHub.of_environment(os.environ), text, number=number, head=head)
        tell("no open pull request is from there" if placed is None else f"commented on pull request {placed}")
    if as_json:
        emit({"passed": all(one.passed for one in found), "pull_request": placed, "report": text})
    elif out is None:
        lines([text.rstrip("\n")])
    return 0


def _listed(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.json"))[:_MOST]
    if not found:
        raise UsageError(f"{path} holds no verdict", code="MS-2784", fix="mainspring gate MODEL --out FILE")
    return found


def _read(path: Path) -> Verdict:
    try:
        if path.is_symlink():
            raise ValueError("it is a link")
        return read_verdict(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is no verdict", code="MS-2785", why=str(error), fix="mainspring gate MODEL --out FILE"
        ) from error
