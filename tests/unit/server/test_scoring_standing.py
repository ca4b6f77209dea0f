"""How far a scoring is: parts and rows by what the engine tells, what was kept apart, parts begun anew, estimates."""

from __future__ import annotations

import pytest

from mainspring.engine.runs.progress import Happened, Progress
from mainspring.server.scoring.shape import Part
from mainspring.server.scoring.standing import Standing, Telling

PARTS = [Part(0, 100), Part(100, 200), Part(200, 250)]


class Run:
    def __init__(self) -> None:
        self.now, self.asked, self.told = 0.0, 0, list[Standing]()
        self.telling = Telling("scored/m", self.parts, self.told.append, 1.0, lambda: self.now)

    def parts(self, run: str) -> list[Part]:
        assert run == "r"
        self.asked += 1
        return PARTS

    def tell(self, what: Happened, item: int | None, done: float = 0, step: str = "scored/m") -> None:
        self.telling(Progress(what, "r", step, item=item, done=done))


def test_rows_and_parts_are_told_with_what_the_rest_takes() -> None:
    run = Run()
    run.tell("start", 0)
    assert run.told == [Standing(3, 0, 0, 250, 0, 0.0, None)]
    run.now = 0.5
    run.tell("moved", 0, 50)
    assert len(run.told) == 1, "once a second is enough"
    run.now = 2.0
    run.tell("moved", 0, 80)
    assert run.told[-1] == Standing(3, 0, 0, 250, 80, 40.0, 4.25)
    run.tell("ok", 0)
    assert run.told[-1] == Standing(3, 1, 0, 250, 100, 50.0, 3.0)
    assert run.told[-1].line() == "1 of 3 parts, 100 of 250 rows, 50 rows/s, about 3 s left"
    assert run.asked == 1


def test_what_was_kept_makes_no_rate_and_a_part_that_is_begun_anew_counts_anew() -> None:
    run = Run()
    run.tell("hit", 1)
    assert run.told[-1] == Standing(3, 1, 1, 250, 100, 0.0, None)
    assert run.told[-1].line() == "1 of 3 parts (1 kept), 100 of 250 rows"
    run.now = 1.0
    run.tell("moved", 0, 90)
    run.tell("retry", 0)
    run.now = 2.0
    run.tell("moved", 2, 50)
    assert run.told[-1] == Standing(3, 1, 1, 250, 150, 25.0, 4.0)


@pytest.mark.parametrize(("item", "step"), [(None, "scored/m"), (0, "parts/m"), (0, "scored/other")])
def test_what_is_of_no_part_is_left_alone(item: int | None, step: str) -> None:
    run = Run()
    run.tell("ok", item, step=step)
    assert (run.told, run.asked) == ([], 0)
