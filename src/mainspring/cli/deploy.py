"""``mainspring deploy``: bring the app to where it runs: look, plan, apply, watch, share out, go back, take away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines, tell
from mainspring.cli.shipping import revision_of
from mainspring.config.project import load_app
from mainspring.deploy.image.facts import facts_of
from mainspring.deploy.rollout import Rollout, read_plan
from mainspring.deploy.shipping import app_name
from mainspring.errors import UsageError
from mainspring.lazy import lazy
from mainspring.ports.target import Change, Cost, Health, Plan

if TYPE_CHECKING:
    from mainspring.cli import local
else:  # what runs an image here, the help and the clusters do not need
    local = lazy("mainspring.cli.local")

__all__ = ["command"]

_SIGNS = {"create": "+", "update": "~", "replace": "!", "adopt": "&", "delete": "-"}
_WAIT_S = 600.0
F = TypeVar("F", bound=Callable[..., object])


def _target_options(function: F) -> F:
    target = click.option(
        "--target", default="kubernetes", show_default=True, metavar="NAME", help="where to: [targets.NAME], or a kind"
    )
    return target(project_options(function))


_image = click.option("--image", metavar="IMAGE", help="the image by its digest; the one that was pushed last")
_force = click.option("--force", is_flag=True, help="take fields that are somebody else's")
_adopt = click.option("--adopt", is_flag=True, help="take over objects that are there already")
_canary = click.option("--canary", type=click.IntRange(0, 99), metavar="PERCENT", help="beside what runs, with a share")
_wait = click.option(
    "--wait", type=click.FloatRange(0), default=_WAIT_S, show_default=True, help="seconds to wait until it is well"
)


@contextlib.contextmanager
def _opened(project: Path | None, profile: str | None, target: str, as_json: bool) -> Iterator[tuple[Any, Rollout]]:
    services = open_services(project, profile)
    try:
        deployment = services.target(target)
        client: Any = deployment.client()
        try:
            told = (lambda text: None) if as_json else tell
            app = app_name(load_app(services.settings).name)
            yield services, Rollout(target, deployment.target, client, app, told)
        finally:
            client.close()
    finally:
        services.close()


@click.group(invoke_without_command=True, short_help="bring the app to where it runs, and look after it there")
@click.option("--local", "here", is_flag=True, help="run one replica of it on this machine, as the target would")
@click.option("--check", is_flag=True, help="with --local: stop it once it is ready, and tell how that went")
@click.option("--port", type=click.IntRange(1, 65_535), metavar="N", help="with --local: where it answers; 8080")
@click.option("--process", is_flag=True, help="with --local: as a plain process, even where runc is")
@_canary
@_image
@_wait
@_target_options
@click.pass_context
def command(
    ctx: click.Context,
    project: Path | None,
    profile: str | None,
    as_json: bool,
    target: str,
    image: str | None,
    canary: int | None,
    wait: float,
    here: bool,
    check: bool,
    port: int | None,
    process: bool,
) -> int:
    """Look, plan, apply and wait, when no word follows; each of these has a word of its own.

    With --local no cluster is asked: the image that is built now, or --image, runs here under the target's contract.
    """
    _together(here, ctx.invoked_subcommand, {"--check": check, "--port": port, "--process": process}, canary)
    if ctx.invoked_subcommand is not None:
        return 0
    if here:
        return local.run_local(project, profile, as_json, target, image, port, process, wait, check)
    with _opened(project, profile, target, as_json) as (services, rollout):
        revision = revision_of(services, image)
        rollout.check(revision, facts_of(services, revision.release.image))
        return _carry(rollout, rollout.plan(*rollout.beside(revision, canary)), as_json, wait)


def _together(here: bool, word: str | None, only: Mapping[str, object], canary: int | None) -> None:
    """Refuse options that say nothing together."""
    lone = next((name for name, value in only.items() if value), None)
    if here and (word is not None or canary is not None):
        raise UsageError(
            "--local runs one replica and no more",
            code="MS-5165",
            why=f"{word or '--canary'} is for what runs at the target",
            fix="mainspring deploy --local",
        )
    if lone is not None and not here:
        raise UsageError(f"{lone} goes with --local alone", code="MS-5165", fix=f"mainspring deploy --local {lone}")


@command.command(short_help="what would keep a deployment from working; writes nothing")
@_image
@_target_options
def preflight(project: Path | None, profile: str | None, as_json: bool, target: str, image: str | None) -> int:
    """Look at rights, versions and secrets; exit 5 when something keeps the app from being deployed."""
    with _opened(project, profile, target, True) as (services, rollout):
        revision = revision_of(services, image)
        findings = rollout.findings(revision, facts_of(services, revision.release.image))
    if as_json:
        emit({"findings": msgspec.to_builtins(findings)})
    else:
        lines([f"{one.level:<8} {one.what}" + (f"\n         {one.fix}" if one.fix else "") for one in findings])
        tell("nothing stands in the way" if not findings else "")
    return 5 if any(one.level == "error" for one in findings) else 0


@command.command(short_help="what an apply would do; exits 2 if anything")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="keep the plan, for apply")
@_canary
@_image
@_target_options
def plan(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    target: str,
    image: str | None,
    canary: int | None,
    out: Path | None,
) -> int:
    """Show what differs between what is declared and what is there; exit 2 when something does; nothing is written."""
    with _opened(project, profile, target, as_json) as (services, rollout):
        found = rollout.plan(*rollout.beside(revision_of(services, image), canary))
    if out is not None:
        out.write_bytes(msgspec.json.encode(found))
    emit(msgspec.to_builtins(found)) if as_json else lines(_spelled(found))
    return 2 if found.changes else 0


@command.command(short_help="carry a plan out, and wait until it is well")
@click.argument("path", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[PLAN]")
@_force
@_adopt
@_wait
@_canary
@_image
@_target_options
def apply(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    target: str,
    image: str | None,
    canary: int | None,
    wait: float,
    path: Path | None,
    force: bool,
    adopt: bool,
) -> int:
    """Carry out the plan in the file PLAN, or one made now. A killed apply is gone on with by the next.

    What was planned is what is applied: if the target has changed since, nothing is written. --wait 0 does not wait.
    """
    kept = None if path is None else read_plan(path)
    with _opened(project, profile, target if kept is None else kept.target, as_json) as (services, rollout):
        if kept is None:
            kept = rollout.plan(*rollout.beside(revision_of(services, image), canary))
        return _carry(rollout, kept, as_json, wait, force=force, adopt=adopt)


@command.command(short_help="how it is: revisions, replicas, and why they are not well")
@click.option("--lines", "count", type=click.IntRange(0, 1000), default=10, show_default=True, help="lines of a log")
@_target_options
def status(project: Path | None, profile: str | None, as_json: bool, target: str, count: int) -> int:
    """Show how the app is; exit 4 when it is not well."""
    with _opened(project, profile, target, as_json) as (_, rollout):
        health = rollout.target.status(rollout.app, rollout.client, count)
    emit(msgspec.to_builtins(health)) if as_json else lines(_told(rollout.app, health))
    return 0 if health.state in ("healthy", "progressing") else 4


@command.command(short_help="give the canary another share: 0 takes it away, 100 makes it the only one")
@click.argument("percent", type=click.IntRange(0, 100))
@_force
@_wait
@_target_options
def traffic(
    project: Path | None, profile: str | None, as_json: bool, target: str, percent: int, force: bool, wait: float
) -> int:
    """Give the canary PERCENT of the requests."""
    with _opened(project, profile, target, as_json) as (_, rollout):
        return _carry(rollout, rollout.plan(*rollout.shared(percent)), as_json, wait, force=force)


@command.command(short_help="go back to an older revision, or away from the canary")
@click.argument("revision", required=False)
@_force
@_wait
@_target_options
def rollback(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    target: str,
    revision: str | None,
    force: bool,
    wait: float,
) -> int:
    """Bring back the revision before the one that runs, or the one whose id begins with REVISION."""
    with _opened(project, profile, target, as_json) as (_, rollout):
        return _carry(rollout, rollout.plan(rollout.before(revision), None), as_json, wait, force=force)


@command.command(short_help="take away what bears the app's label, and nothing else")
@click.option("--yes", is_flag=True, help="really")
@_target_options
def destroy(project: Path | None, profile: str | None, as_json: bool, target: str, yes: bool) -> int:
    """Take away everything of the app; secrets, claims and the namespace are not ours, and stay."""
    with _opened(project, profile, target, as_json) as (_, rollout):
        if not yes:
            raise UsageError(
                f"this takes {rollout.app} away from target {target}",
                code="MS-2749",
                why="it cannot be undone",
                fix="mainspring deploy destroy --yes",
            )
        count = rollout.target.destroy(rollout.app, rollout.client, rollout.told)
    emit({"deleted": count}) if as_json else lines([f"{count} objects deleted"])
    return 0


def _carry(
    rollout: Rollout, found: Plan, as_json: bool, wait: float, *, force: bool = False, adopt: bool = False
) -> int:
    for text in _spelled(found):
        rollout.told(text)
    count = rollout.apply(found, force=force, adopt=adopt)
    health = rollout.wait(wait) if wait else rollout.target.status(rollout.app, rollout.client, 0)
    if as_json:
        emit({"written": count, "revision": found.revision.id, "status": msgspec.to_builtins(health)})
    else:
        lines([f"{count} objects written; {rollout.app} is {health.state} at revision {health.revision}"])
    return 0


def _spelled(found: Plan) -> list[str]:
    if not found.changes:
        return ["nothing would change"]
    told = [text for change in found.changes for text in _change(change)]
    counts = {what: sum(change.what == what for change in found.changes) for what in _SIGNS}
    told.append(", ".join(f"{count} to {what}" for what, count in counts.items() if count))
    return [*told, *([] if found.cost is None else _costs(found.cost)), f"plan {found.hash}"]


def _costs(cost: Cost) -> list[str]:
    """What runs all the time, for people: at least, at most, and now."""
    told = [f"asks for {_amounts(cost.least)}; at most {_amounts(cost.most)}; now {_amounts(cost.now)}"]
    if cost.hourly is not None:
        now, least, most = (f"{one:.2f}" for one in cost.hourly)
        told.append(f"costs {least} {cost.currency} an hour; at most {most}; now {now}")
    return told


def _amounts(amounts: Mapping[str, float]) -> str:
    units = {"pods": "pods", "cpu": "cores", "memory_gib": "GiB", "gpu": "GPUs"}
    counted = {name: unit.removesuffix("s") if amounts.get(name) == 1 else unit for name, unit in units.items()}
    return ", ".join(f"{amounts[name]:g} {unit}" for name, unit in counted.items() if name in amounts) or "nothing"


def _change(change: Change) -> list[str]:
    told = [f"{_SIGNS[change.what]} {change.url}"]
    told += [f"    {path}: {old or 'none'} -> {new or 'none'}" for path, old, new in change.fields]
    return told + [f"    somebody else's: {conflict}" for conflict in change.conflicts]


def _told(app: str, health: Health) -> Sequence[str]:
    told = [f"{app} is {health.state}"]
    if health.revision:
        told.append(f"  revision   {health.revision}  {health.image}")
    if health.canary:
        told.append(f"  canary     {health.canary}  {health.percent} % of the requests")
    for part in health.parts:
        replicas = f"  {part.ready} of {part.wanted} ready" if part.wanted else ""
        told.append(f"  {part.state:<11}{part.url}{replicas}")
        told += [f"    {part.why}"] if part.why else []
        told += [f"    | {line}" for line in part.log]
    if len(health.revisions) > 1:
        told.append(f"  kept       {' '.join(health.revisions)}")
    return told
