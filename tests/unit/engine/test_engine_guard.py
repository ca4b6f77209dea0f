"""What the guard sees and what it leaves alone."""

import importlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import tempfile
import zoneinfo
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.engine.workers.guard import Guard, watching


@pytest.fixture
def look(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.csv").write_text("x\n1\n")
    (tmp_path / "work").mkdir()
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "data" / "in.parquet")

    def look(act, declared=(), env=()):
        guard = Guard([str(path) for path in declared], [str(tmp_path / "work")], env)
        with watching(guard, stays=False):
            act(tmp_path)
        return guard.undeclared()

    return look


def opens(root):
    (root / "data" / "in.csv").read_text()


def opens_by_number(root):
    os.close(os.open(root / "data" / "in.csv", os.O_RDONLY))


def lists(root):
    os.listdir(root / "data")


def constructs_a_file(root):
    File(root / "data" / "in.csv").text()


CLOSED = socket.socket()
CLOSED.close()


def connects(root):
    CLOSED.connect_ex(("127.0.0.1", 9))


def starts(root):
    subprocess.run([sys.executable, "-c", ""], check=True)


def reads_variable(root):
    os.environ.get("HOME")


def reads_all_variables(root):
    dict(os.environ)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (opens, "reads {root}/data/in.csv"),
        (opens_by_number, "reads {root}/data/in.csv"),
        (lists, "lists {root}/data"),
        (constructs_a_file, "reads {root}/data/in.csv"),
        (connects, "connects to 127.0.0.1:9"),
        (starts, f"runs {os.path.basename(sys.executable)}"),
        (reads_variable, "reads environment variable HOME"),
        (reads_all_variables, "reads environment variable (all)"),
    ],
)
def test_an_undeclared_read_is_told_with_its_line(look, tmp_path, act, words):
    found = look(act)
    line = act.__code__.co_firstlineno + 1
    assert found[0].startswith(f"{words.format(root=tmp_path)} at test_engine_guard.py:{line}")


def writes_and_reads(root):
    (root / "mine.txt").write_text("x")
    (root / "mine.txt").read_text()


def makes_a_folder(root):
    (root / "new").mkdir()
    Path(root / "new" / "a.txt").write_text("x")
    list((root / "new").iterdir())


def uses_a_temporary_file(root):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a").write_text("x")
        Path(folder, "a").read_text()


def uses_its_work_folder(root):
    (root / "work" / "a").write_text("x")
    list((root / "work").iterdir())


def uses_the_library(root):
    zoneinfo.ZoneInfo.no_cache("Europe/Berlin")
    import colorsys  # noqa: F401


def asks_what_is_installed(root):
    (root / "data" / "a-1.dist-info").mkdir()
    sys.path.insert(0, str(root / "data"))
    try:
        importlib.metadata.entry_points(group="any")
    finally:
        sys.path.remove(str(root / "data"))


def makes_a_frame(root):
    Frame({"x": [1]}).polars()


@pytest.mark.parametrize(
    "act",
    [
        writes_and_reads,
        makes_a_folder,
        uses_a_temporary_file,
        uses_its_work_folder,
        uses_the_library,
        makes_a_frame,
        asks_what_is_installed,
    ],
)
def test_what_is_its_own_or_pythons_is_no_undeclared_read(look, act):
    assert look(act) == ()


def test_what_is_declared_is_no_undeclared_read(look, tmp_path):
    assert look(opens, declared=[tmp_path / "data" / "in.csv"]) == ()
    assert look(opens, declared=[tmp_path / "data"]) == ()
    assert look(reads_variable, env=["HOME"]) == ()


NATIVE = """
import sys
sys.path[:0] = {path!r}
from mainspring.engine.workers.guard import Guard, watching
guard = Guard([], [], [])
with watching(guard, stays=True):
    exec(compile({act!r}, "step.py", "exec"))
print(guard.undeclared())
"""


@pytest.mark.parametrize(
    "act",
    [
        "import polars\npolars.read_parquet({file!r})",
        "import polars as pl\npl.scan_parquet([{file!r}]).collect()",
        "import polars as pl\npl.read_parquet(source={file!r})",
        "import pyarrow.parquet as pq\npq.read_table({file!r})",
        "import pyarrow.parquet as pq\npq.ParquetFile({file!r})",
        'import duckdb\nduckdb.connect().execute("select * from {file!r}")',
        "import duckdb\nduckdb.sql('from read_parquet(?)', params=[{file!r}])",
        "from pathlib import Path\nPath({file!r}).exists()",
        "import os\nos.path.getmtime({file!r})",
    ],
)
def test_native_readers_are_seen_even_when_the_step_imports_them(look, tmp_path, act):
    file = str(tmp_path / "data" / "in.parquet")
    assert pq.read_table(file).num_rows == 1
    code = NATIVE.format(path=sys.path, act=act.format(file=file))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    verb = "looks at" if "exists" in act or "getmtime" in act else "reads"
    assert f"{verb} {file} at step.py:2" in done.stdout


BOUND_EARLY = """
from polars import read_parquet
from pyarrow.parquet import ParquetFile, read_table

def whole(file): return read_parquet(file)
def table(file): return read_table(file)
def opened(file): return ParquetFile(file)
"""


@pytest.mark.parametrize("name", ["whole", "table", "opened"])
def test_a_reader_that_the_project_bound_by_name_is_seen(look, tmp_path, name, monkeypatch):
    (tmp_path / "early.py").write_text(BOUND_EARLY)
    monkeypatch.syspath_prepend(tmp_path)
    early = importlib.import_module("early")
    monkeypatch.delitem(sys.modules, "early")
    sys.modules["early"] = early
    line = 4 + ["whole", "table", "opened"].index(name) + 1
    file = tmp_path / "data" / "in.parquet"
    assert look(lambda root: getattr(early, name)(file))[0] == f"reads {file} at early.py:{line}"
    assert early.read_parquet is pl.read_parquet  # as it was


def expands_a_variable(root):
    os.path.expandvars("$HOME/data")


def looks_inside_a_library_call(root):
    (root / "data" / "in.csv").resolve()
    os.makedirs(root / "work" / "a" / "b", exist_ok=True)


def test_what_expands_variables_reads_them_and_what_resolves_a_path_reads_nothing(look):
    assert "reads environment variable HOME" in look(expands_a_variable)[0]
    assert look(looks_inside_a_library_call) == ()


def test_a_file_that_the_code_names_may_have_been_read(tmp_path):
    guard = Guard([str(tmp_path / "declared.csv")], [], [])
    guard.opened(str(tmp_path / "mine.csv"), "w", 0)
    guard.named({str(tmp_path / name): "shop.py:3" for name in ("declared.csv", "mine.csv", "other.csv")})
    assert guard.undeclared() == (f"may read {tmp_path}/other.csv, which is named at shop.py:3",)


def test_nothing_is_watched_afterwards(look, tmp_path):
    look(lambda root: None)
    before = type(os.environ)
    opens(tmp_path)
    assert before.__name__ == "_Environ"
