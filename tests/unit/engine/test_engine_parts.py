"""Order, capacity, keys, digests of files, fitting types, secrets, owners, progress."""

import os
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine_steps as steps
from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.declare.step import StepOptions
from mainspring.engine.context import current
from mainspring.engine.files import FileDigests
from mainspring.engine.fitting import feeds, fits
from mainspring.engine.order import Capacity, laid_out
from mainspring.engine.reference import dereference, reference
from mainspring.engine.runs.keys import Keys
from mainspring.engine.runs.ledger import new_id
from mainspring.engine.runs.progress import Progress, line
from mainspring.engine.secrets import Redactor
from mainspring.engine.task import Output, Task, TaskGraph
from mainspring.engine.wire import Frames, StoredResult, frame
from mainspring.engine.workers.processes import Owner, this_process
from mainspring.errors import DeclarationError, UserCodeError
from mainspring.plan.encoding import Unencodable

# -- order ------------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 9))
    edges = [draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set() for number in range(count)]
    tasks = [
        Task(f"t{number}", steps.total, inputs={f"i{one}": Output(f"t{one}") for one in needs})
        for number, needs in enumerate(edges)
    ]
    random.Random(draw(st.integers())).shuffle(tasks)
    return tasks


@given(graphs())
def test_inputs_come_first_and_heights_are_longest_paths(tasks):
    layout = laid_out(TaskGraph("g", tuple(tasks)))
    position = {task.name: number for number, task in enumerate(layout.tasks)}

    def longest(name):
        after = [task.name for task in tasks if Output(name) in task.inputs.values()]
        return 1 + max(map(longest, after), default=0)

    for number, task in enumerate(layout.tasks):
        assert layout.needs[number] == {position[output.task] for output in task.inputs.values()}
        assert all(needed < number for needed in layout.needs[number])
        assert layout.height[number] == longest(task.name)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([Task("a", steps.total), Task("a", steps.total)], "two tasks of g are called 'a'"),
        ([Task("a", steps.total, inputs={"values": Output("b")})], "which is not in the graph"),
        (
            [Task("a", steps.total, inputs={"x": Output("b")}), Task("b", steps.total, inputs={"x": Output("a")})],
            "form a cycle",
        ),
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(tasks, words):
    with pytest.raises(DeclarationError, match=words) as caught:
        laid_out(TaskGraph("g", tuple(tasks)))
    assert caught.value.code == "MS-2030"


def test_a_long_chain_is_laid_out_without_recursion():
    tasks = [Task(f"t{n}", steps.total, inputs={"x": Output(f"t{n + 1}")} if n < 4999 else {}) for n in range(5000)]
    assert laid_out(TaskGraph("g", tuple(tasks))).height[0] == 5000


def test_capacity_is_taken_and_given_back():
    capacity = Capacity({"cpu": 2.0, "memory": 100.0})
    need = capacity.need(Task("t", steps.total, options=StepOptions(resources={"cpu": 8, "memory": 60})))
    assert need == {"cpu": 2.0, "memory": 60}
    assert capacity.take(need)
    assert not capacity.take(need)
    capacity.give_back(need)
    assert capacity.take(need)
    with pytest.raises(UserCodeError) as caught:
        capacity.need(Task("t", steps.total, options=StepOptions(resources={"memory": 101})))
    assert caught.value.code == "MS-2031"


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    return Keys(FileDigests(tmp_path), {"SET": "1"})


def key(keys, *args, **more):
    return keys.of(Task("name", *args, **more), {}).key


def test_defaults_are_part_of_the_key_and_names_and_limits_are_not(keys):
    plain = key(keys, steps.scaled, {"x": 1})
    assert plain == key(keys, steps.scaled, {"x": 1, "folder": ""})
    assert plain == keys.of(Task("other", steps.scaled, {"x": 1}, options=StepOptions(retries=5, timeout_us=9)), {}).key
    different = [
        key(keys, steps.scaled, {"x": 2}),
        key(keys, steps.scaled, {"x": True}),
        key(keys, steps.scaled, {"x": 1.0}),
        key(keys, steps.parity, {"x": 1}),
        key(keys, steps.scaled, {"x": 1}, options=StepOptions(seed=0)),
        key(keys, steps.scaled, {"x": 1}, options=StepOptions(env=("SET",))),
        key(keys, steps.scaled, {"x": 1}, options=StepOptions(env=("UNSET",))),
        key(keys, steps.scaled, {"x": 1}, reaches=(steps.parity,)),
        key(keys, steps.scaled, {"x": 1}, over="x"),
    ]
    assert len({plain, *different}) == len(different) + 1


def test_two_functions_of_the_package_have_keys_of_their_own(keys):
    assert key(keys, Frame.sql) != key(keys, Frame.polars)


def test_an_item_of_a_map_has_the_key_of_a_plain_call(keys):
    task = Task("map", steps.scaled, {"x": [1, 2]}, over="x")
    assert keys.of(task, {}, item=(2,)).key == key(keys, steps.scaled, {"x": 2})


def test_an_input_counts_with_its_kind(keys):
    task = Task("t", steps.scaled, inputs={"x": Output("a")})
    found = {keys.of(task, {"x": StoredResult("ab", kind, 1)}).key for kind in ("json", "bytes", "json/shop:Price")}
    assert len(found) == 3


def test_what_has_no_form_is_refused_unless_it_need_not_be_cached(keys):
    lock = SimpleNamespace()
    lock.file = open(os.devnull)  # noqa: SIM115
    try:
        with pytest.raises(Unencodable):
            key(keys, steps.scaled, {"x": lock.file})
        found = keys.of(Task("t", steps.scaled, {"x": lock.file}, options=StepOptions(cache=False)), {})
        assert found.key == ""
        assert "no canonical form" in found.problem
    finally:
        lock.file.close()


# -- files ------------------------------------------------------------------------------------------------------------


def test_digests_are_by_content_and_remembered(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("one")
    os.utime(path, (1, 1))
    first = FileDigests(tmp_path)
    digest = first.digest(File(path))
    copy = tmp_path / "copy.txt"
    copy.write_text("one")
    assert first.digest(File(copy)) == digest
    assert first.unchanged([str(path), str(copy)])
    path.write_text("two")
    assert not first.unchanged([str(path)])
    assert FileDigests(tmp_path).digest(File(path)) != digest


def test_what_changed_within_the_clocks_grain_is_read_again(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("aaa")
    before = path.stat()
    files = FileDigests(tmp_path)
    digest = files.digest(File(path))
    files.save()
    path.write_text("bbb")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileDigests(tmp_path).digest(File(path)) != digest


# -- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (1.0, int, False),
        ([1], list[str], True),
        ((1,), list[int], False),
        (None, int | None, True),
        (None, int, False),
        ("a", int | str, True),
        ({"a": 1}, dict[str, int], True),
        (Frame({"x": [1]}), Frame, True),
        ({"x": [1]}, Frame, False),
        (3, "unevaluated", True),
    ],
)
def test_values_fit_annotations(value, wanted, expected):
    assert fits(value, wanted) is expected


@pytest.mark.parametrize(
    ("returned", "wanted", "expected"),
    [
        (Frame, Frame, True),
        (Frame, list[int], False),
        (int, float, True),
        (float, int, False),
        (list[int], tuple[int, ...], True),
        (dict[str, float], steps.Score, True),
        (Frame | None, Frame, True),
        (None, Frame, False),
        (None, Frame | None, True),
        (object, Frame, True),
    ],
)
def test_results_feed_parameters(returned, wanted, expected):
    assert feeds(returned, wanted) is expected


# -- secrets, names, messages -----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"hush", b"hu", b"sh", b"hushhush", b" loud "]), max_size=12), st.integers(1, 5))
def test_a_secret_never_passes_however_the_stream_is_cut(parts, size):
    text = b"".join(parts)
    redactor = Redactor(["hush", "hushhush"])
    out = b"".join(redactor.feed(text[at : at + size]) for at in range(0, len(text), size)) + redactor.end()
    assert b"hush" not in out
    assert text.replace(b"hush", b"").replace(b" ", b"") == out.replace(b"*", b"").replace(b" ", b"")


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 7))
def test_frames_arrive_whole_however_the_stream_is_cut(messages, size):
    stream = b"".join(frame(message) for message in messages)
    frames = Frames()
    got = [whole for at in range(0, len(stream), size) for whole in frames.feed(stream[at : at + size])]
    assert got == [frame(message)[4:] for message in messages]


def test_names_lead_back():
    assert dereference(reference(steps.scaled)) is steps.scaled
    assert dereference(reference(Frame.sql)) is Frame.sql
    with pytest.raises(UserCodeError) as caught:
        dereference("engine_steps:nothing")
    assert caught.value.code == "MS-2024"


def test_owners_are_read_back_and_told_from_their_successors():
    me = this_process()
    assert Owner.parse(str(me)) == me
    assert Owner.parse("nobody") is None
    assert not me.is_dead(this_process())
    assert Owner(me.host, me.boot, me.pid, me.started + 1).is_dead(me)
    assert not Owner("elsewhere", me.boot, me.pid, 1).is_dead(me)


def test_ids_are_version_7_and_sort_by_time():
    ids = [new_id(at) for at in (1_700_000_000_000_000, 1_700_000_001_000_000, time.time_ns() // 1000)]
    assert ids == sorted(ids)
    assert all(len(one) == 32 and one[12] == "7" and one[16] in "89ab" for one in ids)


def test_nothing_runs_here():
    with pytest.raises(UserCodeError) as caught:
        current()
    assert caught.value.code == "MS-2020"


def test_events_as_lines():
    head = {"run_id": "r", "step": "step/fit", "title": "fit", "settled": 2, "steps": 3}
    assert line(Progress("ok", seconds=1.234, **head)) == "[2/3] fit done in 1.23 s"
    assert line(Progress("hit", **head)) == "[2/3] fit unchanged"
    assert line(Progress("failed", text="no such row", **head)) == "[2/3] fit failed: no such row"
    assert line(Progress("failed", item=4, text="no such row", **head)) == "[2/3] fit[4] failed: no such row"
    assert line(Progress("ok", item=4, **head)) == ""
    assert line(Progress("moved", **head)) == ""
    assert line(Progress("note", "r", text=f"{Path('x')}")) == "note: x"
