"""Latency, throughput and memory of two model versions, side by side: processes of their own, rounds in turn."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from mainspring.choose.services import Services
from mainspring.errors import InternalError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Lap", "Speed", "race", "ratio"]

_SECONDS = 120.0
_RESAMPLES = 2000


class Lap(msgspec.Struct, frozen=True):
    """One round of one version.

    Attributes:
        one: CPU seconds of an answer of one row.
        batch: CPU seconds of a row in a batch.
    """

    one: float
    batch: float


class Speed(msgspec.Struct, frozen=True):
    """What the rounds gave.

    Attributes:
        one: the challenger's CPU time for one row over the champion's: the middle, and the ends of its 95 % interval.
        batch: the same for a row of a batch.
        memory: the challenger's peak memory over the champion's.
        new_us: the challenger's CPU microseconds for one row, in the middle.
        live_us: the champion's.
    """

    one: tuple[float, float, float]
    batch: tuple[float, float, float]
    memory: float
    new_us: float
    live_us: float


def race(services: Services, new: Path, live: Path, rows: Path, rounds: int) -> Speed:
    """Time two models' folders on the same rows.

    Both answer the same rows in each round, the one that goes first changing from round to round: what else the machine
    does falls on both. CPU time is compared, not the clock's.

    Args:
        services: the project's ports, opened anew by the processes.
        new: the challenger's folder.
        live: the champion's.
        rows: a ``.npy`` file with a matrix (rows, columns) for each: ``new.npy`` and ``live.npy`` in a folder.
        rounds: how many.

    Raises:
        InternalError: MS-7021, a process ended without an answer.
    """
    with _runner(services, new, rows / "new.npy") as first, _runner(services, live, rows / "live.npy") as second:
        laps: dict[int, list[Lap]] = {0: [], 1: []}
        for number in range(rounds + 1):
            for place in (0, 1) if number % 2 else (1, 0):
                lap = _lap((first, second)[place])
                if number:  # the first round warms up
                    laps[place].append(lap)
        peaks = [_peak(first), _peak(second)]
    one = ratio([lap.one for lap in laps[0]], [lap.one for lap in laps[1]])
    batch = ratio([lap.batch for lap in laps[0]], [lap.batch for lap in laps[1]])
    middles = [float(np.median([lap.one for lap in laps[place]])) * 1e6 for place in (0, 1)]
    return Speed(one, batch, peaks[0] / peaks[1], *middles)


def ratio(new: Sequence[float], live: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The median of the pairs' ratios, and the ends of its 95 % interval by resampling pairs."""
    ratios = np.asarray(new) / np.asarray(live)
    draws = np.random.default_rng(seed).integers(0, len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


@contextlib.contextmanager
def _runner(services: Services, folder: Path, rows: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = "from mainspring.server.gating.lap import serve; serve()"
    words = [os.fspath(services.project), services.settings.profile, os.fspath(folder), os.fspath(rows)]
    # Threads of numeric libraries would make CPU time differ with the cores that are free.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MAINSPRING_STATE_FOLDER": os.fspath(services.state)}
    running = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    try:
        yield running
    finally:
        for pipe in (running.stdin, running.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            running.wait(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _asked(running: subprocess.Popen[bytes], what: bytes) -> dict[str, float]:
    out, back = running.stdin, running.stdout
    assert out is not None
    assert back is not None
    try:
        out.write(what + b"\n")
        out.flush()
        return _answer(back)
    except (OSError, ValueError) as error:
        raise InternalError(
            "a process that times a model ended", code="MS-7021", why=str(error), fix="its output above says why"
        ) from error


def _answer(back: IO[bytes]) -> dict[str, float]:
    found: dict[str, float] = json.loads(back.readline())
    return found


def _lap(running: subprocess.Popen[bytes]) -> Lap:
    found = _asked(running, b"lap")
    return Lap(found["one"], found["batch"])


def _peak(running: subprocess.Popen[bytes]) -> float:
    return _asked(running, b"peak")["bytes"]
