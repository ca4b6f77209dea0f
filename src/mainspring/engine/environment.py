"""What a run records of where it ran: code, lock, interpreter, machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["GitState", "capacity_of", "commit_of", "environment_of"]

_LOCKS = ("uv.lock", "requirements.lock", "poetry.lock", "pdm.lock", "requirements.txt")


def environment_of(project: Path) -> dict[str, object]:
    """Interpreter, machine, lock and git revision; a few small files are read, nothing is started."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "lock": _lock_digest(project),
        "git_sha": commit_of(project),
    }


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def capacity_of(workers: int | None) -> dict[str, float]:
    """What this machine has for steps: ``cpu`` (workers), ``gpu`` (NVIDIA devices), ``memory`` (bytes)."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": float(workers or cores()), "gpu": float(gpus), "memory": float(memory)}


def _lock_digest(project: Path) -> str:
    for name in _LOCKS:
        try:
            return hashlib.blake2b((project / name).read_bytes(), digest_size=20).hexdigest()
        except OSError:
            continue
    return ""


def _git_folder(project: Path) -> Path | None:
    return next((folder / ".git" for folder in (project, *project.parents) if (folder / ".git").is_dir()), None)


def commit_of(project: Path) -> str:
    """The commit that is checked out; read from git's own files, since starting git takes longer than a step."""
    folder = _git_folder(project)
    if folder is None:
        return ""
    try:
        head = (folder / "HEAD").read_text("ascii").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        loose = folder / name
        if loose.exists():
            return loose.read_text("ascii").strip()
        packed = (folder / "packed-refs").read_text("ascii").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), "")
    except OSError:
        return ""


class GitState:
    """What differs from the commit, found out by git while the run goes on.

    Args:
        project: the project's folder.
        environ: the environment git is started with.
    """

    def __init__(self, project: Path, environ: Mapping[str, str]) -> None:
        self._project = project
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start git, once there is work to do; without git, or outside of a repository, nothing is known."""
        if self._process is not None or _git_folder(self._project) is None:
            return
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                ["git", "--no-optional-locks", "diff", "--no-ext-diff", "HEAD", "--", "."],
                cwd=self._project,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )

    def dirty(self) -> str:
        """The digest of what differs from the commit in the project's tracked files; empty when nothing does."""
        if self._process is None:
            return ""
        difference, _ = self._process.communicate()
        self._process = None
        return hashlib.blake2b(difference, digest_size=20).hexdigest() if difference else ""

    def close(self) -> None:
        """Do not wait for git."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
