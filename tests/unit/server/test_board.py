"""Workers that agree by a board, against a table of who has voted what; and workers that die at it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import ServiceError
from mainspring.server.rollouts.agreement import ABSTAINS, Refused
from mainspring.server.rollouts.asked import Asked, AskedFile
from mainspring.server.workers.board import Board
from mainspring.server.workers.status import ModelStatus, StatusFile, WorkerStatus, flips, read_statuses
from mainspring.server.workers.waiting import FlipWatch
from mainspring.serving.table import ModelTable
from mainspring.serving.versions import ModelVersions

WORKERS, MODELS = 3, ("late", "churn")
MOVES = st.one_of(
    st.tuples(st.just("propose"), st.integers(0, WORKERS - 1), st.sampled_from(MODELS), st.integers(1, 3)),
    st.tuples(st.just("abstain"), st.integers(0, WORKERS - 1), st.sampled_from(MODELS), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, WORKERS - 1), st.just(""), st.just(0)),
    st.tuples(st.just("join"), st.integers(0, WORKERS - 1), st.just(""), st.integers(0, 3)),
)


class Table:
    """The same without words, locks or processes."""

    def __init__(self) -> None:
        self.agreed = dict.fromkeys(MODELS, 0)
        self.votes: dict[int, dict[str, int]] = {}

    def decide(self) -> None:
        for model in MODELS:
            cast = {held[model] for held in self.votes.values()} - {ABSTAINS}
            if len(cast) == 1 and cast != {0}:
                (self.agreed[model],) = cast

    def fits(self, token: int) -> bool:
        return all(not agreed or agreed == token for agreed in self.agreed.values())


def carry_out(move: tuple[str, int, str, int], parent: Board, boards: list[Board], table: Table) -> None:
    what, worker, model, token = move
    text = str(token).encode()
    if what == "leave":
        table.votes.pop(worker, None)
        parent.leave(worker)
    elif what == "join":
        fits = table.fits(token)
        assert boards[worker].join(dict.fromkeys(MODELS, (token, text))) == fits
        if fits:
            table.votes[worker] = dict.fromkeys(MODELS, token)
    elif worker in table.votes:
        table.votes[worker][model] = token if what == "propose" else ABSTAINS
        if what == "abstain":
            boards[worker].abstain(model)
        else:
            table.decide()
            assert boards[worker].propose(model, token, text) == table.agreed[model]
    table.decide()


@given(st.lists(MOVES, max_size=40))
def test_a_word_moves_when_all_that_take_part_have_voted_for_it(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int, str, int]]
) -> None:
    path = tmp_path_factory.mktemp("board") / "board.bin"
    parent, table = Board(path, fresh=True), Table()
    boards = [Board(path, worker) for worker in range(WORKERS)]
    for move in moves:
        carry_out(move, parent, boards, table)
        for board in (parent, *boards):
            assert {one: board.agreed(one) for one in MODELS} == table.agreed
            for one, agreed in table.agreed.items():
                assert board.agreed_text(one) == (str(agreed).encode() if agreed else None)
    assert parent.votes("late") == {worker: held["late"] for worker, held in table.votes.items()}
    for board in (parent, *boards):
        board.close()


HOLDS = """
import sys, time
from pathlib import Path
from mainspring.server.workers.board import Board
with Board(Path(sys.argv[1]), 0)._held():
    print("held", flush=True)
    time.sleep(600)
"""


def test_who_dies_at_the_board_leaves_it_to_the_others(tmp_path: Path) -> None:
    path = tmp_path / "board.bin"
    parent = Board(path, fresh=True)
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    one = Board(path, 1)
    assert one.join({"late": (7, b"seven")})
    assert parent.agreed("late") == 7
    again = Board(path, fresh=True)
    assert (again.agreed("late"), parent.agreed("late")) == (0, 7), "who has the old one keeps it"
    for board in (parent, one, again):
        board.close()


def test_a_board_whose_texts_are_gone_says_so(tmp_path: Path) -> None:
    board = Board(tmp_path / "board.bin", 0, fresh=True)
    assert board.join({"late": (7, b"seven")})
    (tmp_path / "board.agreed" / f"{7:016x}").unlink()
    with pytest.raises(ServiceError) as caught:
        board.agreed_text("late")
    assert caught.value.code == "MS-5130"
    for number in range(1023):
        board.agreed(f"model-{number}")
    with pytest.raises(ServiceError) as caught:
        board.agreed("one more")
    assert caught.value.code == "MS-5131"
    board.close()


def test_versions_that_are_prepared_take_over_with_the_word_and_not_before() -> None:
    table, word = ModelTable(), [1]
    one, two, three = (ModelVersions(None, {}, {name: "1"}) for name in ("one", "two", "three"))
    table.swap("late", one)
    table.prepare("late", 2, two, lambda: word[0])
    assert table.versions("late") is one
    table.prepare("late", 3, three, lambda: word[0])
    word[0] = 2  # the others had agreed on it before this worker thought better of it
    table.keep("late", 3)
    assert table.versions("late") is two
    word[0] = 3
    assert table.versions("late") is three
    table.prepare("late", 4, one, lambda: word[0])
    table.keep("late", 3)
    word[0] = 4
    assert table.versions("late") is three, "what was taken back is gone"
    table.prepare("late", 5, two, lambda: word[0])
    table.remove("late")
    word[0] = 5
    assert table.versions("late") == ModelVersions()


def test_what_waits_is_told_once_with_who_has_it(tmp_path: Path) -> None:
    said = [StatusFile(tmp_path, number, "") for number in range(2)]
    told: list[str] = []
    clock = [0.0]
    watch = FlipWatch(lambda: flips(read_statuses(tmp_path)), 60.0, told.append, lambda: clock[0])
    said[0].write({"late": ModelStatus("1", "2"), "churn": ModelStatus("4", "4")})
    said[1].write({"late": ModelStatus("1", "1"), "churn": ModelStatus("4", "4")})
    watch.once()
    assert (told, watch.late()) == ([], {})
    clock[0] = 61.0
    watch.once()
    watch.once()
    assert len(told) == 1
    assert "error MS-5132  model 'late' version 2 is not taken over: version 1 goes on" in told[0]
    assert "after 61 s version 2 waits until all workers have it; READY in: 0" in told[0]
    said[1].write({"late": ModelStatus("1", "1", Refused(2, "it is damaged")), "churn": ModelStatus("4", "4")})
    watch.once()
    assert watch.late()["late"].endswith("READY in: 0; worker 1: it is damaged")
    assert len(told) == 1
    for each in said:
        each.write({"late": ModelStatus("2", "2")})
    watch.once()
    assert watch.late() == {}
    (tmp_path / "workers" / "status-2.json").write_text("{")
    (tmp_path / "workers" / "status-3-late.json").write_bytes(b'{"pid":1,"models":{}}')
    assert set(read_statuses(tmp_path, "")) == {0, 1}
    assert read_statuses(tmp_path, "-late") == {3: WorkerStatus(1)}
    said[0].remove()
    assert set(read_statuses(tmp_path, "")) == {1}


def test_what_is_asked_of_one_worker_is_read_by_all(tmp_path: Path) -> None:
    held: list[str] = []
    one, two = (AskedFile(tmp_path / "asked.json", lambda model, holds: bool(held.append(model)) or True) for _ in "ab")
    assert one.news() is two.news() is None
    one.say("late", Asked(unloaded=True))
    assert two.news() == {"late": Asked(unloaded=True)}
    assert two.news() is None, "once"
    two.say("churn", Asked(extra=(3,), policy=(2, False, (1, 3))))
    assert one.news() == {"late": Asked(unloaded=True), "churn": Asked(extra=(3,), policy=(2, False, (1, 3)))}
    one.wait("late", lambda answers, ready: True)
    assert held == ["late"]
    (tmp_path / "asked.json").write_text("{")
    assert one.news() is None


def test_a_worker_whose_model_is_unloaded_joins_the_others(tmp_path: Path) -> None:
    path = tmp_path / "board.bin"
    one, two = Board(path, 0, fresh=True), Board(path, 1)
    assert one.join({"late": (7, b"seven")})
    assert two.join({"late": (ABSTAINS, b"")})
    assert one.propose("late", 8, b"eight") == 8, "it stands in nobody's way"
    for board in (one, two):
        board.close()
