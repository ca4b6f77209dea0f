"""Language models, how requests are routed over them, and prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, cast

import msgspec

from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.duration import Duration, microseconds
from mainspring.declare.options import are, choice, is_a, number
from mainspring.declare.origin import Origin, here
from mainspring.declare.record import Record
from mainspring.errors import DeclarationError

__all__ = ["LLM", "AnyLLM", "Guard", "LLMSpec", "Need", "Prompt", "PromptSpec", "Route", "RouteSpec", "Variable"]

Need = Literal["tools", "images", "schema", "logprobs", "embeddings"]


class Guard(msgspec.Struct, frozen=True):
    """What must not be asked of a model, or said by it.

    Attributes:
        name: what refusals and traces call it.
        pattern: a regular expression of it.
        replace: what takes its place; without it, what has it is refused.
        on: where it is looked for: in what is asked (of people and tools, not of the app's own instructions), in what
            is answered, or in both.
        longest: characters of the longest match; so many are held back while an answer is streamed.

    Raises:
        DeclarationError: MS-1034 to MS-1036, an option is not what it should be; MS-1092, the pattern is none.
    """

    name: str
    pattern: str
    replace: str | None = None
    on: Literal["input", "output", "both"] = "both"
    longest: int = 128

    def __post_init__(self) -> None:
        is_a("name", self.name, str, 'Guard("cards", r"[0-9]{16}")')
        is_a("pattern", self.pattern, str, 'Guard("cards", r"[0-9]{16}")')
        choice("on", self.on, ("input", "output", "both"))
        number("longest", self.longest, least=1)
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise DeclarationError(
                f"the pattern of guard {self.name!r} is no regular expression",
                code="MS-1092",
                why=str(error),
                origin=str(here()),
                fix='a backslash needs a raw string, such as r"[0-9]{16}"',
            ) from error


class LLMSpec(msgspec.Struct, frozen=True):
    """A language model; which one, and where, is the profile's business (``[llms.NAME]``).

    Attributes:
        max_tokens: most tokens of an answer that does not ask for a number, or None.
        temperature: of requests that do not say, or None for the engine's own.
        needs: what the engine must be able to do; checked before it serves.
        guards: of what is asked and answered, by whatever name and from wherever.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    needs: tuple[Need, ...] = ()
    guards: tuple[Guard, ...] = ()


class LLM(Declaration[LLMSpec]):
    """A declared language model."""

    __slots__ = ("_add",)

    def __init__(self, spec: LLMSpec, origin: Origin, name: str, add: Callable[[Route], Route]) -> None:
        super().__init__(DeclaredKind.LLM, spec, origin, name)
        self._add = add

    def route(
        self,
        *fallback: LLM,
        beside: Sequence[LLM] = (),
        hedge: Duration | None = None,
        split: Mapping[LLM, float] | None = None,
        cache: Duration | None = None,
        alike: float | None = None,
        called: str | None = None,
    ) -> Route:
        """A model's name of its own that clients use, answered by this model unless something else is said.

        Args:
            fallback: asked in this order when one before does not answer, before the first byte is sent.
            beside: models that answer as well as this one, at other places; each request goes to the one with the
                fewest tokens under way.
            hedge: after so long without a token another one of them is asked too, and the faster one answers.
            split: other models with the share of users, by a hash of the user's id, that each of them answers.
            cache: how long the answer to an equal request of temperature 0 may be given again.
            alike: how alike two questions of one caller must be, as the cosine of their vectors, so that the answer to
                one is given to the other as well; without it only equal requests are. Needs `cache`.
            called: its name, when no variable holds it.

        Raises:
            DeclarationError: MS-1033, something is no declared LLM; MS-1035; MS-1044, the shares exceed 1; MS-3130, a
                model stands beside itself; MS-3131, a hedge with nobody beside; MS-3180, `alike` is no
                cosine, or nothing is kept.
        """
        are("fallback", fallback, LLM, 'strong = app.llm("strong"), then chat.route(strong)')
        are("beside", beside, LLM, 'twin = app.llm("twin"), then chat.route(beside=[twin])')
        _check_places((self, *beside), hedge)
        shares = tuple((split or {}).items())
        for model, share in shares:
            is_a("a key of split", model, LLM, 'app.llm("...") makes one')
            number("a share of split", share, least=0, whole=False)
        if sum(share for _, share in shares) > 1:
            raise DeclarationError(
                "the shares of split are more than 1 together",
                code="MS-1044",
                why="what they leave is answered by the model itself",
                origin=str(here()),
                fix="split={canary: 0.1}",
            )
        cache_us = None if cache is None else microseconds(cache, what="cache")
        hedge_us = None if hedge is None else microseconds(hedge, what="hedge")
        _check_alike(alike, cache_us)
        spec = RouteSpec(self, tuple(beside), hedge_us, fallback, shares, cache_us, alike)
        return self._add(Route(spec, here(), called))


def _check_alike(alike: object, cache_us: int | None) -> None:
    if alike is None:
        return
    number("alike", alike, whole=False)
    if not 0.0 < cast(float, alike) <= 1.0 or cache_us is None:
        raise DeclarationError(
            f"alike={alike!r} gives no answer again",
            code="MS-3180",
            why="nothing is kept without cache"
            if cache_us is None
            else "cosines of questions are above 0, and 1 at most",
            origin=str(here()),
            fix='chat.route(cache="1h", alike=0.95)',
        )


def _check_places(models: Sequence[LLM], hedge: Duration | None) -> None:
    if len(set(models)) < len(models):
        raise DeclarationError(
            "a model stands beside itself",
            code="MS-3130",
            why="each place where requests go is a model of its own, whose section of the settings says where it is",
            origin=str(here()),
            fix='chat.route(beside=[app.llm("twin")])',
        )
    if hedge is not None and len(models) == 1:
        raise DeclarationError(
            "a hedge needs somebody to ask",
            code="MS-3131",
            why="a second model is asked when the first gives no token, and there is none beside it",
            origin=str(here()),
            fix='chat.route(beside=[app.llm("twin")], hedge="2s")',
        )


class RouteSpec(msgspec.Struct, frozen=True):
    """How requests for one name are answered.

    Attributes:
        first: the model that answers.
        beside: models that answer as well as the first.
        hedge_us: after how long without a token another one of these is asked too, in microseconds, or None.
        fallback: the models that are asked when it does not, in order.
        split: models that answer a share of the users instead.
        cache_us: how long an equal request's answer may be given again, in microseconds, or None.
        alike: the least cosine of questions that have one answer, or None: only equal requests have.
    """

    first: LLM
    beside: tuple[LLM, ...]
    hedge_us: int | None
    fallback: tuple[LLM, ...]
    split: tuple[tuple[LLM, float], ...]
    cache_us: int | None
    alike: float | None = None

    @property
    def models(self) -> tuple[LLM, ...]:
        """Every model that may answer, each once."""
        return tuple(dict.fromkeys((self.first, *self.beside, *(model for model, _ in self.split), *self.fallback)))


class Route(Declaration[RouteSpec]):
    """A declared route."""

    __slots__ = ()

    def __init__(self, spec: RouteSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.ROUTE, spec, origin, name)


AnyLLM: TypeAlias = LLM | Route


class Variable(msgspec.Struct, frozen=True):
    """A variable of a prompt, with its type and its value when none is given (None: it must be given)."""

    name: str
    type: type
    default: object = None


class PromptSpec(msgspec.Struct, frozen=True):
    """A prompt: a template with typed variables, and how its answer is drawn.

    Attributes:
        template: Jinja text; every variable in it is declared.
        llm: who answers, or None when the caller decides.
        variables: in the order they were declared.
        temperature: None is the model's own.
        max_tokens: None is the model's own.
        answer: the record that the answer must be, or None for text.
    """

    template: str
    llm: AnyLLM | None
    variables: tuple[Variable, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    answer: type[Record] | None = None


class Prompt(Declaration[PromptSpec]):
    """A declared prompt."""

    __slots__ = ()

    def __init__(self, spec: PromptSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.PROMPT, spec, origin, name)
