"""SQL that takes some rows and does not say which: another answer tomorrow, or on another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import duckdb

__all__ = ["chooses_any"]

_DEPTH = 200


def chooses_any(opened: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """What of a query leaves its rows to chance: a sample; or ``limit``, ``offset`` or ``distinct on`` without order.

    Args:
        opened: a connection; the query is not run.
        sql: the query.

    Returns:
        The words that do so, for "it has ...", or None. Rows that an ``order by`` holds for equal are not seen.
    """
    ((found,),) = opened.execute("select json_serialize_sql(?)", [sql]).fetchall()
    return _in(msgspec.json.decode(found), _DEPTH)


def _in(node: Any, depth: int) -> str | None:
    if depth == 0:
        return None
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict):
        if node.get("sample"):
            return "a sample"
        if words := _of_modifiers(node.get("modifiers")):
            return f"{words} without order by"
    return next((words for part in parts if (words := _in(part, depth - 1))), None)


def _of_modifiers(modifiers: Any) -> str | None:
    if not isinstance(modifiers, list):
        return None
    kinds = {one.get("type"): one for one in modifiers if isinstance(one, dict)}
    if "ORDER_MODIFIER" in kinds:
        return None
    for kind in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
        if kind in kinds:
            return "limit" if kinds[kind].get("limit") else "offset"
    return "distinct on" if kinds.get("DISTINCT_MODIFIER", {}).get("distinct_on_targets") else None
