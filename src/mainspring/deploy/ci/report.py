"""A gate's verdicts as Markdown for a pull request. The file they come from is not trusted: nothing of it is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mainspring.deploy.ci.verdict import Row, Verdict

__all__ = ["MARK", "markdown"]

MARK = "<!-- mainspring report -->"
"""By this the comment is found again, and changed in its place."""

_SIGNS = {"passed": "passed", "failed": "**failed**", "skipped": "skipped"}
_LONGEST = 300
_MARKUP = re.compile(r"[\\`*_{}\[\]()<>#+\-!|~&@:/]")


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The comment: a line a check, the metrics side by side, the slices folded away."""
    lines = [MARK]
    for found in verdicts:
        lines += ["", *_about(found)]
    return "\n".join(lines) + "\n"


def _about(found: Verdict) -> Iterable[str]:
    against = "the first version" if found.champion is None else f"against version {found.champion}"
    yield f"### {_plain(found.app)} / {_plain(found.model)}: {'may be promoted' if found.passed else 'refused'}"
    yield ""
    yield f"Version {found.version}, {against}; commit {_plain(found.commit[:12]) or 'unknown'}."
    yield ""
    yield "| check | | |"
    yield "|---|---|---|"
    for check in found.checks:
        yield f"| {_plain(check.name)} | {_SIGNS[check.state]} | {_plain(check.why)} |"
    if found.rows:
        yield from ["", "| metric | challenger | champion | difference, 95 % |", "|---|---|---|---|"]
        for row in found.rows:
            yield f"| {_plain(row.name)} | {_number(row.new)} | {_number(row.live)} | {_interval(row)} |"
    if found.slices:
        yield from ["", f"<details><summary>{len(found.slices)} slices</summary>", ""]
        yield from ["| slice | difference | 95 % |", "|---|---|---|"]
        for row in found.slices:
            yield f"| {_plain(row.name)} | {_number(row.new)} | {_interval(row)} |"
        yield from ["", "</details>"]


def _plain(text: str) -> str:
    """A text that shows as it is: no markup, no mention of anybody, no link, no second line."""
    cut = " ".join(text.split())
    cut = cut if len(cut) <= _LONGEST else cut[: _LONGEST - 1] + "…"
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", cut)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(row: Row) -> str:
    return "" if row.low is None or row.high is None else f"{row.low:+.4f} to {row.high:+.4f}"
