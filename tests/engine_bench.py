"""What the engine's tests share: services over a folder, and steps that leave a trace when they run."""

import errno
import os
import types
from pathlib import Path

from mainspring.adapters.localfs.objects import LocalObjects
from mainspring.adapters.sqlite.catalog import SqliteCatalog


def full_when_told(point):
    """The disk is full for blobs while ENGINE_TEST_FULL is set; workers inherit it."""
    if point == "blob.written" and "ENGINE_TEST_FULL" in os.environ:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class BenchServices:
    """A catalog, an object store and nothing else, in one folder; opened anew in each process."""

    def __init__(self, folder, fault=None, settings=None):
        self.project = Path(folder)
        self.state = self.project / ".mainspring"
        self.state.mkdir(parents=True, exist_ok=True)
        self.settings = settings or types.SimpleNamespace(values={}, setting=lambda name: None)
        self._fault = fault or full_when_told
        self._opened = {}

    @classmethod
    def from_spec(cls, spec):
        folder, values = spec
        return cls(folder, settings=types.SimpleNamespace(values=values, setting=values.get))

    def spec(self):
        return str(self.project), dict(self.settings.values)

    def _get(self, name, make):
        key = (os.getpid(), name)
        if key not in self._opened:
            self._opened[key] = make()
        return self._opened[key]

    @property
    def catalog(self):
        return self._get("catalog", lambda: SqliteCatalog(self.state / "catalog.db", fault=self._fault))

    @property
    def objects(self):
        return self._get("objects", lambda: LocalObjects(self.state / "objects", self._fault))

    def close(self):
        for (pid, _), opened in self._opened.items():
            if pid == os.getpid() and hasattr(opened, "close"):
                opened.close()
        self._opened.clear()


def ran(folder, name):
    """Note that a step's body ran; `times` counts the notes."""
    with open(Path(folder) / f"ran-{name}", "ab") as file:
        file.write(b".")


def times(folder, name):
    """How often a step's body ran."""
    path = Path(folder) / f"ran-{name}"
    return path.stat().st_size if path.exists() else 0
