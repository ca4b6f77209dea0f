"""Drivers beside each other, stopped drivers, drivers with threads, and stores that fail."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import engine_steps as steps
from engine_bench import BenchServices, times
from mainspring.adapters.sqlite.connection import Connections
from mainspring.engine.driver import load, run_graph
from mainspring.engine.runs.ledger import LEASE_US, Ledger, new_id, now_us, recover
from mainspring.engine.task import Output, Task, TaskGraph
from mainspring.engine.workers.processes import Owner, children, this_process
from mainspring.errors import ServiceError, StoreError

HERE = Path(__file__).resolve().parent.parent


@pytest.fixture
def services(tmp_path):
    made = BenchServices(str(tmp_path))
    yield made
    made.close()


def driver(folder, **environment):
    return subprocess.Popen(
        [sys.executable, str(HERE / "engine_driver.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(HERE), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


# -- two at once ------------------------------------------------------------------------------------------------------


def test_two_drivers_at_once_give_one_result_and_do_the_work_once(tmp_path):
    both = [driver(tmp_path) for _ in range(2)]
    outs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    results = [{tuple(line.split()[::2]) for line in out.splitlines()} for out, _ in outs]
    assert results[0] == results[1]
    counts = {path.name: path.stat().st_size for path in tmp_path.glob("ran-*")}
    assert len(counts) == 12
    assert set(counts.values()) == {1}


def test_a_second_driver_waits_for_a_claimed_key_and_then_hits(services, tmp_path):
    task = Task("sleeps", steps.sleeps, {"seconds": 0.3, "folder": str(tmp_path)})
    reports = []
    other = BenchServices(str(tmp_path))

    def run_other():
        reports.append(run_graph(TaskGraph("other", (task,)), other))
        other.close()

    thread = threading.Thread(target=run_other)
    thread.start()
    assert until(lambda: times(tmp_path, "sleeps"))
    report = run_graph(TaskGraph("mine", (task,)), services)
    thread.join()
    assert (reports[0].step("sleeps").status, report.step("sleeps").status) == ("ok", "hit")
    assert times(tmp_path, "sleeps") == 1


# -- stopped ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_in_good_order_and_the_next_run_goes_on(tmp_path):
    process = driver(tmp_path, ENGINE_TEST_PAUSE="0.5")
    assert until(lambda: (tmp_path / "ran-item1").exists())
    workers = [pid for zygote in children(process.pid) for pid in [zygote, *children(zygote)]]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err
    assert not [pid for pid in workers if alive(pid)]
    services = BenchServices(str(tmp_path))
    (run,) = services.catalog.runs()
    assert run.status == "stopped"
    statuses = {row.status for row in services.catalog.steps(run.id)}
    assert "stopped" in statuses
    assert "running" not in statuses
    services.close()
    again = driver(tmp_path, ENGINE_TEST_PAUSE="0.5")
    assert again.wait(30) == 0
    again.communicate()
    services = BenchServices(str(tmp_path))
    rows = [row for run in services.catalog.runs() for row in services.catalog.steps(run.id)]
    services.close()
    finished = Counter(row.cache_key for row in rows if row.status == "ok")
    assert set(finished.values()) == {1}
    assert times(tmp_path, "start") == 1


def test_stop_is_asked_for_while_a_step_runs(services):
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_graph(
            TaskGraph("slow", (Task("sleeps", steps.sleeps, {"seconds": 30}),)),
            services,
            stop=lambda: time.monotonic() > started + 0.3,
        )
    assert time.monotonic() < started + 10
    assert services.catalog.runs()[0].status == "stopped"


# -- lost -------------------------------------------------------------------------------------------------------------


def opened(services, owner):
    ledger = Ledger(services.catalog, owner, new_id(now_us()), "test")
    ledger.open("test", "", {}, {})
    return ledger


def test_only_a_dead_drivers_run_is_taken_whatever_the_clock_says(services):
    me = this_process()
    alive = Ledger(services.catalog, this_process(), new_id(now_us()), "test", clock=lambda: now_us() - 10 * LEASE_US)
    alive.open("mine", "", {}, {})  # its lease has run out, by a clock that was set forward since
    child = subprocess.Popen(["sleep", "60"])
    dead_owner = Owner(me.host, me.boot, child.pid, started=1)
    dead = opened(services, dead_owner)
    child.kill()
    child.wait()
    assert recover(services.catalog, me) == [dead.run_id]
    assert services.catalog.run(alive.run_id).status == "running"
    alive.renew([])
    with pytest.raises(ServiceError, match="another driver has taken this run"):
        dead.renew([])


def test_a_run_whose_end_could_not_be_written_is_closed_by_the_next(services, monkeypatch):
    ledger = opened(services, this_process())
    assert recover(services.catalog, this_process()) == []

    def full(*_):
        raise StoreError("the disk is full", code="MS-4101")

    monkeypatch.setattr(services.catalog, "end_run", full)
    with pytest.raises(StoreError):
        ledger.close("ok")
    monkeypatch.undo()
    assert recover(services.catalog, this_process()) == [ledger.run_id]
    assert services.catalog.run(ledger.run_id).status == "failed"


def test_a_driver_on_another_machine_is_judged_by_its_lease(services):
    far = Owner("elsewhere", "another-boot", 1, 1)
    fresh = opened(services, far)
    old = Ledger(services.catalog, far, new_id(now_us()), "test", clock=lambda: now_us() - 2 * LEASE_US)
    old.open("test", "", {}, {})
    assert recover(services.catalog, this_process()) == [old.run_id]
    assert services.catalog.run(fresh.run_id).status == "running"


# -- threads ----------------------------------------------------------------------------------------------------------


def graph(tmp_path):
    return TaskGraph(
        "graph",
        (
            Task("numbers", steps.numbers, {"n": 3}),
            Task("scaled", steps.scaled, {"folder": str(tmp_path)}, {"x": Output("numbers")}, over="x"),
            Task("describe", steps.describe, {"score": steps.Score("a", 1.0)}),
        ),
    )


def test_a_driver_with_threads_is_not_forked(services, tmp_path):
    ready = threading.Event()
    thread = threading.Thread(target=ready.wait, name="waits")
    others = {one.name for one in threading.enumerate() if one is not threading.main_thread()}
    thread.start()
    try:
        report = run_graph(graph(tmp_path), services).check()
    finally:
        ready.set()
        thread.join()
    (note,) = report.notes  # the suite's other tests may have given it further reasons
    assert note.startswith("workers start from a fresh interpreter: ")
    named = re.search(r"Python threads are running \(([^;]*)\)", note)
    assert named, note
    assert set(named[1].split(", ")) & {"waits", *others}, note  # three are named, and the suite may have left others
    assert load(services, report.step("scaled")) == [0, 10, 20]
    assert run_graph(graph(tmp_path), services).step("scaled").status == "hit"


APP = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True, name="of the app").start()
def step(x: int) -> int:
    return x + 1
"""


def test_an_app_that_starts_threads_has_a_fresh_interpreter_for_each_attempt(services, tmp_path, monkeypatch):
    (tmp_path / "engine_threaded_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    import engine_threaded_app

    tasks = [Task(f"step{x}", engine_threaded_app.step, {"x": x}) for x in range(2)]
    report = run_graph(TaskGraph("app", tuple(tasks)), services).check()
    assert [load(services, step) for step in report.steps] == [1, 2]
    assert any("each worker is a fresh interpreter" in note for note in report.notes)


def test_a_step_that_no_worker_can_find_is_told(services):
    def local(x: int) -> int:
        return x

    forked = run_graph(TaskGraph("local", (Task("local", local, {"x": 1}),)), services)
    if not forked.notes:  # a fork has everything in memory
        assert load(services, forked.check().step("local")) == 1
    ready = threading.Event()
    thread = threading.Thread(target=ready.wait)
    thread.start()
    try:
        report = run_graph(TaskGraph("local", (Task("local", local, {"x": 2}),)), services)
    finally:
        ready.set()
        thread.join()
    assert report.error.code == "MS-2024"
    assert "top level of a module" in report.error.fix


# -- stores that fail -------------------------------------------------------------------------------------------------


def test_a_full_disk_fails_the_step_and_leaves_nothing_half_written(services, monkeypatch):
    monkeypatch.setenv("ENGINE_TEST_FULL", "1")
    graph = TaskGraph("g", (Task("scaled", steps.scaled, {"x": 1}),))
    report = run_graph(graph, services)
    assert (report.error.code, report.error.exit_status) == ("MS-4101", 4)
    assert not list(services.objects.sizes())
    assert not list((services.state / "objects" / "tmp").iterdir())
    monkeypatch.delenv("ENGINE_TEST_FULL")
    assert run_graph(graph, services).status == "ok"


def test_a_full_disk_under_the_catalog_ends_the_run_and_the_next_one_is_right(services, monkeypatch):
    tasks = tuple(Task(f"s{x}", steps.scaled, {"x": x}) for x in range(40))
    run_graph(TaskGraph("g", tasks[:1]), services).check()
    ((pages,),) = services.catalog._db.read("pragma page_count")
    opened = Connections._open

    def with_little_room(connections):
        connection = opened(connections)
        connection.execute(f"pragma max_page_count = {pages + 2}")
        return connection

    services.catalog.close()
    monkeypatch.setattr(Connections, "_open", with_little_room)
    with pytest.raises(StoreError) as caught:
        run_graph(TaskGraph("g", tasks), services)
    monkeypatch.undo()
    assert caught.value.code == "MS-4101"
    services.catalog.close()
    report = run_graph(TaskGraph("g", tasks), services).check()
    assert [load(services, step) for step in report.steps] == [x * 10 for x in range(40)]
    assert not services.catalog.runs(status="running")
