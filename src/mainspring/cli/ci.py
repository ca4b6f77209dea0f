"""``mainspring ci``: the generated CI pipelines verified, and what they ask."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mainspring.catalog.ids import now_us
from mainspring.cli.options import json_option, open_app, open_services, project_options
from mainspring.cli.output import emit, lines, tell
from mainspring.declare.duration import microseconds
from mainspring.deploy.ci.canary import Counts, counts_of, spread
from mainspring.deploy.ci.due import due
from mainspring.deploy.ci.generate import flavours_in, made
from mainspring.deploy.ci.integration import integration_of, repository_of
from mainspring.deploy.ci.lint import absent, findings
from mainspring.deploy.ci.rehearsal import rehearsals
from mainspring.errors import RefusedError, ServiceError, UsageError
from mainspring.server.planning import plan_of
from mainspring.server.rollouts.judge import Look, Verdict, judged, moved
from mainspring.serving.rollout.evidence import CELLS, STEPS_A_DOUBLING, Counted
from mainspring.training.versions import told

__all__ = ["command"]

_SECONDS = 10.0
_MOST_BYTES = 32 << 20


@click.group(short_help="the generated CI pipelines: verify them, and whether drift may start a training")
def command() -> None:
    """What generated CI pipelines need of the command line."""


@command.command(short_help="whether the files are what is generated, and without a fault")
@click.option("--run", "run", is_flag=True, help="also run them here, in a copy: what they would do, without doing it")
@project_options
def verify(project: Path | None, profile: str | None, as_json: bool, run: bool) -> int:
    """Compare the CI files with what would be generated, and lint them; exit 5 when something is wrong.

    Rules of our own need nothing; actionlint, zizmor and check-jsonschema are asked where they are installed. With
    --run, act runs GitHub's workflow and Groovy the Jenkinsfile: a push, a pull request, a gate that refuses, a canary
    that is worse, drift. Mainspring's own commands, cosign, grype and python are recorded, and not run.
    """
    services, app = open_app(project, profile)
    root = repository_of(services.project)
    flavours = flavours_in(root)
    if not flavours:
        raise UsageError("there is no generated pipeline", code="MS-5104", fix="mainspring build --ci github")
    integration = integration_of(services.settings, plan_of(app))
    wrong: list[tuple[str, str, str]] = []
    for flavour in flavours:
        files = made(flavour, integration, root)
        wrong += [(one.path, "", _differs(one.state, one.touched, flavour)) for one in files if one.state != "same"]
        there = [root / one.path for one in files if one.state != "new"]
        wrong += [(one.path, one.where, one.what) for one in findings(flavour, there, root)]
        for name in absent(flavour):
            tell(f"note: {name} is not installed, and was not asked")
    runs = [one for flavour in flavours for one in rehearsals(flavour, integration, root, tell)] if run else []
    for one in runs:
        if one.wrong:
            wrong.append((one.flavour, one.run, one.wrong))
            tell("\n".join(f"  {line}" for line in one.output))
    if as_json:
        emit({"flavours": flavours, "findings": [list(one) for one in wrong], "runs": runs})
    else:
        lines([": ".join(filter(None, one)) for one in wrong] or [f"{', '.join(flavours)}: no fault found"])
    return RefusedError.exit_status if wrong else 0


def _differs(state: str, touched: bool, flavour: str) -> str:
    if state == "new":
        return f"is missing: mainspring build --ci {flavour}"
    if touched:
        return "was changed outside of the blocks that are yours"
    return f"is not what mainspring.toml and the app say now: mainspring build --ci {flavour}"


@command.command("due", short_help="whether an alarm of drift may start a training of the models")
@click.argument("models", nargs=-1, required=True)
@click.option("--strict", is_flag=True, help="exit 5 when none may be trained")
@project_options
def is_due(project: Path | None, profile: str | None, as_json: bool, models: tuple[str, ...], strict: bool) -> int:
    """Print due=true when one of MODELS may be trained: its cooldown is over, and the week's number not reached."""
    services = open_services(project, profile)
    try:
        cooldown = microseconds(services.settings.text("ci.cooldown") or "24h", what="ci.cooldown")
        weekly = services.settings.whole("ci.weekly")
        found = []
        for model in models:
            trained = [event.at for event in told(services.catalog, model, "model.registered")]
            found.append(due(model, trained, now_us(), cooldown, weekly))
    finally:
        services.close()
    any_due = any(one.due for one in found)
    if as_json:
        emit(found)
    else:
        for one in found:
            tell(f"{one.model}: {one.why}")
        lines([f"due={'true' if any_due else 'false'}"])
    return RefusedError.exit_status if strict and not any_due else 0


@command.command(short_help="hold a canary against the champion; exits 5 when it is worse")
@click.argument("champion")
@click.argument("canary")
@click.option("--watch", default="10m", show_default=True, help="for how long")
@click.option("--every", default="15s", show_default=True, help="between two looks")
@click.option("--least", type=click.IntRange(1), default=100, show_default=True, help="requests that a verdict needs")
@click.option(
    "--drift", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="how far scores may be apart, 0 to 1"
)
@click.option("-v", "--verbose", is_flag=True, help="tracebacks in full", expose_value=False)
@json_option
def canary(as_json: bool, champion: str, canary: str, watch: str, every: str, least: int, drift: float) -> int:
    """Watch the Prometheus pages at the addresses CHAMPION and CANARY: errors, slow answers, and models' scores.

    It is the rule of the server's own rollouts. It ends at once when the canary is worse, with 5. The level of 5 %
    holds over all looks together. Scores need no label: they may be apart by --drift, as Kolmogorov and Smirnov
    measure it (0 alike, 1 disjoint), and by chance.
    """
    pages = (champion, canary)
    lasts, pause = microseconds(watch, what="--watch") / 1e6, microseconds(every, what="--every") / 1e6
    began, before, looks = time.monotonic(), _counts(pages), 0
    found, seen, why = Verdict(()), 0, ""
    while time.monotonic() - began < lasts and not why:
        time.sleep(min(pause, max(0.0, lasts - (time.monotonic() - began))))
        looks += 1
        since = [now.since(first) for now, first in zip(_counts(pages), before, strict=True)]
        sides = [_evidence(one) for one in since]
        seen = sides[1].calls
        found = judged(sides[0], sides[1])
        found = Verdict((*found.looks, *_scores(since, drift)), found.why)
        why = f"the canary is worse in {found.why}" if found.why else _drifted(found.looks, drift)
    if not why and seen < least:
        why = f"the canary answered {seen:,} requests; {least} are needed to judge it"
    if as_json:
        emit({"worse": bool(why), "why": why or _well(found), "looks": looks})
    else:
        lines([why or _well(found)])
    return RefusedError.exit_status if why else 0


def _evidence(found: Counts) -> Counted:
    """What a page counted, as a rollout's rule takes it; the times are those of all requests, failed ones too."""
    return Counted(round(found.answered), round(found.failed), spread(found.within, STEPS_A_DOUBLING, CELLS))


def _scores(sides: Sequence[Counts], drift: float) -> Iterator[Look]:
    models = sorted(sides[0].scores.keys() & sides[1].scores.keys())
    for model in models:
        yield moved(model, sides[0].scores[model], sides[1].scores[model], drift, models=len(models))


def _drifted(looks: Sequence[Look], drift: float) -> str:
    """Which model's scores are other ones on the canary, and by how much; empty when none's are."""
    for look in looks:
        if look.stops:
            beyond = f"{drift:g} is allowed, and chance explains {look.bound:.3f} more"
            return f"the canary's {look.measure} are {look.canary:.3f} from the champion's; {beyond}"
    return ""


def _well(found: Verdict) -> str:
    said = [
        f"{look.measure} {look.worse:+.4f}, bound {look.bound:.4f}" for look in found.looks if look.bound is not None
    ]
    return f"the canary is no worse: {'; '.join(said) or 'too few requests for a look'}"


def _counts(pages: Sequence[str]) -> list[Counts]:
    found = []
    for page in pages:
        if not page.startswith(("http://", "https://")):
            raise UsageError(f"{page!r} is no address", code="MS-5101", fix="https://HOST/actuator/prometheus")
        try:
            with urllib.request.urlopen(page, timeout=_SECONDS) as answer:
                found.append(counts_of(answer.read(_MOST_BYTES).decode("utf-8", "replace")))
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            raise ServiceError(
                f"{page} does not answer", code="MS-5102", why=str(error), fix="check that the runner reaches it"
            ) from error
    return found
