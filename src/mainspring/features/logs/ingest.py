"""Rows from outside into a record's exact types; what breaks its rules is set aside, row by row, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.data import did_you_mean
from mainspring.declare.record import FieldSpec
from mainspring.errors import DataError
from mainspring.features.cast import Reading, TooFineError, UnfitError, bad_rows, cast_column
from mainspring.features.logs.log import SourceTable, record_schema
from mainspring.features.quality.results import CheckResult, refusal, refused
from mainspring.features.quality.rowwise import Known, Tallies, judge_rows, matching, nothing_known
from mainspring.features.sources.files import RawFile
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["REASON", "Prepared", "Seen", "missing_everywhere", "prepare", "prepare_rows", "some_fit"]

REASON = "_reason"
"""The column of a quarantine table that says why a row was set aside."""


def _nothing() -> None:
    """Rows that wait in memory stay there."""


class Prepared(msgspec.Struct, frozen=True):
    """Rows that fit, and rows that do not.

    Attributes:
        rows: what the log takes, in the record's types, in the order they came.
        set_aside: the others, with `REASON`.
        report: how many rows were set aside for each reason.
        given: all of them, as they came: what a check lets in may be another set tomorrow.
        results: what the source's checks of single rows found; nothing of it has been refused yet.
        release: lets go of the memory of rows that wait in files; they are read again when they are asked for.
    """

    rows: pa.Table
    set_aside: pa.Table
    report: Mapping[str, int]
    given: pa.Table
    results: tuple[CheckResult, ...] = ()
    release: Callable[[], None] = _nothing


def some_fit(source: SourceTable, prepared: Prepared) -> Prepared:
    """The rows as they are.

    Raises:
        DataError: MS-2113, there are rows and none of them fits.
    """
    if len(prepared.set_aside) and not len(prepared.rows):
        raise _nothing_fits(source, prepared.report)
    return prepared


def prepare_rows(source: SourceTable, rows: pa.Table, known: Known = nothing_known) -> Prepared:
    """Rows that were pushed; the same rules and checks of single rows as for files.

    Raises:
        DataError: MS-2110, MS-2111; MS-2180, a check refuses the rows.
    """
    prepared = prepare(source, [RawFile(Path("the pushed rows"), rows, False, tuple(rows.column_names))], known=known)
    if refused(prepared.results):
        raise refusal(f"source {source.name!r}", prepared.results, source.origin)
    return prepared


class Seen:
    """What the parts of a batch share: values that may come once only, and what checks have found.

    Attributes:
        tallies: what checks of single rows have found in the parts before.
    """

    def __init__(self) -> None:
        self.tallies: Tallies = {}
        self._values: dict[str, list[pa.Array]] = {}

    def first_of_each(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        """Which values of a column's next part come for the first time, (rows,) bool."""
        places = column.combine_chunks().dictionary_encode()
        numbers = places.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        first = np.zeros(len(numbers), np.bool_)
        first[np.unique(numbers, return_index=True)[1]] = True
        known = self._values.setdefault(name, [])
        found = pa.array(first)
        if known:
            found = pc.and_(found, pc.invert(pc.is_in(column.combine_chunks(), pa.concat_arrays(known))))
        known.append(places.dictionary)
        return found


def prepare(
    source: SourceTable,
    raw: Sequence[RawFile],
    *,
    truncate: bool = False,
    known: Known = nothing_known,
    seen: Seen | None = None,
) -> Prepared:
    """Raw tables as one table of the record's types, without the rows that break its rules or are set aside by checks.

    Checks look at the rows that keep the record's rules. Of parts that come one by one, all share what was `seen`, and
    `missing_everywhere` follows the last. The results of each part are those of all up to it.
    """
    if seen is None:
        held = {name for file in raw for name in file.table.column_names}
        named = dict.fromkeys(name for file in raw for name in file.names)
        missing_everywhere(source, held, list(named), [file.path.name for file in raw])
    schema = record_schema(source.fields)
    loose = pa.schema([field.with_nullable(True) for field in schema])
    table = pa.concat_tables([_conform(source, file, loose, truncate) for file in raw])
    seen = seen or Seen()
    reasons = _reasons(source, table, seen)
    fits = pc.is_null(reasons)
    judged = judge_rows(table.filter(fits), source.fields, source.checks, known, seen.tallies)
    if judged.reasons.null_count < len(judged.reasons):
        reasons = pc.replace_with_mask(reasons.combine_chunks(), fits.combine_chunks(), judged.reasons.combine_chunks())
        fits = pc.is_null(reasons)
    rows = table.filter(fits)
    set_aside = table.append_column(REASON, reasons).filter(pc.invert(fits))
    counted = set_aside.column(REASON).value_counts().to_pylist() if len(set_aside) else []
    report = {entry["values"]: entry["counts"] for entry in counted}
    return Prepared(rows.combine_chunks(), set_aside.combine_chunks(), report, table, judged.results)


def _conform(source: SourceTable, file: RawFile, schema: pa.Schema, truncate: bool) -> pa.Table:
    columns = []
    for field in source.fields:
        if field.name not in file.table.column_names:
            if not field.type.nullable:
                raise _missing(source, field, [file.path.name], file.names)
            columns.append(pa.chunked_array([pa.nulls(len(file.table), arrow_type(field.type))]))
            continue
        column = file.table.column(field.name)
        how = Reading(file.text or field.name in file.numbers, source.zone, truncate)
        try:
            columns.append(cast_column(column, field.type, how))
        except UnfitError as error:
            raise _misfit(source, field, column, how, file, error) from error
    return pa.table(columns, schema=schema)


def _reasons(source: SourceTable, table: pa.Table, seen: Seen) -> pa.ChunkedArray:
    """Why each row is set aside, null for rows that fit: the first rule that it breaks."""
    reasons = pa.chunked_array([pa.nulls(len(table), pa.string())])
    for reason, broken in _broken(source, table, seen):
        reasons = pc.coalesce(reasons, pc.if_else(broken, pa.scalar(reason), pa.scalar(None, pa.string())))
    return reasons


def _broken(source: SourceTable, table: pa.Table, seen: Seen) -> Iterator[tuple[str, pa.ChunkedArray]]:
    for field in source.fields:
        column = table.column(field.name)
        if field.name == source.time or not field.type.nullable:
            yield f"{field.name} is null", pc.is_null(column)
        for reason, holds in _rules(field, column, seen):
            # Without a value no rule is broken; a NaN is in no range.
            yield reason, pc.and_(pc.is_valid(column), pc.invert(pc.fill_null(holds, True)))


def _rules(field: FieldSpec, column: pa.ChunkedArray, seen: Seen) -> Iterator[tuple[str, pa.ChunkedArray]]:
    rules, kind = field.rules, arrow_type(field.type)
    if rules.ge is not None:
        yield f"{field.name} is not >= {rules.ge:g}", pc.greater_equal(column, pa.scalar(rules.ge))
    if rules.le is not None:
        yield f"{field.name} is not <= {rules.le:g}", pc.less_equal(column, pa.scalar(rules.le))
    if rules.one_of:
        yield f"{field.name} is none of {len(rules.one_of)} values", pc.is_in(column, pa.array(rules.one_of, kind))
    if rules.matches is not None:
        yield f"{field.name} does not match", matching(column, rules.matches)
    if rules.unique:
        yield f"{field.name} is not unique", seen.first_of_each(field.name, column)


def missing_everywhere(source: SourceTable, held: Set[str], named: Sequence[str], files: Sequence[str]) -> None:
    """See that each of the record's columns is in one of the files.

    Args:
        source: whose record it is.
        held: those of its columns that were found.
        named: all columns of the files, as they are called there.
        files: their names.

    Raises:
        DataError: MS-2111, one is not.
    """
    for field in source.fields:
        if field.name not in held:
            raise _missing(source, field, files, named)


def _missing(source: SourceTable, field: FieldSpec, files: Sequence[str], held: Sequence[str]) -> DataError:
    return DataError(
        f"source {source.name!r} has no column {field.name!r}",
        code="MS-2111",
        why=f"{', '.join(files[:3])} {'has' if len(files) == 1 else 'have'} {', '.join(held) or 'no column'}",
        origin=source.origin,
        fix=_remedy(field.name, held),
    )


def _remedy(missing: str, held: Sequence[str]) -> str:
    other = next((mark for mark in ";|\t" if len(held) == 1 and mark in held[0]), None)
    if other is not None:
        return f"separate the columns by commas instead of {other!r}; a file with tabs ends in .tsv"
    return did_you_mean(missing, held) if held else "correct the file, or its path"


def _misfit(
    source: SourceTable, field: FieldSpec, column: pa.ChunkedArray, how: Reading, file: RawFile, error: UnfitError
) -> DataError:
    rows = bad_rows(column, field.type, how)
    shown = "; ".join(f"row {file.start + row}: {value!r}" for row, value, _ in rows)
    return DataError(
        f"column {field.name!r} of source {source.name!r} does not fit {field.type}",
        code="MS-2110",
        why=f"{rows[0][2] if rows else error} ({shown}; in {file.path.name})"
        if rows
        else f"{error} (in {file.path.name})",
        origin=source.origin,
        fix=f'sources.{source.name}.truncate = "us" cuts them off'
        if isinstance(error, TooFineError)
        else "correct the data, or declare the column as what it is",
    )


def _nothing_fits(source: SourceTable, report: Mapping[str, int]) -> DataError:
    return DataError(
        f"no row of source {source.name!r} fits its record",
        code="MS-2113",
        why="; ".join(f"{reason}: {count} rows" for reason, count in report.items()),
        origin=source.origin,
        fix="correct the data, or the rules of the record's fields",
    )
