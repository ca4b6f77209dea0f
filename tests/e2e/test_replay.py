"""A server that answers from a spoilt online store notices it by itself: mismatches, an alarm, the answers shown."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from e2e.conftest import call, mainspring, serve
from mainspring.choose.services import Services
from mainspring.cli.options import open_app
from mainspring.features.online.keys import key_packer
from mainspring.server.loop import online_views
from mainspring.server.planning import plan_of


def swap_rows(project: Path, one: str, other: str) -> None:
    """Give an entity the online row of another."""
    services, app = open_app(project, None)
    view = online_views(services, plan_of(app))["habits"]
    pack = key_packer(view.id, view.keys)
    keys = [pack({"customer": name}) for name in (one, other)]
    mine, its = services.online.get_many(keys)
    assert None not in (mine, its)
    assert mine != its
    assert services.online.swap(keys[0], mine, its)
    services.close()


def alarms(project: Path) -> list[dict[str, object]]:
    catalog = Services.of_project(project).catalog
    found = [alert for alert in catalog.alerts(open_only=True) if alert.kind == "replay"]
    catalog.close()
    return [{"monitor": alert.monitor, "features": list(alert.features), "rate": alert.score} for alert in found]


def test_a_spoilt_row_is_found(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    monkeypatch.setenv("MAINSPRING_FEATURES_REPLAY", "1.0")
    monkeypatch.setenv("MAINSPRING_MONITORING_EVERY", "0.2")
    served = serve(project)
    try:

        def ask(*names: str) -> None:
            for name in names:
                assert call(f"{served.url}/endpoint/returns", {"customer": name, "amount": 20.0})[0] == 200

        def checked() -> float:
            page = call(f"{served.console}/actuator/prometheus")[1].decode()
            lines = [line for line in page.splitlines() if line.startswith("mainspring_feature_replay_checked_total{")]
            return sum(float(line.rpartition(" ")[2]) for line in lines)

        ask("c01", "c02", "c03", "nobody")
        deadline = time.monotonic() + 90
        while not checked():
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert alarms(project) == []
        swap_rows(project, "c01", "c02")
        ask("c01", "c02")
        while not (found := alarms(project)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        (alarm,) = found
        assert alarm["monitor"] == "feature_view/habits"
        assert 0 < float(str(alarm["rate"])) < 1
        told = mainspring("show", "feature_view/habits", cwd=project).stdout
        assert "online answers that are others offline" in told
        assert "customer c01 at" in told
        assert "alarm: replay, firing" in told
        page = json.loads(call(f"{served.console}/data/feature_view/habits.json")[1])
        assert page["quality"]["replay"]["answers"][0]["keys"] == {"customer": "c01"}
        assert call(f"{served.console}/data/feature_view/habits", headers={"accept": "text/html"})[0] == 200
    finally:
        assert served.stop() == 0, served.log.read_text()
