"""What a form asks in words, and by whose rights: fields in, typed values out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from mainspring.declare.identity import Identity
from mainspring.errors import UsageError
from mainspring.ports.llm import Message

__all__ = ["Said", "TalkForm", "identity_of", "identity_row", "talk_form"]

_TURNS = 200
"""The most messages of a conversation that a form carries."""


class Said(msgspec.Struct, frozen=True):
    """One message of a conversation that the page carries."""

    role: Literal["user", "assistant"]
    content: str


class TalkForm(msgspec.Struct, frozen=True):
    """What the form of a chat page says.

    Attributes:
        question: what is asked; empty for a decision.
        history: the conversation before it.
        who: by whose rights.
        thread: where a run waits for a decision, or empty.
        interrupt: what it waits for, or empty.
        decisions: what was decided of each call, in order.
    """

    question: str
    history: tuple[Said, ...]
    who: Identity
    thread: str = ""
    interrupt: str = ""
    decisions: tuple[Mapping[str, object], ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as a model is given it."""
        asked = Message("user", (self.question,))
        return (*(Message(said.role, (said.content,)) for said in self.history), asked)

    def after(self, text: str) -> tuple[Said, ...]:
        """The conversation with the question, and with what was answered."""
        asked = (Said("user", self.question),) if self.question else ()
        return (*self.history, *asked, *((Said("assistant", text),) if text else ()))


_HISTORY = msgspec.json.Decoder(Annotated[tuple[Said, ...], msgspec.Meta(max_length=_TURNS)])


def identity_of(fields: Mapping[str, str]) -> Identity:
    """By whose rights a form asks: nobody's in particular, unless it names ``user``, ``groups`` or ``tenant``."""
    groups = (group.strip() for group in fields.get("groups", "").split(","))
    return Identity(
        fields.get("user", "").strip(), tuple(group for group in groups if group), fields.get("tenant", "").strip()
    )


def identity_row(who: Identity) -> dict[str, object]:
    """An identity as pages show it."""
    return {
        "user": who.user,
        "groups": ", ".join(who.groups),
        "tenant": who.tenant,
        "principals": list(who.principals),
    }


def talk_form(fields: Mapping[str, str]) -> TalkForm:
    """A chat page's form.

    Args:
        fields: ``question``, ``history`` (JSON), ``user``, ``groups``, ``tenant``; for a decision ``thread``,
            ``interrupt`` and ``decision-0``, ``decision-1``, ...: ``approve`` or ``reject``.

    Raises:
        UsageError: MS-2670, nothing is asked; MS-2671, the history is none.
    """
    try:
        history = _HISTORY.decode(fields.get("history", "") or "[]")
    except msgspec.DecodeError as error:
        raise UsageError(
            "the conversation cannot be read",
            code="MS-2671",
            why=str(error),
            fix=f'send history as JSON, at most {_TURNS} of {{"role": "user", "content": "..."}}',
        ) from error
    who, interrupt = identity_of(fields), fields.get("interrupt", "")
    if interrupt:
        return TalkForm("", history, who, fields.get("thread", ""), interrupt, _decisions(fields))
    question = fields.get("question", "").strip()
    if not question:
        raise UsageError("nothing is asked", code="MS-2670", fix="write a question")
    return TalkForm(question, history, who)


def _decisions(fields: Mapping[str, str]) -> tuple[Mapping[str, object], ...]:
    found: list[Mapping[str, object]] = []
    while (word := fields.get(f"decision-{len(found)}")) is not None:
        found.append({"type": word} if word == "approve" else {"type": "reject", "message": "an operator refused it"})
    return tuple(found)
