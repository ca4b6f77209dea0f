"""What is wrong with CI files: rules of our own that need nothing, and the linters that are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import yaml

__all__ = ["LINTERS", "Finding", "absent", "findings"]

_SECONDS = 120.0
_COMMIT = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
_EVENT = re.compile(r"\$\{\{[^}]*\b(github\.(event|head_ref|ref_name)|inputs|needs|steps)\b")


class Finding(msgspec.Struct, frozen=True):
    """One fault."""

    path: str
    where: str
    what: str


LINTERS: Mapping[str, Sequence[tuple[str, ...]]] = MappingProxyType(
    {
        "github": (
            ("actionlint", "-no-color", "-oneline"),
            ("zizmor", "--offline", "--no-progress", "--quiet", "--format=plain"),
            ("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
            ("check-jsonschema", "--builtin-schema", "custom.github-workflows-require-timeout"),
        ),
        "gitlab": (("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci"),),
        "jenkins": (),
    }
)


def absent(flavour: str) -> list[str]:
    """The linters of a flavour that are not installed here."""
    return sorted({words[0] for words in LINTERS[flavour] if _program(words[0]) is None})


def findings(flavour: str, paths: Sequence[Path], root: Path) -> list[Finding]:
    """The faults of a flavour's files."""
    found: list[Finding] = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if flavour == "github":
            found += _of_workflow(name, path.read_text("utf-8"))
    for words in LINTERS[flavour]:
        program = _program(words[0])
        if program is not None:
            found += _told(program, words, paths, root)
    return found


def _program(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def _told(program: str, words: Sequence[str], paths: Sequence[Path], root: Path) -> Iterable[Finding]:
    names = [path.relative_to(root).as_posix() for path in paths]
    command = [program, *words[1:], *names]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("", words[0], f"it cannot be run: {error}")
        return
    if done.returncode:
        for line in (done.stdout or done.stderr).strip().splitlines():
            yield Finding(names[0] if len(names) == 1 else "", words[0], line)


# -- rules of our own -------------------------------------------------------------------------------------------------


def _of_workflow(path: str, text: str) -> Iterable[Finding]:
    try:
        document: dict[Any, Any] = yaml.safe_load(text)
        jobs = dict(document["jobs"])
    except (yaml.YAMLError, TypeError, KeyError) as error:
        yield Finding(path, "", f"it is no workflow: {type(error).__name__}")
        return
    events = document.get("on", document.get(True, {}))
    if "pull_request_target" in events:
        yield Finding(path, "on", "pull_request_target hands a fork's change the repository's token")
    allowed = document.get("permissions")
    if allowed not in ({}, {"contents": "read"}):
        yield Finding(path, "permissions", "a workflow reads contents at most; what a job needs more, it says itself")
    for name, job in jobs.items():
        yield from _of_job(path, str(name), job)


def _of_job(path: str, name: str, job: Mapping[str, Any]) -> Iterable[Finding]:
    if "timeout-minutes" not in job:
        yield Finding(path, name, "it has no timeout-minutes: a job that hangs runs for six hours")
    for step in job.get("steps", ()):
        uses, run = str(step.get("uses", "")), str(step.get("run", ""))
        if uses and not uses.startswith("./") and not _COMMIT.match(uses):
            yield Finding(path, name, f"{uses} is not pinned to a commit of 40 digits")
        if uses.startswith("actions/checkout@") and (step.get("with") or {}).get("persist-credentials") is not False:
            yield Finding(path, name, "the checkout leaves its token behind: persist-credentials: false")
        if _EVENT.search(run):
            yield Finding(path, name, "a script has an expression in it, which is pasted in: hand it over by env")
