"""What a run does: results, cache, maps, failures, limits, logs. Real processes, a real catalog, real blobs."""

import os
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import engine_steps as steps
from engine_bench import BenchServices, times
from mainspring.config.settings import Setting
from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.declare.step import StepOptions
from mainspring.engine.driver import load, run_graph
from mainspring.engine.task import Output, Task, TaskGraph
from mainspring.errors import MainspringError, UserCodeError


@pytest.fixture
def services(tmp_path):
    made = BenchServices(str(tmp_path))
    yield made
    made.close()


def run(services, *tasks, **more):
    return run_graph(TaskGraph("test", tasks), services, workers=2, **more)


def value(services, report, name):
    return load(services, report.check().step(name))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid):
    for _ in range(6000):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


def test_libraries_are_imported_before_workers_are_forked(services):
    wanted = ("colorsys", "no_such_library")
    report = run(
        services,
        Task("it", steps.is_imported, {"name": "colorsys"}, imports=wanted),
        Task("another", steps.is_imported, {"name": "netrc"}, imports=wanted),
    )
    assert (value(services, report, "it"), value(services, report, "another")) == (True, False)


# -- results ----------------------------------------------------------------------------------------------------------


def test_results_flow_from_step_to_step_and_keep_their_types(services):
    report = run(
        services,
        Task("frame", steps.frame, {"n": 5}),
        Task("rows", steps.rows, inputs={"table": Output("frame")}),
        Task("score", steps.score, {"value": 0.5}),
        Task("describe", steps.describe, inputs={"score": Output("score")}),
        Task("text", steps.written, {"text": "hello"}),
        Task("read", steps.read_text, inputs={"file": Output("text")}),
        Task("folder", steps.folder_of, {"count": 3}),
        Task("count", steps.count_files, inputs={"file": Output("folder")}),
    )
    assert value(services, report, "frame") == Frame({"x": [0, 1, 2, 3, 4]})
    assert value(services, report, "rows") == 5
    assert value(services, report, "score") == steps.Score("auc", 0.5)
    assert value(services, report, "describe") == "Score auc 0.5"
    assert value(services, report, "read") == "hello"
    assert value(services, report, "count") == 3


def test_the_second_run_finds_everything_and_starts_no_process(services, tmp_path):
    tasks = [
        Task("numbers", steps.numbers, {"n": 4}),
        Task("scaled", steps.scaled, {"folder": str(tmp_path)}, {"x": Output("numbers")}, over="x"),
        Task("total", steps.total, {"folder": str(tmp_path)}, {"values": Output("scaled")}),
    ]
    first = run(services, *tasks)
    assert value(services, first, "total") == 60
    second = run(services, *tasks)
    assert [step.status for step in second.steps] == ["hit"] * 3
    assert value(services, second, "total") == 60
    assert (times(tmp_path, "scaled"), times(tmp_path, "total")) == (4, 1)
    assert second.notes == ()


def test_each_attempt_has_a_process_of_its_own_and_inline_has_none(services):
    pool = run(services, Task("a", steps.pid), Task("b", steps.pid, {}, options=StepOptions(seed=1)))
    pids = {value(services, pool, "a"), value(services, pool, "b"), os.getpid()}
    assert len(pids) == 3
    inline = run(services, Task("a", steps.pid), mode="inline", force=frozenset({"a"}))
    assert value(services, inline, "a") == os.getpid()


def test_an_equal_result_cuts_off_what_follows(services, tmp_path):
    def graph(x):
        return (
            Task("parity", steps.parity, {"x": x, "folder": str(tmp_path)}),
            Task("after", steps.after_parity, {"folder": str(tmp_path)}, {"x": Output("parity")}),
        )

    run(services, *graph(1)).check()
    report = run(services, *graph(3)).check()
    assert [step.status for step in report.steps] == ["ok", "hit"]
    assert times(tmp_path, "after") == 1


def test_a_result_of_another_type_with_the_same_bytes_is_another_input(services):
    first = run(services, Task("v", steps.describe, {"score": steps.Score("a", 1.0)})).step("v")
    second = run(services, Task("v", steps.describe, {"score": {"name": "a", "value": 1.0}})).step("v")
    assert first.key != second.key


def test_force_runs_a_step_again_and_uses_its_new_result(services, tmp_path):
    task = Task("scaled", steps.scaled, {"x": 1, "folder": str(tmp_path)})
    run(services, task).check()
    report = run(services, task, force=frozenset({"scaled"})).check()
    assert report.step("scaled").status == "ok"
    assert times(tmp_path, "scaled") == 2
    with pytest.raises(MainspringError, match="no step 'other' to force"):
        run(services, task, force=frozenset({"other"}))


def test_a_step_without_cache_runs_each_time(services, tmp_path):
    task = Task("scaled", steps.scaled, {"x": 1, "folder": str(tmp_path)}, options=StepOptions(cache=False))
    for _ in range(2):
        assert run(services, task).check().step("scaled").cacheable is False
    assert times(tmp_path, "scaled") == 2


def test_a_missing_blob_is_made_again(services, tmp_path):
    task = Task("scaled", steps.scaled, {"x": 1, "folder": str(tmp_path)})
    done = run(services, task).check().step("scaled")
    services.objects.path(done.outputs).unlink()
    again = run(services, task).check().step("scaled")
    assert (again.status, again.outputs) == ("ok", done.outputs)
    assert times(tmp_path, "scaled") == 2


def test_a_corrupt_blob_is_named_and_the_next_run_is_right(services, tmp_path):
    tasks = [Task("frame", steps.frame, {"n": 4}), Task("rows", steps.rows, inputs={"table": Output("frame")})]
    done = run(services, tasks[0]).check().step("frame")
    path = services.objects.path(done.outputs)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    broken = run(services, *tasks)
    assert broken.error.code == "MS-4104"
    assert value(services, run(services, *tasks), "rows") == 4


def test_seeds_repeat(services):
    options = StepOptions(seed=3, cache=False)
    one, two = (value(services, run(services, Task("s", steps.seeded, options=options)), "s") for _ in range(2))
    assert one == two
    other = run(services, Task("s", steps.seeded, options=StepOptions(seed=4)))
    assert value(services, other, "s") != one


def test_metrics_and_progress_arrive(services):
    seen = []
    report = run(services, Task("m", steps.measured, {"steps": 3}), watch=seen.append).check()
    assert [metric.value for metric in services.catalog.metrics(report.run_id, latest=False)] == [1, 1 / 2, 1 / 3]
    assert [(event.done, event.total) for event in seen if event.what == "moved"] == [(1, 3), (2, 3), (3, 3)]
    assert [event.what for event in seen if event.what not in ("moved", "metric")] == ["run", "start", "ok", "end"]


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_an_input_by_content(services, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("one")
    task = Task("read", steps.read_text, {"file": File(path)})
    assert value(services, run(services, task), "read") == "one"
    os.utime(path, (1, 1))
    assert run(services, task).step("read").status == "hit"
    path.write_text("two")
    assert value(services, run(services, task), "read") == "two"


def test_a_folder_is_an_input_by_content(services, tmp_path):
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.txt").write_text("a")
    task = Task("count", steps.count_files, {"file": File(root)})
    assert value(services, run(services, task), "count") == 1
    assert run(services, task).step("count").status == "hit"
    (root / "b.txt").write_text("b")
    assert value(services, run(services, task), "count") == 2
    (root / "b.txt").rename(root / "c.txt")
    assert run(services, task).step("count").status == "ok"


def test_a_step_that_writes_to_its_input_changes_nobody_elses(services):
    tasks = [
        Task("text", steps.written, {"text": "whole"}),
        Task("spoils", steps.spoils, inputs={"file": Output("text")}),
        Task("read", steps.read_text, inputs={"file": Output("text")}),
    ]
    assert value(services, run(services, *tasks), "read") == "whole"


def test_a_file_that_is_not_there_fails_its_step(services, tmp_path):
    report = run(services, Task("read", steps.read_text, {"file": File(tmp_path / "none.txt")}))
    assert report.error.code == "MS-2038"
    assert "none.txt" in report.error.what


def test_text_that_names_a_file_is_pointed_out(services, tmp_path):
    (tmp_path / "data.csv").write_text("x")
    report = run(services, Task("f", steps.fails, {"x": "data.csv"}))
    assert "pass File('data.csv')" in report.step("f").note


# -- what is read undeclared ------------------------------------------------------------------------------------------


def test_an_undeclared_read_is_named_and_its_result_not_kept(services, tmp_path):
    path = tmp_path / "hidden.txt"
    path.write_text("one")
    task = Task("reads", steps.reads_undeclared, {"path": str(path)})
    report = run(services, task).check().step("reads")
    assert not report.cacheable
    assert f"reads {path} at engine_steps.py:" in report.note
    path.write_text("two")
    assert value(services, run(services, task), "reads") == "two"


def test_an_undeclared_variable_is_named_and_a_declared_one_is_part_of_the_key(services, monkeypatch):
    monkeypatch.setenv("ENGINE_TEST_VARIABLE", "one")
    report = run(services, Task("env", steps.reads_environment)).check().step("env")
    assert not report.cacheable
    assert "reads environment variable ENGINE_TEST_VARIABLE at engine_steps.py:" in report.note
    declared = Task("env", steps.reads_environment, options=StepOptions(env=("ENGINE_TEST_VARIABLE",)))
    assert value(services, run(services, declared), "env") == "one"
    assert run(services, declared).step("env").status == "hit"
    monkeypatch.setenv("ENGINE_TEST_VARIABLE", "two")
    assert value(services, run(services, declared), "env") == "two"


# -- maps -------------------------------------------------------------------------------------------------------------


def test_a_map_is_keyed_by_content_and_equal_items_run_once(services, tmp_path):
    def mapped(items):
        return Task("scaled", steps.scaled, {"x": items, "folder": str(tmp_path)}, over="x")

    report = run(services, mapped([3, 1, 3, 2]))
    assert value(services, report, "scaled") == [30, 10, 30, 20]
    assert times(tmp_path, "scaled") == 3
    assert value(services, run(services, mapped([2, 5, 1])), "scaled") == [20, 50, 10]
    assert times(tmp_path, "scaled") == 4
    assert value(services, run(services, mapped([])), "scaled") == []


def test_a_map_over_a_map_and_over_a_long_list(services):
    report = run(
        services,
        Task("numbers", steps.numbers, {"n": 150}),
        Task("once", steps.scaled, inputs={"x": Output("numbers")}, over="x"),
        Task("twice", steps.scaled, inputs={"x": Output("once")}, over="x"),
        Task("total", steps.total, inputs={"values": Output("twice")}),
    )
    assert value(services, report, "total") == sum(range(150)) * 100
    assert report.step("twice").items == 150


def test_a_map_needs_a_list(services):
    report = run(services, Task("scaled", steps.scaled, {"x": 3}, over="x"))
    assert report.error.code == "MS-2034"


def test_items_that_fail_stop_the_map_or_not(services, tmp_path):
    def mapped(on_error):
        options = StepOptions(on_error=on_error, cache=False)
        return Task(
            "s", steps.flaky, {"folder": str(tmp_path), "works_at": [1, 9, 1, 1]}, over="works_at", options=options
        )

    report = run(services, mapped("continue"), Task("other", steps.numbers, {"n": 1}))
    assert report.status == "failed"
    assert report.step("s").status == "failed"
    assert report.step("other").status == "ok"
    assert times(tmp_path, "flaky") == 4


def test_max_parallel_holds(services):
    task = Task(
        "s", steps.sleeps, {"seconds": [0.05, 0.051, 0.052]}, over="seconds", options=StepOptions(max_parallel=1)
    )
    running, most = 0, 0

    def watch(event):
        nonlocal running, most
        running += {"start": 1, "ok": -1}.get(event.what, 0) if event.item is not None else 0
        most = max(most, running)

    run(services, task, watch=watch).check()
    assert most == 1


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_failure_names_the_line_and_stops_what_needs_it(services):
    report = run(
        services,
        Task("fails", steps.fails, {"x": 7}),
        Task("after", steps.after_parity, {"folder": ""}, {"x": Output("fails")}),
    )
    error = report.error
    assert isinstance(error, UserCodeError)
    assert (error.code, error.why) == ("MS-2028", "ValueError: no such row")
    line = next(n for n, text in enumerate(Path(steps.__file__).read_text().splitlines(), 1) if "no such row" in text)
    assert error.origin == f"engine_steps.py:{line}"
    assert report.step("after").status == "skipped"
    rows = {row.name: row.status for row in services.catalog.steps(report.run_id)}
    assert rows == {"fails": "failed", "after": "skipped"}
    assert services.catalog.run(report.run_id).status == "failed"


def test_other_branches_go_on_when_the_step_says_so(services):
    options = StepOptions(on_error="continue")
    report = run(services, Task("fails", steps.fails, options=options), Task("n", steps.numbers, {"n": 2}))
    assert report.step("n").status == "ok"


def test_retries_have_a_row_and_a_log_each(services, tmp_path):
    options = StepOptions(retries=2, backoff_us=1000)
    report = run(services, Task("flaky", steps.flaky, {"folder": str(tmp_path), "works_at": 3}, options=options))
    assert value(services, report, "flaky") == 3
    rows = services.catalog.steps(report.run_id)
    assert [(row.attempt, row.status) for row in rows] == [(1, "failed"), (2, "failed"), (3, "ok")]
    assert len({row.log_digest for row in rows}) == 3
    folder = services.state / "log" / report.run_id
    assert [path.read_text().splitlines()[0] for path in sorted(folder.iterdir())] == [
        "attempt 1",
        "attempt 2",
        "attempt 3",
    ]


def test_a_timeout_ends_the_whole_tree(services, tmp_path):
    options = StepOptions(timeout_us=600_000)
    report = run(services, Task("slow", steps.leaves_a_grandchild, {"folder": str(tmp_path)}, options=options))
    assert report.error.code == "MS-2032"
    assert "600ms" in report.error.what
    assert gone(int((tmp_path / "grandchild").read_text()))


def test_what_a_finished_step_leaves_running_is_ended(services, tmp_path):
    assert run(services, Task("d", steps.daemonises, {"folder": str(tmp_path)})).check()
    assert gone(int((tmp_path / "daemon").read_text()))


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        (steps.killed, "MS-2035", "perhaps for memory"),
        (steps.crashes, "MS-2036", "crashed"),
        (steps.leaves, "MS-2037", "left"),
        (steps.exits, "MS-2027", "sys.exit"),
        (steps.eats_memory, "MS-2026", "out of memory"),
        (steps.lies, "MS-2025", "returned str, not int"),
    ],
)
def test_each_way_to_die_is_told(services, function, code, words):
    error = run(services, Task("step", function)).error
    assert error.code == code
    assert words in error.what
    assert error.origin.startswith("engine_steps.py:")


def test_the_last_words_of_a_killed_worker_are_shown(services):
    assert "about to go" in run(services, Task("step", steps.killed)).error.why


def test_a_machine_without_the_resource_is_told(services):
    report = run(services, Task("fit", steps.numbers, {"n": 1}, options=StepOptions(resources={"tpu": 4})))
    assert report.error.code == "MS-2031"
    assert "needs 4 tpu" in report.error.what


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret_services(tmp_path, monkeypatch):
    monkeypatch.setenv("ENGINE_TEST_KEY", "hush-hush-hush")
    values = {"api.key": Setting("api.key", "env:ENGINE_TEST_KEY", "mainspring.toml:3")}
    made = BenchServices(str(tmp_path), settings=SimpleNamespace(values=values, setting=values.get))
    yield made
    made.close()


def test_a_secret_is_handed_over_and_masked_in_the_log(secret_services):
    task = Task("s", steps.prints_secret, options=StepOptions(secrets=("api.key",)))
    report = run(secret_services, task)
    assert value(secret_services, report, "s") == "used"
    (log,) = (secret_services.state / "log" / report.run_id).iterdir()
    assert log.read_text() == "the key is ******!\n"


def test_a_secret_reaches_a_fresh_worker_too(secret_services):
    over = threading.Event()
    thread = threading.Thread(target=over.wait)  # where threads run, nothing is forked
    thread.start()
    try:
        report = run(secret_services, Task("s", steps.prints_secret, options=StepOptions(secrets=("api.key",))))
    finally:
        over.set()
        thread.join()
    assert "fresh interpreter" in report.notes[0]
    assert value(secret_services, report, "s") == "used"


def test_a_secret_is_masked_in_the_error_too(secret_services):
    task = Task("s", steps.fails_with_secret, options=StepOptions(secrets=("api.key",)))
    report = run(secret_services, task)
    assert report.error.why == "ValueError: rejected ******"
    assert "hush" not in str(services_rows(secret_services, report))


def services_rows(services, report):
    logs = [path.read_text() for path in (services.state / "log" / report.run_id).iterdir()]
    return [*services.catalog.steps(report.run_id), *logs, report.error.__notes__]


def test_an_undeclared_secret_and_a_secret_as_param_are_refused(secret_services):
    assert run(secret_services, Task("s", steps.prints_secret)).error.code == "MS-5020"
    with pytest.raises(MainspringError, match=r"holds the secret of api\.key") as caught:
        run(secret_services, Task("s", steps.fails, {"x": ["Bearer hush-hush-hush"]}))
    assert caught.value.code == "MS-5022"


# -- once -------------------------------------------------------------------------------------------------------------


def once(tmp_path, how):
    options = StepOptions(cache=False, once=True)
    return Task("pay", steps.once_only, {"folder": str(tmp_path), "how": how}, options=options)


def test_a_thing_done_once_is_not_repeated(services, tmp_path):
    for status in ("ok", "hit"):
        assert run(services, once(tmp_path, "fine")).check().step("pay").status == status
    assert times(tmp_path, "once") == 1


def test_a_thing_stopped_in_the_middle_asks(services, tmp_path):
    for _ in range(2):
        report = run(services, once(tmp_path, "die"))
        assert report.step("pay").status == "unknown"
        assert report.error.code == "MS-5023"
    assert times(tmp_path, "once") == 1
    run(services, once(tmp_path, "die"), force=frozenset({"pay"}))
    assert times(tmp_path, "once") == 2


def test_a_thing_that_says_it_failed_may_be_tried_again(services, tmp_path):
    for _ in range(2):
        assert run(services, once(tmp_path, "raise")).error.code == "MS-2028"
    assert times(tmp_path, "once") == 2


# -- what a run records -----------------------------------------------------------------------------------------------


def git(folder, *words):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_run_records_commit_changes_lock_and_machine(services, tmp_path):
    git(tmp_path, "init")
    (tmp_path / "app.py").write_text("one")
    (tmp_path / "requirements.lock").write_text("msgspec==1")
    git(tmp_path, "add", "app.py", "requirements.lock")
    git(tmp_path, "commit", "-m", "first")
    clean = run(services, Task("scaled", steps.scaled, {"x": 1}), reason="a test")
    recorded = services.catalog.run(clean.run_id)
    assert recorded.environment["git_sha"] == git(tmp_path, "rev-parse", "HEAD").strip()
    assert recorded.environment["cores"] >= 1
    assert recorded.environment["lock"]
    assert recorded.reason == "a test"
    assert services.catalog.tags(clean.run_id) == {}
    (tmp_path / "app.py").write_text("two")
    changed = run(services, Task("scaled", steps.scaled, {"x": 2}))
    assert len(services.catalog.tags(changed.run_id)["git.dirty"]) == 40


# -- results that speak of something outside ---------------------------------------------------------------------------


def test_a_kept_result_stands_only_while_it_holds(services, tmp_path):
    asked = []
    true = [True]

    def holds(given, params, kept):
        asked.append((given is services, params["x"], kept))
        return true[0]

    task = Task("scaled", steps.scaled, {"x": 4, "folder": str(tmp_path)}, holds=holds)
    assert value(services, run(services, task), "scaled") == 40
    assert asked == []
    assert run(services, task).step("scaled").status == "hit"
    assert asked == [(True, 4, 40)]
    true[0] = False
    assert run(services, task).step("scaled").status == "ok"
    true[0] = True
    assert run(services, task).step("scaled").status == "hit"
    assert times(tmp_path, "scaled") == 2
