"""Builds the graph of a shard's copy in a process of its own: the engine would hold this one's interpreter meanwhile.

``python -m mainspring.adapters.qdrant_edge.optimizing FOLDER``
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.vectors.faults import unreadable

if TYPE_CHECKING:
    import qdrant_edge as edge
else:
    edge = lazy("qdrant_edge")

__all__ = ["optimized_apart"]

_PARENT_DEATH = 1


def optimized_apart(shard: Path, name: str, timeout: float) -> None:
    """Build the graph of a shard that nobody has open.

    Raises:
        StoreError: MS-4183, it failed or took longer than `timeout` seconds.
    """
    command = [sys.executable, "-m", "mainspring.adapters.qdrant_edge.optimizing", str(shard)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise unreadable(name, f"building its graph took over {timeout:g} seconds", name) from error
    if done.returncode:
        raise unreadable(name, (done.stderr.strip().splitlines() or ["the build was killed"])[-1], name)


def _optimize(folder: str) -> None:
    shard = edge.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    _optimize(sys.argv[1])
