"""A model's folder on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import cast

from mainspring.choose.services import Services
from mainspring.declare.artifact import File
from mainspring.engine.driver import load

__all__ = ["unpacked"]


def unpacked(services: Services, artifact: str) -> Path:
    """The folder of a model's files, by their digest; it appears whole or not at all.

    Raises:
        StoreError: as the object store raises.
    """
    folder = services.state / "models" / artifact
    if not folder.exists():
        part = folder.with_name(f".{artifact}-{os.getpid()}")
        stored = cast(File, load(services, artifact, File, part))
        with contextlib.suppress(FileExistsError, OSError):  # another process may have been first
            os.rename(stored.path, folder)
        shutil.rmtree(part, ignore_errors=True)
    return folder
