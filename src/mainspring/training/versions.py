"""Model versions: registered with their lineage, compared on the same rows, promoted by compare-and-swap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.declare.frame import Frame
from mainspring.declare.model import PromotionSpec, Score
from mainspring.errors import RefusedError, UserCodeError
from mainspring.lazy import lazy
from mainspring.metrics.intervals import evaluate as value_of
from mainspring.metrics.intervals import greater_is_better, paired_bootstrap
from mainspring.plan.encoding import digest, encode
from mainspring.ports.catalog import Alias, Catalog, Edge, Entity, Event
from mainspring.ports.runtime import Predictor
from mainspring.training.evaluate import Evaluation, metric_names
from mainspring.training.sets import AT, LABEL, Split, TrainingShape, matrix, parts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "Comparison",
    "Registered",
    "champion_of",
    "compare",
    "decide",
    "promote_now",
    "register",
    "roll_back",
]

CHAMPION, CHALLENGER = "champion", "challenger"


class Comparison(msgspec.Struct, frozen=True):
    """A challenger beside the champion, on the same rows.

    Attributes:
        rows: how many rows neither was fitted on.
        metric: the metric that decides.
        new: the challenger's metrics.
        live: the champion's.
        delta: the challenger's metric less the champion's, with the paired bootstrap's 95 % interval.
        low: see `delta`.
        high: see `delta`.
        p_win: share of the resamples in which the challenger is better.
        promote: the rule's answer.
        why: the rule's answer in words.
    """

    rows: int
    metric: str
    new: dict[str, float]
    live: dict[str, float]
    delta: float
    low: float
    high: float
    p_win: float
    promote: bool
    why: str


class Registered(msgspec.Struct, frozen=True):
    """What became of a trained model.

    Attributes:
        id: the version's id in the catalog.
        version: its number.
        champion: whether it is the champion now.
        why: why, or why not.
        comparison: beside the champion before, when there was one.
    """

    id: str
    version: int
    champion: bool
    why: str
    comparison: Comparison | None = None


class Loader(Protocol):
    """Opens what the catalog names."""

    def __call__(self, artifact: str) -> tuple[Predictor, Path]:
        """The predictor and the folder of a model artifact, by digest."""


def register(
    catalog: Catalog,
    shape: TrainingShape,
    artifact: str,
    evaluation: Evaluation,
    how: Split,
    training_set: dict[str, object],
    run_id: str,
) -> Entity:
    """Record a model version with what it was made from; the same artifact on the same data is the same version."""
    at = now_us()
    set_digest = digest(encode(msgspec.json.encode(training_set, order="sorted")))
    pinned = catalog.add_entity(
        Entity(new_id(), "training_set", shape.model, 0, set_digest, training_set, at),
        [Edge(f"/training_set/{shape.model}", "built_from", f"/source/{shape.source.name}")],
    )
    spec = {
        "artifact": artifact,
        "task": shape.task,
        "columns": list(shape.columns),
        "metrics": msgspec.to_builtins(evaluation.metrics),
        "calibration": msgspec.to_builtins(evaluation.calibration),
        "slices": msgspec.to_builtins(evaluation.slices),
        "split": msgspec.to_builtins(how),
        "training_set": pinned.id,
    }
    content = digest(encode([artifact, set_digest]))
    offered = Entity(new_id(), "model", shape.model, 0, content, spec, at)
    edges = [
        Edge(offered.id, "trained_on", pinned.id),
        Edge(run_id, "produced", offered.id),
        *(Edge(pinned.id, "built_from", f"{table}") for table in training_set.get("tables", {})),  # type: ignore[attr-defined]
    ]
    event = Event(at, "training", "model.registered", f"/model/{shape.model}", {"run": run_id, "artifact": artifact})
    return catalog.add_entity(offered, edges, event)


def champion_of(catalog: Catalog, model: str) -> tuple[Entity | None, Alias | None]:
    """The champion's version and its alias."""
    alias = catalog.alias("model", model, CHAMPION)
    return (None if alias is None else catalog.entity_by_id(alias.entity_id)), alias


def compare(
    shape: TrainingShape,
    rule: PromotionSpec | None,
    metric: str,
    new: tuple[str, Predictor, Split],
    live: tuple[str, Predictor, Split],
    frame: Frame,
) -> Comparison:
    """Judge two versions on the newest rows that neither was fitted on.

    Args:
        shape: the training set's shape.
        rule: the declared promotion rule, or None.
        metric: the metric that decides.
        new: the challenger: version, predictor, split.
        live: the champion.
        frame: the challenger's training set.

    Raises:
        UserCodeError: MS-2214, the rule's function fails.
    """
    _, judged = parts(frame, new[2])
    at = np.asarray(judged.arrow().column(AT).cast(pa.int64()))
    judged = Frame(judged.arrow().filter(pa.array(at >= live[2].cutoff_us)))
    y = np.asarray(judged.arrow().column(LABEL))
    scores = [predictor[1].scores(matrix(judged, shape.columns, "float32")) for predictor in (new, live)]
    values = [{name: float(value_of(name, y, p)) for name in metric_names(shape.task)} for p in scores]
    paired = paired_bootstrap(y, scores[0], scores[1], metric, n=2000)
    gain = (paired.low, paired.high) if greater_is_better(metric) else (-paired.high, -paired.low)
    promote, why = _rule(rule, Score(new[0], values[0]), Score(live[0], values[1]), gain[0])
    return Comparison(
        len(y), metric, values[0], values[1], paired.delta, paired.low, paired.high, paired.p_win, promote, why
    )


def _rule(rule: PromotionSpec | None, new: Score, live: Score, worst_gain: float) -> tuple[bool, str]:
    if rule is None:
        return False, "no promotion rule is declared: mainspring promote decides"
    if rule.when is not None:
        try:
            allowed = bool(rule.when(new, live))
        except Exception as error:
            raise UserCodeError(
                "the promotion rule failed",
                code="MS-2214",
                why=f"{type(error).__name__}: {error}",
                origin=f"{Path(rule.when.__code__.co_filename).name}:{rule.when.__code__.co_firstlineno}",
                fix="the rule takes two scores: when=lambda new, live: new.roc_auc >= live.roc_auc",
            ) from error
        if not allowed:
            return False, "the rule when= said no"
    if rule.margin is not None and not worst_gain > -rule.margin:
        return False, f"the gain may be as low as {worst_gain:.4f}, below the margin of -{rule.margin:g}"
    return True, "the rule when= said yes" if rule.when is not None else "the gain is within the margin"


def decide(
    catalog: Catalog,
    shape: TrainingShape,
    rule: PromotionSpec | None,
    metric: str,
    version: Entity,
    frame: Frame,
    load: Callable[[str], Predictor],
) -> Registered:
    """Make a new version the challenger, compare it with the champion, and promote it when the rule says so.

    A refusal is recorded too. The first version is the champion, for want of another.
    """
    _point(catalog, shape.model, CHALLENGER, version, "training", {"version": version.version})
    live, _ = champion_of(catalog, shape.model)
    if live is None:
        _point(catalog, shape.model, CHAMPION, version, "training", {"version": version.version, "why": "the first"})
        return Registered(version.id, version.version, True, "the first version")
    if live.id == version.id:
        return Registered(version.id, version.version, True, "it is the champion already")
    comparison = compare(
        shape,
        rule,
        metric,
        (str(version.version), load(str(version.spec["artifact"])), _split_of(version)),
        (str(live.version), load(str(live.spec["artifact"])), _split_of(live)),
        frame,
    )
    data = {"version": version.version, "live": live.version, **msgspec.to_builtins(comparison)}
    if not comparison.promote:
        catalog.add_event(Event(now_us(), "gate", "model.refused", f"/model/{shape.model}", data))
        return Registered(version.id, version.version, False, comparison.why, comparison)
    _point(catalog, shape.model, CHAMPION, version, "gate", data)
    return Registered(version.id, version.version, True, comparison.why, comparison)


def _split_of(version: Entity) -> Split:
    return msgspec.convert(version.spec["split"], Split)


def _point(catalog: Catalog, model: str, alias: str, to: Entity, actor: str, data: dict[str, Any]) -> None:
    """Move an alias, trying again when somebody else has moved it meanwhile."""
    while True:
        now = catalog.alias("model", model, alias)
        if now is not None and now.entity_id == to.id:
            return
        rev, before = (0, "") if now is None else (now.rev, now.entity_id)
        event = Event(now_us(), actor, f"model.{alias}", f"/model/{model}", {**data, "before": before, "to": to.id})
        if catalog.move_alias(Alias("model", model, alias, to.id, rev), event) is not None:
            return


def promote_now(catalog: Catalog, model: str, version: int, actor: str) -> Entity:
    """Make a version the champion because a person says so.

    Raises:
        RefusedError: MS-5040, there is no such version.
    """
    found = catalog.entity("model", model, version)
    if found is None:
        known = [str(item.version) for item in catalog.entities("model", model)]
        raise RefusedError(
            f"model {model!r} has no version {version}",
            code="MS-5040",
            why=f"versions: {', '.join(known) or 'none'}",
            fix=f"mainspring show model/{model}",
        )
    _point(catalog, model, CHAMPION, found, actor, {"version": version, "why": "promoted by hand"})
    return found


def roll_back(catalog: Catalog, model: str, actor: str) -> Entity:
    """Give a model its previous champion back.

    Raises:
        RefusedError: MS-5041, there was none before.
    """
    live, _ = champion_of(catalog, model)
    for event in catalog.last_events(what="model.champion", subject=f"/model/{model}", limit=100):
        if live is not None and event.data.get("to") == live.id and event.data.get("before"):
            before = catalog.entity_by_id(str(event.data["before"]))
            if before is not None:
                _point(catalog, model, CHAMPION, before, actor, {"version": before.version, "why": "rolled back"})
                return before
    raise RefusedError(
        f"model {model!r} has no champion to go back to",
        code="MS-5041",
        why="its champion is the first one" if live is not None else "it has no champion",
        fix=f"mainspring show model/{model}",
    )
