"""The help desk: what it finds, what it answers from it, and how it follows the manuals. No model is needed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.testing import Project, open_project

PROJECT = Path(__file__).parent.parent
ROLLBACK = "Which command gives the model behind an endpoint the champion that it had before?"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, for tests that write manuals."""
    folder = tmp_path_factory.mktemp("support") / "support"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(".mainspring", "*.py[co]", "images", "site"))
    return folder


@pytest.fixture(scope="module")
def desk(copy: Path) -> Iterator[Project]:
    """The help desk with its manuals indexed and a scripted model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAINSPRING_LLMS_CHAT_ADAPTER", "fake")
        patch.setenv("MAINSPRING_LLMS_CHAT_SCRIPT", "tests/script.json")
        sys.modules.pop("support", None)
        with open_project(copy, state=copy / ".state") as project:
            project.check()
            project.build()
            yield project


def test_the_page_that_has_the_answer_is_found(desk: Project) -> None:
    hits = desk.search("library", ROLLBACK, k=3).hits
    assert "cli.md" in {hit.uri for hit in hits}
    assert all(hit.text and hit.path for hit in hits)


def test_an_answer_stands_on_what_was_found(desk: Project) -> None:
    answer = desk.talk("help_desk", ROLLBACK)
    assert answer.text == "mainspring rollback gives it back [1]."
    assert answer.sources == (answer.retrieved[0],)
    (cited,) = answer.citations
    assert "rollback" in cited.quote


def test_what_the_manuals_do_not_say_is_refused(desk: Project) -> None:
    answer = desk.talk("help_desk", "What is the boiling point of liquid helium?")
    assert (answer.refused, answer.sources) == (True, ())


def test_a_code_is_looked_up_in_the_table(desk: Project) -> None:
    assert "To mend it as the table says." in desk.talk("help_desk", "What does MS-3012 now mean?").text


def test_the_index_passes_its_evaluation(desk: Project) -> None:
    done = desk.evaluate("first")
    assert done.passed, done.why
    assert (done.cases, done.scores["recall@10"] >= 0.8) == (20, True)


def test_a_page_that_is_written_changed_and_deleted_is_followed(desk: Project, copy: Path) -> None:
    page = copy / "manuals" / "tea.md"
    for text in ("Press the violet button twice.", "Pull the orange lever once."):
        page.write_text(f"# The tea machine\n\n{text}\n")
        desk.build()
        assert text in desk.search("library", "How do I make tea with the machine?", k=1).hits[0].text
    page.unlink()
    desk.build()
    assert "tea.md" not in {hit.uri for hit in desk.search("library", "How do I make tea with the machine?").hits}
