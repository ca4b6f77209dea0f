"""What becomes of a new version: challenger at once, champion when the gate says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from mainspring.catalog.ids import now_us
from mainspring.catalog.rollouts import begin, current
from mainspring.declare.frame import Frame
from mainspring.declare.model import PromotionSpec
from mainspring.ports.catalog import Catalog, Entity, Event
from mainspring.ports.runtime import Predictor, read_card
from mainspring.training.gate import Comparison, Contestant, compare, rule_digest
from mainspring.training.sets import TrainingShape
from mainspring.training.split import Split
from mainspring.training.versions import CHALLENGER, CHAMPION, KIND, REFUSED, champion_of, move, point, refusal_of, told

__all__ = ["Judge", "Registered", "decide", "stands"]


class Registered(msgspec.Struct, frozen=True):
    """What became of a trained model.

    Attributes:
        id: the version's id in the catalog.
        version: its number.
        champion: whether it is the champion now.
        why: why, or why not.
        live: the id of the champion then.
        comparison: beside the champion before, when they were compared now.
    """

    id: str
    version: int
    champion: bool
    why: str
    live: str
    comparison: Comparison | None = None


class Judge(msgspec.Struct, frozen=True):
    """How versions of a model are compared.

    Attributes:
        shape: the training set's shape.
        metric: the metric that decides.
        rule: the declared promotion rule, or None.
        frame: the newest training set.
        fetch: the folder of a model artifact, by digest.
        load: a folder to a predictor.
    """

    shape: TrainingShape
    metric: str
    rule: PromotionSpec | None
    frame: Frame
    fetch: Callable[[str], Path]
    load: Callable[[Path], Predictor]

    def compare(self, new: Entity, live: Entity) -> Comparison:
        """The two on the same rows.

        Raises:
            UserCodeError: MS-2214, the rule's function fails.
        """
        return compare(self.shape, self.rule, self.metric, self._contestant(new), self._contestant(live), self.frame)

    def _contestant(self, version: Entity) -> Contestant:
        folder = self.fetch(str(version.spec["artifact"]))
        split = msgspec.convert(version.spec["split"], Split)
        return Contestant(version.version, self.load(folder), read_card(folder), split)


def decide(catalog: Catalog, version: Entity, judge: Judge) -> Registered:
    """Make a new version the challenger, compare it with the champion, and promote it when the rule says so.

    Where the rule declares a rollout, the version that it says yes to goes on its way, and the server decides the rest.

    The first version is the champion, for want of another. A version is judged once against a champion by a rule, and
    one that was the champion before is never promoted again by itself: whoever rolled it back meant it. Refusals are
    recorded, too. When the champion changes during the comparison, the comparison is made again.

    Raises:
        UserCodeError: MS-2214, the rule's function fails.
    """
    model = version.name
    point(catalog, CHALLENGER, version, "training", {})
    by = rule_digest(judge.rule)
    while True:
        live, alias = champion_of(catalog, model)
        if live is None:
            if move(catalog, CHAMPION, alias, version, "gate", {"why": "the first version"}) is not None:
                return Registered(version.id, version.version, True, "the first version", version.id)
            continue
        if live.id == version.id:
            return Registered(version.id, version.version, True, "it is the champion already", version.id)
        settled = _settled(catalog, version, live, by)
        if settled:
            return Registered(version.id, version.version, False, settled, live.id)
        comparison = judge.compare(version, live)
        data = {"id": version.id, "against": live.version, "live_id": live.id, "rule": by}
        data |= msgspec.to_builtins(comparison)
        if not comparison.promote:
            told_now = {"version": version.version, **data}
            catalog.add_event(Event(now_us(), "gate", REFUSED, f"/{KIND}/{model}", told_now))
            return Registered(version.id, version.version, False, comparison.why, live.id, comparison)
        if judge.rule is not None and judge.rule.rollout:
            begin(catalog, live, version, judge.rule.rollout, "gate", comparison.why)
            told_why = f"it is being rolled out: {comparison.why}"
            return Registered(version.id, version.version, False, told_why, live.id, comparison)
        if move(catalog, CHAMPION, alias, version, "gate", data) is not None:
            return Registered(version.id, version.version, True, comparison.why, version.id, comparison)


def stands(catalog: Catalog, model: str, done: Registered) -> bool:
    """Whether the version is still the challenger, and the champion the one that it left or made."""
    challenger, champion = (catalog.alias(KIND, model, alias) for alias in (CHALLENGER, CHAMPION))
    if challenger is None or champion is None:
        return False
    return (challenger.entity_id, champion.entity_id) == (done.id, done.live)


def _settled(catalog: Catalog, version: Entity, live: Entity, by: str) -> str:
    """Why a version is not judged again, or nothing."""
    model = version.name
    if any(event.data.get("to") == version.id for event in told(catalog, model, f"{KIND}.{CHAMPION}")):
        return f"it was the champion before: mainspring promote {model} {version.version} brings it back"
    rollout, _ = current(catalog, model)
    if rollout is not None and (rollout.canary_id, rollout.stable_id) == (version.id, live.id):
        return (
            f"it is {'being rolled out' if not rollout.over else f'out of its rollout, {rollout.state}'}: {rollout.why}"
        )
    refusal = refusal_of(catalog, model, version, live)
    if refusal is not None and refusal.data.get("rule") == by:
        return f"refused already against version {live.version}: {refusal.data.get('why', '')}"
    return ""
