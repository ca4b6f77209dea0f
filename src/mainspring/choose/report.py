"""The conditions report: the outcomes of the very decision that was made, as plain data."""

from __future__ import annotations

from typing import TypedDict

from mainspring.choose.decide import OPTIONAL, SHARED, Outcome, decide, outcomes_of
from mainspring.choose.discover import adapters, is_installed
from mainspring.config.schema import NAMED
from mainspring.config.settings import Settings
from mainspring.declare.data import did_you_mean
from mainspring.errors import ConfigError, UsageError

__all__ = ["CandidateReport", "ConditionReport", "ConditionsReport", "PortReport", "SettingReport", "conditions_report"]


_UNUSED = "not used: it is optional, and nothing of it is set"


class ConditionReport(TypedDict):
    """One question asked of a candidate."""

    name: str
    ok: bool
    message: str


class CandidateReport(TypedDict):
    """One adapter that could serve the port."""

    adapter: str
    fits: bool
    embedded: bool
    conditions: list[ConditionReport]


class PortReport(TypedDict):
    """One port: what was chosen, why, and every candidate."""

    port: str
    chosen: str | None
    why: str
    error: str | None
    candidates: list[CandidateReport]


class SettingReport(TypedDict):
    """One setting that was written somewhere."""

    key: str
    value: object
    origin: str


class ConditionsReport(TypedDict):
    """Every port, or one; and every setting, or that port's, with its origin."""

    profile: str
    ports: list[PortReport]
    settings: list[SettingReport]


def conditions_report(settings: Settings, port: str | None = None) -> ConditionsReport:
    """The choices of one port, or of all.

    Raises:
        UsageError: MS-2601, no adapter knows such a port.
    """
    ports = sorted({adapter.port for adapter in adapters()})
    if port is not None and port not in ports:
        raise UsageError(f"no port is called {port!r}", code="MS-2601", fix=did_you_mean(port, ports))
    return ConditionsReport(
        profile=settings.profile,
        ports=[
            _port(name, settings, section)
            for name in ([port] if port else ports)
            for section in _places(name, settings)
        ],
        settings=[
            SettingReport(key=key, value=item.shown(), origin=item.origin)
            for key, item in sorted(settings.values.items())
            if port is None or _port_of(key) == port
        ],
    )


def _port_of(key: str) -> str:
    section = key.partition(".")[0]
    return "source" if section == "sources" else NAMED.get(section, section)


def _places(port: str, settings: Settings) -> list[str]:
    """The sections with a port's instances: its own, or one for each name that is configured."""
    if port == "source":
        urls = [key for key in settings.values if key.startswith("sources.") and key.endswith(".url")]
        return [key.removesuffix(".url") for key in urls] or [port]
    section = next((section for section, of in NAMED.items() if of == port), None)
    if section is None:
        return [port]
    names = dict.fromkeys(key.split(".")[1] for key in settings.values if key.startswith(f"{section}."))
    return [f"{section}.{name}" for name in names] or [port]


def _port(port: str, settings: Settings, place: str) -> PortReport:
    if port in SHARED:
        return _shared(port, settings)
    outcomes = outcomes_of(port, adapters(), settings, is_installed, place)
    if port in OPTIONAL and not settings.section(place):
        return PortReport(
            port=place, chosen=None, why=_UNUSED, error=None, candidates=[_candidate(o) for o in outcomes]
        )
    try:
        decision = decide(port, adapters(), settings, is_installed, place)
    except ConfigError as error:
        return PortReport(
            port=place, chosen=None, why=error.why, error=error.what, candidates=[_candidate(o) for o in outcomes]
        )
    return PortReport(
        port=place,
        chosen=decision.chosen.name,
        why=decision.why,
        error=None,
        candidates=[_candidate(o) for o in outcomes],
    )


def _shared(port: str, settings: Settings) -> PortReport:
    """A port whose fitting adapters all serve, each for the artifacts it can read."""
    outcomes = outcomes_of(port, adapters(), settings, is_installed)
    usable = [outcome for outcome in outcomes if outcome.fits]
    return PortReport(
        port=port,
        chosen=", ".join(outcome.adapter.name for outcome in usable) or None,
        why="every one that fits serves what it can read",
        error=None if usable else f"{port} has no adapter that fits",
        candidates=[_candidate(outcome) for outcome in outcomes],
    )


def _candidate(outcome: Outcome) -> CandidateReport:
    return CandidateReport(
        adapter=outcome.adapter.name,
        fits=outcome.fits,
        embedded=outcome.adapter.embedded,
        conditions=[ConditionReport(name=c.name, ok=c.ok, message=c.message) for c in outcome.conditions],
    )
