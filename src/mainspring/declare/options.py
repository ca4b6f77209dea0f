"""What the options of a declaration may be; every refusal names the line of the user's file."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from mainspring.declare.aggregate import Aggregate
from mainspring.declare.data import did_you_mean
from mainspring.declare.origin import here
from mainspring.errors import DeclarationError

__all__ = [
    "amounts",
    "are",
    "choice",
    "flag",
    "is_a",
    "known_options",
    "not_a",
    "number",
    "samples",
    "served_name",
    "texts",
    "yearly_budget",
]

_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s+(?:per|a|an)\s+(day|week|month|quarter|year)\s*")
_STATISTICS = "stats"
_PER_YEAR = {"day": 365.25, "week": 365.25 / 7, "month": 12.0, "quarter": 4.0, "year": 1.0}


def known_options(function: Callable[..., object], features: Mapping[str, object]) -> None:
    """No feature is a misspelt option: ``tll="3h"`` (MS-1032)."""
    options = [name for name, item in inspect.signature(function).parameters.items() if item.kind is item.KEYWORD_ONLY]
    for name, value in features.items():
        near = difflib.get_close_matches(name, options, n=1)
        if near and not isinstance(value, Aggregate):
            raise DeclarationError(
                f"App.{function.__name__} has no option {name!r}",
                code="MS-1032",
                why="what is no option is a feature, and a feature is last(...), avg(...), ...",
                origin=str(here()),
                fix=did_you_mean(name, options),
            )


def samples(rows: object) -> tuple[tuple[tuple[str, float | bool | None], ...], ...]:
    """Rows of numbers by the names of a model's columns (MS-4252)."""
    fix = 'write warm=[{"distance": 1089.0}]'
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise _no_sample(rows, fix)
    found = tuple(rows)
    for row in found:
        if not isinstance(row, Mapping) or not row:
            raise _no_sample(row, fix)
        for name, value in row.items():
            if not isinstance(name, str) or not (value is None or isinstance(value, int | float)):
                raise _no_sample({name: value}, fix)
    return tuple(tuple(row.items()) for row in found)


def _no_sample(what: object, fix: str) -> DeclarationError:
    return DeclarationError(
        f"{what!r} is no row to warm a model with",
        code="MS-4252",
        why="a row has numbers, or None, by the names of the model's columns",
        origin=str(here()),
        fix=fix,
    )


def served_name(name: str) -> str:
    """The name of something that is served as a model (MS-4251)."""
    if name.lower() != _STATISTICS:
        return name
    raise DeclarationError(
        f"no model can be called {name!r}",
        code="MS-4251",
        why="/v2/models/stats are the statistics of all models in the Open Inference Protocol",
        origin=str(here()),
        fix='give it another name: called="stats_model"',
    )


def is_a(role: str, value: object, kinds: type | tuple[type, ...], fix: str) -> None:
    """The value is of the kind that the option takes (MS-1033)."""
    if isinstance(value, kinds):
        return
    names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
    named = [{"ModelDeclaration": "declared model", "FeatureView": "feature view"}.get(name, name) for name in names]
    raise not_a(role, value, " or ".join(named), fix)


def not_a(role: str, value: object, wanted: str, fix: str) -> DeclarationError:
    """The error of a value that is of another kind (MS-1033)."""
    shown = getattr(value, "__qualname__", None) if callable(value) else None
    return DeclarationError(
        f"{role} is {shown or repr(value)[:80]}, which is no {wanted}",
        code="MS-1033",
        origin=str(here()),
        fix=fix,
    )


def are(role: str, values: object, kinds: type | tuple[type, ...], fix: str) -> None:
    """The values are a list, each of the kind that the option takes (MS-1033)."""
    is_a(role, values, (list, tuple), fix)
    for value in cast("list[object]", values):
        is_a(f"one of {role}", value, kinds, fix)


def texts(name: str, values: object) -> None:
    """The values are several texts: one text alone would be taken for its letters (MS-1036)."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DeclarationError(
            f"{name}={values!r} is one value, not a list",
            code="MS-1036",
            origin=str(here()),
            fix=f"write {name}=[{values!r}]",
        )
    for value in values:
        is_a(f"one of {name}", value, str, f'write {name}=["..."]')


def choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """The value is one of a few words (MS-1034)."""
    if value not in choices:
        raise DeclarationError(
            f"{name}={value!r} is none of {', '.join(choices)}",
            code="MS-1034",
            origin=str(here()),
            fix=did_you_mean(str(value), choices),
        )


def number(name: str, value: object, *, least: float = -math.inf, whole: bool = True) -> None:
    """The value is a finite number, not below `least` (MS-1035)."""
    fits = isinstance(value, int) if whole else isinstance(value, (int, float)) and math.isfinite(value)
    if isinstance(value, bool) or not fits or cast(float, value) < least:
        wanted = f"a {'whole ' if whole else ''}number{'' if math.isinf(least) else f' from {least:g} up'}"
        raise DeclarationError(
            f"{name}={value!r} is not {wanted}", code="MS-1035", origin=str(here()), fix=f"give {name} {wanted}"
        )


def flag(name: str, value: object) -> None:
    """The value is True or False (MS-1033): a text would count as true, whatever it says."""
    is_a(name, value, bool, f"write {name}=True or {name}=False")


RESOURCES = ("cpu", "gpu", "memory")


def amounts(name: str, values: object) -> None:
    """The values are amounts of what a machine has (MS-1033 to MS-1035); None is nothing."""
    if values is None:
        return
    is_a(name, values, Mapping, f'write {name}={{"cpu": 2, "gpu": 1, "memory": 4e9}}')
    for key, amount in cast("Mapping[object, object]", values).items():
        choice(f"a key of {name}", key, RESOURCES)
        number(f"{name}[{key!r}]", amount, least=0, whole=False)


def yearly_budget(text: object) -> float:
    """False alarms a year of a budget as written: ``1 per quarter`` is 4.

    Raises:
        DeclarationError: MS-1091, it is no budget, or not above zero.
    """
    match = _BUDGET.fullmatch(text) if isinstance(text, str) else None
    if match is None or float(match[1]) <= 0:
        raise DeclarationError(
            f"false_alarms={text!r} is not an alarm budget",
            code="MS-1091",
            why="a budget is a number above zero, per day, week, month, quarter or year",
            origin=str(here()),
            fix='write "1 per quarter", "2 per year" or "1 per month"',
        )
    return float(match[1]) * _PER_YEAR[match[2]]
