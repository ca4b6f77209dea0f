"""Schedules at work: what is due is taken once over all replicas, and run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import cast

import orjson

from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.declare.declaration import kind_of, name_of, spec_of
from mainspring.declare.model import Schedule, ScheduleSpec
from mainspring.engine.schedule import take_due
from mainspring.plan.graph import Plan

__all__ = ["Schedules"]


@dataclass(slots=True)
class Schedules:
    """The schedules of an app.

    Attributes:
        services: the project's ports.
        plan: the app's graph.
        since: the moment from which a schedule that never fired counts.
        running: the processes that were started.
    """

    services: Services
    plan: Plan
    since: int = field(default_factory=now_us)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def fire(self) -> int:
        """Start what is due; how many runs were started."""
        self.running = [process for process in self.running if process.poll() is None]
        started = 0
        for node in self.plan.of_kind("schedule"):
            spec = spec_of(cast(Schedule, node.declaration))
            due = take_due(
                self.services.catalog,
                node.name,
                spec.cron,
                spec.zone,
                now_us=now_us(),
                since_us=self.since,
                missed=spec.missed,
                new_id=new_id,
            )
            for moment in due:
                self.running.append(self._start(spec, node.name, moment.at))
                started += 1
        return started

    def _start(self, spec: ScheduleSpec, name: str, due: int) -> subprocess.Popen[bytes]:
        target = spec.target
        arguments = [f"{key}={orjson.dumps(value).decode()}" for key, value in spec.arguments.items()]
        where = ["--profile", self.services.settings.profile, "--project", str(self.services.project)]
        command = [sys.executable, "-m", "mainspring.cli", "run", f"{kind_of(target).value}/{name_of(target)}"]
        with open(self.services.state / "schedules.log", "ab") as output:
            return subprocess.Popen(
                [*command, *arguments, *where, "--reason", f"schedule {name} due {due}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(os.environ),
            )
