"""Kept results: the cache rows whose blobs are still there."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.engine.runs.ledger import result_of
from mainspring.engine.values import FILE, FOLDER, MANIFEST, read_folder, read_manifest
from mainspring.engine.wire import StoredResult
from mainspring.ports.catalog import CacheRow, Catalog
from mainspring.ports.objects import Objects

__all__ = ["KeptResults"]


class KeptResults:
    """What earlier runs have left.

    Args:
        catalog: where cache rows are.
        objects: where their blobs are.
    """

    def __init__(self, catalog: Catalog, objects: Objects) -> None:
        self._catalog = catalog
        self._objects = objects

    def one(self, key: str) -> StoredResult | None:
        """The kept result of a key, or None."""
        return self.many([key]).get(key)

    def many(self, keys: Sequence[str]) -> dict[str, StoredResult]:
        """The kept results of keys; gc leaves them alone for another day. Rows whose blobs are gone are forgotten."""
        found = {key: result_of(row) for key, row in self._rows(keys).items()}
        whole = {key: result for key, result in found.items() if self._is_whole(result)}
        if len(whole) < len(found):
            self._catalog.forget([key for key in found if key not in whole])
        return whole

    def there(self, key: str) -> StoredResult | None:
        """The kept result of a key, only looked at: nothing is forgotten, and gc does not hear of it."""
        row = self._rows([key]).get(key) if key else None
        result = None if row is None else result_of(row)
        return result if result is not None and self._present(result) else None

    def forget(self, key: str) -> None:
        """Keep the result of a key no longer."""
        self._catalog.forget([key])

    def _rows(self, keys: Sequence[str]) -> dict[str, CacheRow]:
        return self._catalog.cached(keys) if keys else {}

    def _is_whole(self, result: StoredResult) -> bool:
        digests = self._present(result)
        self._objects.touch(digests)
        return bool(digests)

    def _present(self, result: StoredResult) -> list[str]:
        """The blobs that a result consists of; empty when one of them is gone."""
        digests = self._blobs(result)
        return digests if len(self._objects.has(digests)) == len(set(digests)) else []

    def _blobs(self, result: StoredResult) -> list[str]:
        """The blobs that a result consists of; empty when its list is not there."""
        if result.kind not in (MANIFEST, FOLDER):
            return [result.digest]
        if not self._objects.has([result.digest]):
            return []
        if result.kind == FOLDER:
            return [result.digest, *(entry.digest for entry in read_folder(result, self._objects))]
        parts = (self._blobs(one) for one in read_manifest(result, self._objects))
        return [result.digest, *(digest for part in parts for digest in part)]

    def with_meta(self, result: StoredResult) -> StoredResult:
        """A result with the names of its files, which a cache row does not hold."""
        if result.meta or result.kind not in (FILE, FOLDER):
            return result
        return self.bare([result])[0]

    def bare(self, results: Sequence[StoredResult]) -> list[StoredResult]:
        """Results with no notes but the catalog's of files, so that a list of them does not tell runs from hits."""
        files = [result.digest for result in results if result.kind in (FILE, FOLDER)]
        known = self._catalog.artifacts(files) if files else {}
        return [
            StoredResult(one.digest, one.kind, one.size, meta=known[one.digest].meta if one.digest in known else {})
            for one in results
        ]
