"""How results are kept: each kind of value has one canonical form, so that equal results have equal digests.

A kind may carry what is needed to restore the value after a slash: ``json/flights:Report``, ``frame/polars``. Digest
and kind together are the content of a result; names of files and counts of rows are only notes.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.engine.reference import annotations_of, dereference, reference
from mainspring.engine.wire import StoredResult
from mainspring.errors import MainspringError, StoreError, UserCodeError
from mainspring.lazy import lazy
from mainspring.ports.objects import Blob, BlobWriter, Objects

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa
else:
    np, pa, pl = lazy("numpy"), lazy("pyarrow"), lazy("polars")

__all__ = [
    "FILE",
    "FOLDER",
    "MANIFEST",
    "OPAQUE",
    "FolderEntry",
    "load",
    "read_folder",
    "read_manifest",
    "save",
    "save_manifest",
]

FRAME, FILE, FOLDER, BYTES, JSON, MANIFEST, OPAQUE = "frame", "file", "folder", "bytes", "json", "manifest", "pickle"
_RETURNS = "returns:"
_VERIFIED_BYTES = 256 << 20
_CHUNK = 1 << 20
_JSON = msgspec.json.Encoder(order="sorted")


class FolderEntry(msgspec.Struct, frozen=True):
    """One file of a stored folder; `path` is relative, with slashes."""

    path: str
    digest: str
    size: int
    executable: bool = False


# -- saving -----------------------------------------------------------------------------------------------------------


def save(value: object, objects: Objects, producer: Callable[..., object] | None = None) -> StoredResult:
    """Store a result in the canonical form of its kind.

    Args:
        value: a `Frame` (or a table of polars or pyarrow), a `File`, bytes, what msgspec writes as JSON and reads
            back unchanged, or anything that can be pickled.
        objects: where to.
        producer: the function that returned it; its annotation helps to restore JSON.

    Raises:
        UserCodeError: MS-2021, the value can be neither written nor pickled; MS-2022, the file is not there.
        StoreError: as the object store raises.
    """
    if isinstance(value, File):
        return _save_file(value, objects)
    table = _as_table(value)
    if table is not None:
        return _save_frame(*table, objects)
    if isinstance(value, (bytes, bytearray, memoryview)):
        blob = objects.put(bytes(value))
        return StoredResult(blob.digest, BYTES, blob.size)
    return _save_json(value, objects, producer) or _save_pickle(value, objects)


def _as_table(value: object) -> tuple[pa.Table, str] | None:
    if isinstance(value, Frame):
        return value.arrow(), "frame"
    if "pyarrow" in sys.modules and isinstance(value, pa.Table):
        return value, "arrow"
    if "polars" in sys.modules and isinstance(value, pl.DataFrame | pl.LazyFrame):
        frame = value.collect() if isinstance(value, pl.LazyFrame) else value
        return (None if pl.Object in frame.dtypes else frame.to_arrow()), "polars"
    return None


class _Sink:
    """A blob's stream as pyarrow wants a file: hashed as it is written."""

    closed = False

    def __init__(self, writer: BlobWriter) -> None:
        self.write = writer.write

    def flush(self) -> None:
        """The store flushes."""

    def close(self) -> None:
        """The store closes."""


def _save_frame(table: pa.Table, shape: str, objects: Objects) -> StoredResult:
    """Arrow IPC stream: one chunk a column, no metadata, zeros under nulls, so that equal tables are equal bytes."""
    fields = [field.remove_metadata() for field in table.schema]
    columns = [_zeros_under_nulls(column.combine_chunks()) for column in table.columns]
    plain = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    with objects.writer() as writer:
        sink = pa.PythonFile(_Sink(writer), mode="w")
        with pa.ipc.new_stream(sink, plain.schema) as stream:
            stream.write_table(plain)
    blob = _written(writer.blob)
    meta: dict[str, object] = {
        "rows": plain.num_rows,
        "columns": {field.name: str(field.type) for field in plain.schema},
    }
    kind = FRAME if shape == FRAME else f"{FRAME}/{shape}"
    return StoredResult(blob.digest, kind, blob.size, "application/vnd.apache.arrow.stream", meta)


def _zeros_under_nulls(array: Any) -> Any:
    """The same values; what an engine left in memory under the nulls of plain columns and of texts is gone."""
    kind, count = array.type, len(array)
    if not array.null_count or not isinstance(array, pa.Array):
        return array
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
    if (pa.types.is_primitive(kind) and kind.bit_width >= 8) or pa.types.is_decimal(kind):
        width = kind.bit_width // 8
        held = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + count) * width]
        data = held.reshape(count, width) * valid[:, None]
        return pa.Array.from_buffers(kind, count, [bits, pa.py_buffer(np.ascontiguousarray(data))])
    if pa.types.is_boolean(kind) or kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        filled = array.fill_null(False if pa.types.is_boolean(kind) else "" if "string" in str(kind) else b"")
        return pa.Array.from_buffers(kind, count, [bits, *filled.buffers()[1:]]) if not filled.offset else array
    return array


def _written(blob: Blob | None) -> Blob:
    assert blob is not None
    return blob


def _save_file(value: File, objects: Objects) -> StoredResult:
    path = value.path
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UserCodeError(
            f"the result names a file that is not there: {path}",
            code="MS-2022",
            why=error.strerror or str(error),
            fix="write the file before returning File(path)",
        ) from error
    if stat.S_ISDIR(mode):
        return _save_folder(path, objects)
    blob = objects.put_file(path)
    return StoredResult(blob.digest, FILE, blob.size, meta={"name": path.name, "executable": bool(mode & 0o100)})


def _save_folder(root: Path, objects: Objects) -> StoredResult:
    entries = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            blob = objects.put_file(path)
            executable = bool(path.stat().st_mode & 0o100)
            entries.append(FolderEntry(path.relative_to(root).as_posix(), blob.digest, blob.size, executable))
    entries.sort(key=lambda entry: entry.path)
    blob = objects.put(_JSON.encode(entries))
    meta: dict[str, object] = {"name": root.name, "files": len(entries), "bytes": sum(e.size for e in entries)}
    return StoredResult(blob.digest, FOLDER, blob.size, "application/json", meta)


def _save_json(value: object, objects: Objects, producer: Callable[..., object] | None) -> StoredResult | None:
    """JSON, when reading it back gives the value again: as plain data, by the value's class or by the annotation."""
    try:
        data = msgspec.json.encode(value, enc_hook=_number, order="sorted")
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError):
        return None
    for shape, kind in _shapes(value, producer):
        if _restores(data, shape, value):
            blob = objects.put(data)
            return StoredResult(blob.digest, kind, blob.size, "application/json")
    return None


def _number(value: object) -> object:
    """NumPy's scalars are numbers, too."""
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", None):
        return value.item()
    raise TypeError(type(value).__name__)


def _shapes(value: object, producer: Callable[..., object] | None) -> Iterator[tuple[object, str]]:
    """The types that JSON may be read back as, each with the kind that says so."""
    kind = type(value)
    if kind.__module__ in ("builtins", "numpy"):
        yield object, JSON
    if _is_importable(kind):
        yield kind, f"{JSON}/{reference(cast(Any, kind))}"
    returns = annotations_of(producer).get("return") if producer is not None else None
    if producer is not None and _says_something(returns):
        yield returns, f"{JSON}/{_RETURNS}{reference(producer)}"


def _is_importable(kind: type) -> bool:
    found: object = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return kind.__module__ != "builtins" and found is kind


def _restores(data: bytes, shape: object, value: object) -> bool:
    try:
        again = msgspec.json.decode(data, type=shape)
        return (type(again) is type(value) or type(value).__module__ == "numpy") and bool(again == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _save_pickle(value: object, objects: Objects) -> StoredResult:
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception as error:
        raise UserCodeError(
            f"a result of type {type(value).__name__} cannot be stored",
            code="MS-2021",
            why=f"{type(error).__name__}: {error}",
            fix="return a Frame, a File, bytes, or data that JSON can hold",
        ) from error
    blob = objects.put(data)
    meta: dict[str, object] = {"type": f"{type(value).__module__}:{type(value).__qualname__}"}
    return StoredResult(blob.digest, OPAQUE, blob.size, "application/x-python-pickle", meta)


def save_manifest(results: list[StoredResult], objects: Objects) -> StoredResult:
    """The result of a map: what each item gave, in item order."""
    blob = objects.put(_JSON.encode(results))
    return StoredResult(blob.digest, MANIFEST, blob.size, "application/json", {"items": len(results)})


def read_manifest(result: StoredResult, objects: Objects) -> list[StoredResult]:
    """What `save_manifest` kept."""
    return msgspec.json.decode(objects.get(result.digest), type=list[StoredResult])


def read_folder(result: StoredResult, objects: Objects) -> list[FolderEntry]:
    """The files of a stored folder."""
    return msgspec.json.decode(objects.get(result.digest), type=list[FolderEntry])


# -- loading ----------------------------------------------------------------------------------------------------------


def load(result: StoredResult, objects: Objects, wanted: object = None, place: Path | None = None) -> object:
    """A stored result as a value.

    Args:
        result: what was stored.
        objects: where it is.
        wanted: the annotation of the parameter that receives it; None leaves it as its producer returned it, and
            `StoredResult` leaves it in the store, for a step that reads of it what it needs.
        place: a folder to put a file or folder into under its own name; without it a file is read in place and
            must not be written to.

    Raises:
        UserCodeError: MS-2023, the result does not fit the annotation.
        StoreError: as the object store raises.
    """
    if wanted is StoredResult:
        return result
    if result.kind == MANIFEST:
        item = _item_type(wanted)
        items = read_manifest(result, objects)
        return [load(one, objects, item, _numbered(place, number)) for number, one in enumerate(items)]
    return _LOADERS[result.kind.partition("/")[0]](result, objects, wanted, place)


def _numbered(place: Path | None, number: int) -> Path | None:
    return None if place is None else place / str(number)


def _item_type(wanted: object) -> object:
    arguments = getattr(wanted, "__args__", ())
    return arguments[0] if arguments else None


def _read_table(result: StoredResult, objects: Objects) -> pa.Table:
    """Small tables are read and verified; large ones are mapped, as hashing them may take longer than using them."""
    if result.size <= _VERIFIED_BYTES:
        return pa.ipc.open_stream(pa.py_buffer(objects.get(result.digest))).read_all()
    with pa.memory_map(str(objects.path(result.digest))) as mapped:
        return pa.ipc.open_stream(mapped).read_all()


def _load_frame(result: StoredResult, objects: Objects, wanted: object, place: Path | None) -> object:
    table = _read_table(result, objects)
    shape = result.kind.partition("/")[2]
    if wanted is Frame:
        shape = ""
    elif getattr(wanted, "__module__", "").startswith("polars"):
        lazily = getattr(wanted, "__name__", "") == "LazyFrame"
        return pl.LazyFrame(table) if lazily else pl.DataFrame(table)
    elif getattr(wanted, "__module__", "").startswith("pyarrow"):
        shape = "arrow"
    if shape == "polars":
        return pl.DataFrame(table)
    return table if shape == "arrow" else Frame(table)


def _load_file(result: StoredResult, objects: Objects, wanted: object, place: Path | None) -> object:
    if place is None:
        return File(objects.path(result.digest))
    target = place / str(result.meta.get("name") or "file")
    _copy_out(objects, result.digest, target, bool(result.meta.get("executable")))
    return File(target)


def _copy_out(objects: Objects, digest: str, target: Path, executable: bool) -> None:
    """A verified copy, because the step may write to what it is handed and the store must not change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.blake2b(digest_size=20)
    with open(objects.path(digest), "rb") as source, open(target, "wb") as copy:
        while chunk := source.read(_CHUNK):
            found.update(chunk)
            copy.write(chunk)
    if found.hexdigest() != digest:
        objects.get(digest)  # tells what is wrong with it and moves it aside
    target.chmod(0o755 if executable else 0o644)


def _load_folder(result: StoredResult, objects: Objects, wanted: object, place: Path | None) -> object:
    entries = read_folder(result, objects)
    if place is None:
        raise StoreError(
            "a stored folder is read into a folder",
            code="MS-4120",
            why="its files lie in the object store under their digests",
            fix="pass place=, a folder to copy it to",
        )
    target = place / str(result.meta.get("name") or "folder")
    target.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        _copy_out(objects, entry.digest, target / entry.path, entry.executable)
    return File(target)


def _load_bytes(result: StoredResult, objects: Objects, wanted: object, place: Path | None) -> object:
    return objects.get(result.digest)


def _load_json(result: StoredResult, objects: Objects, wanted: object, place: Path | None) -> object:
    data = objects.get(result.digest)
    if not _says_something(wanted):
        return _restore_json(data, result.kind.partition("/")[2])
    try:
        return msgspec.json.decode(data, type=wanted)
    except (msgspec.ValidationError, TypeError) as error:
        raise UserCodeError(
            f"a result does not fit the annotation {getattr(wanted, '__name__', wanted)}",
            code="MS-2023",
            why=str(error),
            fix="change the annotation of the parameter, or what the step before returns",
        ) from error


def _says_something(wanted: object) -> bool:
    return wanted not in (None, object) and not isinstance(wanted, str) and str(wanted) != "typing.Any"


def _restore_json(data: bytes, shape: str) -> object:
    """JSON as its producer returned it, while the class or function that says how still exists; else plain data."""
    if not shape:
        return msgspec.json.decode(data)
    try:
        found = dereference(shape.removeprefix(_RETURNS))
        if shape.startswith(_RETURNS):
            found = annotations_of(cast("Callable[..., object]", found))["return"]
        return msgspec.json.decode(data, type=found)
    except (MainspringError, KeyError, msgspec.ValidationError, TypeError):
        return msgspec.json.decode(data)


def _load_pickle(result: StoredResult, objects: Objects, wanted: object, place: Path | None) -> object:
    # Only blobs whose digest our own catalog recorded come here; the store verifies the digest.
    return cast(object, pickle.loads(objects.get(result.digest)))


_LOADERS: Mapping[str, Callable[[StoredResult, Objects, object, Path | None], object]] = {
    FRAME: _load_frame,
    FILE: _load_file,
    FOLDER: _load_folder,
    BYTES: _load_bytes,
    JSON: _load_json,
    OPAQUE: _load_pickle,
}
