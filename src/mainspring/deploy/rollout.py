"""Carrying a revision to a target: what is planned is what is applied, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import RefusedError, UsageError
from mainspring.ports.target import Finding, Health, ImageFacts, Plan, Rendered, Revision, Split, Target

__all__ = ["Rollout", "read_plan"]

_POLL_S = 0.5
_SURE_S = 5.0
"""So long a revision has to be ill before its rollout is given up: a pull may fail once."""


class Rollout(msgspec.Struct, frozen=True):
    """An app on its way to a target.

    Attributes:
        name: the target's name in the settings.
        target: where it goes.
        client: the way there.
        app: the app's name.
        told: told what is done.
    """

    name: str
    target: Target
    client: Any
    app: str
    told: Callable[[str], None] = lambda text: None

    def findings(self, revision: Revision, image: ImageFacts | Finding | None = None) -> list[Finding]:
        """What would keep it from working, errors first.

        Args:
            revision: what is to run.
            image: what its image says of itself; or what keeps that from being known.
        """
        told = [image] if isinstance(image, Finding) else []
        facts = image if isinstance(image, ImageFacts) else None
        found = [*told, *self.target.preflight(revision.app, revision.release, self.client, facts)]
        return sorted(found, key=lambda item: item.level != "error")

    def check(self, revision: Revision, image: ImageFacts | Finding | None = None) -> None:
        """Tell what was found.

        Raises:
            RefusedError: MS-5090, something keeps it from working.
        """
        findings = self.findings(revision, image)
        for finding in findings:
            self.told(f"{finding.level}: {finding.what}" + (f"; {finding.fix}" if finding.fix else ""))
        errors = [finding for finding in findings if finding.level == "error"]
        if errors:
            more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
            raise RefusedError(
                f"{self.app} cannot be deployed there yet: {errors[0].what}{more}",
                code="MS-5090",
                origin=f"target {self.name}",
                fix=errors[0].fix or "mainspring deploy preflight tells all",
            )

    def plan(self, revision: Revision, split: Split | None) -> Plan:
        """What an apply would do."""
        rendered = self._rendered(revision, split)
        seen = self.target.observe(rendered, self.client)
        changes, found = self.target.plan(rendered, seen)
        return Plan(self.name, revision, split, changes, found, cost=self.target.cost(rendered, seen))

    def apply(self, plan: Plan, *, force: bool = False, adopt: bool = False) -> int:
        """Carry out a plan; how many objects were written."""
        rendered = self._rendered(plan.revision, plan.split)
        return self.target.apply(rendered, plan.hash, self.client, self.told, force=force, adopt=adopt)

    def _rendered(self, revision: Revision, split: Split | None) -> Rendered:
        return self.target.render(revision, split, self.target.look(self.app, self.client))

    def beside(self, revision: Revision, percent: int | None) -> tuple[Revision, Split | None]:
        """What is to run: the revision alone, or with a share of the traffic beside the one that runs.

        Raises:
            UsageError: MS-2746, nothing runs yet beside which it could.
        """
        if percent is None:
            return revision, None
        stable, _ = self.target.running(self.app, self.client)
        if stable is None:
            raise UsageError(
                f"nothing of {self.app} runs yet",
                code="MS-2746",
                why="a canary stands beside what runs",
                fix="apply without --canary first",
            )
        return (revision, None) if stable == revision else (stable, Split(revision, percent))

    def shared(self, percent: int) -> tuple[Revision, Split | None]:
        """What is to run when the canary gets another share: 0 takes it away, 100 makes it the only one.

        Raises:
            UsageError: MS-2747, there is no canary.
        """
        stable, split = self.target.running(self.app, self.client)
        if stable is None or split is None:
            raise UsageError(
                f"there is no canary of {self.app}",
                code="MS-2747",
                why="only one revision runs",
                fix="mainspring deploy apply --canary PERCENT",
            )
        if percent == 100:
            return split.revision, None
        return stable, Split(split.revision, percent) if percent else None

    def before(self, to: str | None) -> Revision:
        """An older revision: the one before what runs, or the one of that id.

        Raises:
            UsageError: MS-2748, there is none.
        """
        stable, split = self.target.running(self.app, self.client)
        kept = list(self.target.revisions(self.app, self.client))
        if to is None and split is not None and stable is not None:
            return stable  # what goes is the canary
        if to is None:
            ids = [revision.id for revision in kept]
            place = ids.index(stable.id) + 1 if stable is not None and stable.id in ids else 0
            found = kept[place : place + 1]
        else:
            found = [revision for revision in kept if revision.id.startswith(to)]
        if len(found) != 1:
            raise UsageError(
                f"there is no {'older revision' if to is None else f'revision {to!r}'} of {self.app}",
                code="MS-2748",
                why=f"kept are: {', '.join(revision.id for revision in kept) or 'none'}",
                fix="mainspring deploy rollback REVISION, with one of these",
            )
        return found[0]

    def wait(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> Health:
        """Wait until it is well.

        Raises:
            RefusedError: MS-5089, it does not come up.
        """
        until, ill = clock() + seconds, None
        while True:
            health = self.target.status(self.app, self.client, 5)
            if health.state == "healthy":
                return health
            now = clock()
            ill = (now if ill is None else ill) if health.state in ("failed", "degraded") else None
            if now >= until or (ill is not None and now - ill >= _SURE_S):
                raise self._not_up(health, seconds)
            time.sleep(_POLL_S)

    def _not_up(self, health: Health, seconds: float) -> RefusedError:
        bad = next((part for part in health.parts if part.state != "healthy"), None)
        why = "" if bad is None else bad.why or f"{bad.url}: {bad.ready} of {bad.wanted} replicas answer"
        for line in () if bad is None else bad.log:
            self.told(f"  {line}")
        state = "the old revision still answers" if health.state == "degraded" else f"after {seconds:.0f} s"
        return RefusedError(
            f"{self.app} does not come up; {state}",
            code="MS-5089",
            why=why,
            origin=f"target {self.name}",
            fix="mainspring deploy status tells more; mainspring deploy rollback goes back",
        )


def read_plan(path: Path) -> Plan:
    """A plan that was kept.

    Raises:
        UsageError: MS-2742, the file holds none.
    """
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
        if plan.format != 1:
            raise ValueError(f"format {plan.format}, not 1")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} holds no plan",
            code="MS-2742",
            why=str(error),
            origin=str(path),
            fix="mainspring deploy plan --out FILE, with this version of mainspring",
        ) from error
    return plan
