"""Runs that a server starts by itself: real processes of a real project, whose app writes down how it was started."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.plan.graph import Plan
from mainspring.server.errands import LOG_BYTES
from mainspring.server.planning import plan_of
from mainspring.server.schedules import Schedules
from mainspring.server.trainings import Trainings

_APP = """
import sys
from pathlib import Path

from mainspring import App

with open(Path(__file__).parent / "started", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")

app = App("errands")


@app.step()
def nothing() -> int:
    raise ValueError("it cannot be done")


@app.pipeline
def nightly():
    return nothing()


app.schedule(nightly, "* * * * *", called="often")
"""


@pytest.fixture
def services(tmp_path: Path) -> Services:
    (tmp_path / "errands_app.py").write_text(_APP)
    (tmp_path / "mainspring.toml").write_text('app = "errands_app:app"\n')
    found = Services.of_project(tmp_path)
    found.state.mkdir()
    return found


def runs(services: Services) -> list[str]:
    file = services.project / "started"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split()[1] for line in lines if line.startswith("run ")]


def until(holds: Callable[[], bool], look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        look()
        time.sleep(0.05)


def test_two_alarms_at_once_train_both_models_and_failures_are_told(services: Services) -> None:
    told: list[str] = []
    trainings = Trainings(services, told.append)
    trainings.ask("late", "alarm of late")
    trainings.ask("price", "alarm of price")
    trainings.ask("price", "alarm of price again")
    until(lambda: len(told) == 2, trainings.once)
    assert runs(services) == ["model/late", "model/price"]
    assert "training of late" in told[0]
    assert "training of price" in told[1]
    assert "status" in told[0]
    assert "retrain.log" in told[0]
    assert not list((services.state / "retrain").iterdir())


def test_a_training_that_a_stop_interrupts_is_begun_again(services: Services) -> None:
    file = services.project / "errands_app.py"
    file.write_text(_APP + "\nimport time\ntime.sleep(60)\n")
    told: list[str] = []
    first, second = Trainings(services, told.append), Trainings(services, told.append)
    first.ask("late", "alarm of late")
    until(lambda: len(runs(services)) == 1, second.once)  # while one server has it, another leaves it alone
    first.close()
    file.write_text(_APP)
    until(lambda: len(told) == 1, second.once)
    assert runs(services) == ["model/late"] * 2


def test_a_scheduled_run_that_fails_is_told_and_its_log_does_not_grow_without_end(services: Services) -> None:
    (services.state / "schedules.log").write_bytes(b"x" * (LOG_BYTES + 1))
    plan: Plan = plan_of(load_app(services.settings))
    told: list[str] = []
    schedules = Schedules(services, plan, told.append, since=now_us() - 90_000_000)
    assert schedules.fire() == 1
    until(lambda: bool(told), schedules.fire)
    assert told[0].startswith("schedule often: the run failed with status 1")
    assert "schedules.log" in told[0]
    assert "it cannot be done" in (services.state / "schedules.log").read_text()
    assert (services.state / "schedules.log.1").stat().st_size == LOG_BYTES + 1


def test_a_scheduled_run_that_does_not_end_is_told_once_its_next_time_has_come(services: Services) -> None:
    plan: Plan = plan_of(load_app(services.settings))
    (services.project / "errands_app.py").write_text(_APP + "\nimport time\ntime.sleep(60)\n")
    told: list[str] = []
    schedules = Schedules(services, plan, told.append, since=now_us() - 90_000_000)
    assert schedules.fire() == 1
    (run,) = schedules.running
    try:
        run.begun -= 90_000_000  # its next time has come since
        assert schedules.fire() == schedules.fire() == 0
        assert told == [f"schedule often is due, and waits for the run that began before (process {run.process.pid})"]
    finally:
        run.process.kill()
        run.process.wait()
