"""What a person decides about versions: try one, let one take over, take it back; the same for CLI, API and console."""

from __future__ import annotations

from mainspring.catalog.rollouts import Rollout, begin, current, stop
from mainspring.declare.rollout import RolloutStep
from mainspring.errors import RefusedError
from mainspring.ports.catalog import Catalog, Entity
from mainspring.training.versions import champion_of, move, promote_now, refused_by_gate, roll_back, version_of

__all__ = ["label_version", "promote_whole", "roll_back_model", "try_version"]


def try_version(
    catalog: Catalog, model: str, version: int, steps: tuple[RolloutStep, ...], actor: str, *, force: bool = False
) -> Rollout:
    """Let a version answer a share of a model's callers, or be its shadow.

    Args:
        catalog: the metadata store.
        model: the model's name.
        version: the version's number.
        steps: the stretches; one that has no length lasts until somebody decides.
        actor: who says so.
        force: also when the gate has refused this version against the present champion.

    Raises:
        RefusedError: MS-5040, there is no such version; MS-5042, the gate has refused it; MS-4360, MS-4361, it is being
            rolled out already, or is the champion; MS-4362, the model has no champion yet.
    """
    found = version_of(catalog, model, version)
    live, _ = champion_of(catalog, model)
    if live is None:
        raise RefusedError(
            f"model {model!r} has no champion that a version could be tried beside",
            code="MS-4362",
            fix=f"mainspring promote {model} {version}",
        )
    if not force:
        refused_by_gate(catalog, model, found, live)
    return begin(catalog, live, found, steps, actor, "tried by hand")


def promote_whole(catalog: Catalog, model: str, version: int, actor: str, *, force: bool = False) -> Entity:
    """Make a version the champion at once; a rollout that is under way comes to its end with it.

    Raises:
        RefusedError: MS-5040, MS-5042, as `promote_now`.
    """
    done = promote_now(catalog, model, version, actor, force=force)
    stop(catalog, model, actor, f"version {version} was promoted by hand")
    return done


def roll_back_model(catalog: Catalog, model: str, actor: str) -> Rollout | Entity:
    """Take back what is newest: a rollout that is under way ends, else the champion before answers again.

    Raises:
        RefusedError: MS-5041, there was no champion before.
    """
    rollout, _ = current(catalog, model)
    if rollout is not None and rollout.state == "running":
        stopped = stop(catalog, model, actor, f"stopped by {actor}")
        if stopped is not None:
            return stopped
    return roll_back(catalog, model, actor)


def label_version(catalog: Catalog, model: str, version: int, label: str, actor: str) -> Entity:
    """Let a label of a person's own name a version; servers lead it there when they have loaded the version.

    Raises:
        RefusedError: MS-5040, there is no such version; MS-4363, the label was moved meanwhile; MS-4364, it is none.
    """
    if label in ("stable", "champion", "challenger", "canary", "shadow") or label.isdigit() or not label:
        raise RefusedError(
            f"{label!r} is no label of a person's own",
            code="MS-4364",
            why="stable, champion, challenger, canary and shadow move by promotions, trainings and rollouts alone",
            fix=f"mainspring promote {model} {version}, or another name behind --as",
        )
    found = version_of(catalog, model, version)
    seen = catalog.alias("model", model, label)
    if seen is not None and seen.entity_id == found.id:
        return found
    if move(catalog, label, seen, found, actor, {"why": "labelled"}) is None:
        raise RefusedError(
            f"label {label!r} of model {model!r} was moved meanwhile",
            code="MS-4363",
            why="somebody else has moved it between the look and the move",
            fix=f"mainspring show model/{model}, and again",
        )
    return found
