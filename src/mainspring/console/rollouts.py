"""Rollouts on the page of an endpoint: what is tried, what was seen of it, and what a person decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.catalog.rollouts import Rollout
from mainspring.console.state import ConsoleState
from mainspring.declare.rollout import RolloutStep, read_share, spell_step
from mainspring.errors import UsageError
from mainspring.server.rollouts.deciding import promote_whole, roll_back_model, try_version
from mainspring.server.rollouts.drive import described

__all__ = ["ACTS", "decide", "rollout_rows"]

ACTS = ("canary", "shadow", "promote", "rollback")
"""What a person may do to the versions behind an endpoint."""


def rollout_rows(state: ConsoleState, model: str) -> dict[str, object]:
    """A model's versions to choose from, and its newest rollout."""
    versions = [entity.version for entity in state.services.catalog.entities("model", model)]
    found = described(state.services.catalog, model)
    if found is None:
        return {"versions": versions, "rollout": None}
    steps = [msgspec.convert(step, RolloutStep) for step in _list(found["steps"])]
    return {"versions": versions, "rollout": {**found, "spelt": [spell_step(step) for step in steps]}}


def decide(state: ConsoleState, endpoint: str, act: str, form: Mapping[str, str]) -> dict[str, object] | None:
    """Do what a person has decided; how the versions stand then, or None where there is nothing like that.

    Args:
        state: the console's view of the process.
        endpoint: the endpoint's name.
        act: one of `ACTS`.
        form: ``version``; ``share`` of a canary; ``force``, also against the gate; ``by``, who does it.

    Raises:
        UsageError: MS-2725, a version is no number; MS-2723, a share is none.
        RefusedError: as `try_version`, `promote_whole` and `roll_back_model` raise.
    """
    node = state.plan().node(f"/endpoint/{endpoint}")
    if node is None or act not in ACTS or not node.inputs[0].startswith("/model/"):
        return None
    catalog, model = state.services.catalog, node.inputs[0].rpartition("/")[2]
    by, force = form.get("by", "").strip()[:80] or "console", form.get("force", "") in ("on", "true")
    done: Rollout | object
    if act == "rollback":
        done = roll_back_model(catalog, model, by)
    elif act == "promote":
        done = promote_whole(catalog, model, _version(form), by, force=force)
    else:
        step = RolloutStep(0.0, shadow=True) if act == "shadow" else RolloutStep(_share(form))
        done = try_version(catalog, model, _version(form), (step,), by, force=force)
    return {
        "endpoint": endpoint,
        "model": model,
        "act": act,
        "done": msgspec.to_builtins(done),
        **rollout_rows(state, model),
    }


def _version(form: Mapping[str, str]) -> int:
    text = form.get("version", "")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"{text[:40]!r} is no version", code="MS-2725", fix="send version=3, a version's number")
    return int(text)


def _share(form: Mapping[str, str]) -> float:
    try:
        return read_share(form.get("share", ""))
    except ValueError:
        raise UsageError(
            f"{form.get('share', '')[:40]!r} is no share of the callers",
            code="MS-2723",
            why="it lies above 0 and below 100 %",
            fix="send share=10%",
        ) from None


def _list(found: object) -> Sequence[object]:
    return found if isinstance(found, list) else ()
