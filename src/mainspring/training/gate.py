"""The promotion gate: challenger and champion on the same rows, by a paired bootstrap, and the declared rule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.frame import Frame
from mainspring.declare.model import PromotionSpec, Score
from mainspring.errors import UserCodeError
from mainspring.lazy import lazy
from mainspring.metrics.interval import PairedResult
from mainspring.metrics.intervals import evaluate as value_of
from mainspring.metrics.intervals import greater_is_better, paired_bootstrap
from mainspring.plan.closure import closure_of
from mainspring.plan.encoding import digest, encode
from mainspring.ports.runtime import Card, Predictor
from mainspring.training.evaluate import metric_names, slices_of
from mainspring.training.sets import AT, LABEL, TrainingShape, matrix
from mainspring.training.split import Split, parts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["Comparison", "Contestant", "SliceResult", "compare", "rule_digest"]

_RESAMPLES = 2000
_SLICE_RESAMPLES = 1000
_SMALLEST_SLICE = 50
_LEVEL = 0.05


class SliceResult(msgspec.Struct, frozen=True):
    """The two versions on the rows of a slice; `worse` when the challenger loses there, by Holm over all slices."""

    n: int
    delta: float
    low: float
    high: float
    worse: bool


class Comparison(msgspec.Struct, frozen=True):
    """A challenger beside the champion, on the same rows.

    Attributes:
        rows: how many rows neither was fitted on.
        metric: the metric that decides.
        new: the challenger's metrics; what is undefined on these rows is left out.
        live: the champion's.
        delta: the challenger's metric less the champion's, with the paired bootstrap's 95 % interval; None where it
            is undefined.
        low: see `delta`.
        high: see `delta`.
        p_win: share of the resamples in which the challenger is better.
        promote: the rule's answer.
        why: the rule's answer in words.
        slices: by ``column=value``.
    """

    rows: int
    metric: str
    new: dict[str, float]
    live: dict[str, float]
    delta: float | None
    low: float | None
    high: float | None
    p_win: float | None
    promote: bool
    why: str
    slices: dict[str, SliceResult] = {}


class Contestant(msgspec.Struct, frozen=True):
    """A model version that is compared.

    Attributes:
        version: its number.
        predictor: the loaded model.
        card: its columns and their precision.
        split: how its training set was divided.
    """

    version: int
    predictor: Predictor
    card: Card
    split: Split


def rule_digest(rule: PromotionSpec | None) -> str:
    """Digest of a promotion rule and all that it reaches: the same rule is not asked twice about the same versions."""
    if rule is None:
        return ""
    return digest(encode([rule.margin, "" if rule.when is None else closure_of(rule.when).digest]))


def compare(
    shape: TrainingShape, rule: PromotionSpec | None, metric: str, new: Contestant, live: Contestant, frame: Frame
) -> Comparison:
    """Judge two versions on the newest rows that neither was fitted on.

    Args:
        shape: the training set's shape.
        rule: the declared promotion rule, or None.
        metric: the metric that decides.
        new: the challenger.
        live: the champion.
        frame: the challenger's training set.

    Raises:
        UserCodeError: MS-2214, the rule's function fails.
    """
    judged = _unseen(frame, new.split, live.split)
    gone = sorted({*new.card.columns, *live.card.columns} - set(judged.columns))
    if gone:
        return _undecided(len(judged), metric, f"version {live.version} takes {', '.join(gone)}, which is no input now")
    y = np.asarray(judged.arrow().column(LABEL))
    if not len(y):
        return _undecided(0, metric, "there is no row that neither version was fitted on")
    scores = [item.predictor.scores(matrix(judged, item.card.columns, item.card.dtype)) for item in (new, live)]
    mine, theirs = (_metrics(shape.task, y, p) for p in scores)
    paired = paired_bootstrap(y, scores[0], scores[1], metric, n=_RESAMPLES)
    if math.isnan(paired.low):
        return msgspec.structs.replace(_undecided(len(y), metric, paired.why), new=mine, live=theirs)
    slices = _slices(shape, judged, y, scores, metric)
    promote, why = _decision(rule, Score(str(new.version), mine), Score(str(live.version), theirs), paired, metric)
    worse = [name for name, item in slices.items() if item.worse]
    if worse:
        why += f"; worse on {', '.join(worse[:5])}"
    return Comparison(
        len(y), metric, mine, theirs, paired.delta, paired.low, paired.high, paired.p_win, promote, why, slices
    )


def _unseen(frame: Frame, new: Split, live: Split) -> Frame:
    _, judged = parts(frame, new)
    at = np.asarray(judged.arrow().column(AT).cast(pa.int64()))
    return Frame(judged.arrow().filter(pa.array(at >= live.cutoff_us)))


def _undecided(rows: int, metric: str, why: str) -> Comparison:
    return Comparison(rows, metric, {}, {}, None, None, None, None, False, f"they cannot be compared: {why}")


def _metrics(task: str, y: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, float]:
    values = {name: float(value_of(name, y, scores)) for name in metric_names(task)}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _decision(
    rule: PromotionSpec | None, new: Score, live: Score, paired: PairedResult, metric: str
) -> tuple[bool, str]:
    if rule is None:
        return False, "no promotion rule is declared: mainspring promote decides"
    values = f"{metric} {new.metrics[metric]:.4f} against {live.metrics[metric]:.4f}"
    if rule.when is not None and not _allowed(rule, new, live):
        return False, f"the rule when= says no: {values}"
    worst = paired.low if greater_is_better(metric) else -paired.high
    if rule.margin is not None and not worst > -rule.margin:
        return False, f"{values}: the gain may be as low as {worst:.4f}, and the margin is -{rule.margin:g}"
    return True, f"{'the rule when= says yes' if rule.when is not None else 'within the margin'}: {values}"


def _allowed(rule: PromotionSpec, new: Score, live: Score) -> bool:
    assert rule.when is not None
    try:
        return bool(rule.when(new, live))
    except Exception as error:
        code = rule.when.__code__
        raise UserCodeError(
            "the promotion rule failed",
            code="MS-2214",
            why=f"{type(error).__name__}: {error}",
            origin=f"{Path(code.co_filename).name}:{code.co_firstlineno}",
            fix="the rule takes two scores: when=lambda new, live: new.roc_auc >= live.roc_auc",
        ) from error


def _slices(
    shape: TrainingShape, judged: Frame, y: NDArray[np.float64], scores: list[NDArray[np.float64]], metric: str
) -> dict[str, SliceResult]:
    """Each slice by itself; a loss counts when Holm's step-down over all of them says so at 5 %."""
    found: dict[str, PairedResult] = {}
    for name, rows in slices_of(shape, judged):
        if len(rows) >= _SMALLEST_SLICE:
            result = paired_bootstrap(y[rows], scores[0][rows], scores[1][rows], metric, n=_SLICE_RESAMPLES)
            if not math.isnan(result.low):
                found[name] = result
    worse = _holm({name: result.p_win for name, result in found.items()})
    return {name: SliceResult(r.n, r.delta, r.low, r.high, name in worse) for name, r in found.items()}


def _holm(chances: dict[str, float]) -> set[str]:
    """The names rejected by Holm's step-down at 5 % (Holm 1979)."""
    rejected: set[str] = set()
    for rank, name in enumerate(sorted(chances, key=lambda item: chances[item])):
        if chances[name] > _LEVEL / (len(chances) - rank):
            break
        rejected.add(name)
    return rejected
