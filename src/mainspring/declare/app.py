"""The app: everything hangs off it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, ParamSpec, TypeVar, overload

from mainspring.declare.answering import Answering
from mainspring.declare.assistant import (
    Assistant,
    AssistantEndpoint,
    AssistantEndpointSpec,
    AssistantMonitor,
    AssistantMonitorSpec,
    Served,
)
from mainspring.declare.batching import Batching
from mainspring.declare.check import (
    cron_fits,
    default_name,
    label_fits,
    rule_fits,
    segments_fit,
    share,
    takes_inputs,
    time_zone,
)
from mainspring.declare.composition import (
    Composition,
    CompositionEndpoint,
    CompositionEndpointSpec,
    CompositionSpec,
)
from mainspring.declare.computing import Computing
from mainspring.declare.data import Column, FeatureView, Source
from mainspring.declare.documents import Index
from mainspring.declare.duration import Duration, microseconds
from mainspring.declare.featuring import Featuring
from mainspring.declare.llm import LLM, Route
from mainspring.declare.model import (
    Endpoint,
    EndpointSpec,
    Input,
    ModelDeclaration,
    ModelSpec,
    Monitor,
    MonitorSpec,
    Promotion,
    PromotionSpec,
    Schedule,
    ScheduleSpec,
    Score,
    trainer,
)
from mainspring.declare.options import (
    amounts,
    are,
    choice,
    flag,
    is_a,
    number,
    samples,
    served_name,
    texts,
    yearly_budget,
)
from mainspring.declare.origin import here, of_function
from mainspring.declare.rollout import Versions, read_rollout, read_versions
from mainspring.declare.step import Pipeline, PipelineSpec, Step, StepOptions, StepSpec

__all__ = ["App"]

P = ParamSpec("P")
R = TypeVar("R")


class App(Featuring, Computing, Answering):
    """What an application declares. Nothing runs, opens or reads when something is declared.

    Args:
        name: the app's name, as it appears in metrics, logs and the catalog.
    """

    # -- models -------------------------------------------------------------------------------------------------

    def model(
        self,
        *,
        inputs: Sequence[Input],
        label: Column,
        known_at: Column | None = None,
        metric: str = "roc_auc",
        slices: Sequence[Column] = (),
        holdout: float = 0.2,
        gap: Duration | None = None,
        tolerance: float = 1e-5,
        seed: int = 0,
        timeout: Duration | None = None,
        retries: int = 0,
        called: str | None = None,
    ) -> Callable[[Callable[..., object]], ModelDeclaration]:
        """A model, by the function that trains it: ``def late(x: Frame, y: Frame, rate: float = 0.1) -> Model``.

        Args:
            inputs: feature views, single features, on-demand features, and columns of the label's source (which a
                request carries).
            label: the column to predict.
            known_at: the column with the moment the label is known; rows later than the training are left out.
            metric: what decides: roc_auc, log_loss, brier, accuracy for a boolean label; rmse, mae, r2 for a number.
            slices: columns of the label's source whose values are judged apart.
            holdout: the share of the newest rows kept for evaluation.
            gap: rows this long before the evaluation's first row are left out of the training.
            tolerance: how far the converted (ONNX) model's score may be from the native one.
            seed: seeds `random` and NumPy before training.
            timeout: the longest a training may take.
            retries: further attempts after a failure.
            called: its name, when not the function's.

        Raises:
            DeclarationError: MS-1017, MS-1018, MS-1019, MS-1024, MS-1025, MS-1029, MS-1030, MS-1033, MS-1035, MS-4251.
        """
        label_fits(inputs, label, known_at, metric, slices)
        share("holdout", holdout)
        number("tolerance", tolerance, least=0, whole=False)
        number("seed", seed, least=0)
        number("retries", retries, least=0)

        def declare(function: Callable[..., object]) -> ModelDeclaration:
            takes_inputs(function, 2, others=False)
            timeout_us = None if timeout is None else microseconds(timeout, what="timeout")
            options = StepOptions(
                retries=retries,
                seed=seed,
                timeout_us=timeout_us,
            )
            gap_us = 0 if gap is None else microseconds(gap, what="gap")
            spec = ModelSpec(
                trainer(function),
                tuple(inputs),
                label,
                known_at,
                metric,
                tuple(slices),
                holdout,
                gap_us,
                tolerance,
                seed,
                options,
            )
            return self._add(ModelDeclaration(spec, of_function(function), served_name(called or function.__name__)))

        return declare

    def compose(
        self,
        *models: ModelDeclaration,
        gives: Literal["probability", "number"] | None = None,
        called: str | None = None,
    ) -> Callable[[Callable[..., object]], Composition]:
        """Models put together by a plain function: ``def blended(x: Rows, late: Part, slow: Part)``.

        The function prepares the rows, asks the models, and makes one number a row of what they say: a transformer, an
        ensemble, a post-processor, in one hop of one process. `app.endpoint` serves it like a model, on every protocol.

        Args:
            models: what it asks; they are given behind the rows, in this order, each as its champion.
            gives: ``probability`` or ``number``; what the first model gives, when left out.
            called: its name, when not the function's.

        Raises:
            DeclarationError: MS-1001, MS-1029, MS-1034, MS-4251.
        """
        are("what app.compose takes", models, (ModelDeclaration,), "write @app.compose(MODEL, ..) above the function")
        is_a("what app.compose takes first", next(iter(models), None), ModelDeclaration, "@app.compose(MODEL, ..)")
        if gives is not None:
            choice("gives", gives, ("probability", "number"))

        def declare(function: Callable[..., object]) -> Composition:
            takes_inputs(function, 1 + len(models), others=False)
            spec = CompositionSpec(function, models, gives)
            return self._add(Composition(spec, of_function(function), served_name(called or function.__name__)))

        return declare

    def promote(
        self,
        model: ModelDeclaration,
        *,
        when: Callable[[Score, Score], bool] | None = None,
        margin: float | None = None,
        rollout: Sequence[str] = (),
        called: str | None = None,
    ) -> Promotion:
        """When a new version replaces the live one; both are judged on the same rows.

        With `rollout` it takes over step by step, as long as the server finds it no worse in errors, latency and, where
        labels arrive, quality: ``["shadow for 10m", "5% for 10m", "25% for 30m"]``.

        Args:
            model: whose versions.
            when: ``lambda new, live: new.roc_auc >= live.roc_auc - 0.002``.
            margin: the paired bootstrap's lower 95 % bound of the gain must be above ``-margin``; 0.002 when
                neither is given.
            rollout: the stretches in which it takes over; none is at once.
            called: its name; the model's when left out.

        Raises:
            DeclarationError: MS-1001, MS-1002, MS-1029, MS-1033, MS-1035, MS-2720.
        """
        is_a("what app.promote takes", model, ModelDeclaration, "app.promote(MODEL, ...), with the decorated function")
        if when is not None:
            rule_fits(when)
        if margin is not None:
            number("margin", margin, least=0, whole=False)
        if when is None and margin is None:
            margin = 0.002
        spec = PromotionSpec(model, when, margin, read_rollout(rollout))
        return self._add(Promotion(spec, here(), default_name(called, model)))

    @overload
    def endpoint(
        self,
        model: ModelDeclaration,
        *,
        latency: Duration | None = ...,
        log: float = ...,
        batching: Batching | bool = ...,
        versions: Versions = ...,
        warm: Sequence[Mapping[str, object]] = ...,
        called: str | None = ...,
    ) -> Endpoint: ...
    @overload
    def endpoint(
        self, model: Composition, *, latency: Duration | None = ..., log: float = ..., called: str | None = ...
    ) -> CompositionEndpoint: ...
    @overload
    def endpoint(
        self, model: Served, *, latency: Duration | None = ..., log: float = ..., called: str | None = ...
    ) -> AssistantEndpoint: ...
    def endpoint(
        self,
        model: ModelDeclaration | Composition | Served,
        *,
        latency: Duration | None = None,
        log: float | None = None,
        batching: Batching | bool = True,
        versions: Versions = 1,
        warm: Sequence[Mapping[str, object]] = (),
        called: str | None = None,
    ) -> Endpoint | CompositionEndpoint | AssistantEndpoint:
        """A model behind HTTP; features are looked up by the keys in the request.

        An assistant is served as a model of the OpenAI API, over MCP and on a page of the console; an index as a
        search; a language model as itself.

        Args:
            model: what answers: a model, a composition, an assistant, an index or a language model.
            latency: what is promised for 99 requests in 100; the console and the metrics show it beside what is. Of
                what answers in words it is the time to the first token.
            log: the share of answers kept in the prediction log, or in the trace store; all when left out, but none of
                a language model's: what people say to it is kept, redacted, only where that is declared.
            batching: how calls that wait for a model are scored together; False scores each alone.
            versions: which versions of a model are loaded and can be asked for by number: so many (the one that
                answers and the newest others), ``"all"``, or these. Those with a label are loaded anyway.
            warm: rows of a model's columns, ``{"distance": 1089.0}``; what is left out is missing. A version answers
                them, one by one and together, before it takes traffic; one that fails does not become ready.
            called: its name; the model's when left out.

        Raises:
            DeclarationError: MS-1001, MS-1030, MS-1033, MS-2721, MS-4252.
        """
        kinds = (ModelDeclaration, Composition, Assistant, Index, LLM, Route)
        is_a("what app.endpoint takes", model, kinds, "app.endpoint(MODEL), with the decorated function")
        if log is None:
            log = 0.0 if isinstance(model, (LLM, Route)) else 1.0
        share("log", log, closed=True)
        latency_us = None if latency is None else microseconds(latency, what="latency")
        name = default_name(called, model)
        if isinstance(model, ModelDeclaration):
            together = Batching(1 if batching is False else 1024) if isinstance(batching, bool) else batching
            is_a("batching", together, Batching, "batching=Batching(rows=256), or False")
            spec = EndpointSpec(model, latency_us, log, together, read_versions(versions), samples(warm))
            return self._add(Endpoint(spec, here(), name))
        if isinstance(model, Composition):
            return self._add(CompositionEndpoint(CompositionEndpointSpec(model, latency_us, log), here(), name))
        return self._add(AssistantEndpoint(AssistantEndpointSpec(model, latency_us, log), here(), name))

    @overload
    def monitor(
        self,
        model: ModelDeclaration,
        *,
        false_alarms: str = ...,
        on_alarm: Literal["retrain", "notify"] = ...,
        block: Literal["hour", "day"] = ...,
        watch: Iterable[str] = ...,
        segments: Sequence[Column] = ...,
        cooldown: Duration = ...,
        called: str | None = ...,
    ) -> Monitor: ...
    @overload
    def monitor(
        self, model: Assistant, *, false_alarms: str = ..., watch: Iterable[str] = ..., called: str | None = ...
    ) -> AssistantMonitor: ...
    def monitor(
        self,
        model: ModelDeclaration | Assistant,
        *,
        false_alarms: str = "1 per quarter",
        on_alarm: Literal["retrain", "notify"] = "notify",
        block: Literal["hour", "day"] = "day",
        watch: Iterable[str] = (),
        segments: Sequence[Column] = (),
        cooldown: Duration = "1d",
        called: str | None = None,
    ) -> Monitor | AssistantMonitor:
        """Watch a model's inputs, scores and, when labels arrive, its performance.

        Args:
            model: whose prediction log is watched, or the assistant whose traces are.
            false_alarms: the budget: ``1 per quarter``, ``2 per year``, ``1 per month``, ``1 per week``.
            on_alarm: ``retrain`` starts a training; its gate decides.
            block: the length of the blocks that are compared, in event time.
            watch: input columns and metrics; of an assistant its evaluations by name, ``latency``, ``cost``,
                ``tokens``, ``retrieval`` (the best passage's score), ``errors``, ``timeouts``, ``refusals``, ``tools``
                (that failed), ``uncited`` and ``dropped`` (citations that did not hold); all when left out.
            segments: columns of the label's source (texts, truths, whole numbers) by whose values rows are watched
                apart too: of each column the 16 commonest with 30 rows a block. A request may carry such a column;
                rows of requests that do not are those of the null segment.
            cooldown: the least event time between two retrainings.
            called: its name; the model's when left out.

        Raises:
            DeclarationError: MS-1001, MS-1024, MS-1033, MS-1034, MS-1036, MS-1041, MS-1091.
        """
        kinds = (ModelDeclaration, Assistant)
        is_a("what app.monitor takes", model, kinds, "app.monitor(MODEL), with the decorated function")
        yearly_budget(false_alarms)
        choice("on_alarm", on_alarm, ("retrain", "notify"))
        choice("block", block, ("hour", "day"))
        texts("watch", watch)
        if isinstance(model, Assistant):
            watching = AssistantMonitorSpec(model, tuple(watch), false_alarms)
            return self._add(AssistantMonitor(watching, here(), default_name(called, model)))
        segments_fit(segments, model)
        spec = MonitorSpec(
            model, false_alarms, on_alarm, block, tuple(watch), tuple(segments), microseconds(cooldown, what="cooldown")
        )
        return self._add(Monitor(spec, here(), default_name(called, model)))

    # -- free-form work -----------------------------------------------------------------------------------------

    def step(
        self,
        *inputs: Step[..., object] | Source | FeatureView,
        retries: int = 0,
        backoff: Duration = "500ms",
        timeout: Duration | None = None,
        cache: bool = True,
        once: bool = False,
        env: Sequence[str] = (),
        seed: int | None = None,
        resources: Mapping[str, float] | None = None,
        max_parallel: int | None = None,
        on_error: Literal["fail", "continue"] = "fail",
        secrets: Sequence[str] = (),
        called: str | None = None,
    ) -> Callable[[Callable[P, R]], Step[P, R]]:
        """A function as a step; `inputs` fill its first parameters, the others are parameters of the run.

        Args:
            inputs: steps, sources or feature views by reference.
            retries: further attempts after the first.
            backoff: wait before the first retry, doubled each time.
            timeout: limit of one attempt; the whole process group is stopped.
            cache: whether a result may be reused.
            once: a side effect that must not be repeated.
            env: environment variables it reads; their values enter the cache key.
            seed: seeds `random` and NumPy; enters the cache key.
            resources: ``{"cpu": 2, "gpu": 1, "memory": 4e9}``.
            max_parallel: how many items of a map run at once.
            on_error: ``continue``: other items and branches go on after a failure; in ``apply`` branches always do.
            secrets: settings it is handed; redacted from its log.
            called: its name, when not the function's.

        Raises:
            DeclarationError: MS-1001, MS-1029, MS-1033 to MS-1036.
        """
        are(
            "what app.step takes",
            inputs,
            (Step, Source, FeatureView),
            "write @app.step() above the function, and name its inputs in ()",
        )
        number("retries", retries, least=0)
        flag("cache", cache)
        flag("once", once)
        if seed is not None:
            number("seed", seed, least=0)
        if max_parallel is not None:
            number("max_parallel", max_parallel, least=1)
        amounts("resources", resources)
        choice("on_error", on_error, ("fail", "continue"))
        texts("env", env)
        texts("secrets", secrets)
        options = StepOptions(
            retries=retries,
            backoff_us=microseconds(backoff, what="backoff"),
            timeout_us=None if timeout is None else microseconds(timeout, what="timeout"),
            cache=cache and not once,
            once=once,
            env=tuple(env),
            seed=seed,
            resources=dict(resources or {}),
            max_parallel=max_parallel,
            on_error=on_error,
            secrets=tuple(secrets),
        )

        def declare(function: Callable[P, R]) -> Step[P, R]:
            takes_inputs(function, len(inputs))
            spec = StepSpec(function, inputs, options)
            step: Step[P, R] = Step(spec, of_function(function), called or function.__name__)
            self._declared.append(step)
            return step

        return declare

    def pipeline(self, function: Callable[P, R]) -> Pipeline[P, R]:
        """A function that wires steps, as a pipeline: ``mainspring run NAME`` carries it out."""
        pipeline: Pipeline[P, R] = Pipeline(
            PipelineSpec(function, StepOptions()), of_function(function), function.__name__
        )
        self._declared.append(pipeline)
        return pipeline

    def schedule(
        self,
        target: Source | FeatureView | ModelDeclaration | Pipeline[..., object] | Step[..., object],
        cron: str,
        *,
        zone: str = "UTC",
        missed: Literal["latest", "all"] = "latest",
        called: str | None = None,
        **arguments: object,
    ) -> Schedule:
        """Run something by the clock, in ``dev`` and ``serve``; each due time fires once over all replicas.

        Args:
            target: what runs.
            cron: five fields: ``"0 3 * * *"``.
            zone: the IANA time zone of the expression.
            missed: after a pause, ``latest`` or ``all`` due times.
            called: its name; the target's when left out.
            arguments: the pipeline's arguments.

        Raises:
            DeclarationError: MS-1014, MS-1026, MS-1033, MS-1034.
        """
        runnable = (Source, FeatureView, ModelDeclaration, Pipeline, Step)
        is_a("what app.schedule takes", target, runnable, 'app.schedule(WHAT, "0 3 * * *")')
        choice("missed", missed, ("latest", "all"))
        cron_fits(cron)
        time_zone(zone)
        spec = ScheduleSpec(target, cron, zone, missed, dict(arguments))
        return self._add(Schedule(spec, here(), default_name(called, target)))


def parameters(function: Callable[..., object]) -> Mapping[str, object]:
    """The parameters of a trainer or step that have defaults, by name."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
