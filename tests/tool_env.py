"""Tools that tests need and the project must not depend on, in environments of their own, made once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = Path(os.environ.get("MAINSPRING_TEST_TOOLS", Path.home() / ".cache" / "mainspring-tests"))


def tool_env(name: str, *requirements: str) -> Path:
    """The ``bin`` folder of an environment with these distributions; the test is skipped where pip finds none."""
    digest = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    place = KEPT / f"{name}-{digest}"
    if not place.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        part = KEPT / f".{name}-{os.getpid()}"
        subprocess.run([sys.executable, "-m", "venv", part], check=True, timeout=300)
        pip = [part / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            shutil.rmtree(part)
            pytest.skip(f"pip cannot install {' '.join(requirements)}: {done.stderr.strip().splitlines()[-1]}")
        try:  # scripts name the folder that they were installed into; python -m does not
            os.rename(part, place)
        except OSError:
            shutil.rmtree(part)  # another process was first
    return place / "bin"
