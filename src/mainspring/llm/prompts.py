"""Declared prompts: typed variables, a sandboxed template, and an id that is the hash of all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from mainspring.errors import ConfigError, UsageError
from mainspring.lazy import lazy
from mainspring.llm.lanes import share_of
from mainspring.ports.llm import Generation, Message, Schema

if TYPE_CHECKING:
    import minijinja
else:
    minijinja = lazy("minijinja")

__all__ = ["Alias", "Prompt", "PromptRegistry", "PromptVariable"]

_FUEL = 100_000
"""Steps that one rendering may take."""
_MOST = 4 << 20
"""Characters that one rendering may make."""
_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
}


class PromptVariable(msgspec.Struct, frozen=True):
    """A variable of a prompt.

    Attributes:
        name: as the template writes it.
        type: ``str``, ``int``, ``float``, ``bool``, ``list`` or ``dict``.
        default: its value when none is given; None: it must be given.
    """

    name: str
    type: str = "str"
    default: object = None


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt: everything that decides what is asked, so that its hash names it.

    Attributes:
        name: what callers know.
        template: Jinja text of the user's turn.
        system: Jinja text of the system's turn, or empty.
        variables: every variable of both.
        model: the route that answers, or empty: the caller's choice.
        temperature: None is the request's own.
        max_tokens: None is the request's own.
        schema: what the answer must be, or None.
    """

    name: str
    template: str
    system: str = ""
    variables: tuple[PromptVariable, ...] = ()
    model: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    schema: Mapping[str, object] | None = None

    @property
    def id(self) -> str:
        """32 hexadecimal digits over all of it."""
        content = msgspec.to_builtins(self, order="sorted")
        return hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


class Alias(msgspec.Struct, frozen=True):
    """Which version a name like ``prod`` stands for, from a moment on.

    Attributes:
        name: the prompt's.
        alias: ``prod``, ``canary``.
        prompt_id: the version.
        weight: its share of users, in (0, 1], beside other versions under the same alias.
    """

    name: str
    alias: str
    prompt_id: str
    weight: float = 1.0


class PromptRegistry:
    """The prompts of an app, every version of them.

    Args:
        prompts: as declared; the last one of a name is its alias ``latest``.

    Attributes:
        follow: called before every look at an alias, so that it stands for what holds at that moment.
    """

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self._by_id: dict[str, Prompt] = {}
        self._aliases: dict[tuple[str, str], tuple[Alias, ...]] = {}
        self._environment: Any = None
        self.follow: Callable[[], None] = _nothing
        for prompt in prompts:
            self.add(prompt)

    def add(self, prompt: Prompt) -> str:
        """Take a version; its id.

        Raises:
            ConfigError: MS-3072, the template is no template, or uses a variable that is not declared.
        """
        used: set[str] = set()
        for text in (prompt.system, prompt.template):
            try:
                used |= set(self._jinja().undeclared_variables_in_str(text))
                self._jinja().add_template(_digest(text), text)
            except minijinja.TemplateError as error:
                raise ConfigError(
                    f"the template of the prompt {prompt.name!r} cannot be read",
                    code="MS-3072",
                    why=str(error).partition("\n")[0],
                    fix="correct the template; it is Jinja text",
                ) from error
        declared = {variable.name for variable in prompt.variables}
        if used - declared:
            raise ConfigError(
                f"the prompt {prompt.name!r} uses a variable that it does not declare: {min(used - declared)}",
                code="MS-3072",
                why="every variable has a type",
                fix=f"declare it, or take {{{{ {min(used - declared)} }}}} out of the template",
            )
        self._by_id[prompt.id] = prompt
        self._aliases[prompt.name, "latest"] = (Alias(prompt.name, "latest", prompt.id),)
        return prompt.id

    def prompts(self) -> Sequence[Prompt]:
        """Every version of every prompt."""
        return tuple(self._by_id.values())

    def take(self, aliases: Sequence[Alias]) -> None:
        """Let an alias stand for a version, or for several with the share of users of each, from now on.

        Args:
            aliases: of one name and alias, all of them.

        Raises:
            UsageError: MS-2680, a version is not known or belongs to another prompt; MS-2681, the shares are not 1
                together.
        """
        name, label = aliases[0].name, aliases[0].alias
        for alias in aliases:
            if alias.prompt_id not in self._by_id or self._by_id[alias.prompt_id].name != name:
                raise UsageError(
                    f"the prompt {name!r} has no version {alias.prompt_id}",
                    code="MS-2680",
                    why="an alias stands for versions of its own prompt",
                    fix="use an id that the registry lists",
                )
        shares = [alias.weight for alias in aliases]
        if abs(sum(shares) - 1.0) > 1e-9 or any(share <= 0 for share in shares):
            raise UsageError(
                f"the shares of {name}@{label} are not 1 together",
                code="MS-2681",
                why=f"they are {sum(shares):g}",
                fix="give each version a share above 0, and 1 together",
            )
        self._aliases[name, label] = tuple(aliases)

    def find(self, name: str, version: str = "", user: str = "") -> Prompt:
        """A prompt by its name and an alias or an id; without either ``prod`` where it is set, else the latest.

        Raises:
            UsageError: MS-2680.
        """
        by_id = self._by_id.get(version)
        if by_id is not None and by_id.name == name:
            return by_id
        self.follow()
        aliases = (version,) if version else ("prod", "latest")
        shares = next((self._aliases[name, alias] for alias in aliases if (name, alias) in self._aliases), None)
        if shares is None:
            raise UsageError(
                f"there is no prompt {name!r}" + (f" under {version!r}" if version else ""),
                code="MS-2680",
                why="it is not declared, or the alias is not set",
                fix="use a declared prompt's name, with an alias or an id that it has",
            )
        place, end = share_of(user, f"prompt:{name}"), 0.0
        for alias in shares:
            end += alias.weight
            if place < end:
                return self._by_id[alias.prompt_id]
        return self._by_id[shares[-1].prompt_id]

    def render(self, prompt: Prompt, variables: Mapping[str, object]) -> tuple[Message, ...]:
        """The conversation of a prompt with its variables filled in.

        A variable's text is never read as a template.

        Raises:
            UsageError: MS-2682, a variable is missing, unknown or of another type; MS-2683, it cannot be rendered.
        """
        values = _typed(prompt, variables)
        turns = [("system", prompt.system), ("user", prompt.template)]
        return tuple(
            Message("system" if role == "system" else "user", (self._text(prompt, text, values),))
            for role, text in turns
            if text
        )

    def request(self, prompt: Prompt, variables: Mapping[str, object], base: Generation) -> Generation:
        """A request made from a prompt: its conversation before the base's own, its values where the base has none.

        Raises:
            UsageError: as `render`.
        """
        sampling = base.sampling
        if sampling.temperature is None:
            sampling = msgspec.structs.replace(sampling, temperature=prompt.temperature)
        if sampling.max_tokens is None:
            sampling = msgspec.structs.replace(sampling, max_tokens=prompt.max_tokens)
        schema = base.schema
        if schema is None and prompt.schema is not None:
            schema = Schema(prompt.schema, prompt.name)
        return msgspec.structs.replace(
            base,
            model=base.model or prompt.model,
            messages=(*self.render(prompt, variables), *base.messages),
            sampling=sampling,
            schema=schema,
        )

    def _text(self, prompt: Prompt, text: str, values: Mapping[str, object]) -> str:
        try:
            rendered: str = self._jinja().render_template(_digest(text), **values)
        except minijinja.TemplateError as error:
            raise UsageError(
                f"the prompt {prompt.name!r} cannot be rendered",
                code="MS-2683",
                why=str(error).partition("\n")[0],
                fix="give values that its template can work with",
            ) from error
        return rendered[:_MOST]

    def _jinja(self) -> Any:
        if self._environment is None:
            self._environment = minijinja.Environment(
                fuel=_FUEL, auto_escape_callback=lambda name: False, undefined_behavior="strict", pycompat=False
            )
        return self._environment


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _typed(prompt: Prompt, given: Mapping[str, object]) -> dict[str, object]:
    declared = {variable.name: variable for variable in prompt.variables}
    unknown = set(given) - set(declared)
    if unknown:
        raise _bad_variable(prompt, min(unknown), "it is not declared")
    values: dict[str, object] = {}
    for name, variable in declared.items():
        value = given.get(name, variable.default)
        if value is None:
            raise _bad_variable(prompt, name, "it is missing")
        if not isinstance(value, _TYPES[variable.type]) or (variable.type != "bool" and isinstance(value, bool)):
            raise _bad_variable(prompt, name, f"it is a {type(value).__name__}, and should be a {variable.type}")
        values[name] = value
    return values


def _bad_variable(prompt: Prompt, name: str, why: str) -> UsageError:
    return UsageError(
        f"the variable {name!r} of the prompt {prompt.name!r} does not fit",
        code="MS-2682",
        why=why,
        fix="give each declared variable a value of its type, and no others",
    )


def _nothing() -> None:
    return
