"""The baseline: what a model's reference data looked like, block by block, as one artifact beside the model."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.monitoring.stats.columns import FeatureKind
from mainspring.monitoring.stats.layout import Layout, Rules
from mainspring.monitoring.stats.state import BlockState

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Apart", "Baseline", "FeatureBaseline", "Feed", "Segment", "layout_digest"]

_MAGIC = b"MSBL"
_VERSION = 1


class FeatureBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """The reference of one feature.

    Args:
        name: the feature's column.
        kind: number, category, hash or text.
        layout_digest: identifies the cells below.
        edges: fine edges, little-endian float64.
        coarse: positions of the coarse edges in the fine ones, little-endian u2.
        fine: reference values per fine cell.
        low: 0.1 % quantile.
        high: 99.9 % quantile.
        vmin: least value; +inf when there is none.
        vmax: greatest value; -inf when there is none.
        sd: standard deviation of the values clipped to [low, high]; 0 turns location off.
        known: hashes of known categories, sorted, little-endian u8.
        common: hashes of the commonest categories, commonest first, little-endian u8.
        names: the commonest categories as text, for reports.
        rules: ge, le, allowed hashes sorted, pattern.
        blocks: the `BlockState` of each block as bytes, without fine counts.
        novel: rows of each block that no other block could have foretold: outside the range of the others' numbers,
            or of a category that is in none of them.
        novel_rest: those of them that lie in the cell of uncommon categories.
    """

    name: str
    kind: FeatureKind
    layout_digest: str
    edges: bytes = b""
    coarse: bytes = b""
    fine: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0
    vmin: float = math.inf
    vmax: float = -math.inf
    sd: float = 0.0
    known: bytes = b""
    common: bytes = b""
    names: tuple[str, ...] = ()
    rules: tuple[float | None, float | None, tuple[int, ...], str | None] = (None, None, (), None)
    blocks: tuple[bytes, ...] = ()
    novel: tuple[int, ...] = ()
    novel_rest: tuple[int, ...] = ()

    def layout(self) -> Layout:
        """The cells, ready to count on."""
        ge, le, allowed, pattern = self.rules
        return Layout(
            digest=self.layout_digest,
            kind=self.kind,
            edges=np.frombuffer(self.edges, "<f8"),
            coarse=np.frombuffer(self.coarse, "<u2").astype(np.int64),
            low=self.low,
            high=self.high,
            vmin=self.vmin,
            vmax=self.vmax,
            known=np.frombuffer(self.known, "<u8"),
            common=np.frombuffer(self.common, "<u8"),
            rules=Rules(ge, le, frozenset(allowed), pattern),
        )

    def states(self) -> tuple[BlockState, ...]:
        """The state of each block, in the order of the baseline's `starts`."""
        return tuple(BlockState.from_bytes(data) for data in self.blocks)


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The reference of the rows that have one value in a column.

    Args:
        column: the column.
        value: its value as text; None for the rows without one.
        baseline: of these rows.
    """

    column: str
    value: str | None
    baseline: Baseline


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """How far the values of a column are watched apart.

    Args:
        column: the column.
        watched: how many values have a reference of their own.
        values: how many the reference has, null among them.
        rows_left: reference rows of the values that are not watched apart.
    """

    column: str
    watched: int
    values: int
    rows_left: int


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """The reference of a source behind the features.

    Args:
        source: its name.
        starts: start of each block that has rows, and of the reference's last one, microseconds since 1970 UTC, rising.
        rows: rows of each of them.
        silence_us: how long it may bring nothing, in microseconds; 0 when that is not known.
    """

    source: str
    starts: tuple[int, ...]
    rows: tuple[int, ...]
    silence_us: int


class Baseline(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reference of a monitor: nonempty blocks in order of time, and each feature over them.

    Args:
        block_us: length of a block in microseconds.
        starts: start of each nonempty block, microseconds since 1970 UTC, rising.
        rows: rows of each block.
        features: the reference of each feature.
        segments: the references of rows apart, by column and value.
        apart: how far each column's values are watched apart.
        horizon_us: how long it takes until 99 % of the labels are known, in microseconds.
        feeds: the sources behind the features.
    """

    block_us: int
    starts: tuple[int, ...]
    rows: tuple[int, ...]
    features: tuple[FeatureBaseline, ...]
    segments: tuple[Segment, ...] = ()
    apart: tuple[Apart, ...] = ()
    horizon_us: int = 0
    feeds: tuple[Feed, ...] = ()

    def __getitem__(self, name: str) -> FeatureBaseline:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)

    def to_bytes(self) -> bytes:
        """Canonical bytes: equal baselines give equal bytes, so the artifact's digest is its identity."""
        return _MAGIC + bytes([_VERSION]) + msgspec.msgpack.encode(self, order="deterministic")

    @staticmethod
    def from_bytes(data: bytes) -> Baseline:
        """The baseline of `to_bytes`.

        Raises:
            DataError: MS-2405, other or damaged bytes, or another version.
        """
        why = "these are not a baseline's bytes"
        if data[:4] == _MAGIC and data[4:5] != bytes([_VERSION]):
            why = f"it has version {data[4:5].hex() or 'none'}, this program reads {_VERSION}"
        elif data[:4] == _MAGIC:
            try:
                return msgspec.msgpack.decode(data[5:], type=Baseline)
            except (msgspec.DecodeError, ValueError) as fault:
                why = str(fault)
        raise DataError(
            "a monitoring baseline cannot be read",
            code="MS-2405",
            why=why,
            fix="register the monitor again from the model's training set",
        )


def layout_digest(*parts: bytes) -> str:
    """16 hex digits that identify a layout by everything that decides how values are counted."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
