"""What callers, tenants and models may use: the limits of the settings, and the accounts that they are counted at."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec

from mainspring.config.settings import Settings
from mainspring.declare.data import did_you_mean
from mainspring.errors import ConfigError
from mainspring.llm.limits import Accounts
from mainspring.llm.values import Limits
from mainspring.plan.graph import Plan

__all__ = ["Budgets", "budgets_of", "names_of"]


class Budgets(msgspec.Struct, frozen=True):
    """The limits of a project, and what has been used of them.

    Attributes:
        callers: limits by the name of ``[callers.NAME]``.
        tenants: limits of a tenant's callers together.
        models: limits of all who use a declared model or route together.
        accounts: where use is counted.
    """

    callers: Mapping[str, Limits] = msgspec.field(default_factory=dict)
    tenants: Mapping[str, Limits] = msgspec.field(default_factory=dict)
    models: Mapping[str, Limits] = msgspec.field(default_factory=dict)
    accounts: Accounts = msgspec.field(default_factory=lambda: Accounts(time.time))

    def periods(self) -> dict[str, float]:
        """The length in seconds of the period of each account that has a budget of money, by the account's name."""
        every = (("key", self.callers), ("tenant", self.tenants), ("model", self.models))
        return {
            f"{kind}:{name}": limits.period_s
            for kind, found in every
            for name, limits in found.items()
            if limits.money_micro is not None
        }


def budgets_of(settings: Settings, plan: Plan) -> Budgets:
    """The limits of ``[limits.NAME]``, ``[tenant_limits.NAME]`` and ``[model_limits.NAME]``.

    Args:
        settings: of the active profile.
        plan: the app's graph.

    Raises:
        ConfigError: MS-3170, they are nobody's.
    """
    callers = names_of(settings, "callers")
    models = [node.name for kind in ("llm", "route") for node in plan.of_kind(kind)]
    tenants = None
    if settings.text("server.oidc.tenant") is None:
        tenants = [found for name in callers if (found := settings.text(f"callers.{name}.tenant"))]
    return Budgets(
        _section(settings, "limits", "caller", callers),
        _section(settings, "tenant_limits", "tenant of a caller", tenants),
        _section(settings, "model_limits", "language model or route of the app", models),
    )


def names_of(settings: Settings, section: str) -> list[str]:
    """The names that a section has parts for."""
    return list(dict.fromkeys(key.split(".")[1] for key in settings.values if key.startswith(f"{section}.")))


def _section(settings: Settings, section: str, whose: str, known: Iterable[str] | None) -> dict[str, Limits]:
    names = names_of(settings, section)
    for name in names if known is not None else ():
        if name not in (some := tuple(cast("Iterable[str]", known))):
            raise _nobodys(settings, section, name, whose, some)
    return {name: _limits(settings, f"{section}.{name}") for name in names}


def _limits(settings: Settings, section: str) -> Limits:
    usual, found = Limits(), {key: item.value for key, item in settings.section(section).items()}
    return Limits(
        requests=_whole(found.get("requests")),
        tokens=_whole(found.get("tokens")),
        window_s=float(cast(float, found.get("window_s", usual.window_s))),
        concurrent=_whole(found.get("concurrent")),
        money_micro=_whole(found.get("money_micro")),
        period_s=float(cast(float, found.get("period_s", usual.period_s))),
    )


def _whole(value: object) -> int | None:
    return None if value is None else int(cast(int, value))


def _nobodys(settings: Settings, section: str, name: str, whose: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"there are limits for {name!r}, which is no {whose}",
        code="MS-3170",
        why="they would limit nobody",
        origin=next(iter(settings.section(f"{section}.{name}").values())).origin,
        fix=did_you_mean(name, known) if known else f"there is no {whose}",
    )
