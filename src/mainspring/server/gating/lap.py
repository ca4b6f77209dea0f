"""The process that times one model version: a line in, a line of JSON out."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.choose.services import Services
from mainspring.lazy import lazy
from mainspring.ports.runtime import Predictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["serve"]

_SINGLES, _LONGEST = 200, 0.2
"""Answers of one row in a round, and the CPU seconds after which it is enough."""


def serve() -> None:
    """Load the model and answer until there is nothing more to read: ``lap`` or ``peak``."""
    project, profile, folder, rows = sys.argv[1:]
    predictor = Services.of_project(Path(project), profile=profile).predictor(Path(folder))
    matrix = np.load(rows)
    for line in sys.stdin:
        found = _lap(predictor, matrix) if line.strip() == "lap" else {"bytes": _peak()}
        print(json.dumps(found), flush=True)  # noqa: T201 - the answer


def _lap(predictor: Predictor, matrix: NDArray[np.floating]) -> dict[str, float]:
    began, done = time.process_time(), 0
    while done < _SINGLES and (not done or time.process_time() - began < _LONGEST):
        predictor.scores(matrix[done % len(matrix)][None, :])
        done += 1
    middle = time.process_time()
    predictor.scores(matrix)
    return {"one": (middle - began) / done, "batch": (time.process_time() - middle) / len(matrix)}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
