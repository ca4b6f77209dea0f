"""`mainspring step` by the real command line: the contract that orchestrators are handed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.conftest import mainspring
from portable_kit import write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return write_project(tmp_path_factory.mktemp("portable") / "work")


@pytest.fixture(scope="module")
def own(project) -> dict[str, str]:
    """The digests of our own run, by step."""
    done = mainspring("run", "nightly", "n=5", "when=2026-11-28", "--json", cwd=project)
    return {step["name"]: step["outputs"] for step in json.loads(done.stdout)["steps"]}


def step(project: Path, name: str, *words: str, state: Path | None = None, status: int = 0) -> dict:
    env = {"MAINSPRING_STATE_FOLDER": str(state)} if state else {}
    done = mainspring("step", name, *words, "--json", cwd=project, env=env, status=status)
    return json.loads(done.stdout)


def test_a_pipeline_step_by_step_on_machines_of_their_own(project, own, tmp_path) -> None:
    """Each step has a store of its own; folders alone pass between them, and each digest is that of our own run."""
    machines = (tmp_path / f"machine{number}" for number in range(20))

    def on_its_own(name: str, to: str, *words: str) -> str:
        done = step(project, name, *words, "--out", f"result={tmp_path / to}", state=next(machines))
        assert done["status"] == "ok"
        return str(done["outputs"]["result"]["digest"])

    found = {
        "step/numbers": on_its_own("numbers", "rows", "--in", "n=5"),
        "step/scaled": on_its_own(
            "scaled", "left", "--in", f"rows={tmp_path}/rows", "--in", "factor=2.0", "--text", "label=b"
        ),
        "step/scaled-2": on_its_own(
            "scaled", "right", "--in", f"rows=@{tmp_path}/rows", "--in", "factor=0.5", "--text", "label=@fixed"
        ),
        "step/total": on_its_own("total", "a", "--in", f"rows={tmp_path}/left"),
        "step/total-2": on_its_own("total", "b", "--in", f"rows={tmp_path}/right"),
        "step/doubled": on_its_own("doubled", "parts", "--map", "item", "--in", "item=[1,2,3]", "--in", "by=3"),
        "step/written": on_its_own(
            "written", "report", "--in", f"parts={tmp_path}/parts", "--in", f"rows={tmp_path}/left"
        ),
    }
    lists = ["--in", f"texts=@{tmp_path}/a", "--in", f"texts=@{tmp_path}/b"]
    found["step/joined"] = on_its_own(
        "joined", "joined", *lists, "--in", "when=2026-11-28", "--in", f"report={tmp_path}/report"
    )
    assert found == {name: own[name] for name in found}
    assert (tmp_path / "report" / "data" / "deep" / "sum.txt").read_text() == "18 of 5"
    assert os.access(tmp_path / "report" / "data" / "tool.sh", os.X_OK)
    value = json.loads((tmp_path / "joined" / "value.json").read_text())["value"]
    assert value == {"sum": 37.5, "when": "2026-11-28", "files": ["sum.txt", "tool.sh"], "executable": True}
    card = json.loads((tmp_path / "joined" / "artifact.json").read_text())
    assert card["producer"]["step"] == "step/joined"
    assert len(card["producer"]["key"]) == 40


def test_with_the_project_s_own_store_a_step_is_a_hit(project, own, tmp_path) -> None:
    done = step(project, "numbers", "--in", "n=5", "--out", f"result={tmp_path / 'rows'}")
    assert (done["status"], done["outputs"]["result"]["digest"]) == ("hit", own["step/numbers"])


def test_rows_of_a_source_are_a_step(project, tmp_path) -> None:
    whole = mainspring("run", "summed", "--json", cwd=project)
    digests = {one["name"]: one["outputs"] for one in json.loads(whole.stdout)["steps"]}
    rows = step(project, "rows/orders", "--out", f"result={tmp_path / 'rows'}")
    assert rows["outputs"]["result"]["digest"] == digests["rows/orders"]
    done = step(project, "summed", "--in", f"rows={tmp_path / 'rows'}", "--out", f"result={tmp_path / 'sum'}")
    assert done["outputs"]["result"]["digest"] == digests["step/summed"]
    assert json.loads((tmp_path / "sum" / "value.json").read_text()) == {"value": 6.5}


def test_a_pickle_is_taken_only_if_our_catalog_recorded_it(project, tmp_path) -> None:
    step(project, "made", "--in", "factor=2", "--out", f"result={tmp_path / 'recipe'}")
    step(project, "used", "--in", f"recipe=@{tmp_path / 'recipe'}")
    elsewhere = step(project, "used", "--in", f"recipe=@{tmp_path / 'recipe'}", state=tmp_path / "other", status=5)
    assert elsewhere["error"]["code"] == "MS-5100"


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda folder: (folder / "data").write_bytes(b"something else"), "MS-2761"),
        (lambda folder: (folder / "data").unlink(), "MS-2761"),
        (lambda folder: (folder / "artifact.json").write_text("{}"), "MS-2760"),
        (lambda folder: (folder / "artifact.json").write_text("no json"), "MS-2760"),
    ],
)
def test_an_artifact_that_was_changed_is_refused(project, tmp_path, break_it, code) -> None:
    step(project, "numbers", "--in", "n=2", "--out", f"result={tmp_path / 'rows'}")
    break_it(tmp_path / "rows")
    assert step(project, "total", "--in", f"rows=@{tmp_path / 'rows'}", status=1)["error"]["code"] == code


def test_a_folder_s_path_must_stay_inside(project, own, tmp_path) -> None:
    step(project, "doubled", "--map", "item", "--in", "item=[1]", "--out", f"result={tmp_path / 'parts'}")
    step(project, "numbers", "--in", "n=2", "--out", f"result={tmp_path / 'rows'}")
    words = ["--in", f"parts={tmp_path / 'parts'}", "--in", f"rows={tmp_path / 'rows'}"]
    step(project, "written", *words, "--out", f"result={tmp_path / 'report'}")
    card = tmp_path / "report" / "artifact.json"
    card.write_text(card.read_text().replace("deep/sum.txt", "../../rows/data"))
    words = ["--in", "texts=[1.0]", "--in", "when=2026-11-28", "--in", f"report=@{tmp_path / 'report'}"]
    assert step(project, "joined", *words, status=1)["error"]["code"] == "MS-2761"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nobody"], "MS-2766"),
        (["rows/nobody"], "MS-2766"),
        (["rows/orders", "--in", "n=1"], "MS-2768"),
        (["numbers"], "MS-2608"),
        (["numbers", "--in", "n"], "MS-2769"),
        (["numbers", "--in", "n=@/nowhere"], "MS-2764"),
        (["numbers", "--in", "n=1", "--text", "n=2"], "MS-2765"),
        (["numbers", "--in", "n=1", "--out", "rows=/tmp/x"], "MS-2762"),
        (["numbers", "--in", "n=1", "--map", "m"], "MS-2767"),
    ],
)
def test_what_is_wrong_is_said(project, words, code) -> None:
    assert step(project, words[0], *words[1:], status=2)["error"]["code"] == code


def test_nothing_but_an_artifact_is_written_over(project, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    words = ["--in", "n=2", "--out", f"result={tmp_path / 'mine'}"]
    assert step(project, "numbers", *words, status=2)["error"]["code"] == "MS-2763"
    (tmp_path / "mine" / "letter.txt").unlink()
    step(project, "numbers", *words)  # an empty folder, as orchestrators make them
    step(project, "numbers", *words)  # an artifact
    assert sorted(os.listdir(tmp_path)) == ["mine"]


def test_a_failure_leaves_nothing(project, tmp_path) -> None:
    failed = step(project, "fails", "--out", f"result={tmp_path / 'out'}", status=1)
    assert failed["error"]["code"] == "MS-2028"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_half_written(project, tmp_path) -> None:
    command = [sys.executable, "-m", "mainspring.cli", "step", "slow", "--text", f"marker={tmp_path / 'marker'}"]
    running = subprocess.Popen(
        [*command, "--out", f"result={tmp_path / 'out'}"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "marker").exists():
        assert running.poll() is None, running.communicate(timeout=60)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["marker"]
