"""JSON over HTTP with limits: of time, of size, of retries, and of connections."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.adapters.model_server.problems import failing, forbidden, garbled, late, unreachable, unwilling
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import urllib3
else:
    urllib3 = lazy("urllib3")

__all__ = ["Caller", "RetryBudget", "TooLate"]

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_PIECE = 1 << 16
_MOST = 256 << 20
_CONNECT = 5.0
_FIRST, _LONGEST = 0.2, 10.0


class TooLate(Exception):  # noqa: N818 - the caller decides whether it is a fault
    """The deadline has passed."""


class RetryBudget:
    """Retries are at most a share of all requests, so that a server in trouble is not asked many times as much.

    Args:
        share: retries that each request pays for.
        most: retries that may be saved up.
    """

    def __init__(self, share: float = 0.2, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._left = most
        self._lock = threading.Lock()

    def pay(self) -> None:
        """A request begins."""
        with self._lock:
            self._left = min(self._left + self._share, self._most)

    def take(self) -> bool:
        """Whether one more retry may be."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Caller:
    """Posts JSON to one server; threads share its connections.

    Args:
        url: the server; a path is kept.
        key: sent as bearer token, to this server alone: redirects are not followed.
        connections: most at once.
        timeout: seconds of one try.
        retries: tries after the first, as far as the budget goes.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        connections: int,
        timeout: float,
        retries: int,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._url = url.rstrip("/")
        self.where = urllib3.util.parse_url(url).netloc or url
        if "@" in self.where:
            self.where = self.where.rpartition("@")[2]
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._timeout = timeout
        self._tries = retries + 1
        self._budget = RetryBudget()
        self._sleep = sleep
        self._pool = urllib3.PoolManager(maxsize=connections, block=True, retries=False)

    def post(self, path: str, body: object, deadline: float) -> Any:
        """The decoded answer.

        Args:
            path: below the server's URL.
            body: what is sent as JSON.
            deadline: seconds for all tries together.

        Raises:
            TooLate: the deadline has passed.
            ServiceError: MS-4061 to MS-4066.
        """
        data = msgspec.json.encode(body)
        end = time.monotonic() + deadline
        self._budget.pay()
        for attempt in range(1, self._tries + 1):
            last = attempt == self._tries
            try:
                status, headers, answer = self._once(path, data, end)
            except (urllib3.exceptions.HTTPError, TimeoutError) as error:
                if time.monotonic() >= end:
                    raise TooLate from error
                if last or not self._budget.take():
                    raise self._broken(error) from error
                wait = 0.0
            else:
                if status not in _BUSY:
                    return self._decoded(status, answer)
                if last or not self._budget.take():
                    raise failing(self.where, status, attempt)
                wait = _asked_to_wait(headers.get("retry-after"))
            self._pause(max(wait, _backoff(attempt)), end)
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _once(self, path: str, data: bytes, end: float) -> tuple[int, Any, bytes]:
        left = end - time.monotonic()
        if left <= 0:
            raise TooLate
        until = min(end, time.monotonic() + self._timeout)
        limit = urllib3.Timeout(connect=min(_CONNECT, left), read=min(self._timeout, left))
        response = self._pool.request(
            "POST",
            f"{self._url}{path}",
            body=data,
            headers=self._headers,
            timeout=limit,
            redirect=False,
            preload_content=False,
        )
        try:
            answer = bytearray()
            while piece := response.read1(_PIECE):  # as it comes, so that one that drips is noticed
                answer += piece
                if time.monotonic() > until:
                    raise TimeoutError
                if len(answer) > _MOST:
                    raise garbled(self.where, f"its answer is larger than {_MOST} bytes")
            response.release_conn()
            return response.status, response.headers, bytes(answer)
        finally:
            response.close()

    def _broken(self, error: Exception) -> Exception:
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # which counts as a timeout there
        if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)) and not refused:
            return late(self.where, self._timeout)
        cause = error.__cause__ or error.__context__ or error
        return unreachable(self.where, getattr(cause, "strerror", None) or type(cause).__name__)

    def _decoded(self, status: int, answer: bytes) -> Any:
        if status in (401, 403):
            raise forbidden(self.where, status)
        if status >= 300:
            raise unwilling(self.where, status, answer.decode("utf-8", "replace"))
        try:
            return msgspec.json.decode(answer)
        except msgspec.DecodeError as error:
            raise garbled(self.where, f"no JSON: {error}") from error

    def _pause(self, seconds: float, end: float) -> None:
        if time.monotonic() + seconds >= end:
            raise TooLate
        self._sleep(seconds)


def _backoff(attempt: int) -> float:
    """Longer with each try, and never the same for two clients."""
    return min(_FIRST * 2.0 ** (attempt - 1), _LONGEST) * random.uniform(0.5, 1.0)


def _asked_to_wait(header: str | None) -> float:
    """Seconds, or a date; 0 when it says nothing that is understood."""
    if header is None:
        return 0.0
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0
