"""The part of an app that answers in words: language models, documents, tools, assistants."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import ParamSpec, TypeVar, cast, overload

from mainspring.declare.assistant import (
    Assistant,
    AssistantSpec,
    Evaluation,
    EvaluationSpec,
    McpServer,
    McpServerSpec,
    Tool,
    ToolSpec,
    Usable,
)
from mainspring.declare.check import takes_inputs
from mainspring.declare.data import FeatureView, did_you_mean
from mainspring.declare.declared import Declared
from mainspring.declare.documents import Access, Documents, DocumentsSpec, Index, IndexSpec, Mode
from mainspring.declare.duration import Duration, microseconds
from mainspring.declare.llm import LLM, AnyLLM, Guard, LLMSpec, Need, Prompt, PromptSpec, Route, Variable
from mainspring.declare.model import Endpoint
from mainspring.declare.options import are, choice, flag, is_a, not_a, number, texts
from mainspring.declare.origin import here, of_function
from mainspring.declare.record import Record
from mainspring.declare.signature import signature_of
from mainspring.errors import DeclarationError

__all__ = ["Answering"]

P = ParamSpec("P")
R = TypeVar("R")

_NEEDS = ("tools", "images", "schema", "logprobs", "embeddings")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_TYPES = (str, int, float, bool, list, dict)
_VARIABLE = re.compile(r"{{-?\s*([A-Za-z_]\w*)")
LANGUAGES = (
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian",
    "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "turkish",
)  # fmt: skip
"""The languages that have stop words and a stemmer."""


class Answering(Declared):
    """What an app declares to answer questions."""

    def llm(
        self,
        name: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        needs: Sequence[Need] = (),
        guards: Sequence[Guard] = (),
    ) -> LLM:
        """A language model; which one, and where, is the profile's business (``[llms.NAME]`` of mainspring.toml).

        Args:
            name: its name, which clients use as ``model``: letters, digits, ``_.-``.
            max_tokens: most tokens of an answer that does not ask for a number.
            temperature: of requests that do not say.
            needs: what the engine must be able to do: ``tools``, ``images``, ``schema``, ``logprobs``,
                ``embeddings``.
            guards: what must not be asked of it or said by it: ``Guard("cards", r"[0-9]{16}", replace="[card]")``.

        Raises:
            DeclarationError: MS-1033 to MS-1036; MS-1045, the name is no name.
        """
        _is_name(name, 'app.llm("chat")')
        if max_tokens is not None:
            number("max_tokens", max_tokens, least=1)
        if temperature is not None:
            number("temperature", temperature, least=0, whole=False)
        texts("needs", needs)
        for need in needs:
            choice("one of needs", need, _NEEDS)
        are("guards", guards, Guard, 'Guard("cards", r"[0-9]{16}")')
        spec = LLMSpec(max_tokens, temperature, tuple(needs), tuple(guards))
        return self._add(LLM(spec, here(), name, cast("Callable[[Route], Route]", self._add)))

    def prompt(
        self,
        template: str,
        *,
        llm: AnyLLM | None = None,
        variables: Mapping[str, type | object] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        answer: type[Record] | None = None,
        called: str | None = None,
    ) -> Prompt:
        """A prompt: a Jinja template whose variables are typed; each content is a version, served by an alias.

        Args:
            template: the text, with ``{{ variable }}``; it is rendered in a sandbox.
            llm: who answers.
            variables: the type of each, or the value that it has when none is given: ``{"city": str, "days": 3}``.
                Variables that the template uses and nobody declares are texts.
            temperature: 0 is greedy.
            max_tokens: most tokens of the answer.
            answer: the record that the answer must be.
            called: its name, when no variable holds it.

        Raises:
            DeclarationError: MS-1033, MS-1035; MS-1046, a variable has a type that no template can show.
        """
        is_a("the template", template, str, 'app.prompt("Summarise {{ text }}", ...)')
        if llm is not None:
            is_a("llm", llm, (LLM, Route), 'chat = app.llm("chat"), then llm=chat')
        if max_tokens is not None:
            number("max_tokens", max_tokens, least=1)
        if temperature is not None:
            number("temperature", temperature, least=0, whole=False)
        declared = dict.fromkeys(_VARIABLE.findall(template), str) | dict(variables or {})
        spec = PromptSpec(
            template,
            llm,
            tuple(_variable(name, kind) for name, kind in declared.items()),
            temperature,
            max_tokens,
            answer,
        )
        return self._add(Prompt(spec, here(), called))

    def documents(
        self,
        place: str,
        *,
        every: Duration | None = None,
        include: Sequence[str] = ("**/*",),
        exclude: Sequence[str] = (),
        access: Access = "public",
        max_bytes: int = 64_000_000,
        called: str | None = None,
    ) -> Documents:
        """Documents in a folder, read again when they change; their places go on in ``[documents.NAME]``.

        Args:
            place: the folder, relative to the project.
            every: how often a server looks for changes.
            include: globs of the files that are read, relative to the folder.
            exclude: globs of files that are not.
            access: who may see them: ``public``, a list of principals such as ``group:staff``, or a function
                ``(path, metadata) -> principals``; a document without any principal is seen by nobody.
            max_bytes: greater files are put aside with a reason.
            called: its name, when no variable holds it.

        Raises:
            DeclarationError: MS-1033, MS-1035, MS-1036; MS-1047, the place leaves the project.
        """
        is_a("the place", place, str, 'app.documents("manuals/")')
        if ".." in PurePath(place).parts:
            raise DeclarationError(
                f"the documents of {place!r} are outside the project",
                code="MS-1047",
                why="a path in the code is relative to the project, and means the same on every machine",
                origin=str(here()),
                fix="say the place in the profile: [documents.NAME] path",
            )
        texts("include", include)
        texts("exclude", exclude)
        number("max_bytes", max_bytes, least=1)
        if access != "public" and not callable(access):
            texts("access", access)
            access = tuple(access)
        every_us = None if every is None else microseconds(every, what="every")
        spec = DocumentsSpec(place, every_us, tuple(include), tuple(exclude), access, max_bytes)
        return self._add(Documents(spec, here(), called))

    def index(
        self,
        *documents: Documents,
        tokens: int | None = None,
        mode: Mode = "hybrid",
        rerank: bool = False,
        language: str = "english",
        filters: Sequence[str] = (),
        called: str | None = None,
    ) -> Index:
        """An index over documents: structure-aware chunks, words and vectors, versions behind an alias.

        Args:
            documents: what is in it.
            tokens: most tokens of a chunk, title and headings included; the embedder's limit when left out.
            mode: ``hybrid``, ``dense`` or ``text``, for queries that do not say.
            rerank: whether the reranker sorts what is found.
            language: of stop words and stemmer.
            filters: keys of the documents' metadata that queries may filter by (as ``meta.KEY``), besides ``source``,
                ``uri``, ``folders`` and ``title``.
            called: its name, when no variable holds it.

        Raises:
            DeclarationError: MS-1033 to MS-1036; MS-1048, no documents.
        """
        if not documents:
            raise DeclarationError(
                "an index needs documents",
                code="MS-1048",
                origin=str(here()),
                fix='app.index(app.documents("manuals/"))',
            )
        are(
            "what app.index takes", documents, Documents, 'manuals = app.documents("manuals/"), then app.index(manuals)'
        )
        if tokens is not None:
            number("tokens", tokens, least=32)
        choice("mode", mode, ("hybrid", "dense", "text"))
        flag("rerank", rerank)
        choice("language", language, LANGUAGES)
        texts("filters", filters)
        spec = IndexSpec(documents, tokens, mode, rerank, language, tuple(filters))
        return self._add(Index(spec, here(), called))

    @overload
    def tool(self, function: Callable[P, R]) -> Tool[P, R]: ...
    @overload
    def tool(
        self,
        function: None = ...,
        *,
        timeout: Duration = ...,
        approve: bool = ...,
        allow: Sequence[str] = ...,
        retries: int = ...,
        called: str | None = ...,
    ) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
    def tool(
        self,
        function: Callable[P, R] | None = None,
        *,
        timeout: Duration = "30s",
        approve: bool = False,
        allow: Sequence[str] = (),
        retries: int = 0,
        called: str | None = None,
    ) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
        """A function that an assistant may call: ``@app.tool`` or ``@app.tool(approve=True)``.

        The model sees its name, docstring and typed parameters; a parameter of type `Identity` is the caller's and
        is not shown.

        Args:
            function: what is called.
            timeout: the longest that a call may take.
            approve: a person must agree to each call.
            allow: principals that may cause a call, such as ``group:staff``; everybody when left out.
            retries: further attempts after a failure; only for what may be repeated.
            called: its name, when not the function's.

        Raises:
            DeclarationError: MS-1033, MS-1035, MS-1036, MS-1042, MS-1043.
        """
        flag("approve", approve)
        texts("allow", allow)
        number("retries", retries, least=0)
        timeout_us = microseconds(timeout, what="timeout")

        def declare(function: Callable[P, R]) -> Tool[P, R]:
            if not callable(function):
                raise not_a("what app.tool takes", function, "function", "write @app.tool above a function")
            spec = ToolSpec(function, signature_of(function), timeout_us, approve, tuple(allow), retries)
            tool: Tool[P, R] = Tool(spec, of_function(function), called or function.__name__)
            self._declared.append(tool)
            return tool

        return declare if function is None else declare(function)

    def mcp(self, name: str, *, approve: bool | Sequence[str] = False, allow: Sequence[str] = ()) -> McpServer:
        """An MCP server outside, whose tools an assistant may use: ``tickets = app.mcp("tickets")``, ``may=[tickets]``.

        Where it is, and which of its tools may be used, is the profile's business (``[mcp.NAME]`` of mainspring.toml);
        a tool that is not on that list is shown to no model. The model calls them ``NAME_TOOL``.

        Args:
            name: its name: letters, digits, ``_.-``.
            approve: a person must agree to each call: of all its tools, or of those with these names, as the server
                calls them.
            allow: principals that may cause a call, such as ``group:staff``; everybody when left out.

        Raises:
            DeclarationError: MS-1033, MS-1035; MS-1045, the name is no name.
        """
        _is_name(name, 'app.mcp("tickets")')
        if not isinstance(approve, bool):
            texts("approve", approve)
        texts("allow", allow)
        named = (None if approve else ()) if isinstance(approve, bool) else tuple(approve)
        return self._add(McpServer(McpServerSpec(named, tuple(allow)), here(), name))

    def assistant(
        self,
        name: str,
        llm: AnyLLM,
        *,
        knows: Sequence[Index] = (),
        may: Sequence[Usable] = (),
        instructions: str | Prompt = "",
        k: int = 5,
        always: bool = True,
        grounded: bool = False,
        max_calls: int = 8,
        timeout: Duration = "2m",
        keep: Duration | None = "30d",
    ) -> Assistant:
        """An assistant: a model with instructions, indexes to answer from, and tools.

        Args:
            name: its name, which clients use as ``model``.
            llm: the model, or a route.
            knows: indexes that it answers from, with citations that are checked.
            may: tools; an MCP server stands for all that its setting allows, and an endpoint or a feature view of the
                app is a tool too.
            instructions: what it is told first, as text or as a prompt.
            k: how many chunks are retrieved for a question.
            always: retrieve before each answer; otherwise the model asks for it with a tool.
            grounded: an answer that cites nothing, whose sentences are in no source and that no tool was asked for, is
                replaced by the passages that were found, quoted, or by a refusal where they do not speak of the
                question. The answer is then sent when it is whole.
            max_calls: most tool calls of one run.
            timeout: the longest that a run may take.
            keep: how long a thread that nobody uses is kept; None is for ever.

        Raises:
            DeclarationError: MS-1033, MS-1035, MS-1045; MS-1049, two tools have one name.
        """
        _is_name(name, 'app.assistant("help_desk", llm, ...)')
        is_a("the llm", llm, (LLM, Route), 'app.assistant("help_desk", app.llm("chat"), ...)')
        are("knows", knows, Index, "knows=[library]")
        usable = (Tool, McpServer, Endpoint, FeatureView)
        are("may", may, usable, "may=[TOOL, SERVER, ENDPOINT, VIEW], each declared with app.")
        is_a("instructions", instructions, (str, Prompt), 'instructions="Answer from the manuals ..."')
        number("k", k, least=1)
        number("max_calls", max_calls, least=0)
        flag("always", always)
        flag("grounded", grounded)
        spec = AssistantSpec(
            llm,
            tuple(knows),
            tuple(may),
            instructions,
            k,
            always,
            grounded,
            max_calls,
            microseconds(timeout, what="timeout"),
            None if keep is None else microseconds(keep, what="keep"),
        )
        return self._add(Assistant(spec, here(), name))

    def evaluation(
        self,
        target: Assistant | Index,
        *,
        cases: str,
        least: Mapping[str, float] | None = None,
        judge: AnyLLM | None = None,
        called: str | None = None,
    ) -> Callable[[Callable[..., object]], Evaluation]:
        """Cases that an assistant or an index is tried on, with a function that judges one answer.

        ``def grounded(answer, case) -> bool``; what it returns is averaged over the cases, beside the built-in
        measures: retrieval, citations, refusals, latency and cost.

        Args:
            target: what is tried.
            cases: a file of JSON lines, relative to the project; each has a ``question``.
            least: the least value of each measure, by name; below it ``mainspring run`` exits 5.
            judge: a model that judges each answer too; its agreement with labelled cases is shown.
            called: its name, when not the function's.

        Raises:
            DeclarationError: MS-1029, MS-1033, MS-1035.
        """
        is_a("what app.evaluation takes", target, (Assistant, Index), "app.evaluation(help_desk, cases=...)")
        is_a("cases", cases, str, 'cases="evals/questions.jsonl"')
        for name, value in (least or {}).items():
            number(f"least[{name!r}]", value, whole=False)
        if judge is not None:
            is_a("judge", judge, (LLM, Route), 'judge=app.llm("judge")')

        def declare(function: Callable[..., object]) -> Evaluation:
            takes_inputs(function, 2, others=False)
            judged = cast("Callable[[object, dict[str, object]], bool | float]", function)
            spec = EvaluationSpec(target, cases, judged, tuple((least or {}).items()), judge)
            return self._add(Evaluation(spec, of_function(function), called or function.__name__))

        return declare


def _is_name(name: object, example: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{name!r} is no name",
            code="MS-1045",
            why="it stands in settings and URLs: a letter first, then letters, digits, _ . and -, at most 64",
            origin=str(here()),
            fix=f"write it as in {example}",
        )


def _variable(name: str, kind: object) -> Variable:
    given = kind if isinstance(kind, type) else type(kind)
    if given not in _TYPES:
        raise DeclarationError(
            f"the variable {name!r} is {given.__name__}, which no template can show",
            code="MS-1046",
            origin=str(here()),
            fix=did_you_mean(given.__name__, [one.__name__ for one in _TYPES]),
        )
    return Variable(name, given, None if isinstance(kind, type) else kind)
