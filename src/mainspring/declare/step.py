"""Free-form work: steps, and pipelines that wire them."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Generic, Literal, NoReturn, ParamSpec, TypeVar, cast

import msgspec

from mainspring.declare.data import FeatureView, Source
from mainspring.declare.declaration import Declaration, DeclaredKind, name_of
from mainspring.declare.duration import spell
from mainspring.declare.origin import Origin, here
from mainspring.errors import DeclarationError, MainspringError

__all__ = ["Call", "Pipeline", "PipelineSpec", "Ref", "Step", "StepOptions", "StepSpec", "Trace", "Unknown", "trace"]

P = ParamSpec("P")
R = TypeVar("R")


class StepOptions(msgspec.Struct, frozen=True):
    """How a step is run; none of it enters the cache key, save `seed` and `env`.

    Attributes:
        retries: further attempts after the first.
        backoff_us: wait before the first retry, in microseconds, doubled each time, at most a minute.
        timeout_us: limit of one attempt in microseconds, or None.
        cache: whether a result may be reused.
        once: a side effect that must not be repeated: a durable claim is made before it starts.
        env: names of the environment variables it reads; their values enter the key.
        seed: seeds `random` and NumPy before each attempt; enters the key.
        resources: what it occupies: ``{"cpu": 2, "gpu": 1, "memory": 4_000_000_000}``; one core by default.
        max_parallel: how many items of a map run at once, or None.
        on_error: ``fail`` stops the run at the first failure, ``continue`` finishes what does not depend on it.
        secrets: names of settings whose values it is handed; redacted from its log.
    """

    retries: int = 0
    backoff_us: int = 500_000
    timeout_us: int | None = None
    cache: bool = True
    once: bool = False
    env: tuple[str, ...] = ()
    seed: int | None = None
    resources: Mapping[str, float] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    max_parallel: int | None = None
    on_error: Literal["fail", "continue"] = "fail"
    secrets: tuple[str, ...] = ()

    def __str__(self) -> str:
        limit = "" if self.timeout_us is None else f", timeout {spell(self.timeout_us)}"
        return f"{self.retries} retries{limit}"


class StepSpec(msgspec.Struct, frozen=True):
    """A function with its inputs by reference and its options; `inputs` fill its first parameters in order."""

    function: Callable[..., object]
    inputs: tuple[Step[..., object] | Source | FeatureView, ...]
    options: StepOptions


class Ref(msgspec.Struct, frozen=True, eq=False):
    """The result of a call inside a pipeline, before it is computed."""

    index: int
    step: str

    def __bool__(self) -> bool:
        raise DeclarationError(
            f"the result of {self.step!r} is not known while the pipeline is being wired",
            code="MS-1020",
            why="a pipeline's body wires steps; it runs before any of them",
            origin=str(here()),
            fix="move the decision into a step",
        )

    def __iter__(self) -> Iterator[object]:
        raise DeclarationError(
            f"the result of {self.step!r} cannot be walked through while the pipeline is being wired",
            code="MS-1021",
            origin=str(here()),
            fix="use next_step.map(result)",
        )


class UnknownArgumentError(Exception):
    """A pipeline's body looked at an argument that nobody has given yet."""


class Unknown:
    """A pipeline's argument that nobody has given yet: the body can hand it to steps, and is left where it looks."""

    __slots__ = ()

    def _looked_at(self, *_: object) -> NoReturn:
        raise UnknownArgumentError

    __bool__ = __iter__ = __len__ = __getitem__ = __contains__ = __call__ = __getattr__ = _looked_at
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _looked_at
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _looked_at
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = __abs__ = __and__ = __or__ = _looked_at
    __str__ = __format__ = __int__ = __float__ = __index__ = _looked_at
    __hash__ = object.__hash__


class Call(msgspec.Struct, frozen=True):
    """One node of a pipeline: a step, its arguments (values or `Ref`), and the parameter a map goes over, if any."""

    index: int
    step: Step[..., object]
    arguments: Mapping[str, object]
    over: str | None
    origin: Origin


class Trace(msgspec.Struct):
    """The calls that a pipeline's body made, in order; every argument refers to earlier ones only.

    `whole` says whether the body came to its end: it is left where it looks at an argument that nobody has given yet.
    """

    calls: list[Call] = msgspec.field(default_factory=list)
    result: object = None
    whole: bool = False


_wiring: ContextVar[Trace | None] = ContextVar("mainspring_wiring", default=None)


@contextmanager
def _wire() -> Iterator[Trace]:
    token = _wiring.set(Trace())
    try:
        wired = _wiring.get()
        assert wired is not None
        yield wired
    finally:
        _wiring.reset(token)


class Step(Declaration[StepSpec], Generic[P, R]):
    """A declared function. Inside a pipeline a call adds a node; elsewhere it runs the plain function."""

    def __init__(self, spec: StepSpec, origin: Origin, name: str) -> None:
        super().__init__(DeclaredKind.STEP, spec, origin, name)
        self.__wrapped__ = spec.function
        self.__doc__ = spec.function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Add a node to the pipeline that is being wired, or run the plain function."""
        wired = _wiring.get()
        if wired is None:
            return cast(R, self._spec.function(*args, **kwargs))
        return cast(R, self._add(wired, args, kwargs, over=None))

    def map(self, items: object, /, **fixed: object) -> list[R]:
        """Run the step once for each item of a list or of an earlier result; equal items run once.

        Args:
            items: fill the first parameter that no declared input fills.
            fixed: the other arguments, the same for every item.
        """
        wired = _wiring.get()
        over = self._parameters()[len(self._spec.inputs)]
        if wired is None:
            return [cast(R, self._spec.function(**{over: item}, **fixed)) for item in cast("list[object]", items)]
        return cast("list[R]", self._add(wired, (), {over: items, **fixed}, over=over))

    def _parameters(self) -> list[str]:
        return list(inspect.signature(self._spec.function).parameters)

    def _add(self, wired: Trace, args: tuple[object, ...], kwargs: Mapping[str, object], over: str | None) -> Ref:
        origin = here()
        signature = inspect.signature(self._spec.function)
        try:
            bound = signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise DeclarationError(
                f"step {name_of(self)!r} is called with the wrong arguments",
                code="MS-1022",
                why=str(error),
                origin=str(origin),
                fix=f"its parameters are {', '.join(signature.parameters)}",
            ) from error
        call = Call(len(wired.calls), cast("Step[..., object]", self), dict(bound.arguments), over, origin)
        wired.calls.append(call)
        return Ref(call.index, name_of(self))


class PipelineSpec(msgspec.Struct, frozen=True):
    """A function that wires steps."""

    function: Callable[..., object]
    options: StepOptions


class Pipeline(Declaration[PipelineSpec], Generic[P, R]):
    """A declared pipeline; calling it in Python runs its steps as plain functions, in process."""

    def __init__(self, spec: PipelineSpec, origin: Origin, name: str) -> None:
        super().__init__(DeclaredKind.PIPELINE, spec, origin, name)
        self.__wrapped__ = spec.function
        self.__doc__ = spec.function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the pipeline's steps as plain functions, in process."""
        return cast(R, self._spec.function(*args, **kwargs))


def trace(pipeline: Pipeline[..., object], arguments: Mapping[str, object]) -> Trace:
    """Wire a pipeline with these arguments: its body runs once, and each step call becomes a `Call`.

    A body that looks at an `Unknown` argument is wired as far as that.

    Raises:
        DeclarationError: MS-1022, MS-1023, the arguments do not fit; MS-1020, MS-1021, the body looks at a result;
            MS-1040, the body raises.
    """
    function = pipeline._spec.function
    try:
        bound = inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise DeclarationError(
            f"pipeline {name_of(pipeline)!r} is called with the wrong arguments",
            code="MS-1023",
            why=str(error),
            origin=str(pipeline._origin),
            fix=f"its parameters are {', '.join(inspect.signature(function).parameters) or 'none'}",
        ) from error
    with _wire() as wired:
        try:
            wired.result = functools.partial(function, *bound.args, **bound.kwargs)()
            wired.whole = True
        except MainspringError:
            raise
        except UnknownArgumentError:
            return wired
        except Exception as error:
            raise _fails(pipeline, error) from error
    return wired


def _fails(pipeline: Pipeline[..., object], error: Exception) -> DeclarationError:
    file, line = pipeline._origin.file, pipeline._origin.line
    own = [number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return DeclarationError(
        f"pipeline {name_of(pipeline)!r} fails while it is being wired",
        code="MS-1040",
        why=f"{type(error).__name__}: {error}",
        origin=str(Origin(file, own[-1] if own else line)),
        fix="mend that line; what needs a result belongs into a step",
    )
