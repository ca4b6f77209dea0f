"""Steps for the engine's tests, at module level so that fresh interpreters find them."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from engine_bench import ran
from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.engine.context import current

FACTOR = 10


class Score(msgspec.Struct, frozen=True):
    """A result with a type of its own."""

    name: str
    value: float


def numbers(n: int) -> list[int]:
    return list(range(n))


def scaled(x: int, folder: str = "") -> int:
    if folder:
        ran(folder, "scaled")
    return x * FACTOR


def is_imported(name: str) -> bool:
    return name in sys.modules


def doubled(x: int) -> int:
    return x * 2


def tripled(x: int) -> int:
    return x * 3


def total(values: list[int], folder: str = "") -> int:
    if folder:
        ran(folder, "total")
    return sum(values)


def parity(x: int, folder: str) -> int:
    ran(folder, "parity")
    return x % 2


def after_parity(x: int, folder: str) -> int:
    ran(folder, "after")
    return x


def frame(n: int) -> Frame:
    return Frame({"x": list(range(n))})


def rows(table: Frame) -> int:
    return len(table)


def score(value: float) -> Score:
    return Score("auc", value)


def describe(score: Score) -> str:
    return f"{type(score).__name__} {score.name} {score.value}"


def measured(steps: int) -> int:
    for step in range(steps):
        current().log_metric("loss", 1 / (step + 1), step)
        current().progress(step + 1, steps)
    return steps


def written(text: str) -> File:
    path = current().work_dir / "out.txt"
    path.write_text(text)
    return File(path)


def folder_of(count: int) -> File:
    root = current().work_dir / "many"
    for number in range(count):
        (root / "deep").mkdir(parents=True, exist_ok=True)
        (root / "deep" / f"{number}.txt").write_text(str(number))
    return File(root)


def read_text(file: File) -> str:
    return file.text()


def count_files(file: File) -> int:
    return sum(1 for path in file.path.rglob("*") if path.is_file())


def spoils(file: File) -> str:
    file.path.write_text("spoilt")
    return "done"


def flaky(folder: str, works_at: int) -> int:
    ran(folder, "flaky")
    attempt = current().attempt
    print(f"attempt {attempt}")
    if attempt < works_at:
        raise ValueError(f"not yet: {attempt}")
    return attempt


def sleeps(seconds: float, folder: str = "") -> float:
    if folder:
        ran(folder, "sleeps")
    time.sleep(seconds)
    return seconds


def leaves_a_grandchild(folder: str) -> None:
    code = (
        f"import os, time; os.setsid(); open({folder + '/grandchild'!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    subprocess.Popen([sys.executable, "-c", code])
    while not Path(folder, "grandchild").exists() or not Path(folder, "grandchild").read_text():
        time.sleep(0.01)
    time.sleep(60)


_DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
time.sleep(60)
"""


def daemonises(folder: str) -> int:
    subprocess.run([sys.executable, "-c", _DAEMON, f"{folder}/daemon"], check=True)
    while not Path(folder, "daemon").exists() or not Path(folder, "daemon").read_text():
        time.sleep(0.01)
    return 1


def killed() -> None:
    print("about to go", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def crashes() -> None:
    print("touching nothing", flush=True)
    ctypes.string_at(0)


def leaves() -> None:
    os._exit(3)


def exits() -> None:
    sys.exit("enough")


def eats_memory() -> int:
    return len(bytearray(1 << 50))


def fails(x: int = 0) -> None:
    print("looking at", x)
    raise ValueError("no such row")


def lies() -> int:
    return "text"


def seeded() -> list[float]:
    import numpy as np

    return [random.random(), float(np.random.rand())]


def reads_undeclared(path: str) -> str:
    return Path(path).read_text()


def reads_environment() -> str:
    return os.environ.get("ENGINE_TEST_VARIABLE", "none")


def prints_secret() -> str:
    secret = current().secret("api.key")
    print(f"the key is {secret}!")
    return "used"


def fails_with_secret() -> None:
    raise ValueError(f"rejected {current().secret('api.key')}")


def once_only(folder: str, how: str) -> str:
    ran(folder, "once")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ValueError("refused")
    return how


def pid() -> int:
    return os.getpid()
