"""What a run would do: compared with what the run then does."""

import itertools

import pytest

import engine_steps as steps
from mainspring.declare.step import StepOptions
from mainspring.engine.driver import run_graph
from mainspring.engine.forecast import forecast
from mainspring.engine.task import Output, Task, TaskGraph


def graph(n, last, *, cached=True, over=False):
    scaled = Task("step/scaled", steps.scaled, {}, {"x": Output("step/numbers")}, over="x")
    return TaskGraph(
        "pipeline/test",
        (
            Task("step/numbers", steps.numbers, {"n": n}, options=StepOptions(cache=cached)),
            *((scaled,) if over else ()),
            Task("step/total", steps.total, {}, {"values": Output("step/scaled" if over else "step/numbers")}),
            Task("step/last", last, {}, {"x": Output("step/total")}),
        ),
    )


def would(services, made):
    return {one.name: one for one in forecast(made, services)}


CASES = list(itertools.product((3, 4), (steps.doubled, steps.tripled), (False, True)))


@pytest.mark.parametrize("order", [CASES, CASES[::-1], [CASES[i] for i in (0, 2, 0, 1, 5, 4, 5, 3, 7)]])
def test_a_run_does_what_was_forecast(services, order):
    for n, last, over in order:
        made = graph(n, last, over=over)
        found = would(services, made)
        assert found == would(services, made), "looking changes nothing"
        done = {step.name: step.status for step in run_graph(made, services, workers=2).steps}
        for name, one in found.items():
            if one.would != "follow":
                assert done[name] == {"keep": "hit", "run": "ok"}[one.would], (name, one)
    assert {one.would for one in would(services, made).values()} == {"keep"}


def test_nothing_is_recorded_and_the_last_time_is_told(services):
    made = graph(3, steps.doubled)
    first = would(services, made)
    assert [one.would for one in first.values()] == ["run", "follow", "follow"]
    assert all(one.seconds is None for one in first.values())
    assert services.catalog.runs() == []
    run_graph(made, services, workers=2)
    changed = would(services, graph(4, steps.doubled))
    assert changed["step/numbers"].would == "run"
    assert [str(reason) for reason in changed["step/numbers"].reasons] == ["param n: 3 -> 4"]
    assert all(one.seconds > 0 for one in changed.values())


def test_what_takes_the_result_of_a_step_without_cache_follows(services):
    made = graph(3, steps.doubled, cached=False)
    run_graph(made, services, workers=2)
    assert [one.would for one in would(services, made).values()] == ["run", "follow", "follow"]


def test_a_kept_result_that_does_not_hold_or_is_gone_would_be_made_anew(services):
    def made(holds):
        return TaskGraph("pipeline/test", (Task("step/numbers", steps.numbers, {"n": 2}, holds=holds),))

    run_graph(made(None), services, workers=2)
    (kept,) = forecast(made(lambda *_: True), services)
    (stale,) = forecast(made(lambda *_: False), services)
    assert (kept.would, stale.would, stale.reasons) == ("keep", "run", ())
    for blob in (services.state / "objects").rglob("*"):
        if blob.is_file():
            blob.unlink()
    (gone,) = forecast(made(None), services)
    assert gone.would == "run"
