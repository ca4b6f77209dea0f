"""Declared prompts on record: every version in the catalog, and the aliases that choose among them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.declare import llm as declared
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.record import FieldSpec, Kind, fields_of
from mainspring.errors import RefusedError
from mainspring.llm.prompts import Alias, Prompt, PromptRegistry, PromptVariable
from mainspring.plan.encoding import digest, encode
from mainspring.plan.graph import Plan
from mainspring.ports import catalog as records
from mainspring.ports.catalog import Catalog, Entity, Event
from mainspring.server.rollouts.agreement import Agreement, token_of

__all__ = ["PROD", "Prompts", "promote_prompt", "prompts_of", "roll_back_prompt", "shares_of"]

_KIND, _SPLIT, PROD = "prompt", "prompt_split", "prod"
_MOST = 10_000
_AGREED = "prompts of the app"
"""What workers are at one on them under: no model can be called so."""


class Prompts:
    """The prompts of a running app.

    Args:
        services: the project's ports; the catalog is opened only when the app has prompts.
        plan: the app's graph.

    Attributes:
        registry: every version of every declared prompt, and the aliases as they are now.
    """

    def __init__(self, services: Services, plan: Plan) -> None:
        self._services = services
        found = prompts_of(plan)
        self._names = [prompt.name for prompt in found]
        self._agreement: Agreement | None = None
        self._lock = threading.Lock()
        self._held: dict[str, str] = {}
        self._token = 0
        self._moved: list[str] = []
        kept = keep_prompts(services.catalog, found) if found else []
        self.registry = PromptRegistry([*kept, *found])
        self.refresh()

    def agree(self, agreement: Agreement | None) -> None:
        """Take part in what the workers of a server agree on, and begin with what they have."""
        if agreement is None or not self._names:
            return
        self._agreement = agreement
        self._follow()
        self.registry.follow = self._follow

    def refresh(self) -> list[str]:
        """Take over aliases that have moved since, when all workers have seen it; a line for each."""
        if not self._names:
            return []
        wanted = {
            f"{alias.name}@{alias.alias}": alias.entity_id
            for alias in self._services.catalog.aliases(_SPLIT)
            if alias.name in self._names
        }
        agreement = self._agreement
        if agreement is None or not agreement.joined:
            self._take(wanted)
        else:
            text = msgspec.json.encode(wanted, order="deterministic")
            agreement.propose(_AGREED, token_of(text), text)
            self._follow()
        with self._lock:
            moved, self._moved = self._moved, []
        return moved

    def _follow(self) -> None:
        """Let the aliases stand for what all workers have agreed on."""
        agreement = self._agreement
        if agreement is None or agreement.agreed(_AGREED) in (0, self._token):
            return
        text = agreement.agreed_text(_AGREED)
        if text is not None:
            self._take(msgspec.json.decode(text, type=dict[str, str]))
            self._token = token_of(text)

    def _take(self, wanted: Mapping[str, str]) -> None:
        with self._lock:
            for at, entity_id in wanted.items():
                if self._held.get(at) == entity_id:
                    continue
                name, _, alias = at.rpartition("@")
                entity = self._services.catalog.entity_by_id(entity_id)
                if entity is not None:
                    shares = _shares(entity).items()
                    self.registry.take([Alias(name, alias, prompt, share) for prompt, share in shares])
                self._held[at] = entity_id
                self._moved.append(f"prompt {name}: {alias} is set")


def prompts_of(plan: Plan) -> list[Prompt]:
    """The app's declared prompts."""
    return [_prompt(node.name, cast(declared.Prompt, node.declaration)) for node in plan.of_kind("prompt")]


def keep_prompts(catalog: Catalog, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Record the prompts' versions that are not yet, and read all versions of them, the oldest first."""
    found = []
    for prompt in prompts:
        entity = Entity(new_id(), _KIND, prompt.name, 0, prompt.id, msgspec.to_builtins(prompt), now_us())
        catalog.add_entity(entity)
        kept = catalog.entities(_KIND, prompt.name, limit=_MOST)
        found += [msgspec.convert(one.spec, Prompt) for one in reversed(kept)]
    return found


def shares_of(catalog: Catalog, name: str, alias: str = PROD) -> dict[int, float]:
    """The versions that an alias stands for, with the share of users of each; empty when it is not set."""
    at = catalog.alias(_SPLIT, name, alias)
    entity = None if at is None else catalog.entity_by_id(at.entity_id)
    if entity is None:
        return {}
    numbers = {one.digest: one.version for one in catalog.entities(_KIND, name, limit=_MOST)}
    return {numbers[prompt]: share for prompt, share in _shares(entity).items()}


def promote_prompt(
    catalog: Catalog, name: str, version: int, actor: str, *, alias: str = PROD, share: float = 1.0
) -> dict[int, float]:
    """Let an alias of a prompt stand for a version, or give a share of users that version.

    The others go on with what the alias stands for; a share where it stands for nothing yet is refused.

    Returns:
        The share of each version.

    Raises:
        RefusedError: MS-5044, there is no such version, or nothing to share with.
    """
    found = catalog.entity(_KIND, name, version)
    if found is None:
        known = [str(one.version) for one in catalog.entities(_KIND, name)]
        raise RefusedError(
            f"prompt {name!r} has no version {version}",
            code="MS-5044",
            why=f"versions: {', '.join(known) or 'none'}",
            fix=f"mainspring show prompt/{name}" if known else "mainspring show prompt lists the declared ones",
        )
    while True:
        at = catalog.alias(_SPLIT, name, alias)
        before = None if at is None else catalog.entity_by_id(at.entity_id)
        others = {} if before is None else {one: of for one, of in _shares(before).items() if one != found.digest}
        if share < 1 and not others:
            raise RefusedError(
                f"{name}@{alias} stands for no other version",
                code="MS-5044",
                why="a share of users needs others to share with",
                fix=f"mainspring promote prompt/{name} VERSION first, for all users",
            )
        rest = sum(others.values())
        shares = {found.digest: share} | {one: of / rest * (1 - share) for one, of in others.items() if share < 1}
        if _move(catalog, name, alias, at, shares, actor, {"why": "promoted by hand"}):
            return shares_of(catalog, name, alias)


def roll_back_prompt(catalog: Catalog, name: str, actor: str, *, alias: str = PROD) -> dict[int, float]:
    """Let an alias stand for what it did before; again, and for what it did before that.

    Raises:
        RefusedError: MS-5045, it stood for nothing before.
    """
    while True:
        at = catalog.alias(_SPLIT, name, alias)
        stack: list[str] = []
        for event in catalog.events(what=f"{_KIND}.{alias}", subject=f"/{_KIND}/{name}", limit=_MOST):
            if event.subject != f"/{_KIND}/{name}":
                continue
            if event.data.get("rollback"):
                stack.pop()
            elif event.data.get("before"):
                stack.append(str(event.data["before"]))
        before = catalog.entity_by_id(stack[-1]) if stack else None
        if before is None:
            raise RefusedError(
                f"{name}@{alias} has nothing to go back to",
                code="MS-5045",
                why="it was never set" if at is None else "what it stands for is the first",
                fix=f"mainspring show prompt/{name}",
            )
        if _move(catalog, name, alias, at, _shares(before), actor, {"why": "rolled back", "rollback": True}):
            return shares_of(catalog, name, alias)


def _move(
    catalog: Catalog,
    name: str,
    alias: str,
    at: records.Alias | None,
    shares: Mapping[str, float],
    actor: str,
    data: Mapping[str, object],
) -> bool:
    """Whether the alias was moved; not when somebody else has moved it meanwhile."""
    now = now_us()
    content: dict[str, object] = {"shares": dict(shares)}
    to = catalog.add_entity(Entity(new_id(), _SPLIT, name, 0, digest(encode(content)), content, now))
    rev, before = (0, "") if at is None else (at.rev, at.entity_id)
    more: dict[str, object] = {**data, **content, "before": before, "to": to.id}
    event = Event(now, actor, f"{_KIND}.{alias}", f"/{_KIND}/{name}", more)
    return catalog.move_alias(records.Alias(_SPLIT, name, alias, to.id, rev), event) is not None


def _shares(split: Entity) -> dict[str, float]:
    return msgspec.convert(split.spec["shares"], dict[str, float])


def _prompt(name: str, prompt: declared.Prompt) -> Prompt:
    spec = spec_of(prompt)
    return Prompt(
        name=name,
        template=spec.template,
        variables=tuple(PromptVariable(one.name, one.type.__name__, one.default) for one in spec.variables),
        model="" if spec.llm is None else name_of(spec.llm),
        temperature=spec.temperature,
        max_tokens=spec.max_tokens,
        schema=None if spec.answer is None else _schema_of(fields_of(spec.answer)),
    )


def _schema_of(fields: Sequence[FieldSpec]) -> Mapping[str, object]:
    """A JSON schema of a record that a model is asked for."""
    kinds = {Kind.INTEGER: "integer", Kind.FLOAT: "number", Kind.DECIMAL: "number", Kind.BOOLEAN: "boolean"}
    properties = {}
    for field in fields:
        kind = kinds.get(field.type.kind, "string")
        properties[field.name] = {"type": [kind, "null"] if field.type.nullable else kind}
    return {
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }
