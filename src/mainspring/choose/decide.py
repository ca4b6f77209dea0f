"""The decision which adapter serves a port; the report of ``mainspring conditions`` is its list of outcomes."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable

import msgspec

from mainspring.config.settings import Setting, Settings, reveal
from mainspring.errors import ConfigError
from mainspring.ports.adapter import Adapter

__all__ = ["OPTIONAL", "SHARED", "Condition", "Decision", "Outcome", "Rank", "decide", "outcomes_of", "serving"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
SHARED = frozenset({"runtime", "converter"})
"""Ports that every fitting adapter serves at once, each for what it reads; any other port has one adapter."""
OPTIONAL = frozenset({"budgets", "compute", "reranker", "source", "target"})
"""Ports that a project does without until one is configured; that nothing serves them is then no fault."""


class Rank(enum.IntEnum):
    """Why an adapter is preferred; the greater wins."""

    EMBEDDED = 1
    ORDER = 2
    URL = 3
    NAMED = 4


class Condition(msgspec.Struct, frozen=True):
    """One question that was asked of a candidate, with its answer."""

    name: str
    ok: bool
    message: str


class Outcome(msgspec.Struct, frozen=True):
    """What became of one candidate."""

    adapter: Adapter
    conditions: tuple[Condition, ...]
    rank: Rank | None

    @property
    def fits(self) -> bool:
        """Whether every condition holds."""
        return self.rank is not None and all(condition.ok for condition in self.conditions)


class Decision(msgspec.Struct, frozen=True):
    """The adapter chosen for a port, and every candidate's outcome."""

    port: str
    chosen: Adapter
    why: str
    outcomes: tuple[Outcome, ...]


def outcomes_of(
    port: str,
    adapters: Iterable[Adapter],
    settings: Settings,
    installed: Callable[[str], bool],
    section: str | None = None,
) -> tuple[Outcome, ...]:
    """Every candidate for the port with its conditions, the best first; `section` is where its settings are."""
    place = section or port
    named, url = settings.setting(f"{place}.adapter"), settings.setting(f"{place}.url")
    scheme = "" if url is None else _scheme(url, settings)
    found = [
        _outcome(adapter, place, named, url, scheme, settings.profile, installed)
        for adapter in adapters
        if adapter.port == port
    ]
    return tuple(
        sorted(found, key=lambda item: (not item.fits, -(item.rank or 0), item.adapter.order, item.adapter.name))
    )


def decide(
    port: str,
    adapters: Iterable[Adapter],
    settings: Settings,
    installed: Callable[[str], bool],
    section: str | None = None,
) -> Decision:
    """Choose the adapter for a port: named by the user > configured by URL > explicit order > embedded.

    Args:
        port: the port's name.
        adapters: all adapters known, of every port.
        settings: the settings of the active profile.
        installed: whether a module can be imported.
        section: where its settings are, of a port that has several instances: ``llms.chat``.

    Raises:
        ConfigError: MS-3010, nothing fits; MS-3011, two fit equally well; MS-3012, only an embedded one is left
            outside ``dev`` and it is not named; MS-3007, the secret that the URL refers to is not there.
    """
    place = section or port
    if settings.setting(f"{place}.adapter") is None:
        settings.secret(f"{place}.url")
    outcomes = outcomes_of(port, adapters, settings, installed, section)
    fitting = [outcome for outcome in outcomes if outcome.fits]
    if not fitting:
        raise _nothing_fits(place, outcomes, settings)
    best = fitting[0]
    rivals = [o for o in fitting[1:] if (o.rank, o.adapter.order) == (best.rank, best.adapter.order)]
    if rivals:
        names = ", ".join(sorted(o.adapter.name for o in [best, *rivals]))
        raise ConfigError(
            f"{place}: {names} fit equally well",
            code="MS-3011",
            why="a tie is never broken by chance",
            origin=_origin(settings, place),
            fix=f'name one: {place}.adapter = "{best.adapter.name}"',
        )
    return Decision(port, best.adapter, _reason(best, settings), outcomes)


def serving(
    port: str, adapters: Iterable[Adapter], settings: Settings, installed: Callable[[str], bool]
) -> tuple[Adapter, ...]:
    """The adapters that serve a port together, in their order: those of a shared port that fit, else the one chosen.

    Raises:
        ConfigError: MS-3010 to MS-3012, as `decide`; a shared port may have none, unless one is named.
    """
    if port not in SHARED:
        return (decide(port, adapters, settings, installed).chosen,)
    outcomes = outcomes_of(port, adapters, settings, installed)
    found = tuple(outcome.adapter for outcome in outcomes if outcome.fits)
    if not found and settings.setting(f"{port}.adapter") is not None:
        raise _nothing_fits(port, outcomes, settings)
    return found


def _outcome(
    adapter: Adapter,
    place: str,
    named: Setting | None,
    url: Setting | None,
    scheme: str,
    profile: str,
    installed: Callable[[str], bool],
) -> Outcome:
    conditions = [_installed(adapter, installed)]
    rank: Rank | None
    if named is not None:
        same = named.value == adapter.name
        conditions.append(Condition("named", same, f"{named.key} = {named.value!r} ({named.origin})"))
        rank = Rank.NAMED
    elif adapter.port in SHARED and adapter.embedded:
        conditions.append(
            Condition("in process", True, "a library inside the process; it keeps nothing, so it is no fallback")
        )
        rank = Rank.ORDER
    elif url is not None:
        conditions.append(_by_url(adapter, url, scheme))
        rank = Rank.URL
    elif adapter.embedded:
        dev = profile == "dev"
        conditions.append(
            Condition("profile", dev, f"embedded default of profile {profile!r}" + ("" if dev else " must be named"))
        )
        rank = Rank.EMBEDDED
    else:
        conditions.append(Condition("configured", False, f"needs {place}.url or {place}.adapter"))
        rank = None
    return Outcome(adapter, tuple(conditions), rank)


def _scheme(url: Setting, settings: Settings) -> str:
    """The scheme of a URL, which may be, or begin with, a reference to a secret; empty when it has none."""
    text = str(url.value)
    if url.secret and not _SCHEME.match(text):
        try:
            text = reveal(url, settings.project)
        except ConfigError:
            return ""  # `decide` says that the secret is not there
    found = _SCHEME.match(text)
    return found[1] if found else ""


def _by_url(adapter: Adapter, url: Setting, scheme: str) -> Condition:
    fits = scheme in adapter.schemes
    known = f"a scheme that is not {' or '.join(adapter.schemes) or 'known'}"
    told = f"scheme {scheme!r}" if fits or (scheme and not url.secret) else known
    return Condition("url", fits, f"{url.key} has {told} ({url.origin})")


def _installed(adapter: Adapter, installed: Callable[[str], bool]) -> Condition:
    missing = [module for module in adapter.modules if not installed(module)]
    if missing:
        return Condition("installed", False, f"{', '.join(missing)} missing: pip install 'mainspring[{adapter.extra}]'")
    return Condition("installed", True, ", ".join(adapter.modules) or "standard library")


def _reason(best: Outcome, settings: Settings) -> str:
    return best.conditions[-1].message


def _origin(settings: Settings, place: str) -> str:
    for key in (f"{place}.adapter", f"{place}.url"):
        if (setting := settings.setting(key)) is not None:
            return setting.origin
    return f"profile {settings.profile}"


def _nothing_fits(place: str, outcomes: tuple[Outcome, ...], settings: Settings) -> ConfigError:
    fallback = [o for o in outcomes if o.rank is Rank.EMBEDDED and o.conditions[0].ok]
    if fallback and settings.profile != "dev":
        name = fallback[0].adapter.name
        return ConfigError(
            f"{place} has no adapter in profile {settings.profile!r}",
            code="MS-3012",
            why=f"only the embedded {name!r} is left, and outside dev nothing falls back to embedded unless named",
            origin=f"profile {settings.profile}",
            fix=f'set {place}.url, or name it: {place}.adapter = "{name}"',
        )
    reasons = "; ".join(
        f"{o.adapter.name}: {next(c.message for c in o.conditions if not c.ok)}" for o in outcomes if not o.fits
    )
    return ConfigError(
        f"{place} has no adapter that fits",
        code="MS-3010",
        why=reasons or "no adapter for it is installed",
        origin=_origin(settings, place),
        fix=f"mainspring conditions {outcomes[0].adapter.port if outcomes else place}",
    )
