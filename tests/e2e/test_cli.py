"""The command line as a user meets it: output, exit statuses, errors, two runs, Ctrl-C."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import mainspring, serve
from mainspring.cli import new
from mainspring.errors import StoreError


def copy(built: Path, tmp_path: Path) -> Path:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    return project


def edit(project: Path, old: str, new: str) -> None:
    path = project / "shop.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_check_reads_only(built: Path) -> None:
    before = sorted(path.name for path in built.iterdir())
    done = mainspring("check", cwd=built)
    assert "no fault found" in done.stdout
    assert sorted(path.name for path in built.iterdir()) == before


def test_plan_is_empty_after_apply_and_exits_2_after_an_edit(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    assert "nothing would change" in mainspring("plan", cwd=project).stdout
    edit(project, 'avg("amount", "30d")', 'avg("amount", "14d")')
    done = mainspring("plan", cwd=project, status=2)
    assert "~ /feature_view/habits" in done.stdout
    assert "avg(amount, 30d) -> avg(amount, 14d)" in done.stdout
    assert "^ /model/returns" in done.stdout
    changes = json.loads(mainspring("plan", "--json", cwd=project, status=2).stdout)["changes"]
    assert {change["what"] for change in changes} == {"change", "rebuild"}


def plan_steps(project: Path, status: int = 0) -> list[dict[str, Any]]:
    return json.loads(mainspring("plan", "--json", cwd=project, status=status).stdout)["steps"]


def test_plan_says_what_a_change_costs_and_apply_does_that(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    assert "would run" not in mainspring("plan", cwd=project).stdout
    edit(project, 'avg("amount", "30d")', 'avg("amount", "14d")')
    done = mainspring("plan", cwd=project, status=2)
    assert "steps would run" in done.stdout
    steps = {step["step"]: step for step in plan_steps(project, status=2)}
    assert steps["source/visits"]["would"] == "keep"
    assert steps["feature_view/habits"]["would"] == "run"
    assert steps["feature_view/habits"]["anew"] is False, "another window over the same columns needs no other log"
    assert steps["feature_view/habits"]["rows"] == 0
    assert steps["model/returns"]["would"] == "follow"
    assert steps["model/returns"]["seconds"] > 0
    ran = {name for name, status in statuses(project).items() if status != "hit"}
    assert ran <= {name for name, step in steps.items() if step["would"] != "keep"}
    assert ran >= {name for name, step in steps.items() if step["would"] == "run"}
    edit(project, 'amount_30d=avg("amount", "14d")', "")
    (view,) = [one for one in plan_steps(project, status=2) if one["step"] == "feature_view/habits"]
    assert (view["would"], view["anew"], view["rows"]) == ("run", True, 845), "other columns are another log"


def test_plan_shows_changes_whose_data_is_not_there_yet(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    for file in (project / "data").iterdir():
        file.unlink()
    done = mainspring("plan", cwd=project)
    assert "nothing would change" in done.stdout
    assert "what this would cost is not known: source 'visits' has no file" in done.stderr


def statuses(project: Path) -> dict[str, str]:
    report = json.loads(mainspring("apply", "--json", cwd=project).stdout)
    return {step["name"]: step["status"] for step in report["steps"]}


def test_a_second_apply_keeps_what_is_built(built: Path, tmp_path: Path) -> None:
    found = statuses(copy(built, tmp_path))
    assert len(found) >= 6
    assert set(found.values()) == {"hit"}


def test_what_is_gone_outside_of_the_results_is_made_again(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    shutil.rmtree(project / ".mainspring" / "online")
    assert {name for name, status in statuses(project).items() if status != "hit"} == {"online/habits"}
    edit(project, "LogisticRegression()", "LogisticRegression(C=0.5)")
    assert statuses(project)["version/returns"] == "ok"
    assert statuses(project)["version/returns"] == "hit"
    edit(project, "LogisticRegression(C=0.5)", "LogisticRegression()")
    made_again = statuses(project)  # the model is kept, and it is not the challenger any more
    assert {name for name, status in made_again.items() if status != "hit"} == {"version/returns"}
    assert set(statuses(project).values()) == {"hit"}


def test_why_names_what_changed(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    edit(project, "LogisticRegression()", "LogisticRegression(C=0.5)")
    mainspring("apply", cwd=project)
    assert "shop:returns" in mainspring("why", "model/returns", cwd=project).stdout
    assert "training_set/returns was not run" in mainspring("why", "training_set/returns", cwd=project).stdout


def test_show_lists_and_describes(built: Path) -> None:
    assert "/source/visits" in mainspring("show", cwd=built).stdout
    described = json.loads(mainspring("show", "model/returns", "--json", cwd=built).stdout)
    assert described["versions"][0]["version"] >= 1
    assert {alias["alias"] for alias in described["aliases"]} == {"champion", "challenger"}
    runs = json.loads(mainspring("show", "run", "--json", cwd=built).stdout)
    assert runs[0]["status"] == "ok"
    for kind in ("run", "feature_view", "alias", "model"):
        plural = {"alias": "aliases"}.get(kind, f"{kind}s")
        assert mainspring("show", plural, cwd=built).stdout == mainspring("show", kind, cwd=built).stdout
    assert mainspring("show", f"runs/{runs[0]['id']}", cwd=built).stdout.startswith(f"run {runs[0]['id']}")


def test_promote_names_the_known_models(built: Path) -> None:
    told = mainspring("promote", "model/retruns", "1", cwd=built, status=2).stderr
    assert told.startswith("error MS-2602")
    assert "did you mean 'returns'?" in told


def test_conditions_are_the_decision(built: Path) -> None:
    report = json.loads(mainspring("conditions", "--json", cwd=built).stdout)
    assert {port["port"]: port["chosen"] for port in report["ports"]}["online"] == "lmdb"
    assert mainspring("conditions", "queue", cwd=built, status=2).stderr.startswith("error MS-2601")


def test_doctor_looks_without_a_project(tmp_path: Path) -> None:
    done = mainspring("doctor", "--json", cwd=tmp_path, status=3)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["project"]["remedy"]
    assert findings["cores"]["remedy"] == ""


def test_doctor_asks_the_stores_of_a_project(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    findings = {f["name"]: f for f in json.loads(mainspring("doctor", "--json", cwd=project, status=None).stdout)}
    for store in ("catalog.sqlite", "objects.localfs", "tables.delta", "online.lmdb"):
        assert findings[store]["value"].startswith("answers"), findings[store]
    (project / ".mainspring" / "catalog.db").write_bytes(b"what is this? " * 999)
    done = mainspring("doctor", cwd=project, status=3)
    assert "! catalog" in done.stdout
    assert "move it away" in done.stdout


def test_errors_are_four_lines_with_the_user_s_place(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    edit(project, 'avg("amount", "30d")', 'avg("amuont", "30d")')
    done = mainspring("check", cwd=project, status=1)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error MS-1007")
    assert any("shop.py:21" in line for line in lines)
    assert any("did you mean 'amount'?" in line for line in lines)
    assert "Traceback" not in done.stderr
    as_json = mainspring("check", "--json", cwd=project, status=1)
    assert json.loads(as_json.stdout)["error"]["code"] == "MS-1007"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("frobnicate",), 2),
        (("show", "nothing/here"), 2),
        (("run", "no_such_thing"), 2),
        (("promote", "returns", "99"), 5),
        (("promote", "nope", "1"), 2),
        (("show", "nothings"), 2),
        (("rollback", "returns"), 5),
        (("apply", "--profile", "production"), 3),
    ],
)
def test_exit_statuses(built: Path, words: tuple[str, ...], status: int) -> None:
    mainspring(*words, cwd=built, status=status)


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (("frobnicate",), "no verb is called 'frobnicate'", "mainspring --help lists the verbs"),
        (("aply",), "no verb is called 'aply'", "did you mean apply?"),
        (("show", "--bogus"), "mainspring show has no option --bogus", "mainspring show --help tells what it takes"),
        (("show", "--profle", "x"), "mainspring show has no option --profle", "did you mean --profile?"),
        (("--jsn",), "mainspring has no option --jsn", "mainspring --help tells what it takes"),
        (("promote",), "mainspring promote: missing argument 'NAME'", "mainspring promote --help tells what it takes"),
        (
            ("promote", "returns", "one"),
            "mainspring promote: invalid value for 'VERSION': 'one' is not a valid integer",
            "mainspring promote --help tells what it takes",
        ),
    ],
)
def test_a_misused_command_line_is_an_error_like_any_other(
    tmp_path: Path, words: tuple[str, ...], what: str, fix: str
) -> None:
    done = mainspring(*words, "--json", cwd=tmp_path, status=2)
    assert json.loads(done.stdout)["error"] == {"code": "MS-2620", "what": what, "why": "", "from": "", "fix": fix}
    assert done.stderr.splitlines() == [f"error MS-2620  {what}", f"  fix    {fix}"]


def test_outside_dev_nothing_falls_back_to_embedded(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    with open(project / "mainspring.toml", "a") as file:
        file.write("\n[profiles.prod]\nserver.port = 80\n")
    done = mainspring("check", "--profile", "prod", cwd=project, status=3)
    assert done.stderr.startswith("error MS-3012")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("customer,amount,at\nc1,1,2025-01-01T00:00:00Z\n", "MS-2111"),
        ("customer,amount,at,returned\nc1,much,2025-01-01T00:00:00Z,true\n", "MS-2110"),
        ("customer,amount,at,returned\nc1,1,2025-01-01T00:00:00,true\n", "MS-2110"),
    ],
    ids=["missing column", "wrong type", "naive time"],
)
def test_bad_data_is_named(built: Path, tmp_path: Path, data: str, code: str) -> None:
    project = copy(built, tmp_path)
    (project / "data" / "visits.csv").write_text(data)
    done = mainspring("apply", cwd=project, status=1)
    assert f"error {code}" in done.stderr
    assert "visits" in done.stderr


def test_a_trainer_that_raises_names_its_line(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    edit(project, "    pipeline = make_pipeline", "    1 / 0\n    pipeline = make_pipeline")
    done = mainspring("apply", cwd=project, status=1)
    assert "ZeroDivisionError" in done.stderr
    assert "shop.py:32" in done.stderr
    edit(project, "    1 / 0\n", "")
    mainspring("apply", cwd=project)


def test_a_trainer_that_returns_the_wrong_thing(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    edit(project, "return Model(pipeline.fit(x.numpy(), y.numpy()))", "return pipeline.fit(x.numpy(), y.numpy())")
    assert "not a Model" in mainspring("apply", cwd=project, status=1).stderr


def test_a_label_of_one_class(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    shutil.rmtree(project / ".mainspring")  # what was read before stays in the log
    path = project / "data" / "visits.csv"
    path.write_text(path.read_text().replace("false", "true"))
    assert "one class" in mainspring("apply", cwd=project, status=1).stderr


def test_new_refuses_what_is_there(built: Path) -> None:
    assert mainspring("new", "shop", cwd=built.parent, status=2).stderr.startswith("error MS-2607")
    assert mainspring("new", "9lives", cwd=built.parent, status=2).stderr.startswith("error MS-2606")


@pytest.mark.parametrize(
    ("name", "module"),
    [("my-store", "my_store"), ("json", "json_app"), ("polars", "polars_app"), ("Class", "class_app")],
)
def test_new_names_app_and_module_after_the_project(tmp_path: Path, name: str, module: str) -> None:
    files = json.loads(mainspring("new", name, "--json", cwd=tmp_path).stdout)["files"]
    made = {".gitignore", "mainspring.toml", "requirements.in", f"{module}.py"}
    assert {file for file in files if "/" not in file} == made
    assert mainspring("check", cwd=tmp_path / name).stdout.startswith(f"{name}: 1 source")


def test_a_new_project_passes_its_tests_and_keeps_its_folder_clean(tmp_path: Path) -> None:
    mainspring("new", "my-store", cwd=tmp_path)
    project = tmp_path / "my-store"
    tests = (project / "tests" / "test_app.py").read_text()
    assert {line.split()[1] for line in tests.splitlines() if line.startswith("from mainspring")} == {
        "mainspring.testing"
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # a user's has not the plugins of our own tests
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert not (project / ".mainspring").exists()


def test_ctrl_c_leaves_nothing_half_written(built: Path, tmp_path: Path) -> None:
    """While a model trains: exit 130 at once, no run is left running, and the next does only what was not done."""
    project = copy(built, tmp_path)
    shutil.rmtree(project / ".mainspring")
    training = "    import time\n\n    open('begun', 'w').close()\n    time.sleep(600)\n"
    edit(project, "    pipeline = make", f"{training}    pipeline = make")
    process = subprocess.Popen(
        [sys.executable, "-m", "mainspring.cli", "apply"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not list(project.rglob("begun")):
        assert process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    edit(project, training, "")
    mainspring("apply", cwd=project)
    runs = json.loads(mainspring("show", "run", "--json", cwd=project).stdout)
    assert runs[0]["status"] == "ok"
    assert not [run for run in runs if run["status"] == "running"]


@pytest.mark.parametrize(
    "words", [("serve", "--port", "70000"), ("dev", "--port", "-1"), ("dev", "--console-port", "70000")]
)
def test_a_port_that_is_none_is_wrong_usage(built: Path, words: tuple[str, ...]) -> None:
    assert "0<=x<=65535" in mainspring(*words, cwd=built, status=2).stderr


@pytest.mark.parametrize("verb", ["serve", "doctor"])
def test_a_port_setting_that_is_none_is_named_with_its_origin(built: Path, verb: str) -> None:
    done = mainspring(verb, cwd=built, status=3, env={"MAINSPRING_SERVER_PORT": "99999"})
    assert "setting server.port = 99999 is not possible" in done.stdout + done.stderr
    assert "it takes 0 to 65535" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_management_port_that_is_taken_is_answered_with_its_own_remedy(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        env = {"MAINSPRING_MANAGEMENT_PORT": port}
        done = mainspring("serve", "--port", "0", cwd=project, status=3, env=env)
    fix = done.stderr.splitlines()[-1]
    assert f"port {port} is taken" in done.stderr
    assert "management.port" in fix
    assert "--port" not in fix


def test_a_folder_that_cannot_be_written_is_no_fault_of_ours(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "error MS-4171" in mainspring("new", "shop", cwd=Path("/proc"), status=4).stderr
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns(".mainspring", "server.log"))
    (project / ".mainspring").write_text("in the way of the state folder")
    assert "error MS-4111" in mainspring("serve", "--port", "0", cwd=project, status=4).stderr

    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(StoreError) as caught:
        new.command.main(["other"], standalone_mode=False)
    assert caught.value.code == "MS-4101"
    assert not list(tmp_path.glob("*other*"))


def test_ctrl_c_of_dev_is_130_until_it_serves_and_0_afterwards(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    found = serve(project, "dev")
    found.process.send_signal(signal.SIGINT)
    assert found.process.wait(timeout=60) == 0, found.log.read_text()
    shutil.rmtree(project / ".mainspring")
    edit(project, "    pipeline = make", "    import time\n\n    time.sleep(600)\n    pipeline = make")
    words = ["dev", "--no-watch", "--port", "0", "--console-port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "mainspring.cli", *words], cwd=project, stderr=subprocess.PIPE, text=True
    ) as building:
        assert building.stderr is not None
        for line in building.stderr:
            if line.startswith("not ready"):
                break
        building.send_signal(signal.SIGINT)
        assert building.wait(timeout=60) == 130


def left_by_its_reader(project: Path, *words: str) -> tuple[int, str]:
    """Exit status and stderr of a command whose output goes to a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mainspring.cli", *words],
            cwd=project,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words", [("conditions",), ("show", "source/visits"), ("show", "--json"), ("logs", "source/visits")]
)
def test_a_reader_that_goes_is_no_failure(built: Path, words: tuple[str, ...]) -> None:
    assert left_by_its_reader(built, *words) == (0, "")


def test_a_failure_whose_reader_has_gone_is_one(built: Path) -> None:
    status, told = left_by_its_reader(built, "show", "model/none", "--json")
    assert (status, told[:8]) == (2, "error MS")


def test_any_other_broken_pipe_is_a_failure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> int:
        raise BrokenPipeError(32, "a worker is gone")

    monkeypatch.setattr(importlib.import_module("mainspring.cli.conditions").command, "callback", broken)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("mainspring.cli").main(["conditions"])
    assert ended.value.code == 70
    assert "a worker is gone" in capfd.readouterr().err


def test_a_misspelt_source_of_the_settings_is_named(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    file = project / "mainspring.toml"
    file.write_text(file.read_text().replace("[sources.visits]", "[sources.visit]"))
    told = mainspring("check", cwd=project, status=3).stderr
    assert "fix    write [sources.visits] for [sources.visit] at mainspring.toml:4" in told


def test_a_new_project_tells_of_a_folder_with_many_files_how_many():
    pages = [f"manuals/{n}.md" for n in range(9)]
    assert new._told(["app.py", *pages, "tests/a.py", "tests/b.py"]) == [
        "app.py",
        "manuals/ (9 files)",
        "tests/a.py",
        "tests/b.py",
    ]
