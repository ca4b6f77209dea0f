"""Calls to the models of this process: found, checked, scored, logged and counted alike for every wire."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.serving.calls import Array, Call, Inference, Reason, Rejected
from mainspring.serving.counts import ANSWERING, ModelCounts, WireCounts
from mainspring.serving.endpoint import EndpointService
from mainspring.serving.rollout.shadow import ShadowCall
from mainspring.serving.rollout.split import Asking, Role, Split, request_key
from mainspring.serving.served import ServedModel
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics
from mainspring.serving.together import Question, Together, Turn
from mainspring.serving.versions import STANDING, ModelVersions, Policy, State, VersionState

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["LABELS", "Registry", "ServedModels"]

LABELS = STANDING
"""The labels of the version that answers."""


class Registry(Protocol):
    """The models that this process may serve, by their names in the catalog: never by an address or a path."""

    def names(self) -> Sequence[str]:
        """Every model of the app, loaded or not."""

    def registered(self, name: str) -> Sequence[int]:
        """The versions of a model, loaded or not."""

    def load(self, name: str, version: str | None = None) -> None:
        """Load the version that the catalog's alias names, or one of that number beside it; it stays until unloaded.

        Raises:
            Rejected: NO_MODEL, no model is called so; NO_VERSION, it has no such version; NOT_READY, it has no version
                to load, or it does not warm up.
        """

    def unload(self, name: str, version: str | None = None) -> None:
        """Let a model answer no more, and forget it; or one of its versions.

        Raises:
            Rejected: NO_MODEL, no model is called so; NO_VERSION; CONFLICT, the version answers, or is a rollout's.
        """

    def label(self, name: str, label: str, version: str) -> None:
        """Let a label name a version, for every process and for good; the label of the version that answers, too.

        Raises:
            Rejected: NO_MODEL; NO_VERSION, there is no such version; CONFLICT, it is not READY here, or somebody else
                has moved the label meanwhile; INVALID, it cannot be a label.
        """

    def keep(self, name: str, policy: Policy) -> None:
        """Load the versions of a policy, and unload what it does not ask for, until the process starts anew.

        Raises:
            Rejected: NO_MODEL; NO_VERSION, a version of the policy is not registered.
        """


def _as_logged(matrix: Array) -> Sequence[Sequence[object]]:
    """The rows of a matrix; a value that is no number is missing to the model, and None as questions by keys log it."""
    rows: list[list[float]] = matrix.tolist()
    total = sum(map(sum, rows))
    if total == total:  # the usual: were there a NaN, it would be one
        return rows
    return [[None if value != value else value for value in row] for row in rows]


class ServedModels:
    """The models of this process; one version of each answers.

    Args:
        table: the models.
        endpoints: the endpoints that are ready, by name; the first one of a model logs what it answers.
        registry: which models there are, and their loading.
        metrics: where calls are counted, or None.
        app: the app's name, a label of the counts.
        max_rows: most rows in one call.
        now: the clock, UTC microseconds.
        default: the model of routes that name none.
        timeout_s: seconds that any call may take, or None.
        turn: of the event loop, as the hosts tell it; without one every call is answered by itself.
    """

    def __init__(
        self,
        table: ModelTable,
        endpoints: Callable[[], Mapping[str, EndpointService]],
        registry: Registry,
        metrics: Metrics | None,
        app: str,
        max_rows: int,
        now: Callable[[], int],
        default: str | None = None,
        timeout_s: float | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.registry = registry
        self.max_rows = max_rows
        self.created_s = now() // 1_000_000
        self._table = table
        self._endpoints = endpoints
        self._now = now
        self._default = default
        self._timeout_s = timeout_s
        self._served: dict[tuple[str, str], ServedModel] = {}
        self._counts = ModelCounts(metrics, app)
        self._together = Together(turn or Turn(), self._answered)
        table.follow(self._forget)

    def names(self) -> Sequence[str]:
        """The models of which a version answers."""
        return list(self._table.all())

    def known(self) -> Sequence[str]:
        """Every model of the app, with those that were loaded beside."""
        return list(dict.fromkeys([*self.registry.names(), *self._table.all()]))

    def get(self, name: str) -> ServedModel | None:
        """The version of a model that answers calls that name none; None when there is none."""
        versions = self._table.versions(name)
        return None if versions.default is None else self._served_version(name, versions, versions.default)

    def ready(self, name: str) -> Sequence[ServedModel]:
        """The loaded versions of a model, the newest first."""
        versions = self._table.versions(name)
        found = [self._served_version(name, versions, number) for number in sorted(versions.ready, key=int)]
        return [served for served in reversed(found) if served is not None]

    def labels(self, name: str) -> Mapping[str, str]:
        """The labels of a model with the version that each names."""
        return self._table.versions(name).all_labels()

    def states(self, name: str) -> Sequence[VersionState]:
        """Every version of a model that is known here, the newest first."""
        versions = self._table.versions(name)
        found = {number: VersionState(number, State.UNLOADING, "its last calls") for number in self._drained(name)}
        found |= {state.version: state for state in versions.waiting}
        found |= {number: VersionState(number, State.READY) for number in versions.ready}
        return [found[number] for number in sorted(found, key=int, reverse=True)]

    def _drained(self, name: str) -> Sequence[str]:
        return self._table.draining(name)

    def find(
        self,
        name: str,
        version: str | None = None,
        label: str | None = None,
        asking: Asking | None = None,
        protocol: str = "",
    ) -> ServedModel:
        """The version that is asked for; of a call that names none, the one that its key leads to.

        Args:
            name: the model's name.
            version: the number that is asked for.
            label: the label that is asked for.
            asking: the request, for its key; without one a canary has no part in it.
            protocol: the wire that the request came by, whose end is counted; empty where nothing will be computed.

        Raises:
            Rejected: NO_MODEL, NO_VERSION, NOT_READY.
        """
        versions = self._table.versions(name)
        served = self._found_before(name, versions) if version is None and label is None else None
        if served is None:
            try:
                served = self._found(name, versions, version, label, asking)
            except Rejected:
                self._lost(name, protocol)
                raise
        if protocol:
            ANSWERING.set(self._counts.of(name, served.version, protocol, served.role))
        return served

    def _found_before(self, name: str, versions: ModelVersions) -> ServedModel | None:
        """Who has answered last, where nothing is tried and it answers still: nearly always."""
        if versions.split is not None or versions.default is None:
            return None
        served = self._served.get((name, versions.default))
        if served is None or served.live is not versions.ready.get(served.version) or served.role != Role.STABLE:
            return None
        return served

    def _lost(self, name: str, protocol: str) -> None:
        """A call of a wire comes to no version."""
        if protocol:
            ANSWERING.set(self.unanswered(name, protocol))

    def unanswered(self, name: str, protocol: str) -> WireCounts:
        """Where the end of a call is counted that comes to no version: under no name that a client makes up.

        Args:
            name: of the model that was asked for; empty where nobody knows.
            protocol: the wire that it came by.
        """
        return self._counts.of_none(name if name in self.known() else "", protocol)

    def _found(
        self, name: str, versions: ModelVersions, version: str | None, label: str | None, asking: Asking | None
    ) -> ServedModel:
        number = self._numbered(name, versions, version, label, asking)
        served = self._served_version(name, versions, number)
        if served is None:
            waiting = next((state for state in versions.waiting if state.version == number), None)
            if waiting is not None:
                raise Rejected(Reason.NOT_READY, f"version {number} of model {name!r} is {waiting.state.value}")
            there = ", ".join(found.version for found in self.ready(name))
            raise Rejected(Reason.NO_VERSION, f"model {name!r} has version {there} ready, not {number}")
        return served

    def _numbered(
        self, name: str, versions: ModelVersions, version: str | None, label: str | None, asking: Asking | None
    ) -> str:
        if versions.default is None:
            if name in self.registry.names():
                raise Rejected(Reason.NOT_READY, f"model {name!r} is not loaded")
            there = ", ".join(self.names()) or "none"
            raise Rejected(Reason.NO_MODEL, f"no model is called {name!r}; there are: {there}")
        if version is not None:
            return version
        if label is not None:
            number = versions.labelled(label)
            if number is None:
                there = ", ".join(sorted(versions.all_labels()))
                raise Rejected(Reason.NO_VERSION, f"model {name!r} has no label {label!r}; it has {there}")
            return number
        split = versions.split
        if split is None or asking is None or not split.share:
            return versions.default
        return split.version(request_key(asking))

    def _forget(self, name: str) -> None:
        """Hold no version that was taken out of service: its memory is free when its last call is over."""
        ready = self._table.versions(name).ready
        for key in list(self._served):
            if key[0] == name and ((served := self._served.get(key)) is None or served.live is not ready.get(key[1])):
                self._served.pop(key, None)

    def _served_version(self, name: str, versions: ModelVersions, number: str) -> ServedModel | None:
        live = versions.ready.get(number)
        key = name, number
        if live is None:
            self._served.pop(key, None)
            return None
        role = Role.CANARY if versions.split is not None and number == versions.split.canary else Role.STABLE
        served = self._served.get(key)
        if served is None or served.live is not live or served.role != role:
            served = self._served[key] = ServedModel(name, live, live.statistics, role)
        return served

    def chosen(self, name: str | None, asking: Asking | None = None, protocol: str = "") -> ServedModel:
        """The model of a route that may name one: that one, else the one of the settings, else the only one.

        Raises:
            Rejected: INVALID, there are several; as `find` raises.
        """
        if name is None:
            name = self._default
        if name is None:
            known = self.known()
            if len(known) != 1:
                there = ", ".join(known) or "none"
                self._lost("", protocol)
                raise Rejected(Reason.INVALID, f"this route answers for one model, and there are: {there}")
            (name,) = known
        return self.find(name, asking=asking, protocol=protocol)

    async def infer(self, call: Call, served: ServedModel | None = None) -> Inference:
        """Answer a call: scored, logged when the model is behind an endpoint, and counted.

        Args:
            call: what is asked.
            served: who `find` has said answers; it does, whatever labels have moved meanwhile.

        Raises:
            Rejected: as `find`, `ServedModel.matrix` and `ServedModel.wanted` raise; EXPIRED, its deadline is over;
                BUSY, too much waits for the model already.
            DataError: MS-2306, the model takes no missing or infinite value, and there is one.
        """
        served = served or self.find(call.model, call.version, call.label)
        split = self._table.versions(served.name).split
        counts = self._counts.of(served.name, served.version, call.protocol, served.role)
        begun = time.perf_counter_ns()
        if split is not None:
            split.begun(served.version)
        try:
            wanted = served.wanted(call.outputs)
            question = Question(served, counts, served.matrix(call.inputs, self.max_rows), call.decode_ns, begun)
            if (answered := self._ask(call, question)) is not None:
                await answered
            if question.error is not None:
                raise question.error
        except Exception as error:
            served.statistics.failed(call.decode_ns + time.perf_counter_ns() - begun)
            counts.failed()
            if split is not None and not isinstance(error, (Rejected, DataError)):
                split.failed(served.version)
            raise
        finally:
            if split is not None:
                split.ended(served.version)
        if split is not None:
            split.answered(served.version, question.queue_ns + question.infer_ns)
            self._shadowed(split, served, question.matrix, question.scores, question.ids)
        counts.traced(len(question.matrix), question.queue_ns, question.infer_ns)
        return Inference(served.name, served.version, [(tensor, question.scores) for tensor in wanted], question.ids)

    def _ask(self, call: Call, question: Question) -> Awaitable[None] | None:
        """Have a call answered, with others of its turn where the model is quick; None where it is answered now."""
        if call.deadline is not None and time.monotonic() >= call.deadline:
            raise Rejected(Reason.EXPIRED, "the deadline of the call is over")
        if question.served.live.is_quick(len(question.matrix)):
            return self._together.ask(question)
        return self._queued(call, question)

    async def _queued(self, call: Call, question: Question) -> None:
        """Answer a call from its model's queue."""
        matrix, live, deadline = question.matrix, question.served.live, self._deadline(call)
        scored = await live.scores_soon(matrix, deadline, call.priority, call.parameters, call.protocol)
        question.queue_ns = scored.queue_ns
        question.infer_ns = time.perf_counter_ns() - question.asked_ns - scored.queue_ns
        self._kept((question,), matrix, scored.scores)

    def _answered(self, questions: Sequence[Question]) -> None:
        """Answer questions of one kind together; when that fails, each alone: one bad caller fails alone."""
        live, begun = questions[0].served.live, time.perf_counter_ns()
        try:
            if len(questions) == 1:
                whole = questions[0].matrix
            else:
                whole = np.concatenate([question.matrix for question in questions])
            merged = time.perf_counter_ns()
            scores = live.scores(whole)
            if len(scores) != len(whole):
                raise RuntimeError(f"the model gave {len(scores)} scores for {len(whole)} rows")
        except Exception as error:
            if len(questions) == 1:
                questions[0].error = error
                return
            for question in questions:
                self._answered((question,))
            return
        infer_ns = time.perf_counter_ns() - merged
        for question in questions:
            question.queue_ns = begun - question.asked_ns if question.answered is not None else 0
            question.infer_ns = infer_ns
        try:
            output_ns = self._kept(questions, whole, scores)
        except Exception as error:
            for question in questions:
                question.error = error
            return
        live.executed(len(whole), len(questions), merged - begun, infer_ns, output_ns)

    def _kept(self, questions: Sequence[Question], whole: Array, scores: Array) -> int:
        """Log and count questions that were answered together, and give each its own; how long that took, in ns."""
        begun, served, counts = time.perf_counter_ns(), questions[0].served, questions[0].counts
        listed = scores.tolist()
        ids = self._logged(served, whole, listed)
        at = 0
        for question in questions:
            after = at + len(question.matrix)
            question.scores, question.ids = scores[at:after], ids[at:after]
            at = after
        output_ns = time.perf_counter_ns() - begun
        calls, first = len(questions), questions[0]
        waited = sum([question.queue_ns for question in questions])
        served.statistics.answered(
            len(whole),
            sum([question.decode_ns for question in questions]),
            calls * first.infer_ns,
            calls * output_ns,
            calls=calls,
            queue_ns=waited,
        )
        counts.answered(calls, len(whole), first.infer_ns, sum([q.matrix.nbytes for q in questions]), scores.nbytes)
        if scores.ndim == 1:
            counts.scored(listed, calls)
        return output_ns

    def _deadline(self, call: Call) -> float | None:
        """The least of the call's own and the server's."""
        if self._timeout_s is None:
            return call.deadline
        latest = time.monotonic() + self._timeout_s
        return latest if call.deadline is None else min(call.deadline, latest)

    def _logged(self, served: ServedModel, matrix: Array, scores: Sequence[float]) -> Sequence[str]:
        endpoint = self._endpoint_of(served.name)
        if endpoint is None:
            return ()
        rows, canary = _as_logged(matrix), served.role == Role.CANARY
        return endpoint.record(rows, scores, served.version, self._now(), canary=canary, parts=served.live.parts)

    def _endpoint_of(self, model: str) -> EndpointService | None:
        """The first endpoint of a model."""
        for endpoint in self._endpoints().values():
            if endpoint.model == model:
                return endpoint
        return None

    def _shadowed(self, split: Split, served: ServedModel, matrix: Array, scores: Array, ids: Sequence[str]) -> None:
        """Let a shadow be asked the same, later; one that reads other columns is asked by keys alone."""
        live = self._table.versions(served.name).ready.get(split.canary)
        if split.shadow is None or live is None or served.version != split.stable:
            return
        if live.card.columns != served.live.card.columns:
            return
        endpoint = self._endpoint_of(served.name)
        version, now, kept = live.version, self._now(), np.array(matrix)

        def log(found: Sequence[float]) -> None:
            if endpoint is not None:
                endpoint.record_shadow(_as_logged(kept), found, version, now, ids)

        split.shadow.offer(ShadowCall(lambda: live.scores(kept).tolist(), scores.tolist(), log))
