"""A monitor of an assistant at work: blocks of answers against the assistant's own first blocks.

Blocks follow the clock, and wait until they hold enough answers. The first ones are the reference: each measure is
judged by how it varies there, with the alarm budget shared between measures, windows and the blocks of a year. A share
(errors, refusals) may be as high as the reference still speaks for, and chance within the budget adds; an amount
(latency, cost) is a CUSUM against its bootstrapped threshold, as features of models are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.lazy import lazy
from mainspring.monitoring.alerts import Alerts, fingerprint
from mainspring.monitoring.references import reference_of
from mainspring.monitoring.stats.decide import WINDOWS, Finding, State, rank
from mainspring.monitoring.stats.rates import binomial_limit, highest_usual
from mainspring.monitoring.stats.reference import ENOUGH
from mainspring.monitoring.stats.threshold import alpha, calibrate, cusum, paths
from mainspring.ports.catalog import Alert, Catalog, Event

if TYPE_CHECKING:
    import numpy as np

    from mainspring.metrics.arrays import Floats
else:
    np = lazy("numpy")

__all__ = ["AMOUNTS", "RATES", "AnswerWatch", "Answered", "Scored", "Tally", "Watching"]

RATES: Mapping[str, str] = {
    "errors": "runs that failed",
    "timeouts": "runs that failed for want of time",
    "refusals": "answers that say that they do not know",
    "tools": "runs in which a tool failed or was too late",
    "uncited": "answers of an assistant with knowledge that cite nothing",
    "dropped": "answers from which a citation was taken out, since it did not hold",
}
"""Shares that are watched; each alarms when it rises."""

AMOUNTS: Mapping[str, int] = {"latency": 1, "cost": 1, "tokens": 0, "retrieval": -1}
"""Amounts that are watched; 1 alarms when it rises, -1 when it falls, 0 both."""

LEAST_REFERENCE = 8
"""Blocks of the reference before anything is judged."""

_FLOOR = math.log(1.1)
"""An amount that has changed by less than a tenth is recorded, not alarmed."""
_LEAST_SD = 0.01
_MANY = 400

Direction: TypeAlias = Literal[-1, 0, 1]


class Answered(msgspec.Struct, frozen=True):
    """One run, as far as it says something.

    Attributes:
        done_us: when it was over, UTC microseconds.
        rates: of the shares that it counts for, whether it is a bad one.
        amounts: of the amounts that it has, the value, greater than 0.
    """

    done_us: int
    rates: Mapping[str, bool] = msgspec.field(default_factory=dict)
    amounts: Mapping[str, float] = msgspec.field(default_factory=dict)


class Tally(msgspec.Struct):
    """What the answers of a block came to.

    Attributes:
        start: of the block, UTC microseconds.
        stop: its end, exclusive.
        rows: answers.
        hits: bad ones, by rate.
        totals: those that count, by rate.
        sums: sums of logarithms, by amount.
        counts: how many, by amount.
    """

    start: int
    stop: int
    rows: int = 0
    hits: dict[str, int] = {}
    totals: dict[str, int] = {}
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}

    def take(self, answered: Answered) -> None:
        """Count an answer."""
        self.rows += 1
        for name, bad in answered.rates.items():
            self.hits[name] = self.hits.get(name, 0) + bad
            self.totals[name] = self.totals.get(name, 0) + 1
        for name, value in answered.amounts.items():
            self.sums[name] = self.sums.get(name, 0.0) + math.log(value)
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> float:
        """The mean logarithm of an amount that there is."""
        return self.sums[name] / self.counts[name]


class Scored(msgspec.Struct, frozen=True):
    """The last result of an evaluation.

    Attributes:
        name: the evaluation's.
        at_us: when it was run.
        passed: whether its gate let it through.
        score: its own measure, or NaN.
        least: the least of it that the gate lets through, or NaN.
        why: what the gate says.
    """

    name: str
    at_us: int
    passed: bool
    score: float
    least: float
    why: str = ""


class Watching(msgspec.Struct, frozen=True):
    """What a monitor watches, and how.

    Attributes:
        rates: names of `RATES`.
        amounts: names of `AMOUNTS`.
        evaluations: names of the assistant's evaluations.
        false_alarms: how many a year may be false.
        block_us: the least length of a block in microseconds.
        block_rows: the least number of answers in it.
        subject: changes when the assistant does: its first blocks then are a new reference.
    """

    rates: tuple[str, ...]
    amounts: tuple[str, ...]
    evaluations: tuple[str, ...]
    false_alarms: float
    block_us: int
    block_rows: int
    subject: str


Read: TypeAlias = Callable[[int, int], Sequence[Answered]]
"""The runs that were over in a span of time, in order: its start, its end (left out), UTC microseconds."""


class AnswerWatch:
    """One monitor of one assistant.

    What it has seen is in the catalog's events: another process goes on where one has stopped.

    Args:
        app: the app's name.
        name: the monitor's name.
        watching: what it watches.
        catalog: where events and alarms are kept.
        read: reads the runs.
        scored: the last results of the evaluations.
        clock: the time, UTC microseconds.
        late_us: how long after its end a block is counted: what is written late still counts.
    """

    def __init__(
        self,
        app: str,
        name: str,
        watching: Watching,
        catalog: Catalog,
        read: Read,
        scored: Callable[[], Sequence[Scored]] = tuple,
        clock: Callable[[], int] = now_us,
        late_us: int = 2_000_000,
    ) -> None:
        self.app = app
        self.name = name
        self.alerts = Alerts(catalog, name, clock)
        self._watching = watching
        self._catalog = catalog
        self._read = read
        self._scored = scored
        self._clock = clock
        self._late_us = late_us
        measures = len(watching.rates) + len(watching.amounts)
        self.alpha = alpha(watching.false_alarms, max(measures, 1), watching.block_us)
        self._reference: list[Tally] = []
        self._recent: list[Tally] = []
        self._since = self._judged = 0
        self._lasting: frozenset[str] = frozenset()
        self._failing: frozenset[str] = frozenset(
            alert.features[0] for alert in self.alerts.open() if alert.kind == "evaluation"
        )
        self._go_on()

    def _go_on(self) -> None:
        """Take up what an earlier process has left; a changed assistant starts anew."""
        self._reference, self._recent, self._lasting = [], [], frozenset()
        known = reference_of(self._catalog, self.name)
        if known is not None and known.data["reference"] == self._watching.subject:
            data: Mapping[str, Any] = known.data
            self._since = int(data["from"])
            self._reference = msgspec.convert(data["blocks"], list[Tally])
        elif known is not None:  # what was said of it before is not said of what it is now
            self._since = self._clock() // self._watching.block_us * self._watching.block_us
            self._settle()
            self._tell_reference()
        self._judged = max([self._since, *(block.stop for block in self._reference)])
        for event in reversed(self._last("monitor.evaluated", _MANY)):
            tally = msgspec.convert(event.data["tally"], Tally)
            again = bool(self._recent) and tally.start <= self._recent[-1].start  # another process has judged it too
            if tally.start >= self._since and not again:
                self._recent = [*self._recent, tally][-max(WINDOWS) :]
                self._judged = max(self._judged, tally.stop)
                told: Sequence[Mapping[str, Any]] = event.data["findings"]  # type: ignore[assignment]
                self._lasting = frozenset(found["feature"] for found in told if found["state"] == "alarm")

    def begin_anew(self) -> None:
        """Take the next blocks as the reference: what is now is usual. It ends the alarms on runs."""
        size = self._watching.block_us
        self._since = (self._clock() // size + 1) * size
        self._reference, self._recent, self._lasting = [], [], frozenset()
        self._judged = self._since
        self._settle()
        self._tell_reference()

    def _begun_anew(self) -> bool:
        """Whether somebody has asked for a new reference meanwhile, in another process."""
        known = reference_of(self._catalog, self.name)
        return known is not None and int(str(known.data["from"])) > self._since

    # -- blocks --------------------------------------------------------------------------------------------------------

    def close_blocks(self) -> list[tuple[int, Sequence[Finding]]]:
        """Judge every block that has closed since the last call, in order of time: its start and its findings."""
        size = self._watching.block_us
        closable = (self._clock() - self._late_us) // size * size
        if self._begun_anew():
            self._go_on()
            self._settle()  # also what this process said of a block while the other began anew
        found = []
        if closable > self._judged:
            for block in self._blocks(self._read(self._judged, closable), closable):
                findings = self._closed(block)
                if findings:
                    found.append((block.start, findings))
        self._judge_evaluations()
        return found

    def _blocks(self, runs: Sequence[Answered], closable: int) -> list[Tally]:
        """The runs by blocks that have closed with enough of them; the rest waits for more."""
        size, least = self._watching.block_us, self._watching.block_rows
        found: list[Tally] = []
        block: Tally | None = None
        for run in runs:
            if block is not None and block.rows >= least and run.done_us >= block.stop:
                found.append(block)
                block = None
            cell = run.done_us // size * size
            if block is None:
                block = Tally(cell, cell + size)
            block.stop = max(block.stop, cell + size)
            block.take(run)
        if block is not None and block.rows >= least and block.stop <= closable:
            found.append(block)
        return found

    def _closed(self, block: Tally) -> Sequence[Finding]:
        """Take a block to the reference, or judge it; while the reference is short, a usual block is also taken."""
        self._judged = block.stop
        if len(self._reference) < LEAST_REFERENCE:
            self._reference.append(block)
            self._tell_reference()
            return ()
        self._recent = [*self._recent, block][-max(WINDOWS) :]
        findings = rank([finding for name in self._names() for finding in self._judge(name)])
        alarms = [finding for finding in findings if finding.state == "alarm"]
        self._lasting = frozenset(finding.feature for finding in alarms)
        if alarms:
            self._raise(block.start, alarms)
        self._settle()
        self._event(
            "monitor.evaluated",
            {
                "block": block.start,
                "alarms": len(alarms),
                "findings": [_plain(finding) for finding in findings if finding.state != "off"],
                "alpha": self.alpha,
                "rows": block.rows,
                "failing": [],
                "reported": {},
                "tally": msgspec.to_builtins(block),
            },
        )
        if not alarms and len(self._reference) < ENOUGH:
            self._reference.append(block)
            self._tell_reference()
        return findings

    def _names(self) -> Sequence[str]:
        return (*self._watching.rates, *self._watching.amounts)

    def _judge(self, name: str) -> list[Finding]:
        judge = self._judge_rate if name in self._watching.rates else self._judge_amount
        return [judge(name, window) for window in WINDOWS]

    @property
    def weak(self) -> bool:
        """Whether too few blocks stand behind the thresholds for the budget's promise."""
        return len(self._reference) < ENOUGH

    def _judge_rate(self, name: str, window: int) -> Finding:
        blocks = self._recent[-window:]
        hits, total = (sum(part.get(name, 0) for part in parts) for parts in self._parts(blocks))
        known = self._parts(self._reference)
        usual = highest_usual(*([part.get(name, 0) for part in parts] for parts in known))
        if not total or usual >= 1.0:
            return self._off(name, "rate", window, "no answer that counts, here or in the reference")
        limit = binomial_limit(total, usual, self.alpha)
        state: State = "alarm" if hits > limit else "ok"
        share = hits / total
        return Finding(name, "rate", window, share, limit / total, share, 0.0, math.nan, state, self.weak)

    def _parts(self, blocks: Sequence[Tally]) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
        return [block.hits for block in blocks], [block.totals for block in blocks]

    def _judge_amount(self, name: str, window: int) -> Finding:
        usual = np.array([block.mean(name) for block in self._reference if block.counts.get(name)])
        recent = np.array([block.mean(name) for block in self._recent[-window:] if block.counts.get(name)])
        if len(usual) < 3 or not len(recent):
            return self._off(name, "location", window, "no such amount here, or in less than three reference blocks")
        way = AMOUNTS[name]
        apart = _from_others(usual)
        sigma = max(float(apart.std(ddof=1)), _LEAST_SD)
        z, shifts = (way or 1) * apart / sigma, (way or 1) * (recent - usual.mean())
        limit = calibrate(z, paths(len(z), window), self.alpha, both=not way).h
        score = float(cusum(shifts / sigma, both=not way))
        effect = abs(float(shifts.mean()))
        state: State = "ok"
        if score > limit:
            state = "alarm" if effect > _FLOOR else "recorded"
        return Finding(name, "location", window, score, limit, effect, _FLOOR, math.nan, state, self.weak)

    def _off(self, name: str, kind: str, window: int, why: str) -> Finding:
        nan = math.nan
        return Finding(name, kind, window, nan, nan, nan, nan, nan, "off", self.weak, why)

    # -- evaluations ---------------------------------------------------------------------------------------------------

    def _judge_evaluations(self) -> None:
        """An evaluation whose last run its gate did not let through is an alarm until one passes."""
        failing = [one for one in self._scored() if one.name in self._watching.evaluations and not one.passed]
        names = frozenset(one.name for one in failing)
        for one in failing:
            if one.name not in self._failing:
                self._offer(
                    Finding(
                        one.name, "evaluation", 1, one.score, one.least, one.score, math.nan, math.nan, "alarm", False
                    ),
                    one.at_us,
                    (one.name,),
                    {"why": one.why},
                )
        if names != self._failing:
            self._failing = names
            self._settle()

    # -- alarms --------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self.alerts.settle("", self._lasting | self._failing)

    def _raise(self, start: int, alarms: Sequence[Finding]) -> None:
        features = tuple(dict.fromkeys(finding.feature for finding in alarms))
        # One cause, one alarm: while that of an earlier block lasts, it stands for what else it brings about.
        causes = {alert.features[0] for alert in self.alerts.open()}
        first = next((finding for finding in alarms if finding.feature in causes), alarms[0])
        data = {"window": first.window, "findings": [_plain(finding) for finding in alarms]}
        self._offer(first, start, (first.feature, *(name for name in features if name != first.feature)), data)

    def _offer(self, first: Finding, since: int, features: tuple[str, ...], detail: dict[str, object]) -> None:
        offered = Alert(
            new_id(),
            fingerprint(self.app, self.name, "", first.feature),
            self.name,
            "",
            first.kind,
            "firing",
            since,
            self._clock(),
            _finite(first.score) or 0.0,
            _finite(first.threshold) or 0.0,
            _finite(first.effect) or 0.0,
            features,
            detail,
        )
        self.alerts.offer(offered)

    # -- events --------------------------------------------------------------------------------------------------------

    def _last(self, what: str, limit: int) -> list[Event]:
        return self._catalog.last_events(what=what, subject=f"/monitor/{self.name}", limit=limit)

    def _tell_reference(self) -> None:
        self._event(
            "monitor.reference",
            {
                "reference": self._watching.subject,
                "from": self._since,
                "blocks": msgspec.to_builtins(self._reference),
                "reference_blocks": len(self._reference),
                "weak": self.weak,
                "alpha": self.alpha,
                "features": len(self._names()),
                "sources": [],
                "segments": [],
                "not_watched_apart": {},
            },
        )

    def _event(self, what: str, data: dict[str, object]) -> None:
        self._catalog.add_event(Event(self._clock(), "monitor", what, f"/monitor/{self.name}", data))


def _from_others(values: Floats) -> Floats:
    """Each value's distance from the mean of the others (n,)."""
    apart: Floats = values - (values.sum() - values) / (len(values) - 1)
    return apart


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(finding: Finding) -> dict[str, object]:
    return {
        "feature": finding.feature,
        "segment": "",
        "kind": finding.kind,
        "window": finding.window,
        "score": _finite(finding.score),
        "threshold": _finite(finding.threshold),
        "effect": _finite(finding.effect),
        "floor": _finite(finding.floor),
        "state": finding.state,
    }
