"""Generated CI: what is written, what linters say of it, and what it does when it is really run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ci_kit import LINTERS, Bench, act, bench, jenkins
from e2e.conftest import mainspring
from mainspring.deploy.ci.actions import ACTIONS
from mainspring.deploy.ci.verdict import read_verdict
from tool_env import tool_env

IMAGE = "ghcr.io/team/shop@sha256:" + "a" * 64
WORKFLOW = ".github/workflows/mainspring.yml"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Bench:
    return bench(tmp_path_factory.mktemp("ci"))


@pytest.fixture
def ready(made) -> Bench:
    made.afresh()
    made.said("mainspring build --image", out=IMAGE)
    made.said("mainspring ci due", out="due=true")
    for what in ("mainspring ci verify", "mainspring check"):
        made.said(what)
    return made


def really(bench: Bench) -> None:
    """What only reads is done, not only recorded."""
    for what in ("mainspring ci verify", "mainspring check"):
        del bench.rules[what]


@pytest.fixture
def own(made, tmp_path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(made.root, tmp_path / "shop"))


def lint_env() -> dict[str, str]:
    return {"PATH": f"{tool_env('ci', *LINTERS)}:{os.environ['PATH']}"}


# -- the files --------------------------------------------------------------------------------------------------------


def test_all_linters_are_content(made) -> None:
    done = mainspring("ci", "verify", cwd=made.root, env=lint_env())
    assert done.stdout == "github, gitlab, jenkins: no fault found\n"
    assert "not installed" not in done.stderr


def test_the_project_s_own_workflow_is_generated() -> None:
    """This repository trains and judges its example by the workflow that it generates for others."""
    done = mainspring("ci", "verify", "--project", "examples/flights", cwd=ROOT, env=lint_env())
    assert done.stdout == "github: no fault found\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("persist-credentials: false", "persist-credentials: true", "persist-credentials"),
        ("timeout-minutes: 15", "# none", "timeout-minutes"),
        ("permissions:\n  contents: read", "permissions:\n  contents: write", "reads contents at most"),
        ("@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "@v5", "not pinned"),
        ("mainspring check\n", "mainspring check ${{ github.event.head }}\n", "hand it over by env"),
        ('"on":\n', '"on":\n  pull_request_target: {}\n', "pull_request_target"),
    ],
)
def test_what_is_dangerous_is_found_without_any_linter(own, old, new, told) -> None:
    text = (own / WORKFLOW).read_text()
    assert old in text
    (own / WORKFLOW).write_text(text.replace(old, new))
    done = mainspring("ci", "verify", cwd=own, status=5, env={"PATH": "/usr/bin:/bin"})
    assert told in done.stdout
    assert "changed outside of the blocks" in done.stdout or "pinned" in told


def test_generating_again_changes_nothing(own) -> None:
    before = {path: path.read_bytes() for path in (own / ".github/workflows").iterdir()}
    done = mainspring("build", "--ci", "github", cwd=own)
    assert done.stderr.count("unchanged") == 2
    assert {path: path.read_bytes() for path in before} == before


def test_what_is_the_user_s_is_kept(own) -> None:
    path, mark = own / WORKFLOW, "# >>> yours: tests. the project's own tests, as steps\n"
    step = "      - name: Our tests\n        run: pytest\n"
    raised = "actions/checkout@" + "b" * 40 + " # v9.9.9"
    pin = ACTIONS["actions/checkout"]
    text = path.read_text()
    assert mark in text
    path.write_text(text.replace(mark, mark + step).replace(str(pin), raised))
    assert mainspring("ci", "verify", cwd=own).stdout.endswith("no fault found\n")
    with open(own / "mainspring.toml", "a") as file:
        file.write('python = "3.13"\n')
    assert "is not what mainspring.toml" in mainspring("ci", "verify", cwd=own, status=5).stdout
    mainspring("build", "--ci", "github", cwd=own)
    now = path.read_text()
    assert mark + step in now
    assert now.count(raised) == text.count(str(pin))
    assert 'python-version: "3.13"' in now
    assert "github" not in mainspring("ci", "verify", cwd=own, status=5).stdout  # gitlab's has another Python now


def test_changes_elsewhere_are_not_lost(own) -> None:
    path = own / WORKFLOW
    path.write_text(path.read_text().replace("mainspring check\n", "mainspring check\n          make lint\n"))
    with open(own / "mainspring.toml", "a") as file:
        file.write('python = "3.13"\n')
    changed = path.read_bytes()
    done = mainspring("build", "--ci", "github", cwd=own, status=5)
    assert "MS-5103" in done.stderr
    assert path.read_bytes() == changed
    mainspring("build", "--ci", "github", "--force", cwd=own)
    assert "make lint" not in path.read_text()


def test_a_block_without_a_place_is_not_lost(own) -> None:
    path = own / WORKFLOW
    old = path.read_text()
    path.write_text(old.replace("yours: tests", "yours: other"))
    text = path.read_text().replace(
        "# >>> yours: other. the project's own tests, as steps\n",
        "# >>> yours: other. the project's own tests, as steps\n      # mine\n",
    )
    path.write_text(text)
    assert "MS-2786" in mainspring("build", "--ci", "github", "--force", cwd=own, status=2).stderr
    assert path.read_text() == text


def test_without_an_image_nothing_is_pushed(own) -> None:
    text = (own / "mainspring.toml").read_text()
    (own / "mainspring.toml").write_text(text[: text.index("[image]")])
    done = mainspring("build", "--ci", "github", "--force", cwd=own)
    assert "image.repository is not set" in done.stderr
    assert "packages: write" not in (own / WORKFLOW).read_text()


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_clouds_are_signed_in_to_without_a_key(own, cloud) -> None:
    with open(own / "mainspring.toml", "a") as file:
        file.write(f'cloud = "{cloud}"\n')
    mainspring("build", "--ci", "github", cwd=own)
    text = (own / WORKFLOW).read_text()
    assert "id-token: write" in text
    assert "secrets." not in text
    assert mainspring("ci", "verify", cwd=own, env=lint_env()).stdout.endswith("no fault found\n")


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        (lambda root: (root / "requirements.lock").unlink(), "MS-2788", 2),
        (lambda root: _append(root / "mainspring.toml", 'models = ["nobody"]\n'), "MS-2789", 3),
        (lambda root: _without(root / "shop.py", "app.endpoint(returns)"), "MS-2787", 2),
    ],
)
def test_what_cannot_be_generated_is_said(own, change, code, status) -> None:
    change(own)
    assert code in mainspring("build", "--ci", "github", cwd=own, status=status).stderr


def _append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def _without(path: Path, text: str) -> None:
    path.write_text(path.read_text().replace(text, ""))


# -- GitHub's workflow, run by act ------------------------------------------------------------------------------------

DEPLOYED = [
    f"mainspring deploy --canary 5 --image {IMAGE} --target kubernetes",
    "mainspring deploy traffic 25 --target kubernetes",
    "mainspring deploy traffic 100 --target kubernetes",
]
BACK = "mainspring deploy traffic 0 --target kubernetes"


def deployed(bench: Bench) -> list[str]:
    return [line for line in bench.ran() if line.startswith("mainspring deploy")]


def test_main_goes_all_the_way(ready) -> None:
    really(ready)
    done = act(ready, "push", {"ref": "refs/heads/main"})
    assert done.returncode == 0, done.stdout[-3000:]
    assert deployed(ready) == DEPLOYED
    ran = ready.ran()
    order = [
        "mainspring check",
        "mainspring gate returns --out verdicts/returns.json",
        "mainspring build --image --bill sbom",
        "uses anchore/scan-action",
        f"cosign sign --yes {IMAGE}",
        "uses actions/attest-build-provenance",
        DEPLOYED[0],
    ]
    places = [ran.index(line) for line in order]
    assert places == sorted(places)
    assert not [line for line in ran if line.startswith("mainspring ci due")]


def test_a_pull_request_is_judged_and_no_more(ready) -> None:
    payload = {"pull_request": {"head": {"ref": "topic"}, "base": {"ref": "main"}}}
    done = act(ready, "pull_request", payload)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "mainspring gate returns --out verdicts/returns.json" in ready.ran()
    assert "uses actions/upload-artifact" in ready.ran()
    assert not [line for line in ready.ran() if "build --image" in line or "deploy" in line]


def test_a_gate_that_refuses_stops_all_but_the_report(ready) -> None:
    ready.said("mainspring gate", 5)
    done = act(ready, "push", {"ref": "refs/heads/main"})
    assert done.returncode != 0
    assert "uses actions/upload-artifact" in ready.ran()
    assert not [line for line in ready.ran() if "build --image" in line or "deploy" in line]


def test_a_canary_that_is_worse_gives_way_to_the_champion(ready) -> None:
    ready.said("mainspring ci canary", 5)
    done = act(ready, "push", {"ref": "refs/heads/main"})
    assert done.returncode != 0
    assert deployed(ready) == [DEPLOYED[0], BACK]


def test_what_fails_before_the_canary_touches_nothing(ready) -> None:
    ready.said("cosign verify", 1)
    assert act(ready, "push", {"ref": "refs/heads/main"}).returncode != 0
    assert deployed(ready) == []


@pytest.mark.parametrize("due", [True, False])
def test_drift_trains_when_it_is_due(ready, due) -> None:
    ready.said("mainspring ci due", out=f"due={str(due).lower()}")
    payload = {"action": "drift-detected", "ref": "refs/heads/main", "client_payload": {"monitor": "returns"}}
    done = act(ready, "repository_dispatch", payload)
    assert done.returncode == 0, done.stdout[-3000:]
    assert ("mainspring gate returns --out verdicts/returns.json" in ready.ran()) is due
    assert bool(deployed(ready)) is due


def test_the_report_is_made_of_data(ready) -> None:
    run = {
        "event": "pull_request",
        "id": 7,
        "head_branch": "topic; touch /tmp/owned",
        "head_repository": {"owner": {"login": "someone"}},
        "conclusion": "failure",
    }
    done = act(ready, "workflow_run", {"action": "completed", "workflow_run": run}, "mainspring-report.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    reports = [line for line in ready.ran() if line.startswith("mainspring report")]
    assert len(reports) == 1
    assert reports[0].endswith("--head someone:topic; touch /tmp/owned")


# -- Jenkins' -----------------------------------------------------------------------------------------------------


def stages(done) -> dict[str, str]:
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return {rest[0]: kind for kind, *rest in lines if kind in ("stage", "skipped")}


def test_jenkins_goes_all_the_way_on_main(ready) -> None:
    """The gate is the real one: it trains the model, judges it, and leaves the verdict that a report is made of."""
    really(ready)
    ready.real.append("mainspring gate")
    done = jenkins(ready, "main")
    assert done.returncode == 0, done.stdout + done.stderr
    assert deployed(ready) == DEPLOYED
    assert f"cosign sign --yes {IMAGE}" in ready.ran()
    assert stages(done)["Due"] == "skipped"
    assert "mainspring gate returns --out verdicts/returns.json" in ready.ran()
    verdict = read_verdict((ready.root / "verdicts/returns.json").read_bytes())
    assert verdict.passed
    assert (verdict.model, verdict.version, verdict.champion) == ("returns", 1, None)


def test_jenkins_judges_a_branch_and_no_more(ready) -> None:
    done = jenkins(ready, "topic")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name, kind in stages(done).items() if kind == "skipped"] == ["Due", "Image", "Approve", "Rollout"]
    assert "mainspring gate returns --out verdicts/returns.json" in ready.ran()


@pytest.mark.parametrize(
    ("fails", "words", "expected"),
    [
        ("mainspring gate", ["main"], []),
        ("mainspring ci canary", ["main"], [DEPLOYED[0], BACK]),
        ("", ["main", "--refuse"], []),
    ],
)
def test_jenkins_stops_where_it_must(ready, fails, words, expected) -> None:
    if fails:
        ready.said(fails, 5)
    done = jenkins(ready, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert deployed(ready) == expected
    assert "post always" in done.stdout


def test_jenkins_lets_drift_wait(ready) -> None:
    ready.said("mainspring ci due", 5)
    done = jenkins(ready, "main", "DRIFT=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stages(done)["Gate"] == "skipped"
    assert json.loads(ready.log.read_text().splitlines()[-1])[:3] == ["mainspring", "ci", "due"]
    assert deployed(ready) == []


def test_an_unknown_word_is_an_error(ready, tmp_path) -> None:
    """The shim does not swallow what it does not know."""
    other = Bench(tmp_path, ready.place, ready.rules)
    (tmp_path / "Jenkinsfile").write_text(
        "pipeline { agent { label 'x' }\nstages { stage('A') { steps { shh 'x' } } } }"
    )
    done = jenkins(other, "main")
    assert done.returncode != 0
    assert "no such word here: shh" in done.stderr
