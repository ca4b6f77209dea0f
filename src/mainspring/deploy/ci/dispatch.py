"""An alarm of drift starts the training in CI: GitHub's repository_dispatch, Jenkins' parameters, GitLab's trigger."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import queue
import random
import threading
import urllib.parse
from collections.abc import Callable, Mapping

import msgspec

from mainspring.config.settings import Settings, reveal
from mainspring.errors import ConfigError

__all__ = ["Ask", "Dispatcher", "dispatch_of"]

EVENT = "drift-detected"
_SECONDS = 10.0
_TRIES = 5
_LONGEST = 60.0
"""Seconds between two tries at most, whatever the service says."""
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_WAITING = 16
"""The most alarms that wait to be told."""
_MOST_BYTES = 1 << 16


class Ask(msgspec.Struct, frozen=True):
    """How a CI service is asked to train.

    Attributes:
        kind: ``github``, ``gitlab`` or ``jenkins``.
        url: the whole address: ``https://api.github.com/repos/OWNER/NAME/dispatches``, a Jenkins job, or GitLab's
            ``.../api/v4/projects/ID/trigger/pipeline``.
        token: GitHub's or GitLab's token, or ``USER:TOKEN`` of Jenkins.
        ref: the branch that GitLab runs.
    """

    kind: str
    url: str
    token: str
    ref: str = "main"

    def request(self, facts: Mapping[str, str]) -> tuple[str, bytes, dict[str, str]]:
        """The path, the body and the headers that tell it of an alarm.

        Args:
            facts: of the alarm; GitHub alone is told them, as the event's payload.
        """
        path = urllib.parse.urlsplit(self.url).path
        headers = {"User-Agent": "mainspring", "Content-Type": "application/x-www-form-urlencoded"}
        if self.kind == "github":
            body = json.dumps({"event_type": EVENT, "client_payload": dict(facts)}).encode()
            headers |= {
                "Content-Type": "application/json",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
                "Authorization": f"Bearer {self.token}",
            }
            return path, body, headers
        if self.kind == "gitlab":
            form = {"token": self.token, "ref": self.ref, "variables[DRIFT]": "yes"}
            return path, urllib.parse.urlencode(form).encode(), headers
        headers["Authorization"] = f"Basic {base64.b64encode(self.token.encode()).decode()}"
        return f"{path.rstrip('/')}/buildWithParameters", b"DRIFT=true", headers


def dispatch_of(settings: Settings) -> Ask | None:
    """Where alarms start a training; None where none is named, and the server trains itself.

    Raises:
        ConfigError: MS-2752, the address is none, or the token would cross the network in the clear; MS-2753, there is
            no token; as `reveal` raises.
    """
    found = settings.setting("ci.dispatch.url")
    if found is None or not found.value:
        return None
    url = str(found.value)
    parts = urllib.parse.urlsplit(url)
    loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or parts.scheme not in ("http", "https") or (parts.scheme == "http" and not loopback):
        raise ConfigError(
            f"ci.dispatch.url = {url!r} does not do",
            code="MS-2752",
            why="a token is sent there, which must not cross a network in the clear",
            origin=found.origin,
            fix='ci.dispatch.url = "https://api.github.com/repos/OWNER/NAME/dispatches"',
        )
    secret = settings.setting("ci.dispatch.token")
    reference = None if secret is None else next(iter(secret.references()), None)
    if reference is None:
        raise ConfigError(
            "ci.dispatch.token is not set",
            code="MS-2753",
            why=f"nobody starts a run at {parts.hostname} without one",
            origin=found.origin,
            fix='ci.dispatch.token = "env:CI_TOKEN", and nothing more than the right to start runs behind it',
        )
    token = reveal(reference, settings.project).strip()
    return Ask(settings.text("ci.dispatch.kind") or "github", url, token, settings.text("ci.dispatch.ref") or "main")


class Dispatcher:
    """Tells a CI service of alarms, off the path of whoever raised them.

    At most `_WAITING` wait; each is tried `_TRIES` times. A run that was started by a try whose answer was lost may be
    started once more: `mainspring ci due` holds it to the cooldown.

    Args:
        ask: how.
        told: what became of each: whether it was taken, and why not. It is called in the dispatcher's thread.
        pause: waits so many seconds, and says whether it was told to stop meanwhile.
    """

    def __init__(
        self,
        ask: Ask,
        told: Callable[[Mapping[str, str], str], None],
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._ask, self._told = ask, told
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._queue: queue.Queue[Mapping[str, str] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="dispatch", daemon=True)
        self._thread.start()

    def offer(self, facts: Mapping[str, str]) -> bool:
        """Tell of an alarm, soon; whether there was room."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(facts)
            return True
        return False

    def close(self) -> None:
        """Stop after the try that is under way; what waits is given up, and told so."""
        self._stopped.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(_SECONDS * 2)

    def _work(self) -> None:
        while (facts := self._queue.get()) is not None and not self._stopped.is_set():
            self._told(facts, self._tell(facts))

    def _tell(self, facts: Mapping[str, str]) -> str:
        """Why it was not taken; empty when it was."""
        why = "the server stops"
        for tries in range(_TRIES):
            why, again, after = self._once(facts)
            if not why or not again or tries == _TRIES - 1:
                break
            seconds = after if after is not None else 2.0**tries * (1 + random.random() / 4)
            if self._pause(min(seconds, _LONGEST)):
                break
        return why

    def _once(self, facts: Mapping[str, str]) -> tuple[str, bool, float | None]:
        """Why it was not taken, whether another try may help, and after how many seconds the service asks for it.

        A redirect is none that is followed: the token would go where it was not meant for.
        """
        parts = urllib.parse.urlsplit(self._ask.url)
        kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
        connection = kind(parts.netloc, timeout=_SECONDS)
        path, body, headers = self._ask.request(facts)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            return f"{parts.netloc}: {error or type(error).__name__}", True, None
        finally:
            connection.close()
        if answer.status < 300:
            return "", False, None
        said = answer.headers.get("Retry-After", "")
        after = float(said) if said.isdigit() else None
        return f"{parts.netloc} answers {answer.status} {answer.reason}", answer.status in _AGAIN, after
