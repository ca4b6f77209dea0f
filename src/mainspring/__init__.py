"""Mainspring: Spring Boot for AI infrastructure. Declare it once, run it anywhere, see why."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainspring.declare.aggregate import (
        avg,
        count,
        distinct,
        first,
        highest,
        last,
        last_n,
        lowest,
        quantile,
        stddev,
        total,
        variance,
    )
    from mainspring.declare.app import App
    from mainspring.declare.artifact import File, Model
    from mainspring.declare.batching import Batching
    from mainspring.declare.checking import (
        between,
        conforms,
        distance,
        fresh,
        matches,
        not_null,
        one_of,
        references,
        rows,
        unique,
    )
    from mainspring.declare.composition import Part, Rows
    from mainspring.declare.data import Entity
    from mainspring.declare.frame import Frame
    from mainspring.declare.identity import Identity
    from mainspring.declare.llm import Guard
    from mainspring.declare.record import Field, Record
    from mainspring.engine.context import current
    from mainspring.errors import MainspringError
    from mainspring.server.features.store import FeatureStore, feature_store
    from mainspring.server.scoring.score import score

_HOMES = {
    "App": "declare.app",
    "Batching": "declare.batching",
    "Entity": "declare.data",
    "FeatureStore": "server.features.store",
    "Field": "declare.record",
    "File": "declare.artifact",
    "Frame": "declare.frame",
    "Guard": "declare.llm",
    "Identity": "declare.identity",
    "MainspringError": "errors",
    "Model": "declare.artifact",
    "Part": "declare.composition",
    "Record": "declare.record",
    "Rows": "declare.composition",
    "avg": "declare.aggregate",
    "between": "declare.checking",
    "conforms": "declare.checking",
    "count": "declare.aggregate",
    "current": "engine.context",
    "distinct": "declare.aggregate",
    "feature_store": "server.features.store",
    "first": "declare.aggregate",
    "distance": "declare.checking",
    "fresh": "declare.checking",
    "highest": "declare.aggregate",
    "last": "declare.aggregate",
    "last_n": "declare.aggregate",
    "lowest": "declare.aggregate",
    "quantile": "declare.aggregate",
    "matches": "declare.checking",
    "not_null": "declare.checking",
    "one_of": "declare.checking",
    "references": "declare.checking",
    "rows": "declare.checking",
    "score": "server.scoring.score",
    "stddev": "declare.aggregate",
    "total": "declare.aggregate",
    "unique": "declare.checking",
    "variance": "declare.aggregate",
}

__all__ = [
    "App",
    "Batching",
    "Entity",
    "FeatureStore",
    "Field",
    "File",
    "Frame",
    "Guard",
    "Identity",
    "MainspringError",
    "Model",
    "Part",
    "Record",
    "Rows",
    "avg",
    "between",
    "conforms",
    "count",
    "current",
    "distance",
    "distinct",
    "feature_store",
    "first",
    "fresh",
    "highest",
    "last",
    "last_n",
    "lowest",
    "matches",
    "not_null",
    "one_of",
    "quantile",
    "references",
    "rows",
    "score",
    "stddev",
    "total",
    "unique",
    "variance",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mainspring' has no attribute {name!r}")
    value = getattr(import_module(f"mainspring.{home}"), name)
    globals()[name] = value
    return value
