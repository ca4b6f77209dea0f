"""Every check of the project: style and walls, then types beside the tests. ``./run test`` calls it.

With arguments, they go to pytest and nothing else runs: ``./run test tests/unit -k asof``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from thoroughly import LONGEST_S

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS = (
    ("style", [BIN / "ruff", "check", "--quiet", "."]),
    ("format", [BIN / "ruff", "format", "--check", "--quiet", "."]),
    ("walls", [BIN / "lint-imports"]),
)
TYPES = ("types", [BIN / "mypy", "--no-error-summary"])
"""A minute of one core, of which tests leave some free as they wait."""


def main(arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest", "-q", *arguments]
    if arguments:
        return subprocess.call(pytest, cwd=ROOT)
    failed = [name for name, command in CHECKS if not passes(name, command)]
    # The tests start the command hundreds of times; where Python may not keep what it compiles, each would do it anew.
    subprocess.call(
        [sys.executable, "-m", "compileall", "-q", "-x", "node_modules", "src", "tests", "examples"], cwd=ROOT
    )
    # A file's tests stay together, as they share what they have started; one worker more than cores, as some wait. In
    # the order of their folders the short ones come last, so that no worker is left alone with a long one.
    workers = ["-n", str(min((os.cpu_count() or 1) + 1, 4)), "--dist", "loadfile", "--no-loadscope-reorder"]
    # What conftest's limit cannot interrupt, a call into C that hangs, ends that worker, which says where it was.
    workers += ["-o", f"faulthandler_timeout={2 * LONGEST_S}"]
    with ThreadPoolExecutor() as beside:
        types = beside.submit(passes, *TYPES)
        status = subprocess.call([*pytest, *workers, "--durations=20"], cwd=ROOT)
    failed += [] if types.result() else [TYPES[0]]
    if failed:
        print(f"failed besides the tests: {', '.join(failed)}", file=sys.stderr)
    return status or int(bool(failed))


def passes(name: str, command: list[object]) -> bool:
    started = time.monotonic()
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    print(
        f"{name:<8} {'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - started:.1f} s", file=sys.stderr
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
