"""``mainspring doctor``: this machine, each fault with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import click
import msgspec

from mainspring.choose.discover import adapters, is_installed, named_object, part_of
from mainspring.choose.services import STORES, Services
from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.config.settings import Settings
from mainspring.errors import ConfigError, MainspringError

__all__ = ["Finding", "command"]

_LOW_DISK = 2 << 30


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; `remedy` is empty when it is well."""

    name: str
    value: str
    remedy: str = ""


class _Answers(Protocol):
    def answers(self) -> Mapping[str, object]:
        """What a server says of itself."""


@click.command(short_help="this machine: versions, cores, disk, ports, each fault with its remedy")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool) -> int:
    """Look at this machine, and at the project when there is one; exit 3 when something needs mending."""
    findings = [*_machine(), *_libraries()]
    try:
        services = open_services(project, profile)
        findings += [*_project(services.settings), *_stores(services), *_sources(services)]
    except ConfigError as error:
        findings.append(Finding("project", ": ".join(filter(None, (error.what, error.why))), error.fix))
    if as_json:
        emit(findings)
    else:
        lines(
            f"{'!' if f.remedy else ' '} {f.name:<19} {f.value}{'  -> ' + f.remedy if f.remedy else ''}"
            for f in findings
        )
    return 3 if any(finding.remedy for finding in findings) else 0


def _machine() -> list[Finding]:
    python = platform.python_version()
    free = shutil.disk_usage(Path.cwd()).free
    return [
        Finding("mainspring", importlib.metadata.version("mainspring")),
        Finding("python", python, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"),
        Finding("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        Finding("cores", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}, quota {_quota()}"),
        Finding("memory", _memory()),
        Finding("disk free", f"{free / (1 << 30):.1f} GiB", "" if free > _LOW_DISK else "free at least 2 GiB"),
        Finding("gpu", _gpu()),
    ]


def _quota() -> str:
    """The cgroup's share of processor time, in cores."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").split()
    except (OSError, ValueError):
        return "none"
    return "none" if limit == "max" else f"{int(limit) / int(period):.1f} cores"


def _memory() -> str:
    try:
        lines_ = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
    except OSError:
        return "unknown"
    total, free = (int(lines_[key].split()[0]) / (1 << 20) for key in ("MemTotal", "MemAvailable"))
    return f"{free:.1f} of {total:.1f} GiB free"


def _gpu() -> str:
    cards = Path("/proc/driver/nvidia/gpus")
    return f"{len(list(cards.iterdir()))} NVIDIA" if cards.is_dir() else "none"


def _libraries() -> list[Finding]:
    found = []
    for adapter in adapters():
        missing = [module for module in adapter.modules if not is_installed(module)]
        name = f"{adapter.port}.{adapter.name}"
        if missing and adapter.embedded:
            found.append(Finding(name, f"{', '.join(missing)} missing", f"pip install 'mainspring[{adapter.extra}]'"))
        else:
            how = f"needs {', '.join(missing)}: {named_object(part_of(adapter, 'dev:HOW'))}" if missing else "installed"
            found.append(Finding(name, how))
    return found


def _project(settings: Settings) -> list[Finding]:
    state = settings.project / (settings.text("state.folder") or ".mainspring")
    writable = os.access(state if state.exists() else settings.project, os.W_OK)
    found = [
        Finding("project", f"{settings.project.name}, profile {settings.profile}"),
        Finding(
            "state folder", "writable" if writable else "not writable", "" if writable else f"chmod u+w {state.name}"
        ),
    ]
    for name in ("server", "management"):
        host, port = settings.text(f"{name}.host") or "127.0.0.1", settings.whole(f"{name}.port")
        taken = port != 0 and not _free(host, port)
        remedy = f"stop what listens there, or set {name}.port" if taken else ""
        found.append(Finding(f"{name} port", f"{host}:{port} {'is taken' if taken else 'is free'}", remedy))
    return found


def _stores(services: Services) -> list[Finding]:
    """Whether what the profile has chosen answers; nothing is made for this that a run would make."""
    found = []
    for port in (*STORES, *(port for port in ("budgets", "compute") if services.settings.section(port))):
        try:
            name = f"{port}.{services.decision(port).chosen.name}"
            if services.decision(port).chosen.embedded and not services.state.exists():
                found.append(Finding(name, "is made by the first run"))
                continue
            facts = [f"{key} {value}" for key, value in services.health(port).items() if value is not True]
            found.append(Finding(name, f"answers{': ' if facts else ''}{', '.join(facts)}"))
        except MainspringError as error:
            found.append(Finding(port, ": ".join(filter(None, (error.what, error.why))), error.fix or "see why"))
        finally:
            services.close()
    return found


def _sources(services: Services) -> list[Finding]:
    """Whether the servers of sources answer."""
    found = []
    for key, setting in services.settings.values.items():
        if not (key.startswith("sources.") and key.endswith(".url") and setting.value):
            continue
        section = key.removesuffix(".url")
        try:
            facts = cast(_Answers, services.source(section.removeprefix("sources."))).answers()
            told = ", ".join(f"{name} {value}" for name, value in facts.items())
            found.append(Finding(section, f"answers: {told}"))
        except MainspringError as error:
            found.append(Finding(section, ": ".join(filter(None, (error.what, error.why))), error.fix or "see why"))
    services.close()
    return found


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
