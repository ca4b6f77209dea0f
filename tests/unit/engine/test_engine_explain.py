"""Why a step ran, what differs between runs, and what it wrote."""

import pytest

import engine_steps as steps
from mainspring.declare.artifact import File
from mainspring.declare.step import StepOptions
from mainspring.engine.driver import run_graph
from mainspring.engine.explain import diff, logs, why
from mainspring.engine.task import Output, Task, TaskGraph
from mainspring.errors import UsageError


def run(services, *tasks):
    return run_graph(TaskGraph("pipeline/test", tasks), services, workers=2)


def graph(n=3, last=steps.doubled):
    return (
        Task("step/numbers", steps.numbers, {"n": n}),
        Task("step/total", steps.total, inputs={"values": Output("step/numbers")}),
        Task("step/last", last, {}, {"x": Output("step/total")}),
    )


def reasons(answer):
    return [(one.part, one.name, one.before, one.after) for one in answer.reasons]


def test_a_first_run_and_a_hit_have_words(services):
    run(services, *graph())
    assert "never been recorded" in why(services, "total").words
    run(services, *graph())
    answer = why(services, "step/total")
    assert (answer.status, answer.reasons) == ("hit", ())
    assert answer.words == "step/total was not run: nothing it can reach has changed"


@pytest.mark.parametrize("kinds", [("baseline", "model", "step"), ("step", "online", "feature_view")])
def test_a_bare_name_means_the_model_or_step_and_not_what_is_made_of_it(services, kinds):
    run(services, *(Task(f"{kind}/returns", steps.numbers, {"n": n}) for n, kind in enumerate(kinds, start=1)))
    assert why(services, "returns").name == ("model/returns" if "model" in kinds else "step/returns")
    assert why(services, f"{kinds[0]}/returns").name == f"{kinds[0]}/returns"


def test_a_changed_param_is_named_and_followed_through_inputs(services):
    run(services, *graph(n=3))
    run(services, *graph(n=4))
    assert reasons(why(services, "numbers")) == [("param", "n", "3", "4")]
    answer = why(services, "total")
    ((part, name, before, after),) = reasons(answer)
    assert (part, name) == ("input", "values")
    assert before != after
    assert answer.reasons[0].by == "step/numbers"
    assert reasons(answer.causes[0]) == [("param", "n", "3", "4")]


def test_a_change_is_seen_over_a_run_that_was_all_hits(services):
    for n in (3, 3, 4):
        run(services, *graph(n=n))
    assert reasons(why(services, "numbers")) == [("param", "n", "3", "4")]


def test_a_hit_after_another_key_was_not_run(services):
    first, *_ = (run(services, *graph(n=n)) for n in (3, 4, 3))
    answer = why(services, "numbers")
    assert answer.status == "hit"
    assert f"was not run: run {first.run_id} has left a result" in answer.words
    assert reasons(answer) == [("param", "n", "4", "3")]


def test_lists_are_shown_as_they_are_when_they_are_short(services):
    for values in ([1, 2], [1, 3], list(range(99))):
        run(services, Task("step/total", steps.total, {"values": values}))
        latest = reasons(why(services, "total"))
        if values == [1, 3]:
            assert latest == [("param", "values", "[1, 2]", "[1, 3]")]
    assert latest[0][2] == "[1, 3]"
    assert len(latest[0][3]) == 12


def test_changed_code_is_named(services):
    run(services, *graph(last=steps.doubled))
    run(services, *graph(last=steps.tripled))
    names = [(one.part, one.name) for one in why(services, "last").reasons]
    assert names == [
        ("code", "added engine_steps:tripled"),
        ("code", "removed engine_steps:doubled"),
        ("param", "(function)"),
    ]


def test_a_helpers_constant_is_named(services, monkeypatch):
    task = Task("step/scaled", steps.scaled, {"x": 1})
    run(services, task)
    monkeypatch.setattr(steps, "FACTOR", 11)
    run(services, task)
    assert reasons(why(services, "scaled")) == [("code", "changed engine_steps:FACTOR", "", "")]


def test_files_seeds_and_variables_are_named(services, tmp_path, monkeypatch):
    path = tmp_path / "in.txt"

    def once(text, seed, variable):
        path.write_text(text)
        monkeypatch.setenv("ENGINE_TEST_VARIABLE", variable)
        options = StepOptions(seed=seed, env=("ENGINE_TEST_VARIABLE",))
        run(services, Task("step/read", steps.read_text, {"file": File(path)}, options=options)).check()

    once("a", 1, "x")
    once("b", 2, "y")
    assert [one.part for one in why(services, "read").reasons] == ["param", "env", "seed"]


def test_a_result_that_is_not_kept_says_why_it_ran_again(services, tmp_path):
    (tmp_path / "hidden.txt").write_text("x")
    task = Task("step/reads", steps.reads_undeclared, {"path": str(tmp_path / "hidden.txt")})
    run(services, task)
    run(services, task)
    assert "reads" in why(services, "reads").words
    assert "hidden.txt" in why(services, "reads").words


def test_an_unknown_step_is_refused(services):
    with pytest.raises(UsageError) as caught:
        why(services, "nothing")
    assert caught.value.code == "MS-2611"


def test_two_runs_are_compared(services):
    first = run(services, *graph(n=3), Task("step/measured", steps.measured, {"steps": 2}))
    second = run(services, *graph(n=3), Task("step/measured", steps.measured, {"steps": 4}))
    found = diff(services, first.run_id, second.run_id[:20])
    by_name = {step.name: step for step in found.steps}
    assert by_name["step/total"].same_result
    assert (by_name["step/total"].before, by_name["step/total"].after) == ("ok", "hit")
    assert not by_name["step/measured"].same_result
    assert reasons(by_name["step/measured"]) == [("param", "steps", "2", "4")]
    assert found.metrics == (("loss", 1 / 2, 1 / 4),)
    assert found.environment == ()
    with pytest.raises(UsageError) as caught:
        diff(services, first.run_id, "nothing")
    assert caught.value.code == "MS-2612"


def test_logs_are_read_by_step_item_and_attempt(services, tmp_path):
    options = StepOptions(retries=1, backoff_us=1000)
    run(services, Task("step/flaky", steps.flaky, {"folder": str(tmp_path), "works_at": 2}, options=options))
    lines = list(logs(services, "flaky"))
    assert [(one.attempt, one.text) for one in lines if one.text.startswith("attempt")] == [
        (1, "attempt 1"),
        (2, "attempt 2"),
    ]
    assert any(one.text == "ValueError: not yet: 1" for one in lines)
    assert lines == list(logs(services, "flaky", follow=True, sleep=lambda seconds: None))
    assert lines == list(logs(services, "pipeline/test"))
    with pytest.raises(UsageError):
        logs(services, "nothing")


def test_numbers_of_kept_results_are_those_that_were_measured(services):
    def measured(steps_, n):
        return run(services, Task("step/measured", steps.measured, {"steps": steps_}), *graph(n=n))

    first, second, third = measured(2, 3), measured(2, 4), measured(4, 4)
    assert diff(services, first.run_id, second.run_id).metrics == (("loss", 1 / 2, 1 / 2),)
    assert diff(services, second.run_id, third.run_id).metrics == (("loss", 1 / 2, 1 / 4),)
    only = run(services, *graph(n=5))
    assert diff(services, only.run_id, third.run_id).metrics == (("loss", None, 1 / 4),)


def test_a_run_is_known_by_the_start_of_its_id_and_as_the_latest(services):
    first, second = run(services, *graph(n=3)), run(services, *graph(n=4))
    pairs = enumerate(zip(first.run_id, second.run_id, strict=True))
    common = next(number for number, (one, other) in pairs if one != other)
    found = diff(services, first.run_id[: common + 1], "latest")
    assert (found.before.id, found.after.id) == (first.run_id, second.run_id)
    assert why(services, "numbers", run_id=first.run_id[: common + 1]).run_id == first.run_id
    assert why(services, "numbers", run_id="latest").run_id == second.run_id
    for text, what in ((first.run_id[:common], "2 runs begin"), ("nothing", "no run")):
        with pytest.raises(UsageError, match=what) as caught:
            logs(services, "numbers", run_id=text)
        assert caught.value.code == "MS-2612"
