"""``mainspring run``: one source, feature view, model, index, evaluation, step or pipeline, now."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click
import msgspec

from mainspring.choose.services import Services
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines, table, tell
from mainspring.cli.progress import report_as_dict, watching
from mainspring.declare.assistant import AssistantMonitor
from mainspring.declare.declaration import DeclaredKind, spec_of
from mainspring.declare.step import Pipeline, Step
from mainspring.engine.arguments import converted
from mainspring.errors import RefusedError, UsageError
from mainspring.plan.graph import Node, Plan
from mainspring.server.answering.evaluations import evaluate_named
from mainspring.server.answering.watching import new_reference
from mainspring.server.loop import named_node, run_named
from mainspring.server.planning import plan_of

__all__ = ["command", "parsed"]


@click.command(short_help="one source, feature view, model, index, evaluation, step or pipeline, now")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--inline", is_flag=True, help="in this process, for a debugger")
@click.option("--force", is_flag=True, help="do not use the kept result of NAME itself")
@click.option("--reason", default="", help="why, for the record")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    name: str,
    arguments: tuple[str, ...],
    inline: bool,
    force: bool,
    reason: str,
) -> int:
    """Build NAME (or KIND/NAME) and what it is made from; arguments are KEY=VALUE: JSON, or plain text."""
    services, app = open_app(project, profile)
    plan = plan_of(app)
    node = named_node(plan, name)
    if node.kind == DeclaredKind.EVALUATION.value:
        return _evaluate(services, plan, node, as_json)
    if isinstance(node.declaration, AssistantMonitor):
        return _begin_anew(services, plan, node, as_json)
    given = _converted(node.declaration, parsed(arguments))
    with watching(quiet=as_json) as watch:
        done = run_named(services, app, plan, name, given, watch=watch, inline=inline, force=force, reason=reason)
    report = done.report
    if as_json:
        emit({**report_as_dict(report), "result": done.result})
    else:
        lines([f"run {report.run_id} {report.status}: {len(report.steps)} steps, {report.wall_seconds:.1f} s"])
        if done.result is not None:
            lines([str(done.result)])
    if report.error is None:
        return 0
    if not as_json:
        raise report.error
    tell(report.error.lines())
    return report.error.exit_status  # what it is, is in the document, which is the only one


def _evaluate(services: Services, plan: Plan, node: Node, as_json: bool) -> int:
    """An evaluation is put to what it is of, and its gate decides the exit status."""
    done = evaluate_named(services, plan, node, tell)
    if as_json:
        emit(msgspec.to_builtins(done))
    else:
        table(("measure", "mean"), [(key, f"{value:.4g}") for key, value in sorted(done.scores.items())])
        lines([f"{node.name}: {done.cases} cases, {'passed' if done.passed else done.why}"])
    return 0 if done.passed else RefusedError.exit_status


def _begin_anew(services: Services, plan: Plan, node: Node, as_json: bool) -> int:
    """A monitor of an assistant is run by taking what is now as its reference."""
    new_reference(services, plan, node)
    if as_json:
        emit({"monitor": node.name, "reference_blocks": 0})
    else:
        lines([f"{node.name}: the next blocks are its reference"])
    return 0


def _converted(target: object, texts: dict[str, str]) -> dict[str, object]:
    if isinstance(target, Pipeline):
        return converted(spec_of(target).function, texts)
    if isinstance(target, Step):
        spec = spec_of(cast("Step[..., object]", target))
        return converted(spec.function, texts, filled=len(spec.inputs))
    return {**texts}


def parsed(arguments: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` words as a mapping.

    Raises:
        UsageError: MS-2603.
    """
    found: dict[str, str] = {}
    for text in arguments:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"argument {text!r} is not KEY=VALUE", code="MS-2603", fix="write n=4 or day=2013-07-01")
        found[key] = value
    return found
