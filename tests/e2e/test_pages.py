"""Pages of a documentation package of Debian's, over 500 documents: indexed, searched, cut down again."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.conftest import mainspring
from mainspring.testing import open_project
from thoroughly import rounds

PACKAGE, DOCUMENTS, PAGES = "postgresql-doc-15", 510, rounds(100, 510)
"""As many documents as pages of the package: the others are notes of one line, as the text is what embedding costs."""
APP = """
from mainspring import App

app = App("shelf")
library = app.index(app.documents("manuals/", include=["*.html", "*.txt"], called="manuals"))
"""
QUESTIONS = {
    "How do I create an operator family?": "sql-createopfamily.html",
    "Which statement removes a text search dictionary?": "sql-droptsdictionary.html",
    "How are large objects used in a program?": "largeobjects.html",
    "What does the sql_sizing view of the information schema hold?": "infoschema-sql-sizing.html",
}


def apt(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The package's smallest pages, and those that answer, so that embedding them takes seconds."""
    folder = tmp_path_factory.mktemp("package")
    if shutil.which("apt-get") is None:
        pytest.skip("Debian packages come by apt-get")
    download = ["apt-get", "download", PACKAGE]
    if apt(folder, *download).returncode:  # no lists yet
        apt(folder, "apt-get", "update", "-qq")
        if (done := apt(folder, *download)).returncode:
            pytest.skip(f"apt-get download {PACKAGE}: {done.stderr.strip()}")
    (package,) = folder.glob("*.deb")
    apt(folder, "dpkg", "-x", str(package), "there").check_returncode()
    found = sorted((folder / "there").rglob("*.html"), key=lambda path: (path.stat().st_size, path.name))
    assert len(found) > 1_000
    answering = [page for page in found if page.name in QUESTIONS.values()]
    return [*answering, *(page for page in found if page not in answering)][:PAGES]


def test_over_500_documents_are_indexed_found_and_taken_out_again(pages: list[Path], tmp_path: Path) -> None:
    manuals = tmp_path / "manuals"
    manuals.mkdir()
    (tmp_path / "shelf.py").write_text(APP)
    (tmp_path / "mainspring.toml").write_text('app = "shelf:app"\n')
    for page in pages:
        shutil.copyfile(page, manuals / page.name)
    for number in range(DOCUMENTS - len(pages)):
        (manuals / f"note-{number}.html").write_text(f"<html><body><p>Note {number} of the shelf.</p></body></html>")
    with open(manuals / "huge.txt", "wb") as huge:
        huge.truncate(200 << 20)
    mainspring("apply", cwd=tmp_path)
    shown = json.loads(mainspring("show", "index/library", "--json", cwd=tmp_path).stdout)["index"]
    assert shown["documents"] == DOCUMENTS
    assert list(shown["quarantined"]) == ["manuals/huge.txt"]
    assert "209,715,200 bytes" in shown["quarantined"]["manuals/huge.txt"]
    assert shown["versions"][0]["rows"] > 4 * PAGES
    with open_project(tmp_path, state=tmp_path / ".mainspring") as project:
        for question, page in QUESTIONS.items():
            assert page in {hit.uri for hit in project.search("library", question, k=3).hits}, question
    for page in QUESTIONS.values():
        (manuals / page).unlink()
    mainspring("apply", cwd=tmp_path)
    with open_project(tmp_path, state=tmp_path / ".mainspring") as project:
        for question, page in QUESTIONS.items():
            assert page not in {hit.uri for hit in project.search("library", question, k=20).hits}
