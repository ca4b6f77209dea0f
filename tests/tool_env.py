"""Tools that tests need and the project must not depend on, in environments of their own, made once and kept."""

from __future__ import annotations

import fcntl
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
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / f".{name}.lock", "w") as lock:  # several test processes may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "ready").exists():
            _make(place, requirements)
    return place / "bin"


def _make(place: Path, requirements: tuple[str, ...]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True, timeout=300)
    pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(requirements)}: {done.stderr.strip().splitlines()[-1]}")
    (place / "ready").touch()


def locked_site(lock: Path) -> Path:
    """A folder with what a lock names, and nothing that these need besides: for the path before the tests' own."""
    digest = hashlib.sha256(sys.version.encode() + lock.read_bytes()).hexdigest()[:12]
    place = KEPT / f"{lock.parent.name}-site-{digest}"
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / f".{place.name}.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (place / "ready").exists():
            shutil.rmtree(place, ignore_errors=True)
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            words = [*install, "--require-hashes", "--target", str(place), "-r", str(lock)]
            subprocess.run(words, check=True, capture_output=True, timeout=600)
            (place / "ready").touch()
    return place
