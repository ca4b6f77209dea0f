"""A view is defined anew, and the champion was trained on the old one: each version reads what it was trained on."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_cli import copy, edit
from mainspring import FeatureStore, feature_store

NOW = datetime.now(UTC).replace(microsecond=0)
AMOUNTS = [(20, 10.0), (10, 20.0), (1.5, 60.0), (0.5, 90.0)]
"""Visits of a new customer: days ago, and how much."""


def features(served: Served, customer: str) -> dict[str, Any]:
    status, body, _ = call(f"{served.url}/endpoint/returns?features=true", {"customer": customer, "amount": 5.0})
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


def push(served: Served, days: float, amount: float) -> None:
    at = (NOW - timedelta(days=days)).isoformat()
    row = {"customer": "newcomer", "amount": amount, "at": at}
    status, body, _ = call(f"{served.url}/sources/visits/push", {"rows": [row]})
    assert status == 200, body


def scored(project: Path, version: str) -> float:
    """The score of a table with the newcomer alone, now."""
    (project / "one.csv").write_text("customer,amount\nnewcomer,5.0\n")
    words = ["--input", "one.csv", "--output", "out.csv", "--version", version]
    mainspring("score", "returns", *words, "--moment", datetime.now(UTC).isoformat(), cwd=project)
    (row,) = csv.DictReader((project / "out.csv").read_text().splitlines())
    return float(row["score"])


def unused(project: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(mainspring("plan", "--json", cwd=project).stdout)["unused"]
    return found


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Path:
    """A second version is trained on other windows, and nobody promotes it."""
    project = copy(built, tmp_path)
    edit(project, "app.promote(returns, margin=0.01)", "app.promote(returns, when=lambda new, live: False)")
    edit(project, 'avg("amount", "30d")', 'avg("amount", "1d")')
    edit(project, 'count("30d")', 'count("40d")')
    mainspring("apply", cwd=project)
    return project


def test_each_version_reads_what_it_was_trained_on(shop: Path) -> None:
    steps = json.loads(mainspring("apply", "--json", cwd=shop).stdout)["steps"]
    beside = [step["name"] for step in steps if "@" in step["name"]]
    assert [name.partition("@")[0] for name in beside] == ["feature_view/habits", "online/habits"]
    assert {step["status"] for step in steps} == {"hit"}, "a second apply keeps both definitions"
    assert unused(shop) == [], "both are read"
    served = serve(shop)
    try:
        for days, amount in AMOUNTS:
            push(served, days, amount)
        old = features(served, "newcomer")
        assert (old["version"], old["features"]["amount_30d"]) == ("1", 45.0), "of thirty days, as it was trained"
        assert scored(shop, "champion") == pytest.approx(old["score"], abs=1e-6)
        of_newer = scored(shop, "2")
        mainspring("promote", "returns", "2", "--force", cwd=shop)
        deadline = time.monotonic() + 60
        while (new := features(served, "newcomer"))["version"] == "1":
            assert new["features"]["amount_30d"] == 45.0, "one version with another's reads"
            assert time.monotonic() < deadline, served.log.read_text()
        assert new["features"]["amount_30d"] == 90.0, "of one day, as it was trained"
        assert of_newer == pytest.approx(new["score"], abs=1e-6)
        push(served, 0.25, 30.0)
        assert features(served, "newcomer")["features"]["amount_30d"] == 60.0
    finally:
        assert served.stop() == 0, served.log.read_text()
    steps = json.loads(mainspring("apply", "--json", cwd=shop).stdout)["steps"]
    assert not [step["name"] for step in steps if "@" in step["name"]], "nobody reads the old definition any more"
    (left,) = unused(shop)
    assert left["what"].startswith("rows online of feature view habits")
    assert left["sweep_us"] == left["since_us"] + 86_400_000_000
    assert json.loads(mainspring("show", "unused", "--json", cwd=shop).stdout) == [left]
    assert left["what"] in mainspring("show", "unused", cwd=shop).stdout
    assert json.loads(mainspring("show", "feature_view/habits", "--json", cwd=shop).stdout)["unused"] == [left]
    assert (
        f"nothing reads it: {left['what']}, swept after" in mainspring("show", "feature_view/habits", cwd=shop).stdout
    )


def test_a_restarted_server_brings_the_old_definition_up(shop: Path) -> None:
    served = serve(shop)
    try:
        push(served, 20, 10.0)
        served.process.kill()
        served.process.wait(timeout=60)
    finally:
        served.process.kill()
    served = serve(shop)
    try:
        push(served, 0.5, 20.0)
        answer = features(served, "newcomer")
        assert (answer["version"], answer["features"]["amount_30d"]) == ("1", 15.0)
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_a_champion_with_other_columns_is_served(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    edit(project, "app.promote(returns, margin=0.01)", "app.promote(returns, when=lambda new, live: False)")
    edit(project, "visits_30d=count(", "number=count(")
    edit(project, "inputs=[habits, visits.amount]", "inputs=[visits.amount, habits.number]")
    mainspring("apply", cwd=project)
    served = serve(project)
    try:
        for days, amount in AMOUNTS:
            push(served, days, amount)
        answer = features(served, "newcomer")
        assert answer["version"] == "1"
        assert answer["features"] == {"visits_30d": 4, "amount_30d": 45.0, "amount": 5.0}
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_what_cannot_be_followed_is_told(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    edit(project, "app.promote(returns, margin=0.01)", "app.promote(returns, when=lambda new, live: False)")
    edit(project, 'Field(ge=0, unit="EUR")', 'Field(ge=1, unit="EUR")')  # another record is another log
    mainspring("apply", cwd=project)
    words = ["--input", "visits", "--output", "out.csv", "--json"]
    fault = json.loads(mainspring("score", "returns", *words, cwd=project, status=5).stdout)["error"]
    assert (fault["code"], "/feature_view/habits" in fault["why"]) == ("MS-5128", True)
    served = serve(project)
    try:
        assert features(served, "c01")["version"] == "1"
        told = served.log.read_text()
        assert "model returns version 1 reads /feature_view/habits as it is no more: source 'visits'" in told
        status, page, _ = call(f"{served.console}/metrics")
        assert status == 200
        assert b'mainspring_model_definitions_lost{app="shop",model="returns"} 1' in page
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_what_was_pushed_stays_when_the_record_gets_another_column(built: Path, tmp_path: Path) -> None:
    """Online and in training sets; and when the change is taken back, also what was pushed after it."""
    project = copy(built, tmp_path)
    now = datetime.now(UTC)

    @contextlib.contextmanager
    def opened() -> Iterator[FeatureStore]:
        with feature_store(project) as store:
            yield store
        sys.modules.pop("shop")  # it is declared otherwise next time
        sys.path.remove(str(project))

    def pushed(customer: str, **more: object) -> None:
        with opened() as store:
            store.push("visits", [{"customer": customer, "amount": 5.0, "at": now, "returned": None, **more}])

    def held(*customers: str) -> tuple[list[str], list[int]]:
        with opened() as store:
            online = store.online(["habits"], [{"customer": name} for name in customers])
            spine = {"customer": customers, "at": [datetime.now(UTC)] * len(customers)}
            return list(online.status("habits")), store.history(["habits"], spine).polars()["visits_30d"].to_list()

    pushed("early")
    edit(project, "    at: datetime\n", "    at: datetime\n    note: str | None\n")
    data = project / "data" / "visits.csv"
    before = data.read_text()
    data.write_text("\n".join(line + (",note" if not number else ",") for number, line in enumerate(before.split())))
    report = json.loads(mainspring("apply", "--json", cwd=project).stdout)
    notes = {step["name"]: step["note"] for step in report["steps"]}
    assert "1 pushed rows of the record before" in notes["source/visits"]
    assert held("early", "late") == (["PRESENT", "MISSING"], [1, 0])
    pushed("late", note="x")
    assert held("early", "late") == (["PRESENT", "PRESENT"], [1, 1])
    data.write_text(before)
    edit(project, "    note: str | None\n", "")
    mainspring("apply", cwd=project)
    assert held("early", "late") == (["PRESENT", "PRESENT"], [1, 1])
