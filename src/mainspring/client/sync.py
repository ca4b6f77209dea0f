"""The client for plain code and threads, on urllib3."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mainspring.client import wire
from mainspring.client.answers import FeatureAnswer, Inference, Labelled, Prediction, Pushed
from mainspring.client.tensors import Arrays
from mainspring.client.trying import Attempts
from mainspring.client.wire import Asked, Label, Received
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import urllib3
else:
    urllib3 = lazy("urllib3")

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """Asks a Mainspring server. It may be used by many threads at once; connections are kept open.

    Args:
        url: where the server is: ``http://localhost:8080``.
        key: one of its ``server.keys``, sent as ``Authorization: Bearer``; never to where a redirect leads.
        timeout: the most seconds of a call, all its tries together.
        tries: how often a call is sent at most. It is sent again when nothing came back, or 429 or 503.
        connections: how many stay open.
        ca: a file of certificates to trust in place of the system's.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        tries: int = 3,
        connections: int = 32,
        ca: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._tries = tries
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=connections, ca_certs=ca, retries=False)

    def predict(self, endpoint: str, row: Mapping[str, Any], *, features: bool = False) -> Prediction:
        """Ask an endpoint about a row of entity keys and request columns.

        Args:
            endpoint: its name.
            row: a value a column.
            features: whether the answer says what the model saw.

        Raises:
            RequestRefusedError: MS-2790; KeyRefusedError: MS-3110; AnswerError: MS-4380 to MS-4382.
        """
        return self._call(wire.predict(endpoint, row, features=features))

    def predict_many(
        self, endpoint: str, rows: Sequence[Mapping[str, Any]], *, features: bool = False
    ) -> list[Prediction]:
        """Ask an endpoint about rows, which the model answers with one call; raises as `predict`."""
        return self._call(wire.predict_many(endpoint, rows, features=features))

    def infer(
        self,
        model: str,
        inputs: Arrays,
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
        timeout_us: int | None = None,
    ) -> Inference:
        """Ask a model about tensors, sent and answered in binary.

        Args:
            model: its name.
            inputs: the arrays by name: ``{"input": matrix}`` of (rows, columns), or an array a column.
            version: a version of it; the one that answers, by default.
            outputs: the tensors that are wanted; none is all.
            timeout_us: after how long the server drops the call.

        Raises:
            DataError: MS-2791, an array is of no type that tensors have; else as `predict`.
        """
        return self._call(wire.infer(model, inputs, version, outputs, timeout_us))

    def features(
        self, service: str, entities: Mapping[str, Sequence[Any]], request: Mapping[str, Any] | None = None
    ) -> FeatureAnswer:
        """Ask a feature service about entities; raises as `predict`.

        Args:
            service: its name.
            entities: the values of each key, all of one length.
            request: what on-demand features take besides.
        """
        return self._call(wire.features(service, entities, request or {}))

    def push(self, source: str, rows: Sequence[Mapping[str, Any]], *, key: str | None = None) -> Pushed:
        """Bring rows of a source: they are durable, and online, when this returns; raises as `predict`.

        Args:
            source: its name.
            rows: a value a column.
            key: names the push, so that a program that starts again does not bring it twice; made up by default.
        """
        return self._call(wire.push(source, rows, key))

    def label(self, labels: Sequence[Label]) -> Labelled:
        """Say what became of predictions; raises as `predict`."""
        return self._call(wire.label(labels))

    def models(self) -> list[str]:
        """The names of the server's models; raises as `predict`."""
        return self._call(wire.models())

    def _call(self, asked: Asked[T]) -> T:
        attempts = Attempts(self._timeout, self._tries)
        while True:
            received, why = self._send(asked, attempts.left())
            pause = attempts.pause(received)
            if pause is None:
                return attempts.answer(asked, self.url, received, why)
            time.sleep(pause)

    def _send(self, asked: Asked[T], seconds: float) -> tuple[Received | None, str]:
        try:
            answer = self._pool.request(
                asked.method,
                self.url + asked.path,
                body=asked.body or None,
                headers={**self._headers, **asked.headers},
                timeout=seconds,
                redirect=False,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            return None, str(error)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Received(answer.status, headers, answer.data), ""

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
