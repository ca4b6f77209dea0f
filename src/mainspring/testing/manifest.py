"""The contract of the manifest port; an adapter's author subclasses it and gives the fixture ``manifest``."""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec
import pytest

from mainspring.ports.manifest import ChunkRow, DocumentRow, IndexVersion, Manifest, Member, MemberChunks
from mainspring.testing.atonce import together

__all__ = ["ManifestContract"]


def document(number: int, **changes: object) -> DocumentRow:
    """A document row."""
    row = DocumentRow(
        document_id=f"{number:032x}",
        source="manuals",
        uri=f"folder/{number}.md",
        size=100 + number,
        mtime_ns=1_700_000_000_000_000_000 + number,
        etag="",
        content_hash=f"{number:040x}",
        document_version=1,
        parse_key="markdown 1",
        parsed=f"{number:040x}",
        title=f"Chapter {number} — größer",
        status="ok",
        error="",
        principals=("public",),
        tenant="",
        trust="data",
        metadata={"lang": "en"},
        synced_us=1_700_000_000_000_000,
    )
    return msgspec.structs.replace(row, **changes)


def member(number: int, chunks: int, document_version: int = 1) -> MemberChunks:
    """A member with that many chunks."""
    rows = tuple(
        ChunkRow(
            chunk_id=f"{number * 1000 + place:032x}",
            ordinal=place,
            path=("Heading", f"§ {place}"),
            start=place * 10,
            end=place * 10 + 9,
            page_first=None if place % 2 else 1,
            page_last=None if place % 2 else 2,
            text_hash=f"{number * 1000 + place:040x}",
            tokens=7,
        )
        for place in range(chunks)
    )
    return MemberChunks(Member(f"{number:032x}", document_version, f"{number:040x}", "key", chunks), rows)


def version(number: int, **changes: object) -> IndexVersion:
    """An index version."""
    made = IndexVersion("library", number, "building", f"hash{number}", {"tokens": 256}, "minilm", 384, 0, {}, number)
    return msgspec.structs.replace(made, **changes)


class ManifestContract:
    """What every manifest does."""

    @pytest.fixture
    def reopen(self) -> Callable[[], Manifest]:
        """Opens the same manifest again, as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def manifest(self, reopen: Callable[[], Manifest]) -> Manifest:
        """An empty manifest."""
        return reopen()

    def test_documents_come_back_as_they_were(self, manifest: Manifest, reopen: Callable[[], Manifest]) -> None:
        """All fields survive, in order of source and uri, for each index apart; those that are gone do not show."""
        rows = [document(2, metadata={"ä": "ö"}), document(1, principals=("group:a", "user:b"), status="quarantined")]
        manifest.put_documents("library", rows)
        manifest.put_documents("other", [document(9)])
        assert reopen().documents("library") == [rows[1], rows[0]]
        manifest.put_documents("library", [document(2, status="gone"), document(1, title="New")])
        assert [row.title for row in reopen().documents("library")] == ["New"]
        assert manifest.document("library", rows[1].document_id) == document(1, title="New")
        assert manifest.document("library", rows[0].document_id) is None
        assert [row.document_id for row in manifest.documents("other")] == [document(9).document_id]

    def test_members_replace_all_chunks(self, manifest: Manifest, reopen: Callable[[], Manifest]) -> None:
        """A document's chunks in a version are those that were written last."""
        manifest.put_members("library", 1, [member(1, 3), member(2, 700)])
        manifest.put_members("library", 2, [member(1, 1)])
        assert reopen().chunks("library", 1) == {f"{n:032x}": list(member(n, c).chunks) for n, c in ((1, 3), (2, 700))}
        manifest.put_members("library", 1, [member(1, 2, document_version=2)])
        one = f"{1:032x}"
        assert manifest.chunks("library", 1, [one, "unknown"]) == {one: list(member(1, 2).chunks)}
        assert manifest.members("library", 1)[one].document_version == 2
        assert manifest.members("library", 2)[one].document_version == 1
        assert manifest.chunks("library", 1, []) == {}

    def test_a_content_is_found_while_a_version_has_it(self, manifest: Manifest) -> None:
        """The older content of a document is there as long as a version holds it."""
        manifest.put_members("library", 1, [member(1, 1)])
        manifest.put_members("library", 2, [member(1, 1, document_version=2)])
        one = f"{1:032x}"
        assert manifest.member("library", one, 1) == member(1, 1).member
        assert manifest.member("library", one, 2) == member(1, 1, document_version=2).member
        assert manifest.member("library", one, 3) is None
        assert manifest.member("other", one, 1) is None
        manifest.drop_version("library", 1)
        assert manifest.member("library", one, 1) is None

    def test_dropping_members(self, manifest: Manifest) -> None:
        """Dropped ones are gone with their chunks; unknown ones are no error."""
        manifest.put_members("library", 1, [member(1, 3), member(2, 2)])
        manifest.drop_members("library", 1, [f"{1:032x}", "unknown"])
        assert set(manifest.members("library", 1)) == {f"{2:032x}"}
        assert set(manifest.chunks("library", 1)) == {f"{2:032x}"}

    def test_vectors_are_kept_by_text_and_embedder(self, manifest: Manifest) -> None:
        """What one embedder made of a text is not another's; the longest unused go first."""
        manifest.put_vectors("minilm", {f"t{n}": bytes([n % 256]) * 8 for n in range(600)}, used_us=1)
        manifest.put_vectors("other", {"t1": b"x" * 8}, used_us=2)
        kept = {f"t{n}": bytes([n % 256]) * 8 for n in range(600)}
        assert manifest.vectors("minilm", [f"t{n}" for n in range(700)]) == kept
        assert manifest.vectors("other", ["t1", "t2"]) == {"t1": b"x" * 8}
        assert manifest.trim_vectors(1) == 600
        assert manifest.vectors("other", ["t1"]) == {"t1": b"x" * 8}
        assert manifest.trim_vectors(5) == 0

    def test_versions_change_by_compare_and_swap(self, manifest: Manifest, reopen: Callable[[], Manifest]) -> None:
        """One of two that move a version from the same state does; a number is given once."""
        assert manifest.add_version(version(1))
        assert not reopen().add_version(version(1, spec_hash="other"))
        done = version(1, state="live", rows=5, scores={"ndcg@10": 0.5}, live_us=9, writing=True)
        assert manifest.change_version(done, "building")
        assert not reopen().change_version(version(1, state="failed"), "building")
        assert manifest.add_version(version(2))
        assert reopen().versions("library") == [version(2), done]
        manifest.drop_version("library", 2)
        assert manifest.versions("library") == [done]
        assert manifest.versions("other") == []

    def test_the_alias_moves_by_compare_and_swap_and_is_kept(self, manifest: Manifest) -> None:
        """The moves are a history; who does not know the newest does not move it."""
        assert manifest.live("library") is None
        assert manifest.set_live("library", 1, was=None, by="apply", at_us=1, reason="first")
        assert not manifest.set_live("library", 2, was=None, by="apply", at_us=2, reason="late")
        assert manifest.set_live("library", 2, was=1, by="apply", at_us=3, reason="new embedder")
        assert manifest.set_live("library", 1, was=2, by="ada", at_us=4, reason="rollback")
        assert manifest.live("library") == 1
        assert [(m.version, m.by, m.at_us, m.reason) for m in manifest.moves("library")] == [
            (1, "ada", 4, "rollback"),
            (2, "apply", 3, "new embedder"),
            (1, "apply", 1, "first"),
        ]
        assert manifest.live("other") is None

    def test_one_of_many_at_once_moves_the_alias(self, manifest: Manifest, reopen: Callable[[], Manifest]) -> None:
        """Of eight that set it from nothing, one does."""
        won: list[int] = []

        def move(number: int, store: Manifest) -> None:
            if store.set_live("library", number, was=None, by="x", at_us=1, reason=""):
                won.append(number)

        together([functools.partial(move, number, reopen()) for number in range(8)])
        assert [manifest.live("library")] == won
