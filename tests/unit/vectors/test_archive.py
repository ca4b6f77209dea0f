"""Folders in an archive: every byte, and every hole."""

import os
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.vectors.archive import allocated, copy_folder, pack, unpack

PIECES = st.lists(st.tuples(st.integers(0, 200_000), st.binary(max_size=9000)), max_size=4)


def written(path, pieces, size=0):
    with path.open("wb") as out:
        for at, content in pieces:
            out.seek(at)
            out.write(content)
        out.truncate(max(size, out.seek(0, os.SEEK_END)))
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(PIECES, max_size=3), st.integers(0, 300_000))
def test_it_comes_back_as_it_was(tmp_path_factory, files, size):
    place = tmp_path_factory.mktemp("archive")
    source = place / "source"
    (source / "kept" / "é nested").mkdir(parents=True)
    (source / "kept" / "empty").mkdir()
    contents = {
        f"kept/é nested/{n}": written(source / f"kept/é nested/{n}", pieces, size) for n, pieces in enumerate(files)
    }
    (source / "left out").write_bytes(b"x")
    pack(source, place / "archive", ("kept",))
    unpack(place / "archive", place / "target")
    found = {str(p.relative_to(place / "target")): p.read_bytes() for p in (place / "target").rglob("*") if p.is_file()}
    assert found == contents
    assert (place / "target/kept/empty").is_dir()
    copy_folder(source / "kept", place / "copy")
    for name, content in contents.items():
        assert (place / "copy" / name.removeprefix("kept/")).read_bytes() == content


def test_holes_take_no_room(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    written(source / "sparse", [(50_000_000, b"end")], 200_000_000)
    pack(source, tmp_path / "archive", ("sparse",))
    assert (tmp_path / "archive").stat().st_size < 100_000
    unpack(tmp_path / "archive", tmp_path / "target")
    copy_folder(source, tmp_path / "copy")
    for folder in ("source", "target", "copy"):
        assert (tmp_path / folder / "sparse").stat().st_size == 200_000_000
        assert allocated(tmp_path / folder) < 1_000_000
    with (tmp_path / "target" / "sparse").open("rb") as restored:
        restored.seek(50_000_000)
        assert restored.read(4) == b"end\0"


def test_tar_itself_reads_it(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    content = written(source / "sparse", [(0, b"begin"), (3_000_000, b"end" * 5000)], 9_000_000)
    pack(source, tmp_path / "archive", ("sparse",))
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "archive", "-C", tmp_path / "out"], check=True)
    assert (tmp_path / "out" / "sparse").read_bytes() == content


def test_an_archive_that_names_files_elsewhere(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as out:
        out.addfile(tarfile.TarInfo("../elsewhere"))
    with pytest.raises(tarfile.TarError):
        unpack(tmp_path / "archive", tmp_path / "target")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_never_written_over(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "archive").write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        pack(tmp_path / "source", tmp_path / "archive", ())
    assert (tmp_path / "archive").read_bytes() == b"kept"
