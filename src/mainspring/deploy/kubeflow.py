"""Pipelines as Kubeflow's intermediate representation, which Vertex AI Pipelines takes, too.

Every step is a container that runs ``mainspring step``; Kubeflow carries the folders between them. The document is
plain data, written by us: kfp is neither needed to make it nor in the image.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec
import yaml

from mainspring.declare.artifact import File
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.step import Pipeline, Unknown, trace
from mainspring.deploy.portable.step import RESULT, ROWS
from mainspring.engine.arguments import value_of
from mainspring.engine.pipeline import Resolve, graph_of
from mainspring.engine.reference import annotations_of
from mainspring.engine.runs.maps import gather
from mainspring.engine.task import Task
from mainspring.errors import DeclarationError, UsageError

__all__ = ["Compiled", "compiled", "spelled"]

_ENTRY = "from mainspring.cli import main; main()  # here stands what kfp.dsl.executor_main is to kfp's own components"
"""The program of every step. kfp.local runs only commands that name kfp's executor, whatever they do."""
_SCHEMA, _SDK = "2.1.0", "mainspring"
_ARTIFACT = {"artifactType": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}
_PLACEHOLDER = "{{$"
_SIMPLE: Mapping[object, str] = MappingProxyType(
    {bool: "BOOLEAN", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", str: "STRING"}
)
_TEXT = "STRING"
_GIB = 1e9


class Compiled(msgspec.Struct, frozen=True):
    """A compiled pipeline.

    Attributes:
        name: as Kubeflow shows it.
        document: the representation, as plain data.
        parameters: what may be given when it is started.
        notes: what whoever runs it must know.
    """

    name: str
    document: dict[str, object]
    parameters: tuple[str, ...]
    notes: tuple[str, ...] = ()


class _Parts(msgspec.Struct):
    executors: dict[str, object] = msgspec.field(default_factory=dict)
    components: dict[str, object] = msgspec.field(default_factory=dict)
    tasks: dict[str, object] = msgspec.field(default_factory=dict)
    notes: dict[str, None] = msgspec.field(default_factory=dict)


def spelled(compiled: Compiled, *, as_json: bool = False) -> str:
    """The document as a file: the same bytes for the same pipeline, image and version."""
    if as_json:
        return json.dumps(compiled.document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return str(yaml.safe_dump(compiled.document, sort_keys=True, allow_unicode=True, width=120))


def compiled(
    pipeline: Pipeline[..., object], arguments: Mapping[str, object], resolve: Resolve, app: str, image: str
) -> Compiled:
    """A declared pipeline as Kubeflow's representation.

    Args:
        pipeline: the pipeline.
        arguments: values that are fixed; its other parameters are Kubeflow's.
        resolve: makes tasks of sources and feature views.
        app: the app's name.
        image: what the steps run in.

    Raises:
        DeclarationError: MS-2770, the body looks at a parameter; MS-2771, a value made of a parameter; MS-2772, a value
            that cannot be written as text; MS-2773, a step that must not be repeated; as `graph_of` raises.
    """
    function = spec_of(pipeline).function
    open_ones = [name for name in inspect.signature(function).parameters if name not in arguments]
    given = {**arguments, **{name: Unknown() for name in open_ones}}
    if not trace(pipeline, given).whole:
        raise DeclarationError(
            f"pipeline {name_of(pipeline)!r} cannot be compiled without its arguments",
            code="MS-2770",
            why=f"its body looks at one of {', '.join(open_ones)} to decide which steps there are",
            origin=str(origin_of(pipeline)),
            fix="give it: mainspring build --kfp NAME KEY=VALUE, or go over it with step.map",
        )
    graph = graph_of(pipeline, given, resolve)
    known = {id(value): name for name, value in given.items() if isinstance(value, Unknown)}
    emitter = _Emitter(graph.tasks, known, image)
    parts = emitter.emit()
    name = _name(f"{app}-{name_of(pipeline)}")
    parameters = _parameters(function, open_ones)
    root: dict[str, object] = {"dag": {"tasks": parts.tasks}}
    if parameters:
        root["inputDefinitions"] = {"parameters": parameters}
    document: dict[str, object] = {
        "pipelineInfo": {"name": name},
        "schemaVersion": _SCHEMA,
        "sdkVersion": _SDK,
        "components": parts.components,
        "deploymentSpec": {"executors": parts.executors},
        "root": root,
    }
    return Compiled(name, document, tuple(open_ones), tuple(parts.notes))


class _Emitter:
    def __init__(self, tasks: Sequence[Task], unknown: Mapping[int, str], image: str) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._unknown = unknown
        self._image = image
        self._names: dict[str, str] = {}
        self._parts = _Parts()

    def emit(self) -> _Parts:
        for task in self._tasks.values():
            if task.function is not gather and not self._is_read(task):
                self._add(task)
        return self._parts

    def _is_read(self, task: Task) -> bool:
        """What a source's or view's rows are made from is the business of the step that gives the rows."""
        return task.name.partition("/")[0] not in ("step", ROWS.strip("/"))

    def _add(self, task: Task) -> None:
        if task.options.once:
            raise DeclarationError(
                f"step {task.title!r} is once=True",
                code="MS-2773",
                why="what must not be repeated needs a claim that outlives its container; Kubeflow starts it again",
                origin=task.origin,
                fix="leave it out of this pipeline, and run it with mainspring run",
            )
        rows = task.name.startswith(ROWS)
        artifacts = {} if rows else self._artifacts(task)
        words, parameters = ([], {}) if rows else self._words(task)
        for parameter, producers in artifacts.items():
            for key, _ in producers:
                words += ["--in", f"{parameter}=@{{{{$.inputs.artifacts['{key}'].path}}}}"]
        if task.over is not None:
            words += ["--map", task.over]
        words += ["--out", f"{RESULT}={{{{$.outputs.artifacts['{RESULT}'].path}}}}"]
        words += ["--executor-input", "{{$}}"]
        name = self._named(task.name)
        keys = {key: producer for producers in artifacts.values() for key, producer in producers}
        self._component(name, keys, {parameter: self._kind(task, parameter) for parameter in parameters})
        container: dict[str, object] = {
            "image": self._image,
            "command": ["python3", "-c", _ENTRY],
            "args": ["step", task.name if rows else task.title, *words],
        }
        container |= _resources(task)
        self._parts.executors[f"exec-{name}"] = {"container": container}
        self._task(name, task, keys, parameters)
        for what, names in (("environment variables", task.options.env), ("secrets", task.options.secrets)):
            if names:
                self._parts.notes[
                    f"step {task.title} reads the {what} {', '.join(names)}: the image must bring them"
                ] = None
        for amount in sorted(task.options.resources.keys() - {"cpu", "memory", "gpu"}):
            self._parts.notes[f"step {task.title} asks for {amount}, which Kubeflow does not know"] = None

    def _component(self, name: str, artifacts: Mapping[str, str], kinds: Mapping[str, str]) -> None:
        inputs: dict[str, object] = {}
        if artifacts:
            inputs["artifacts"] = dict.fromkeys(artifacts, _ARTIFACT)
        if kinds:
            inputs["parameters"] = {key: {"parameterType": kind} for key, kind in kinds.items()}
        component: dict[str, object] = {
            "executorLabel": f"exec-{name}",
            "outputDefinitions": {"artifacts": {RESULT: _ARTIFACT}},
        }
        if inputs:
            component["inputDefinitions"] = inputs
        self._parts.components[f"comp-{name}"] = component

    def _task(self, name: str, task: Task, artifacts: Mapping[str, str], parameters: Mapping[str, str]) -> None:
        entry: dict[str, object] = {
            "cachingOptions": {},  # ours are the caches that know when something changed
            "componentRef": {"name": f"comp-{name}"},
            "taskInfo": {"name": name},
        }
        inputs: dict[str, object] = {}
        if artifacts:
            entry["dependentTasks"] = sorted(set(artifacts.values()))
            inputs["artifacts"] = {
                key: {"taskOutputArtifact": {"outputArtifactKey": RESULT, "producerTask": producer}}
                for key, producer in artifacts.items()
            }
        if parameters:
            inputs["parameters"] = {key: {"componentInputParameter": value} for key, value in parameters.items()}
        if inputs:
            entry["inputs"] = inputs
        if task.options.retries and task.over is None:
            entry["retryPolicy"] = {
                "maxRetryCount": task.options.retries,
                "backoffDuration": f"{max(1, round(task.options.backoff_us / 1e6))}s",
                "backoffFactor": 2.0,
                "backoffMaxDuration": "60s",
            }
        self._parts.tasks[name] = entry

    # -- what a step is handed ------------------------------------------------------------------------------------

    def _artifacts(self, task: Task) -> dict[str, list[tuple[str, str]]]:
        """Of each parameter that takes results: the names of its inputs, and who makes them."""
        found: dict[str, list[tuple[str, str]]] = {}
        for parameter, output in task.inputs.items():
            producer = self._tasks[output.task]
            if producer.function is gather:
                made = [self._names[part.task] for part in producer.inputs.values()]
                found[parameter] = [(f"{parameter}-{number}", name) for number, name in enumerate(made)]
            else:
                found[parameter] = [(parameter, self._names[producer.name])]
        return found

    def _words(self, task: Task) -> tuple[list[str], dict[str, str]]:
        """The plain values as words of the command line, and Kubeflow's parameters among them."""
        words: list[str] = []
        parameters: dict[str, str] = {}
        for name, value in task.params.items():
            if isinstance(value, Unknown):
                parameters[name] = self._unknown[id(value)]
                text = f"{{{{$.inputs.parameters['{name}']}}}}"
            else:
                text = self._text(task, name, value)
            words += ["--text", f"{name}={text}"]
        return words, parameters

    def _kind(self, task: Task, parameter: str) -> str:
        wanted = annotations_of(task.function).get(parameter, typing.Any)
        return _kind_of(list[wanted] if parameter == task.over else wanted)  # type: ignore[valid-type]

    def _text(self, task: Task, name: str, value: object) -> str:
        """A value as text that the step reads back as the same value."""
        if _holds_unknown(value):
            raise DeclarationError(
                f"step {task.title!r} is handed a {type(value).__name__} with a parameter of the pipeline in it",
                code="MS-2771",
                why=f"Kubeflow hands parameters on as they are; {name!r} would be made of one",
                origin=task.origin,
                fix="hand the parameter over by itself, and put it together in the step",
            )
        wanted: object = annotations_of(task.function).get(name, typing.Any)
        if name == task.over:
            wanted = list[wanted]  # type: ignore[valid-type]
        for text in _texts(value):
            if _PLACEHOLDER not in text and _reads_back(text, wanted, value):
                return text
        raise DeclarationError(
            f"{name}={value!r:.60} of step {task.title!r} cannot be written as text",
            code="MS-2772",
            why="a container is handed its values as text, which must give the same value again",
            origin=task.origin,
            fix="annotate the parameter with its type, and pass plain data; a file by its path in the project",
        )

    def _named(self, task: str) -> str:
        base = _name(task.removeprefix("step/").replace("/", "-"))
        found, number = base, 1
        while found in self._names.values():
            number += 1
            found = f"{base}-{number}"
        self._names[task] = found
        return found


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, File) and not Path(value.path).is_absolute():
        yield str(value.path)
    try:
        data = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, UnicodeEncodeError):
        return
    yield data
    plain = msgspec.json.decode(data)
    if isinstance(plain, str):
        yield plain


def _reads_back(text: str, wanted: object, value: object) -> bool:
    try:
        again = value_of(text, wanted)
        return type(again) is type(value) and bool(again == value)
    except (ValueError, TypeError):
        return False


def _holds_unknown(value: object) -> bool:
    if isinstance(value, Unknown):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_unknown, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_holds_unknown, value))


def _parameters(function: Callable[..., object], names: Sequence[str]) -> dict[str, object]:
    """What Kubeflow asks for when the pipeline is started."""
    wanted = annotations_of(function)
    found: dict[str, object] = {}
    for name in names:
        default = inspect.signature(function).parameters[name].default
        kind = _kind_of(wanted.get(name, typing.Any))
        entry: dict[str, object] = {"parameterType": kind}
        if default is not inspect.Parameter.empty:
            entry |= {"defaultValue": _default(name, default, kind), "isOptional": True}
        found[name] = entry
    return found


def _default(name: str, default: object, kind: str) -> object:
    if kind == _TEXT:
        return next(iter(_texts(default)), "null")
    try:
        return msgspec.to_builtins(default)
    except TypeError as error:
        raise UsageError(
            f"the default of {name!r} cannot be written",
            code="MS-2775",
            why=str(error),
            fix=f"give it: mainspring build --kfp NAME {name}=VALUE",
        ) from error


def _kind_of(wanted: object) -> str:
    """The type of a parameter. What Kubeflow's numbers would change, and what it does not know, goes as text.

    Kubeflow's numbers are all doubles: only where the annotation says which are whole do they come back as they were.
    """
    if wanted in _SIMPLE:
        return _SIMPLE[wanted]
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is list and inner and _is_exact(inner[0]):
        return "LIST"
    if origin is dict and len(inner) == 2 and inner[0] is str and _is_exact(inner[1]):
        return "STRUCT"
    return _TEXT


def _is_exact(wanted: object) -> bool:
    return _kind_of(wanted) != _TEXT or wanted is str


def _resources(task: Task) -> dict[str, object]:
    """Limits, in both spellings: numbers for older back ends, quantities for newer ones."""
    asked = task.options.resources
    found: dict[str, object] = {}
    if "cpu" in asked:
        found |= {"cpuLimit": float(asked["cpu"]), "resourceCpuLimit": f"{asked['cpu']:g}"}
    if "memory" in asked:
        found |= {"memoryLimit": asked["memory"] / _GIB, "resourceMemoryLimit": str(int(asked["memory"]))}
    if asked.get("gpu"):
        kind, count = "nvidia.com/gpu", str(int(asked["gpu"]))
        found["accelerator"] = {"type": kind, "count": count, "resourceType": kind, "resourceCount": count}
    return {"resources": found} if found else {}


def _name(text: str) -> str:
    """As Kubernetes takes names: lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "step"
