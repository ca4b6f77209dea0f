"""``mainspring bench serve``: a real endpoint under load, by itself and where it runs already."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.conftest import Served, free_port, mainspring

QUICK = ("--seconds", "0.3", "--concurrency", "1,4")


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "shop"))


def test_an_endpoint_is_measured_and_no_monitor_sees_it(project: Path) -> None:
    told = json.loads(mainspring("bench", "serve", *QUICK, "--json", cwd=project).stdout)
    assert (told["endpoint"], told["model"], told["version"], told["batch"]) == ("returns", "returns", "1", 1)
    assert 500 < told["rows"] <= 1000
    assert [load["concurrency"] for load in told["loads"]] == [1, 4]
    for load in told["loads"]:
        assert load["failed"] == 0
        assert load["answered"] > 20
        assert 0 < load["p50_ms"] <= load["p99_ms"]
        assert load["cpu_us"] > 0
    cost = told["cost"]
    assert cost["total"] >= cost["http"] > 0
    assert cost["total"] == pytest.approx(cost["http"] + cost["model"] + cost["rest"])
    logged = [path for path in (project / ".mainspring" / "predictions").rglob("*") if path.is_file()]
    assert not logged


def test_for_people_it_says_what_a_core_gives(project: Path) -> None:
    told = mainspring("bench", "serve", "endpoint/returns", *QUICK, "--batch", "5", cwd=project)
    assert "returns, answered by returns version 1" in told.stdout
    assert "5 a request" in told.stdout
    assert "a core gives" in told.stdout
    assert "serving returns in a process of its own" in told.stderr


def test_a_server_that_runs_and_rows_of_ones_own(served: Served, tmp_path: Path) -> None:
    rows = tmp_path / "questions.jsonl"
    rows.write_text('{"customer": "c1", "amount": 3.5}\n\n{"customer": "c2", "amount": null}\n')
    words = ("bench", "serve", "returns", *QUICK, "--url", served.url, "--rows", str(rows), "--json")
    told = json.loads(mainspring(*words, cwd=served.project).stdout)
    assert (told["rows"], told["cost"], told["loads"][0]["cpu_us"]) == (2, None, None)
    assert told["loads"][0]["answered"] > 20


def test_a_server_with_keys_is_asked_with_one(project: Path) -> None:
    with open(project / "mainspring.toml", "a") as settings:
        settings.write('\n[server]\nkeys = ["env:SHOP_KEY"]\n')
    told = mainspring("bench", "serve", *QUICK, "--json", cwd=project, env={"SHOP_KEY": "a-key-of-the-shop"})
    assert json.loads(told.stdout)["loads"][0]["failed"] == 0
    assert "a-key-of-the-shop" not in told.stdout + told.stderr


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("nothing",), 2, "MS-2602"),
        (("--concurrency", "1,0"), 2, "MS-2796"),
        (("--concurrency", "many"), 2, "MS-2796"),
        (("--rows", "bad.jsonl"), 2, "MS-2797"),
        (("--rows", "empty.jsonl"), 2, "MS-2797"),
        (("--rows", "wrong.jsonl"), 1, "MS-2794"),
    ],
)
def test_what_cannot_be_measured_says_why(project: Path, words: tuple[str, ...], status: int, code: str) -> None:
    (project / "bad.jsonl").write_text('{"customer": "c1"}\n[1]\n')
    (project / "empty.jsonl").write_text("\n")
    (project / "wrong.jsonl").write_text('{"amount": 3}\n')
    assert code in mainspring("bench", "serve", *words, cwd=project, status=status).stderr


def test_nobody_there_is_a_service_that_cannot_be_reached(project: Path) -> None:
    words = ("bench", "serve", "--url", f"http://127.0.0.1:{free_port()}")
    assert "MS-4383" in mainspring(*words, cwd=project, status=4).stderr


def test_ctrl_c_leaves_no_server_behind(project: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mainspring.cli", "bench", "serve", "--seconds", "60"],
        cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert any("at once" in line for line in process.stderr)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)
    assert process.returncode == 130
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
