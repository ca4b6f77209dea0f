"""A replica under its contract: asked as a cluster asks, started anew when it does not live, stopped in peace."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from mainspring.deploy.local.running import Way
from mainspring.errors import RefusedError
from mainspring.ports.target import Probe, Workload

__all__ = ["Replica", "Stopped", "answers_at"]

_POLL_S = 0.1
_BACK_OFF_S = (10.0, 300.0)
"""Seconds before another start, twice as long each time: the first, and the most; as kubelets wait."""
_SOUND_S = 600.0
"""After so many seconds of life the waiting begins anew."""
_LINES = 20
_KILLED = 128 + signal.SIGKILL
"""By this a container says that its process was ended by SIGKILL."""
Ask = Callable[[Probe], bool]


class Stopped(msgspec.Struct, frozen=True):
    """How a replica ended.

    Attributes:
        seconds: from SIGTERM on.
        status: its exit status.
        killed: whether it had to be.
    """

    seconds: float
    status: int
    killed: bool

    @property
    def well(self) -> bool:
        """Whether it ended as the contract asks."""
        return self.status == 0 and not self.killed


def answers_at(port: int) -> Ask:
    """Asks at a port of this machine; an answer below 400 is well."""

    def ask(probe: Probe) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=probe.timeout_s)
        try:
            connection.request("GET", probe.path)
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask


class _Asked(msgspec.Struct):
    """A probe, when it is due, and how often in a row it has failed."""

    probe: Probe
    due: float
    failed: int = 0

    def turn(self, ask: Ask, now: float) -> bool | None:
        """Ask if it is time: whether it is well, or None when that is not known yet, or no news."""
        if now < self.due:
            return None
        self.due = now + self.probe.every_s
        if ask(self.probe):
            self.failed = 0
            return True
        self.failed += 1
        return False if self.failed >= self.probe.failures else None


@dataclass(slots=True)
class Replica:
    """One replica.

    Attributes:
        way: how it is started.
        workload: its contract.
        ask: asks a probe.
        said: told each line of its log.
        told: told what happens to it.
        clock: seconds.
        pause: waits for so many seconds.
    """

    way: Way
    workload: Workload
    ask: Ask
    said: Callable[[str], None]
    told: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    ready: bool = field(default=False, init=False)
    restarts: int = field(default=0, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _last: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES), init=False)
    _reader: threading.Thread | None = field(default=None, init=False)
    _begun: float = field(default=0.0, init=False)
    _again: float = field(default=0.0, init=False)
    _started: bool = field(default=False, init=False)
    _readiness: _Asked | None = field(default=None, init=False)
    _liveness: _Asked | None = field(default=None, init=False)

    def until_ready(self, wait: float) -> float:
        """Start it, and wait until requests may come; the seconds that took.

        Raises:
            RefusedError: MS-5163, it ends, or does not answer in that time or in that of its startup probe.
        """
        self._begin()
        while not self.ready:
            if self._process is not None and (status := self._process.poll()) is not None:
                raise self._not_up(f"it ended with {_status(status)}")
            now = self.clock()
            if now - self._begun >= (limit := min(wait, self._startup_s) if not self._started else wait):
                raise self._not_up(f"it does not answer {self.workload.startup.path} within {limit:g} s")
            self._turn(now)
            self.pause(_POLL_S)
        return self.clock() - self._begun

    def watch(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Keep it as a kubelet would, until `ended` says so, or for good."""
        while not ended():
            self._turn(self.clock())
            self.pause(_POLL_S)

    def stop(self) -> Stopped:
        """SIGTERM, and SIGKILL when its grace has passed."""
        process, begun = self._process, self.clock()
        self.ready = False
        if process is None or process.poll() is not None:
            return Stopped(0.0, 0 if process is None else process.returncode, False)
        self.way.signal(process, signal.SIGTERM)
        killed = False
        while process.poll() is None:
            if not killed and self.clock() - begun >= self.workload.grace_s:
                killed = True
                self.way.signal(process, signal.SIGKILL)
            self.pause(0.02)
        self._end_reading()
        self.way.remove()
        return Stopped(self.clock() - begun, process.returncode, killed)

    def kill(self) -> None:
        """End it now, without its grace."""
        if self._process is not None and self._process.poll() is None:
            self.way.signal(self._process, signal.SIGKILL)
            self._process.wait()
        self.way.remove()

    @property
    def _startup_s(self) -> float:
        return self.workload.startup.every_s * self.workload.startup.failures

    def _begin(self) -> None:
        self._started, self.ready, self._begun = False, False, self.clock()
        self._process = self.way.start()
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError, OSError), process.stdout as lines:
            for line in lines:
                text = line.decode("utf-8", "replace").rstrip("\n")
                self._last.append(text)
                self.said(text)

    def _end_reading(self) -> None:
        if self._reader is not None:
            self._reader.join(5.0)

    def _turn(self, now: float) -> None:
        """What is due now."""
        process = self._process
        if process is None:
            if now >= self._again:
                self._begin()
            return
        if (status := process.poll()) is not None:
            self._over(f"it ended with {_status(status)}", now)
        elif not self._started:
            self._starting(now)
        else:
            self._living(now)

    def _starting(self, now: float) -> None:
        if self.ask(self.workload.startup):
            self._started = True
            self._readiness = _Asked(self.workload.readiness, now)
            self._liveness = _Asked(self.workload.liveness, now + self.workload.liveness.every_s)
            self._living(now)
        elif now - self._begun >= self._startup_s:
            self._kill(f"it has not started within {self._startup_s:g} s", now)

    def _living(self, now: float) -> None:
        assert self._readiness is not None
        assert self._liveness is not None
        well = self._readiness.turn(self.ask, now)
        if well is not None and well != self.ready:
            self.ready = well
            self.told("ready" if well else f"not ready: {self.workload.readiness.path} fails")
        if self._liveness.turn(self.ask, now) is False:
            self._kill(f"it does not live: {self.workload.liveness.path} fails", now)

    def _kill(self, why: str, now: float) -> None:
        self.told(f"{why}; it is stopped")
        self.stop()
        self._over(why, now)

    def _over(self, why: str, now: float) -> None:
        lived = now - self._begun
        self._end_reading()
        self.way.remove()
        self.restarts = 1 if lived >= _SOUND_S else self.restarts + 1
        wait = 0.0 if self.restarts == 1 else min(_BACK_OFF_S[0] * 2 ** (self.restarts - 2), _BACK_OFF_S[1])
        self.told(f"{why}; it is started anew" + (f" in {wait:g} s" if wait else ""))
        self._process, self.ready, self._again = None, False, now + wait

    def _not_up(self, why: str) -> RefusedError:
        if self._process is not None and self._process.poll() is not None:
            self._end_reading()
        return RefusedError(
            "the server does not come up",
            code="MS-5163",
            why=why,
            origin=self._last[-1] if self._last else "",
            fix="its log is above; mainspring serve --profile NAME runs it without the image",
        )


def _status(status: int) -> str:
    if status == _KILLED:
        return f"status {status}: it was killed, as what passes its limit of memory is"
    return signal.Signals(-status).name if status < 0 else f"status {status}"
