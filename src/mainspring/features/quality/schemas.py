"""pandera schemas as checks: found again in another process by their name, and run as they are on a batch."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.quality import Check, CheckKind
from mainspring.engine.reference import dereference, is_users, module_name
from mainspring.errors import DataError, DeclarationError
from mainspring.lazy import lazy
from mainspring.plan.closure import closure_of

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
else:
    pl, pa = lazy("polars"), lazy("pyarrow")

__all__ = ["Conformity", "conformity", "goes_by_rows", "located"]

_SHOWN = 5
_BY_ROWS = frozenset(
    {
        "equal_to",
        "greater_than",
        "greater_than_or_equal_to",
        "in_range",
        "isin",
        "less_than",
        "less_than_or_equal_to",
        "not_equal_to",
        "notin",
        "str_contains",
        "str_endswith",
        "str_length",
        "str_matches",
        "str_startswith",
    }
)
"""pandera's own checks that judge each value by itself."""


class Conformity(msgspec.Struct, frozen=True):
    """What a schema says of a batch.

    Attributes:
        reasons: why each row fails, null where it does not.
        of_batch: what is wrong with the batch as a whole: a missing column, another type.
    """

    reasons: pa.Array
    of_batch: tuple[str, ...]


def located(check: Check) -> Check:
    """A check as a value that any process can hold: a schema by its name and by all that it says.

    Raises:
        DeclarationError: MS-1063, no variable of a module holds the schema.
    """
    if check.kind is not CheckKind.CONFORMS or check.schema is None:
        return dataclasses.replace(check, origin=None)
    place = _place_of(check.schema)
    if place is None:
        raise DeclarationError(
            f"the schema of {check} cannot be found by a worker",
            code="MS-1063",
            why="no variable of a module holds it",
            origin=str(check.origin),
            fix="assign it to a variable at the top level of a module of the project: READINGS = DataFrameSchema(...)",
        )
    return dataclasses.replace(check, schema=None, origin=None, reference=place, digest=_digest(check.schema))


def _place_of(schema: object) -> str | None:
    """``module:name`` of the variable that holds a schema."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and is_users(file):
            for name, value in vars(module).items():
                if value is schema:
                    return f"{module_name(module.__name__)}:{name}"
    return None


def _digest(schema: object) -> str:
    """Digest of what a schema says, with the code of the user's functions in it."""
    plain = _plain(schema)
    codes = [closure_of(function).digest for function in _functions(plain)]
    return hashlib.blake2b("\n".join([repr(plain), *codes]).encode(), digest_size=16).hexdigest()


def _plain(schema: Any) -> Any:
    """A DataFrameModel as the schema that it describes."""
    model: Any = schema
    return model.to_schema() if isinstance(schema, type) else schema


def _functions(schema: Any) -> Iterator[Callable[..., object]]:
    columns: Iterable[Any] = (schema.columns or {}).values()
    for part in (schema, *columns):
        for check in part.checks or ():
            function = getattr(check, "_check_fn", None)
            code = getattr(function, "__code__", None)
            if function is not None and code is not None and is_users(code.co_filename):
                yield function


def goes_by_rows(check: Check) -> bool:
    """Whether a schema says the same of the parts of a batch as of the whole.

    It does when it is one of ``pandera.polars`` (in pandas a column's type depends on the nulls that are in it), asks
    for no unique values and parses nothing, and each check is one of pandera's own for single values, or says
    ``element_wise=True``. Any other function may look at all rows.

    Raises:
        UserCodeError: MS-2024, it is not where it was.
    """
    schema = _schema_of(check)
    columns: list[Any] = list((schema.columns or {}).values())
    whole = schema.unique or any(column.unique for column in columns) or not _is_polars(schema)
    parts = [schema, *columns]
    return not whole and all(
        not part.parsers and all(_is_by_rows(each) for each in part.checks or ()) for part in parts
    )


def _is_by_rows(check: Any) -> bool:
    if check.groupby or check.n_failure_cases is not None:
        return False
    own = type(check._check_fn).__module__.startswith("pandera.")
    return bool(check.element_wise) or (own and check.name in _BY_ROWS)


def _schema_of(check: Check) -> Any:
    return _plain(check.schema if check.schema is not None else dereference(check.reference))


def _telling(schema: Any) -> Any:
    """A schema that names the rows which break it, where it would drop them and say nothing (``drop_invalid_rows``)."""
    if not any(part.drop_invalid_rows for part in (schema, *(schema.columns or {}).values())):
        return schema
    told = copy.deepcopy(schema)
    for part in (told, *(told.columns or {}).values()):
        part.drop_invalid_rows = False
    return told


def _is_polars(schema: object) -> bool:
    return "polars" in type(schema).__module__


def conformity(check: Check, table: pa.Table) -> Conformity:
    """Run a schema on a batch, lazily: all that is wrong is found at once. What it would change is not taken over.

    Rows that it would drop are rows that fail it.

    Raises:
        DataError: MS-2182, the schema cannot be applied.
        UserCodeError: MS-2024, it is not where it was.
    """
    schema = _telling(_schema_of(check))
    polars = _is_polars(schema)
    frame = pl.from_arrow(table) if polars else table.to_pandas()
    try:
        schema.validate(frame, lazy=True)
    except Exception as error:
        cases = getattr(error, "failure_cases", None)
        if cases is None or type(error).__name__ != "SchemaErrors":
            raise DataError(
                f"the schema of {check} cannot be applied",
                code="MS-2182",
                why=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
                origin=check.reference,
                fix="try SCHEMA.validate(rows, lazy=True) on some rows",
            ) from error
        return _conformity(cases.to_dicts() if polars else cases.to_dict("records"), len(table), check.name)
    return Conformity(pa.nulls(len(table), pa.string()), ())


def _conformity(cases: list[dict[str, Any]], rows: int, name: str) -> Conformity:
    reasons: list[str | None] = [None] * rows
    of_batch: list[str] = []
    for case in cases:
        column, place = case.get("column"), case.get("index")
        said = f"{column}: {case['check']}" if isinstance(column, str) else str(case["check"])
        if place is None or place != place:  # NaN
            of_batch.append(f"{said} ({case['failure_case']})")
        elif reasons[int(place)] is None:
            reasons[int(place)] = f"{name}: {said}"
    return Conformity(pa.array(reasons, pa.string()), tuple(dict.fromkeys(of_batch))[:_SHOWN])
