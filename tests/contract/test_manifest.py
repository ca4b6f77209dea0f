"""Every manifest, against the one contract; then what SQLite alone promises."""

from __future__ import annotations

import os
import signal

import pytest

from mainspring.adapters.sqlite.manifest import open_manifest
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.errors import StoreError
from mainspring.testing.atonce import fork
from mainspring.testing.manifest import ManifestContract, document, member


class TestSqlite(ManifestContract):
    """The embedded manifest."""

    @pytest.fixture
    def reopen(self, tmp_path):
        opened = []

        def open_one():
            opened.append(open_manifest(SqliteSettings(), tmp_path))
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()


def test_what_was_written_survives_a_kill(tmp_path):
    for number in range(3):
        child = fork()
        if child == 0:
            mine = open_manifest(SqliteSettings(), tmp_path)
            mine.put_documents("library", [document(number)])
            mine.put_members("library", 1, [member(number, 2)])
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    found = open_manifest(SqliteSettings(), tmp_path)
    assert found.documents("library") == [document(number) for number in range(3)]
    assert found.chunks("library", 1) == {f"{n:032x}": list(member(n, 2).chunks) for n in range(3)}
    found.close()


def test_a_foreign_file_is_left_alone(tmp_path):
    (tmp_path / "indexes").mkdir()
    (tmp_path / "indexes" / "manifest.db").write_bytes(b"no database at all, but more than a page of text " * 200)
    with pytest.raises(StoreError) as caught:
        open_manifest(SqliteSettings(), tmp_path)
    assert caught.value.fix
