"""Listing a folder of documents, and what has changed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from mainspring.errors import DataError
from mainspring.rag.listing import Found, difference, list_folder, matches
from mainspring.testing.manifest import document

BOOK = {"a.md": "A", "b/c.md": "C", "b/d/e.txt": "E", ".hidden": "x", "b/.git/x.md": "x", "draft.md~": "x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in BOOK.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "docs"


def listed(folder: Path, include=("**/*",), exclude=(), known=0) -> set[str]:
    return set(list_folder(folder, include, exclude, name="manuals", known=known))


def test_hidden_files_are_left_out(folder: Path) -> None:
    assert listed(folder) == {"a.md", "b/c.md", "b/d/e.txt"}


def test_globs_choose(folder: Path) -> None:
    assert listed(folder, ["*.md"]) == {"a.md"}
    assert listed(folder, ["**/*.md"]) == {"a.md", "b/c.md"}
    assert listed(folder, ["b/**"]) == {"b/c.md", "b/d/e.txt"}
    assert listed(folder, ["**/*.md", "**/*.txt"], ["b/*"]) == {"a.md", "b/d/e.txt"}
    assert listed(folder, ["?.md"]) == {"a.md"}
    assert matches("x[1].md", "x[1].md")
    assert not matches("*.md", "b/c.md")


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "docs-2").mkdir()
    (tmp_path / "docs-2" / "x.md").write_text("x")
    os.symlink(tmp_path / "secret.md", folder / "s.md")
    os.symlink(tmp_path / "docs-2" / "x.md", folder / "t.md")
    os.symlink(tmp_path, folder / "up")
    os.symlink(folder / "a.md", folder / "inside.md")
    assert listed(folder) == {"a.md", "b/c.md", "b/d/e.txt", "inside.md"}


def test_a_listing_that_may_be_half_is_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        listed(tmp_path / "nowhere")
    assert caught.value.code == "MS-2410"
    os.symlink(folder / "b" / "loop.md", folder / "b" / "loop.md")  # its state cannot be read
    assert listed(folder) == {"a.md", "b/c.md", "b/d/e.txt"}


def test_a_folder_that_breaks_while_it_is_read_deletes_nothing(folder: Path, monkeypatch) -> None:
    real = os.scandir

    def broken(path):
        if str(path).endswith("d/"):
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(DataError) as caught:
        listed(folder)
    assert (caught.value.code, "Input/output error" in caught.value.why) == ("MS-2410", True)


def test_what_vanishes_while_the_folder_is_listed_is_gone(folder: Path, monkeypatch) -> None:
    real = os.scandir

    class Entry:
        """An entry whose file is deleted as soon as its name is known."""

        def __init__(self, entry) -> None:
            self._entry, self.name, self.path = entry, entry.name, entry.path

        def is_dir(self, **how) -> bool:
            return self._entry.is_dir(**how)

        def is_symlink(self) -> bool:
            return False

        def is_file(self) -> bool:
            found = self._entry.is_file()
            os.remove(self.path)
            return found

        def stat(self):
            return os.stat(self.path)

    @contextlib.contextmanager
    def vanishing(path):
        with real(path) as entries:
            yield [Entry(entry) if entry.name == "c.md" else entry for entry in entries]
        if path == os.path.join(folder, "b/"):
            shutil.rmtree(folder / "b" / "d")

    monkeypatch.setattr(os, "scandir", vanishing)
    assert listed(folder) == {"a.md"}


def test_a_folder_that_is_suddenly_empty_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    assert listed(tmp_path / "docs") == set()
    with pytest.raises(DataError) as caught:
        listed(tmp_path / "docs", known=3)
    assert (caught.value.code, "3 documents" in caught.value.what) == ("MS-2411", True)


def test_what_differs() -> None:
    long_ago = 1_600_000_000_000_000_000
    at = (long_ago + 10_000_000_000) // 1000
    rows = [
        document(n, uri=uri, size=1, mtime_ns=long_ago, synced_us=at)
        for n, uri in enumerate(["same", "size", "time", "gone"])
    ] + [document(9, uri="racy", size=1, mtime_ns=at * 1000 - 1_000_000_000, synced_us=at)]
    found = {
        "same": Found("same", 1, long_ago),
        "size": Found("size", 2, long_ago),
        "time": Found("time", 1, long_ago + 1),
        "racy": Found("racy", 1, at * 1000 - 1_000_000_000),
        "new": Found("new", 1, long_ago),
    }
    found_difference = difference(rows, found)
    assert [row.uri for _, row in found_difference.same] == ["same"]
    assert [row.uri for row in found_difference.gone] == ["gone"]
    assert [(item.uri, row and row.uri) for item, row in found_difference.look] == [
        ("size", "size"),
        ("time", "time"),
        ("racy", "racy"),
        ("new", None),
    ]
