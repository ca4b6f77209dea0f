"""Cache keys of tasks: what the plan says of their code, and what is known of their inputs."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import msgspec

from mainspring.declare.artifact import File
from mainspring.engine.files import FileDigests, files_in
from mainspring.engine.reference import reference
from mainspring.engine.task import Task
from mainspring.engine.wire import StoredResult
from mainspring.engine.workers.natives import names_file
from mainspring.plan.closure import Closure, KeyParts, closure_of, is_code, key_parts, step_key
from mainspring.plan.encoding import Unencodable, digest, encode
from mainspring.plan.remarks import Remark

__all__ = ["Keyed", "Keys", "content", "suspects"]

_FUNCTION = "(function)"
_MAP = "(map over)"
_SHOWN = 80
_CLOCK = "a kept result has the moment of its first run; a step may take it as a parameter"
_DRAW = "a kept result repeats its first draw; a step may declare seed="


def content(result: StoredResult) -> str:
    """A result as it enters the keys of those that take it: its kind says how it is restored, so it counts."""
    return f"{result.kind}:{result.digest}"


class Keyed(msgspec.Struct, frozen=True):
    """A key and how it came about.

    Attributes:
        key: empty when the task has none, which `problem` explains.
        detail: the parts, for `why`.
    """

    key: str
    detail: dict[str, object] = msgspec.field(default_factory=dict)
    problem: str = ""


class Keys:
    """Computes keys; closures are followed once for each function of a run.

    Args:
        files: digests of files that are params.
        environ: the environment, for the variables that tasks declare.
    """

    def __init__(self, files: FileDigests, environ: Mapping[str, str]) -> None:
        self._files = files
        self._environ = environ
        self._closures: dict[int, tuple[object, Closure]] = {}
        self._named: dict[str, dict[str, str]] = {}
        self._remarks: dict[tuple[object, ...], tuple[str, ...]] = {}

    def closures(self, task: Task) -> list[Closure]:
        """What the task's function, and what it is said to reach, can reach.

        Raises:
            Unencodable: MS-1110.
        """
        return [self._closure(target) for target in (task.function, *task.reaches)]

    def _closure(self, target: Any) -> Closure:
        known = self._closures.get(id(target))
        if known is None:
            known = self._closures[id(target)] = (target, closure_of(target))
        return known[1]

    def of(
        self, task: Task, inputs: Mapping[str, StoredResult], *, item: object = None, stored: StoredResult | None = None
    ) -> Keyed:
        """The key of a task; of one item of its map when `item` or `stored` is given, else of the map as a whole.

        Args:
            task: the task.
            inputs: the results that it takes.
            item: the map's item, in a tuple of one.
            stored: the map's item as a result of another task.

        Raises:
            Unencodable: MS-1110, the code, a param or an item has no canonical form and the task wants to be cached.
            UserCodeError: MS-2038, a file that is a param cannot be read.
        """
        params = _bound(task)
        params[_FUNCTION] = reference(task.function)
        given = dict(inputs)
        if isinstance(item, tuple):
            params[task.over or ""] = item[0]
        elif stored is not None:
            given[task.over or ""] = stored
        elif task.over is not None:
            params[_MAP] = task.over
        try:
            parts = self._parts(task, params, given)
        except Unencodable as error:
            if task.options.cache or task.options.once:
                raise
            return Keyed("", problem=error.what)
        detail: dict[str, object] = msgspec.to_builtins(parts)
        detail["shown"] = {name: str(value) for name, value in params.items() if _is_short(value)}
        return Keyed(step_key(parts), detail)

    def _parts(self, task: Task, params: Mapping[str, object], inputs: Mapping[str, StoredResult]) -> KeyParts:
        order = {name: number for number, name in enumerate(_parameters(task))}
        ordered = sorted(inputs.items(), key=lambda pair: order.get(pair[0], len(order)))
        return key_parts(
            self.closures(task),
            params,
            [(name, content(result)) for name, result in ordered],
            seed=task.options.seed,
            env={name: self._environ.get(name, "") for name in task.options.env},
            encoder=self._encode,
        )

    def _encode(self, value: object) -> bytes | None:
        """Files enter by content, and so do functions and classes that are params."""
        if isinstance(value, File):
            return b"file:" + self._files.digest(value).encode()
        if is_code(value):
            return b"code:" + self._closure(value).digest.encode() + reference(value).encode()
        return None

    def item_digest(self, item: object) -> str:
        """The digest of a map's item, to tell equal ones."""
        return digest(encode(item, self._encode))

    def inputs_unchanged(self, declared: tuple[str, ...]) -> bool:
        """Whether the files that are inputs are still what they were when the key was taken."""
        return self._files.unchanged(declared)

    def declared(self, task: Task, item: object = None) -> tuple[str, ...]:
        """The files and folders that a task says it reads, as absolute paths."""
        return tuple(os.path.abspath(file.path) for file in files_in([dict(task.params), item]))

    def remarks(self, task: Task) -> tuple[str, ...]:
        """What of the task's code gives another result each time, which a kept result hides."""
        if not task.options.cache and not task.options.once:
            return ()
        closures = self.closures(task)
        known = (task.options.seed is None, *(closure.digest for closure in closures))
        if known not in self._remarks:
            found = sorted({remark for closure in closures for remark in closure.remarks})
            self._remarks[known] = tuple(_told(found, seeded=task.options.seed is not None))
        return self._remarks[known]

    def named_files(self, task: Task) -> dict[str, str]:
        """The files that the task's code names as text and may read by native code, each with the place.

        A name that is no absolute path is taken from the working folder, as the step takes it.
        """
        if not task.options.cache:
            return {}
        found: dict[str, str] = {}
        for closure in self.closures(task):
            if closure.native:
                found |= self._named_by(closure)
        return found

    def _named_by(self, closure: Closure) -> dict[str, str]:
        known = self._named.get(closure.digest)
        if known is None:
            known = self._named[closure.digest] = {
                os.path.abspath(one.what): one.place
                for one in closure.remarks
                if one.kind == "text" and not os.path.isdir(one.what) and names_file(one.what)
            }
        return known

    def save(self) -> None:
        """Remember digests of files for the next run."""
        self._files.save()


@functools.cache
def _signature(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return MappingProxyType({})


def _parameters(task: Task) -> Iterable[str]:
    return _signature(task.function)


def _bound(task: Task) -> dict[str, object]:
    """The params with the defaults of those that are not given."""
    defaults = {
        name: parameter.default
        for name, parameter in _signature(task.function).items()
        if parameter.default is not inspect.Parameter.empty and name not in task.inputs
    }
    return {**defaults, **task.params}


def _told(remarks: Sequence[Remark], *, seeded: bool) -> Iterator[str]:
    seeded = seeded or any(one.kind == "seeds" for one in remarks)
    for one in remarks:
        if one.kind == "clock":
            yield f"{one.place} asks the clock ({one.what}): {_CLOCK}"
        elif one.kind == "random" and not seeded:
            yield f"{one.place} draws at random ({one.what}): {_DRAW}"


def suspects(task: Task, project: Path) -> list[str]:
    """Params that are text but name files of the project, whose changes nobody will see."""
    found = []
    for name, value in task.params.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and _names_file(text, project):
                found.append(f"param {name} = {text!r} is text that names a file: pass File({text!r})")
    return found


def _is_short(value: object) -> bool:
    """Whether a param's value is worth showing beside its digest."""
    if isinstance(value, list | tuple | set | frozenset | dict):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return len(value) <= _SHOWN and all(map(_is_short, parts)) and len(str(value)) <= _SHOWN
    return isinstance(value, bool | int | float | str | date | File | PurePath | None) and len(str(value)) <= _SHOWN


def _names_file(text: str, project: Path) -> bool:
    if not 0 < len(text) < 1024 or "\n" in text or "\0" in text or not ("." in text or os.sep in text):
        return False
    return os.path.isfile(project / text)
