"""``mainspring conditions``: every choice of an adapter, and why."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from mainspring.choose.report import PortReport, SettingReport, conditions_report
from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines

__all__ = ["command"]


@click.command(short_help="every choice of an adapter, and why")
@click.argument("port", required=False)
@project_options
def command(port: str | None, project: Path | None, profile: str | None, as_json: bool) -> int:
    """Show which adapter serves each port, why, why the others do not, and every setting with its origin.

    With PORT, that port and its settings only.
    """
    services = open_services(project, profile)
    report = conditions_report(services.settings, port)
    if as_json:
        emit(report)
    else:
        for entry in report["ports"]:
            lines(_text(entry))
        lines(["settings", *(_setting(item) for item in report["settings"])])
    return 3 if any(entry["error"] for entry in report["ports"]) else 0


def _text(entry: PortReport) -> list[str]:
    head = f"{entry['port']}: {entry['chosen'] or entry['error'] or 'none'}"
    found = [head if not entry["why"] else f"{head}  ({entry['why']})"]
    for candidate in entry["candidates"]:
        mark = "+" if candidate["fits"] else "-"
        reasons = "; ".join(
            f"{c['name']} {'yes' if c['ok'] else 'no'}: {c['message']}" for c in candidate["conditions"]
        )
        found.append(f"  {mark} {candidate['adapter']}  {reasons}")
    return found


def _setting(item: SettingReport) -> str:
    value = "not set" if item["value"] is None else orjson.dumps(item["value"]).decode()
    return f"  {item['key']} = {value}  ({item['origin']})"
