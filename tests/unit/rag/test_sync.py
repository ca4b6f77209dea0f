"""Syncing a folder: what is read, what is kept, what is deleted, what is put aside."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import msgspec
import pytest

from mainspring.adapters.localfs.objects import open_objects
from mainspring.adapters.localfs.settings import LocalSettings
from mainspring.adapters.sqlite.manifest import open_manifest
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.errors import DataError, StoreError, UserCodeError
from mainspring.ports.parser import Parsed, Refused
from mainspring.rag.sync import Folder, sync_documents


class Plain:
    """Reads text files; those that begin with ``broken`` cannot be read."""

    max_bytes = 10_000
    limits = "1 s"

    def __init__(self, id: str = "plain 1") -> None:
        self.id = id
        self.read: list[str] = []
        self.before = lambda path: None

    def reads(self, name: str, media_type: str = "") -> bool:
        return True

    def parse(self, document, name: str, media_type: str = "") -> Parsed | Refused:
        self.read.append(name)
        self.before(document)
        try:
            text = document.read_text()
        except OSError as error:  # as the port has it
            raise StoreError("cannot be read", code="MS-4261", why=error.strerror) from error
        return Refused("corrupt", "it says so") if text.startswith("broken") else Parsed(text, metadata={"n": name[:1]})

    def close(self) -> None:
        pass


class Shelf:
    """An index's documents under a folder."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "docs"
        self.folder.mkdir()
        self.state = place / "state"
        self.manifest = open_manifest(SqliteSettings(), self.state)
        self.objects = open_objects(LocalSettings(), self.state)
        self.parser = Plain()
        self.clock = 2_000_000_000_000_000  # long after the files, so that their times are settled

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / f"{name}.md").write_text(text)

    def sync(self, **options):
        self.parser.read.clear()
        self.clock += 10_000_000
        return sync_documents(
            "library",
            [Folder("manuals", self.folder, **options)],
            self.manifest,
            self.objects,
            self.parser,
            now=lambda: self.clock,
        )

    def rows(self):
        return {row.uri: row for row in self.manifest.documents("library")}

    def text(self, uri: str) -> str:
        return msgspec.json.decode(self.objects.get(self.rows()[uri].parsed), type=Parsed).text


@pytest.fixture
def shelf(tmp_path: Path):
    made = Shelf(tmp_path)
    yield made
    made.manifest.close()


def test_only_what_changed_is_read(shelf: Shelf) -> None:
    shelf.write(a="# Alpha\ntext", b="# Beta\ntext", c="plain")
    found = shelf.sync()
    assert (found.documents, found.added, sorted(shelf.parser.read)) == (3, 3, ["a.md", "b.md", "c.md"])
    assert {uri: row.title for uri, row in shelf.rows().items()} == {"a.md": "Alpha", "b.md": "Beta", "c.md": "c"}
    again = shelf.sync()
    assert (str(again), shelf.parser.read) == ("3 documents", [])
    shelf.write(b="# Beta\nother")
    third = shelf.sync()
    assert (str(third), shelf.parser.read) == ("3 documents, 1 changed", ["b.md"])
    assert (shelf.rows()["b.md"].document_version, shelf.rows()["a.md"].document_version) == (2, 1)
    assert shelf.text("b.md") == "# Beta\nother"


def test_a_file_that_is_touched_is_hashed_and_not_parsed(shelf: Shelf) -> None:
    shelf.write(a="text")
    shelf.sync()
    os.utime(shelf.folder / "a.md", ns=(1, 1))
    found = shelf.sync()
    assert (str(found), shelf.parser.read) == ("1 documents", [])
    assert shelf.rows()["a.md"].mtime_ns == 1
    assert shelf.rows()["a.md"].document_version == 1


def test_a_move_keeps_the_document(shelf: Shelf) -> None:
    shelf.write(a="one", b="two")
    shelf.sync()
    before = shelf.rows()["a.md"]
    os.rename(shelf.folder / "a.md", shelf.folder / "z.md")
    found = shelf.sync()
    assert (str(found), shelf.parser.read) == ("2 documents, 1 moved", [])
    after = shelf.rows()["z.md"]
    assert (after.document_id, after.document_version, after.title) == (before.document_id, 1, "z")
    shelf.write(a="new at the old place")
    shelf.sync()
    assert len({row.document_id for row in shelf.rows().values()}) == 3


def test_of_two_alike_that_vanish_one_moves_and_one_goes(shelf: Shelf) -> None:
    shelf.write(a="same", b="same", c="other")
    shelf.sync()
    os.remove(shelf.folder / "a.md")
    os.rename(shelf.folder / "b.md", shelf.folder / "d.md")
    assert str(shelf.sync()) == "2 documents, 1 moved, 1 deleted"
    assert set(shelf.rows()) == {"c.md", "d.md"}


def test_delete_and_add_again(shelf: Shelf) -> None:
    shelf.write(a="one", b="two")
    shelf.sync()
    os.remove(shelf.folder / "a.md")
    assert str(shelf.sync()) == "1 documents, 1 deleted"
    shelf.write(a="one")
    assert str(shelf.sync()) == "2 documents, 1 added"
    assert shelf.text("a.md") == "one"


def test_what_cannot_be_read_is_put_aside_and_its_last_good_text_stays(shelf: Shelf) -> None:
    shelf.write(a="good", b="two")
    shelf.sync()
    shelf.write(a="broken now", c="broken from the start")
    found = shelf.sync()
    assert found.quarantined == {"manuals/a.md": "corrupt: it says so", "manuals/c.md": "corrupt: it says so"}
    assert found.documents == 2
    assert (shelf.text("a.md"), shelf.rows()["a.md"].document_version) == ("good", 1)
    assert shelf.rows()["c.md"].parsed == ""
    again = shelf.sync()
    assert (again.quarantined, shelf.parser.read) == (found.quarantined, [])
    shelf.write(a="good again")
    assert set(shelf.sync().quarantined) == {"manuals/c.md"}
    assert (shelf.text("a.md"), shelf.rows()["a.md"].document_version) == ("good again", 2)


def test_a_character_that_postgres_stores_nowhere_is_replaced_and_no_offset_moves(shelf: Shelf) -> None:
    shelf.write(a="# Al\0pha\none\0two")
    shelf.sync()
    assert shelf.text("a.md") == "# Al\ufffdpha\none\ufffdtwo"
    assert shelf.rows()["a.md"].title == "Al\ufffdpha"


def test_a_file_that_is_too_large_is_not_read(shelf: Shelf) -> None:
    shelf.write(a="x" * 2000)
    found = shelf.sync(max_bytes=1000)
    assert found.quarantined == {"manuals/a.md": "too large: 2,000 bytes, at most 1,000 are read"}
    assert shelf.parser.read == []


def test_what_was_refused_by_a_limit_is_read_when_the_limit_is_another(shelf: Shelf) -> None:
    shelf.write(a="x" * 2000, b="broken, it took too long", c="good")
    shelf.sync(max_bytes=1000)
    assert str(shelf.sync(max_bytes=3000)) == "2 documents, 1 changed, 1 put aside"
    assert shelf.text("a.md") == "x" * 2000
    shelf.parser.limits = "2 s"
    shelf.sync(max_bytes=3000)
    assert shelf.parser.read == ["b.md"]
    shelf.sync(max_bytes=3000)
    assert shelf.parser.read == []


def test_a_file_that_may_be_read_again_is_although_nothing_of_it_has_changed(shelf: Shelf, monkeypatch) -> None:
    shelf.write(a="one", b="two")
    locked, real = {"b.md"}, open

    def opened(path, *options, **more):
        if Path(str(path)).name in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *options, **more)

    monkeypatch.setattr("builtins.open", opened)
    for _ in range(2):
        assert shelf.sync().quarantined == {"manuals/b.md": "unreadable: Permission denied"}
    locked.clear()
    assert str(shelf.sync()) == "2 documents, 1 changed"
    assert shelf.text("b.md") == "two"
    locked.add("b.md")
    os.utime(shelf.folder / "b.md", ns=(1, 1))
    found = shelf.sync()
    assert (found.documents, set(found.quarantined), shelf.text("b.md")) == (2, {"manuals/b.md"}, "two")


@pytest.mark.parametrize("act", [os.remove, lambda path: path.unlink() or path.symlink_to(path)])
def test_a_file_that_vanishes_while_it_is_read_holds_nothing_up(shelf: Shelf, act) -> None:
    shelf.write(a="one", b="two", c="three")
    shelf.parser.before = lambda path: act(path) if path.name == "b.md" else None
    shelf.sync()
    assert (shelf.text("a.md"), shelf.text("c.md")) == ("one", "three")
    shelf.parser.before = lambda path: None
    assert str(shelf.sync()).startswith("2 documents")
    assert set(shelf.rows()) == {"a.md", "c.md"}


def test_a_file_that_is_caught_half_written_is_read_again_although_its_content_is_as_before(shelf: Shelf) -> None:
    shelf.write(otter="the whole text")
    shelf.parser.before = lambda path: path.write_text("the wh")
    shelf.sync()
    assert shelf.text("otter.md") == "the wh"
    shelf.parser.before = lambda path: None
    shelf.write(otter="the whole text")
    shelf.sync()
    assert (shelf.text("otter.md"), shelf.parser.read) == ("the whole text", ["otter.md"])
    shelf.sync()
    assert shelf.parser.read == []


def test_a_file_that_goes_on_growing_is_read_at_each_sync_until_it_stops(shelf: Shelf) -> None:
    def grow(path: Path) -> None:
        with path.open("a") as file:
            file.write("more\n")

    shelf.write(log="begun\n")
    shelf.parser.before = grow
    for lines in (2, 3):
        assert shelf.sync().documents == 1
        assert len(shelf.text("log.md").splitlines()) == lines
    shelf.parser.before = lambda path: None
    shelf.sync()
    assert shelf.sync().quarantined == {}
    assert shelf.parser.read == []


def test_a_file_whose_name_is_no_utf_8_is_a_document_like_any_other(shelf: Shelf) -> None:
    name = os.fsdecode(b"gr\xf6\xdfe.md")
    (shelf.folder / name).write_text("one")
    assert str(shelf.sync()) == "1 documents, 1 added"
    assert (set(shelf.rows()), shelf.text("gr\\xf6\\xdfe.md")) == ({"gr\\xf6\\xdfe.md"}, "one")
    shelf.parser = Plain("plain 2")
    assert str(shelf.sync()) == "1 documents"
    assert shelf.parser.read == ["gr\\xf6\\xdfe.md"]
    os.rename(shelf.folder / name, shelf.folder / "größe.md")
    assert str(shelf.sync()) == "1 documents, 1 moved"


def test_another_parser_reads_all_again_and_equal_texts_stay(shelf: Shelf) -> None:
    shelf.write(a="one", b="broken")
    shelf.sync()
    shelf.parser = Plain("plain 2")
    found = shelf.sync()
    assert sorted(shelf.parser.read) == ["a.md", "b.md"]
    assert (str(found), shelf.rows()["a.md"].document_version) == ("1 documents, 1 put aside", 1)


def test_a_folder_that_vanishes_deletes_nothing(shelf: Shelf) -> None:
    shelf.write(a="one", b="two")
    shelf.sync()
    shutil.move(shelf.folder, shelf.folder.with_name("unmounted"))
    for code in ("MS-2410", "MS-2411"):
        with pytest.raises(DataError) as caught:
            shelf.sync()
        assert caught.value.code == code
        assert set(shelf.rows()) == {"a.md", "b.md"}
        shelf.folder.mkdir(exist_ok=True)
    assert str(shelf.sync(may_be_empty=True)) == "0 documents, 2 deleted"


def test_who_may_see_a_document_is_asked_each_time(shelf: Shelf) -> None:
    shelf.write(a="one", b="two")
    shelf.sync(access=lambda path, metadata: ["group:staff"] if path == "a.md" else [])
    assert {uri: row.principals for uri, row in shelf.rows().items()} == {"a.md": ("group:staff",), "b.md": ()}
    shelf.sync(access=("user:ada",))
    assert {row.principals for row in shelf.rows().values()} == {("user:ada",)}
    assert shelf.parser.read == []
    with pytest.raises(UserCodeError) as caught:
        shelf.sync(access=lambda path, metadata: 1 / 0)
    assert caught.value.code == "MS-2420"
    assert {row.principals for row in shelf.rows().values()} == {("user:ada",)}


def test_documents_of_a_folder_that_is_no_more_declared_go(shelf: Shelf) -> None:
    shelf.write(a="one")
    shelf.sync()
    found = sync_documents("library", [], shelf.manifest, shelf.objects, shelf.parser, now=lambda: 1)
    assert (found.deleted, shelf.rows()) == (1, {})


@pytest.mark.parametrize("seed", range(8))
def test_any_history_ends_as_if_synced_once(tmp_path: Path, seed: int) -> None:
    """Random edits, moves and deletes with syncs between: the texts are those of the folder."""
    rng = random.Random(seed)
    shelf = Shelf(tmp_path)
    for step in range(60):
        name = shelf.folder / f"{rng.choice('abcdef')}.md"
        act = rng.random()
        if act < 0.5:
            name.write_text(rng.choice(["one", "two", "three", f"own {step}", "broken"]))
        elif name.exists() and act < 0.7:
            name.unlink()
        elif name.exists():
            os.rename(name, shelf.folder / f"{rng.choice('abcdef')}.md")
        if rng.random() < 0.4:
            shelf.sync(may_be_empty=True)
    shelf.sync(may_be_empty=True)
    there = {path.name: path.read_text() for path in shelf.folder.iterdir()}
    rows = shelf.rows()
    assert set(rows) == set(there)
    assert {uri: shelf.text(uri) for uri, row in rows.items() if row.status == "ok"} == {
        uri: text for uri, text in there.items() if text != "broken"
    }
    shelf.manifest.close()
