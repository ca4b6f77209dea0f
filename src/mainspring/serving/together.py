"""Calls of quick models that come in one turn of the event loop: scored, logged and counted with one step.

Under load a turn brings many requests. What each of them costs alone, a run of the model, a record of the log, the
counts, is little work and much coming and going in cold caches; together it is done once. Nobody waits for it: a call
is held back only while others that came in with it are still being read, and the last of them answers for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mainspring.serving.calls import Array
from mainspring.serving.counts import CallCounts
from mainspring.serving.served import ServedModel

__all__ = ["Question", "Together", "Turn"]


class Turn:
    """What the event loop has begun in this turn of its own; hosts tell it, and whoever answers asks.

    Attributes:
        last: the last request that has come in, until it is begun.
        more: whether others follow the one that runs now, before anything else is read.
    """

    __slots__ = ("last", "more")

    def __init__(self) -> None:
        self.last: object = None
        self.more = False

    def begun(self, request: object) -> None:
        """A request begins to be answered."""
        if self.last is request:
            self.last = None
        self.more = self.last is not None


class Question:
    """A call that a quick model answers.

    Attributes:
        served: who answers.
        counts: where it is counted.
        matrix: its rows.
        decode_ns: how long its bytes took to become arrays.
        asked_ns: when it began, by `time.perf_counter_ns`.
        answered: set when others answer it, too; None where nobody has to wait.
        scores: one a row.
        ids: the prediction id of each row; empty where they are not logged.
        queue_ns: how long it waited.
        infer_ns: how long the model computed for it, and for those that were scored together with it.
        error: why there are no scores.
    """

    __slots__ = (
        "answered", "asked_ns", "counts", "decode_ns", "error", "ids", "infer_ns", "matrix", "queue_ns", "scores",
        "served",
    )  # fmt: skip

    scores: Array

    def __init__(self, served: ServedModel, counts: CallCounts, matrix: Array, decode_ns: int, asked_ns: int) -> None:
        self.served = served
        self.counts = counts
        self.matrix = matrix
        self.decode_ns = decode_ns
        self.asked_ns = asked_ns
        self.answered: asyncio.Future[None] | None = None
        self.ids: Sequence[str] = ()
        self.queue_ns = self.infer_ns = 0
        self.error: Exception | None = None


_Key = tuple[ServedModel, CallCounts, str]


class Together:
    """Brings the questions of a turn together, by who answers them and where they are counted.

    Args:
        turn: the event loop's.
        answer: answers questions of one kind: it gives each its scores, or its error, and raises nothing.
    """

    def __init__(self, turn: Turn, answer: Callable[[Sequence[Question]], None]) -> None:
        self._turn = turn
        self._answer = answer
        self._waiting: dict[_Key, list[Question]] = {}

    def ask(self, question: Question) -> asyncio.Future[None] | None:
        """Have a question answered: at once, or when the future is done, in this turn of the loop or the next one."""
        if self._turn.more and question.served.together > 1:
            loop = asyncio.get_running_loop()
            question.answered = loop.create_future()
            if not self._waiting:  # should none of those that follow be the last question
                loop.call_soon(self._answer_all)
            self._wait(question)
            return question.answered
        if not self._waiting:
            self._answer((question,))
            return None
        self._wait(question)
        self._answer_all()
        return None

    def _wait(self, question: Question) -> None:
        key = question.served, question.counts, question.matrix.dtype.char
        found = self._waiting.get(key)
        if found is None:
            self._waiting[key] = [question]
        else:
            found.append(question)

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for (served, _, _), questions in waiting.items():
            wanted = [one for one in questions if one.answered is None or not one.answered.done()]
            for part in _parts(wanted, served.together):
                self._answer(part)
                for question in part:
                    if question.answered is not None:
                        question.answered.set_result(None)


def _parts(questions: Sequence[Question], most: int) -> list[Sequence[Question]]:
    """Questions in their order, in parts of so many rows together; one with more is a part of its own."""
    if sum(len(question.matrix) for question in questions) <= most:
        return [questions] if questions else []
    parts: list[Sequence[Question]] = []
    part: list[Question] = []
    rows = 0
    for question in questions:
        size = len(question.matrix)
        if part and rows + size > most:
            parts.append(part)
            part, rows = [], 0
        part.append(question)
        rows += size
    return [*parts, part]
