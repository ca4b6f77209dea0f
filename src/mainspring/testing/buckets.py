"""The contract of object stores that sources are in: derive from `BucketContract` and give it your store to fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.errors import DataError, MainspringError
from mainspring.lazy import lazy
from mainspring.ports.source import Bucket

if TYPE_CHECKING:
    import pytest
else:
    pytest = lazy("pytest")

__all__ = ["BucketContract"]

Opening = Callable[[str], Bucket]


class BucketContract:
    """What every object store does.

    A subclass defines the fixtures ``opening``, a function that opens a path (``""`` is the whole bucket), ``filling``,
    a function that makes the bucket hold exactly these contents by path, ``missing``, a bucket that is not there, and
    ``unreachable``, one of a server that does not answer.
    """

    def _paths(self, bucket: Bucket) -> list[str]:
        return [file.path for file in bucket.files()]

    def test_it_is_the_port(self, opening: Opening, filling: Callable[[Mapping[str, bytes]], None]) -> None:
        """It has every method, and says something of itself."""
        filling({})
        assert isinstance(opening(""), Bucket)
        assert opening("").answers() == {"files": 0}
        assert opening("nothing/here").files() == []

    def test_what_a_path_stands_for(self, opening: Opening, filling: Callable[[Mapping[str, bytes]], None]) -> None:
        """A file, a folder at any depth, a glob; not what is hidden, and not what only begins alike."""
        paths = ["a/b/1.csv", "a/b/c d/2.csv", "a/b/_x/3.csv", "a/b/.y.csv", "a/bc.csv", "a/b.csv", "é#?.csv"]
        filling(dict.fromkeys(paths, b"x"))
        assert self._paths(opening("a/b")) == ["a/b/1.csv", "a/b/c d/2.csv"]
        assert self._paths(opening("a/b/")) == ["a/b/1.csv", "a/b/c d/2.csv"]
        assert self._paths(opening("a/b.csv")) == ["a/b.csv"]
        assert self._paths(opening("a/*.csv")) == ["a/b.csv", "a/bc.csv"]
        assert self._paths(opening("a/b*.csv")) == ["a/b.csv", "a/bc.csv"]
        assert self._paths(opening("a/**/[12].csv")) == ["a/b/1.csv", "a/b/c d/2.csv"]
        assert self._paths(opening("a/b/[!1]*/*.csv")) == ["a/b/_x/3.csv", "a/b/c d/2.csv"]
        assert "é#?.csv" in self._paths(opening(""))

    def test_many_files(self, opening: Opening, filling: Callable[[Mapping[str, bytes]], None]) -> None:
        """More than a page of them, sorted."""
        paths = [f"p/{number:05d}.csv" for number in range(1100)]
        filling(dict.fromkeys(paths, b"x"))
        assert self._paths(opening("p")) == paths

    def test_content_and_tags(
        self, opening: Opening, filling: Callable[[Mapping[str, bytes]], None], tmp_path: Path
    ) -> None:
        """Bytes are as they were; a tag stays while the content does, and changes with it."""
        big = bytes(range(256)) * 80_000
        filling({"big.csv": big, "empty.csv": b""})
        first = opening("").files()
        for file, content in zip(first, (big, b""), strict=True):
            assert file.size == len(content)
            opening("").fetch(file, tmp_path / "local")
            assert (tmp_path / "local").read_bytes() == content
        assert opening("").files() == first
        filling({"big.csv": big[::-1], "empty.csv": b""})
        second = opening("").files()
        assert (second[0].tag != first[0].tag, second[0].size) == (True, first[0].size)

    def test_a_file_that_changed_or_went_meanwhile(
        self, opening: Opening, filling: Callable[[Mapping[str, bytes]], None], tmp_path: Path
    ) -> None:
        """Another version than the one that was listed is not read."""
        filling({"a.csv": b"one"})
        (file,) = opening("").files()
        filling({"a.csv": b"two"})
        with pytest.raises(DataError) as caught:
            opening("").fetch(file, tmp_path / "local")
        assert caught.value.code == "MS-2152"
        filling({})
        with pytest.raises(DataError) as caught:
            opening("").fetch(file, tmp_path / "local")
        assert caught.value.code in ("MS-2112", "MS-2152"), caught.value.code

    def test_what_is_not_there(self, missing: Bucket, unreachable: Bucket) -> None:
        """A bucket, and a server."""
        for bucket, code in [(missing, "MS-2112"), (unreachable, "MS-4220")]:
            with pytest.raises(MainspringError) as caught:
                bucket.files()
            assert (caught.value.code, bool(caught.value.fix)) == (code, True), caught.value.lines()
            assert "secret-word" not in str(caught.value.as_dict())
