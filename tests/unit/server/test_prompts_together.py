"""Aliases of prompts that several workers follow: all answer by the new one from the same moment on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring import App
from mainspring.choose.services import Services
from mainspring.plan.build import build_plan
from mainspring.server.answering.prompts import Prompts, promote_prompt
from mainspring.server.workers.board import Board


def app(text: str) -> App:
    found = App("asked")
    found.prompt(text, called="greeting")
    return found


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    (tmp_path / "mainspring.toml").write_text('app = "shop:app"\n')
    found = Services.of_project(tmp_path)
    yield found
    found.close()


def workers(services: Services, path: Path) -> tuple[Board, list[Board], list[Prompts]]:
    parent = Board(path, fresh=True)
    boards = [Board(path, number) for number in range(2)]
    found = []
    for board in boards:
        prompts = Prompts(services, build_plan(app("Good evening")))
        prompts.agree(board)
        assert board.join({})
        found.append(prompts)
    return parent, boards, found


def said(prompts: Prompts) -> str:
    return prompts.registry.find("greeting").template


def test_all_workers_answer_by_another_prompt_from_one_moment_on(services: Services, tmp_path: Path) -> None:
    Prompts(services, build_plan(app("Good morning")))  # version 1
    parent, boards, (first, second) = workers(services, tmp_path / "board.bin")
    promote_prompt(services.catalog, "greeting", 1, "test")
    assert first.refresh() == []
    assert said(first) == said(second) == "Good evening", "the other one has not seen it"
    assert second.refresh() == ["prompt greeting: prod is set"]
    assert said(first) == said(second) == "Good morning", "without another look at the catalog"
    assert first.refresh() == ["prompt greeting: prod is set"]
    assert (first.refresh(), second.refresh()) == ([], [])

    promote_prompt(services.catalog, "greeting", 2, "test")
    second.refresh()
    assert said(second) == "Good morning"
    parent.leave(0)  # the first one is killed: nobody waits for it
    assert said(second) == "Good evening"
    promote_prompt(services.catalog, "greeting", 1, "test")
    again = Prompts(services, build_plan(app("Good evening")))
    again.agree(boards[0])
    assert said(again) == "Good evening", "its replacement begins with what is agreed on, not with the catalog"
    assert boards[0].join({})
    again.refresh()
    assert (said(again), said(second)) == ("Good evening", "Good evening")
    second.refresh()
    assert (said(again), said(second)) == ("Good morning", "Good morning")


def test_one_process_follows_at_once(services: Services) -> None:
    Prompts(services, build_plan(app("Good morning")))
    alone = Prompts(services, build_plan(app("Good evening")))
    alone.agree(None)
    promote_prompt(services.catalog, "greeting", 1, "test")
    assert said(alone) == "Good evening"
    assert alone.refresh() == ["prompt greeting: prod is set"]
    assert said(alone) == "Good morning"
