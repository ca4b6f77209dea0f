"""llama.cpp's process as its parent sees it: started, listened to, ended; and where its socket is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from mainspring.ports.llm import Failed

__all__ = ["Child", "clear_away"]

_PREFIX = f"mainspring-llm-{os.getuid() if hasattr(os, 'getuid') else 0}-"
_KEPT_LINES = 40


class Child:
    """One start of llama.cpp.

    Attributes:
        key: what requests must carry; random, of this start.
        socket: the Unix socket's path.
        lines: the last that it wrote to stderr.
        exited: set when it has ended, however.
    """

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(32)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.socket = str(self._folder / "llm.sock")
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.exited = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Its process, 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._process is not None and not self.exited.is_set()

    async def start(self, told: Mapping[str, object], seconds: float) -> Failed | None:
        """Start it and wait until it listens, or say why it does not."""
        line = json.dumps({**told, "key": self.key, "socket": self.socket, "parent": os.getpid()}).encode() + b"\n"
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mainspring.adapters.llamacpp.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # else a crash waits for a debugger
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._tasks = [asyncio.create_task(self._listen(process)), asyncio.create_task(self._wait(process))]
        with contextlib.suppress(ConnectionError):
            process.stdin.write(line)
            await process.stdin.drain()
        try:
            said = await asyncio.wait_for(process.stdout.readline(), seconds)
        except TimeoutError:
            await self.stop()
            return Failed(f"the model was not loaded within {seconds:g} s", "raise llms.NAME.load")
        answer = json.loads(said) if said.strip() else {"error": "its process ended while it was starting"}
        if "error" in answer:
            await self.stop()
            return Failed(f"{answer['error']}{self._told()}", "take another model, or fewer slots or less context")
        return None

    def _told(self) -> str:
        errors = [line.split(" E ", 1)[1] for line in self.lines if " E " in line] or list(self.lines)
        return f" ({'; '.join(dict.fromkeys(errors[-3:]))})" if errors else ""

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # a line longer than the buffer; it is thrown away
                continue
            if not line:
                return
            self.lines.append(line.decode("utf-8", "replace").rstrip()[:400])

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self.exited.set()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """End it at once, without waiting."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def stop(self) -> None:
        """End it, and wait for its end."""
        self.kill()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def clear_away() -> None:
    """Remove the sockets that processes of ours have left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
