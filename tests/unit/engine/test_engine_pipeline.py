"""Pipelines as graphs: wiring, names, inputs by reference, and what is refused before anything runs."""

import pytest

from mainspring import App, Frame, Record
from mainspring.engine.driver import load, run_graph
from mainspring.engine.pipeline import graph_of
from mainspring.engine.runs.maps import gather
from mainspring.engine.task import Output, Task
from mainspring.errors import DeclarationError

app = App("pipelines")


def read_orders() -> Frame:
    return Frame({"order_id": ["a", "b"], "at": ["1", "2"]})


@app.step()
def numbers(n: int = 3) -> list[int]:
    return list(range(n))


@app.step(numbers)
def doubled(values: list[int], by: int = 2) -> list[int]:
    return [value * by for value in values]


@app.step()
def square(x: int) -> int:
    return x * x


@app.step()
def add(left: int, right: int = 0) -> int:
    return left + right


@app.step()
def total(values: list[int]) -> int:
    return sum(values)


@app.step()
def table(n: int) -> Frame:
    return Frame({"n": [n]})


def resolve(source):
    raise AssertionError("no source is declared here")


def graph(function, **arguments):
    return graph_of(app.pipeline(function), arguments, resolve)


def test_calls_become_tasks_and_results_become_inputs():
    def wired(n: int):
        return total(square.map(numbers(n)))

    made = graph(wired, n=4)
    assert made.name == "pipeline/wired"
    assert [task.name for task in made.tasks] == ["step/numbers", "step/square", "step/total"]
    assert made.tasks[0].params == {"n": 4}
    assert made.tasks[1].inputs == {"x": Output("step/numbers")}
    assert made.tasks[1].over == "x"
    assert made.tasks[2].inputs == {"values": Output("step/square")}


def test_a_step_called_twice_is_two_tasks_and_a_list_of_results_is_gathered(services):
    def twice():
        return total([square(2), square(3)])

    made = graph(twice)
    assert [task.name for task in made.tasks] == ["step/square", "step/square-2", "step/total.values", "step/total"]
    assert made.tasks[2].function is gather
    report = run_graph(made, services).check()
    assert load(services, report.step("step/total")) == 13
    assert {step.status for step in run_graph(made, services).steps} == {"hit", "ok"}


def test_a_declared_input_is_added_once(services):
    def both():
        return add(total(doubled()), total(doubled(by=3)))

    made = graph(both)
    assert sum(task.name.startswith("step/numbers") for task in made.tasks) == 1
    report = run_graph(made, services).check()
    assert load(services, report.step("step/add")) == 6 + 9


def test_a_step_runs_alone_with_what_it_needs(services):
    made = graph_of(doubled, {"by": 5}, resolve)
    assert made.name == "step/doubled"
    report = run_graph(made, services).check()
    assert load(services, report.step("step/doubled")) == [0, 5, 10]


def test_the_body_gives_the_same_result_as_plain_functions(services):
    def wired(n):
        return total(square.map(doubled(numbers(n))))

    report = run_graph(graph(wired, n=5), services).check()
    assert load(services, report.step("step/total")) == wired(5)


def test_sources_are_resolved_to_tasks_of_other_rooms():
    from datetime import datetime

    class Visit(Record):
        page: str
        at: datetime

    own = App("own")
    visits = own.source(Visit, time="at", called="visits")

    @own.step(visits)
    def pages(rows: Frame) -> int:
        return len(rows)

    seen = []

    def to_tasks(source):
        seen.append(source)
        return [Task("raw/visits", read_orders), Task("source/visits", read_orders, inputs={})]

    made = graph_of(pages, {}, to_tasks)
    assert [task.name for task in made.tasks] == ["raw/visits", "source/visits", "step/pages"]
    assert made.tasks[-1].inputs == {"rows": Output("source/visits")}
    assert seen == [visits]


def wrong_type():
    total(table(3))


def wrong_value():
    square("three")


def wrong_item():
    square.map([1, "two"])


def missing():
    add()


def in_a_mapping():
    add({"a": square(2)})


def mixed():
    total([square(2), 3])


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (wrong_type, "MS-2041", "'total' takes list[int] as 'values', not the result of step/table, Frame"),
        (wrong_value, "MS-2041", "'square' takes int as 'x', not str 'three'"),
        (wrong_item, "MS-2041", "'square' takes int as 'x', not str 'two'"),
        (missing, "MS-2040", "'add' needs 'left'"),
        (in_a_mapping, "MS-2039", "is a mapping with results of steps in it"),
        (mixed, "MS-2039", "mixes results of steps with plain values"),
    ],
)
def test_what_cannot_be_is_refused_with_the_line(body, code, words):
    with pytest.raises(DeclarationError) as caught:
        graph(body)
    assert caught.value.code == code
    assert words in caught.value.what
    assert caught.value.origin == f"test_engine_pipeline.py:{body.__code__.co_firstlineno + 1}"
