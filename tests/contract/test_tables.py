"""Every table store, against the one contract."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import deltalake
import pytest
from deltalake import exceptions as delta_errors

from mainspring.adapters.delta import ADAPTER
from mainspring.adapters.delta.packs import pack
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import DeltaTables, open_tables
from mainspring.errors import StoreError
from mainspring.ports.tables import TableStore, Txn
from mainspring.testing.tables import TableStoreContract, numbers


class TestDelta(TableStoreContract):
    @pytest.fixture(params=["plain", "é 100% (a)*"])
    def opening(self, request, tmp_path):
        place = tmp_path / request.param
        return lambda: open_tables(DeltaSettings(), place)


@pytest.fixture
def store(tmp_path):
    return open_tables(DeltaSettings(), tmp_path)


def test_it_is_the_port_that_its_adapter_names(store):
    assert isinstance(store, TableStore)
    assert (ADAPTER.port, ADAPTER.embedded) == ("tables", True)


def test_a_url_says_where(tmp_path):
    place = tmp_path / "elsewhere"
    open_tables(DeltaSettings(url=f"file://{place}"), tmp_path / "state").append("t", numbers(1), Txn("w", 1))
    assert (place / "t" / "_delta_log").is_dir()
    assert not (tmp_path / "state").exists()


def test_asking_for_a_mark_starts_no_threads(store, tmp_path):
    store.append("t", numbers(1), Txn("w", 1), marks={"push": 5})
    code = (
        "import sys; from pathlib import Path; from mainspring.adapters.delta.settings import DeltaSettings\n"
        "from mainspring.adapters.delta.tables import open_tables\n"
        "store = open_tables(DeltaSettings(), Path(sys.argv[1]))\n"
        "print(store.mark('t', 'push'), store.mark('t', 'none'), store.mark('none', 'push'))\n"
        "print('deltalake' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "None", "None", "False"]


def test_many_small_commits_are_put_together(tmp_path):
    """Neither the number of files nor what a commit looks at grows with the commits; old versions stay readable."""
    store = open_tables(DeltaSettings(tidy_every=8), tmp_path)
    beside = open_tables(DeltaSettings(tidy_every=8), tmp_path)
    versions = []
    for n in range(1, 61):
        versions.append((store, beside)[n % 3 == 0].append("t", numbers(n), Txn("w", n), notes={"n": str(n)}).version)
        assert len(store.files("t")) <= 9
    assert sorted(beside.read("t").column("n").to_pylist()) == list(range(1, 61))
    assert sorted(store.read("t", version=versions[20]).column("n").to_pylist()) == list(range(1, 22))
    assert [commit.notes["n"] for commit in store.commits("t") if commit.notes] == [str(n) for n in range(60, 0, -1)]


def test_files_that_cannot_be_put_together_are_left_for_later(tmp_path, monkeypatch):
    def busy(*_, **__):
        raise delta_errors.CommitFailedError("another is at it")

    store = open_tables(DeltaSettings(tidy_every=2), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTables, "_compact", busy)
        for n in range(1, 6):
            store.append("t", numbers(n), Txn("w", n))
    store.append("t", numbers(6), Txn("w", 6))
    assert sorted(store.read("t").column("n").to_pylist()) == [1, 2, 3, 4, 5, 6]
    assert len(store.files("t")) == 1


def test_a_table_made_anew_by_another_process_is_seen(tmp_path):
    store, other = (open_tables(DeltaSettings(), tmp_path) for _ in range(2))
    for n in range(1, 4):
        store.append("t", numbers(n), Txn("w", n))
    other.drop("t")
    other.append("t", numbers(9), Txn("v", 1))
    assert store.read("t").column("n").to_pylist() == [9]
    assert store.mark("t", "w") is None


def test_a_drop_that_is_killed_leaves_no_half_of_a_table(tmp_path, monkeypatch):
    store = open_tables(DeltaSettings(), tmp_path)
    store.append("source/t", numbers(1), Txn("test", 1))
    store.append("source/t/inner", numbers(2), Txn("test", 1))
    store.drop("source/t/inner")
    files = len(list(tmp_path.rglob("*.parquet")))

    class Killed(BaseException):
        pass

    def dies(place, **options):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", dies)
        with pytest.raises(Killed):
            store.drop("source/t")
    for again in (store, open_tables(DeltaSettings(), tmp_path)):
        assert (again.tables(), again.tables("source"), again.version("source/t")) == ((), (), None)
    assert len(list(tmp_path.rglob("*.parquet"))) == files
    store.append("source/t", numbers(9), Txn("test", 1))
    assert store.read("source/t").column("n").to_pylist() == [9]
    store.drop("none")
    assert len(list(tmp_path.rglob("*.parquet"))) == 1, "what was left is deleted by the next"


def test_marks_outlive_a_checkpoint(store, tmp_path):
    store.append("t", numbers(1), Txn("w", 1), marks={"push": 5})
    for n in range(2, 106):
        store.append("t", numbers(n), Txn("other", n))
    assert (tmp_path / "tables" / "t" / "_delta_log" / "_last_checkpoint").exists()
    fresh = open_tables(DeltaSettings(), tmp_path)
    assert (fresh.mark("t", "push"), fresh.mark("t", "nobody")) == (5, None)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "tables").write_text("a file is in the way")
    store = open_tables(DeltaSettings(), tmp_path)
    with pytest.raises(StoreError) as caught:
        store.append("t", numbers(1), Txn("w", 1))
    assert caught.value.code == "MS-4130"


@pytest.mark.parametrize("name", ["a[b]", "a%20b", "a^b", "what?", "#1"])
def test_a_folder_that_delta_cannot_spell_is_refused(tmp_path, name):
    with pytest.raises(StoreError) as caught:
        open_tables(DeltaSettings(), tmp_path / name).append("t", numbers(1), Txn("w", 1))
    assert caught.value.code == "MS-4135"


def test_a_damaged_log(store, tmp_path):
    store.append("t", numbers(1), Txn("w", 1))
    log = tmp_path / "tables" / "t" / "_delta_log" / "00000000000000000001.json"
    log.write_text('{"add": 5}\n')
    with pytest.raises(StoreError) as caught:
        open_tables(DeltaSettings(), tmp_path).read("t")
    assert caught.value.code == "MS-4133"


def test_a_newer_protocol_is_left_alone(store, tmp_path):
    store.append("t", numbers(1), Txn("w", 1))
    log = tmp_path / "tables" / "t" / "_delta_log" / "00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": 99, "minWriterVersion": 99}
    log.write_text("\n".join(json.dumps(action) for action in actions))
    with pytest.raises(StoreError) as caught:
        open_tables(DeltaSettings(), tmp_path).append("t", numbers(2), Txn("w", 2))
    assert caught.value.code == "MS-4133"


def rows_of(store, table="t", version=None):
    return sorted(store.read(table, version=version).column("n").to_pylist())


SMALL = DeltaSettings(tidy_every=4, checkpoint_every=5, pack=3)


def test_commits_that_were_put_away_are_as_good_as_before(tmp_path):
    """Every version, mark, note and file is what it would be without; the log itself stays short."""
    packed, plain = (
        open_tables(settings, tmp_path / name)
        for settings, name in ((SMALL, "packed"), (DeltaSettings(tidy_every=4, pack=10_000), "plain"))
    )
    for n in range(1, 36):
        for store in (packed, plain):
            store.append("t", numbers(n, n + 1000), Txn(f"w{n % 7}", n), marks={"push": n}, notes={"n": str(n)})
    log = tmp_path / "packed" / "tables" / "t" / "_delta_log"
    assert len(list(log.glob("*.json"))) <= 12
    assert len(list((tmp_path / "packed" / "tables" / "t" / "_packed").glob("*.zip"))) > 3
    for store in (packed, open_tables(SMALL, tmp_path / "packed")):
        for version in range(plain.version("t") + 1):
            assert store.has("t", version)
            assert rows_of(store, version=version) == rows_of(plain, version=version)
            assert len(store.files("t", version)) == len(plain.files("t", version))
            assert store.schema("t", version) == plain.schema("t", version)
        assert not store.has("t", plain.version("t") + 1)
        described = [
            [(c.version, c.rows, c.operation, c.txn, dict(c.notes)) for c in side.commits("t")]
            for side in (store, plain)
        ]
        assert described[0] == described[1]
        for n in range(1, 36):
            found = store.commit_of("t", f"w{n % 7}", n)
            assert (found.notes["n"], found.version) == (str(n), plain.commit_of("t", f"w{n % 7}", n).version)
            assert store.append("t", numbers(0), Txn(f"w{n % 7}", n)).repeated
        assert store.mark("t", "push") == 35
    assert deltalake.DeltaTable(tmp_path / "packed" / "tables" / "t").to_pyarrow_table().num_rows == 70


def test_vacuum_spares_pins_that_were_put_away(tmp_path):
    store = open_tables(SMALL, tmp_path)
    for n in range(1, 41):
        store.append("t", numbers(n), Txn("w", n))
    pins = {version: (rows_of(store, version=version), store.files("t", version)) for version in (3, 17, 30)}
    read = {path: Path(path).read_bytes() for _, paths in pins.values() for path in paths}
    assert store.vacuum("t", keep=pins, retention_hours=0) > 0
    for version, (rows, paths) in pins.items():
        assert (rows_of(store, version=version), store.files("t", version)) == (rows, paths)
    assert {path: Path(path).read_bytes() for path in read} == read
    assert rows_of(store) == list(range(1, 41))
    with pytest.raises(StoreError) as caught:
        store.read("t", version=10)
    assert caught.value.code == "MS-4131"


def test_files_that_left_the_table_lately_stay(tmp_path):
    store = open_tables(SMALL, tmp_path)
    for n in range(1, 31):
        store.append("t", numbers(n), Txn("w", n))
    assert store.vacuum("t", keep=[], retention_hours=1) == 0
    for path in (tmp_path / "tables" / "t").rglob("*.parquet"):
        os.utime(path, (0, 0))  # written long ago, and let go of just now
    assert store.vacuum("t", keep=[], retention_hours=1) == 0
    assert rows_of(store, version=5) == [1, 2, 3, 4]
    assert store.vacuum("t", keep=[], retention_hours=0) > 0


def test_a_damaged_archive_is_told_and_deletes_nothing(tmp_path):
    store = open_tables(SMALL, tmp_path)
    for n in range(1, 31):
        store.append("t", numbers(n), Txn("w", n))
    first = min((tmp_path / "tables" / "t" / "_packed").glob("*.zip"))
    first.write_bytes(first.read_bytes()[:40])
    for act in (lambda: store.read("t", version=2), lambda: store.vacuum("t", keep=[2], retention_hours=0)):
        with pytest.raises(StoreError) as caught:
            act()
        assert caught.value.code == "MS-4133"
    assert rows_of(store) == list(range(1, 31))


STOPPED = """
import os, sys
from pathlib import Path
from mainspring.adapters.delta import packs
folder, step = Path(sys.argv[1]), int(sys.argv[2])
done = 0
def counted(event, arguments):
    global done
    if event in ("open", "os.remove", "os.rename", "os.mkdir") and "/t/" in str(arguments[0]):
        done += 1
        if done == step:
            os.kill(os.getpid(), 9)
sys.addaudithook(counted)
packs.pack(folder, lambda: None, 3)
print("done")
"""


def test_putting_away_may_be_stopped_at_any_moment(tmp_path):
    """Whatever was done when it was killed, every version reads as before, and the next one finishes."""
    store = open_tables(DeltaSettings(checkpoint_every=5, pack=10_000, tidy_every=10_000), tmp_path / "made")
    for n in range(1, 13):
        store.append("t", numbers(n), Txn("w", n), notes={"n": str(n)})
    versions = store.version("t") + 1
    seen = set()
    for step in range(1, 100):
        place = tmp_path / f"killed{step}"
        shutil.copytree(tmp_path / "made", place)
        folder = place / "tables" / "t"
        run = subprocess.run(
            [sys.executable, "-c", STOPPED, str(folder), str(step)], capture_output=True, text=True, timeout=60
        )
        left = len(list((folder / "_delta_log").glob("*.json")))
        seen.add((left, len(list((folder / "_packed").glob("*")))))
        for _ in range(2):
            other = open_tables(SMALL, place)
            for version in range(versions):
                assert rows_of(other, version=version) == list(range(1, version + 1))
            assert [c.notes.get("n") for c in other.commits("t")] == [*map(str, range(12, 0, -1)), None]
            assert other.append("t", numbers(0), Txn("w", 12)).repeated
            pack(folder, lambda: None, 3)
        assert len(list((folder / "_delta_log").glob("*.json"))) < versions
        if run.stdout:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
    assert len(seen) > 8  # it was stopped before, while and after


WRITER = """
import sys
from pathlib import Path
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.ports.tables import Txn
from mainspring.testing.tables import numbers
store = open_tables(DeltaSettings(tidy_every=2, checkpoint_every=3, pack=2), Path(sys.argv[1]))
n = (store.mark("t", "w") or 0) + 1
while True:
    store.append("t", numbers(n), Txn("w", n))
    print(n, flush=True)
    n += 1
"""


def test_killed_writers_lose_and_repeat_nothing(tmp_path):
    acknowledged = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        for _ in range(4):
            acknowledged = int(writer.stdout.readline())
        os.killpg(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait()
        acknowledged = int(rest[-1]) if rest else acknowledged
    found = sorted(open_tables(DeltaSettings(), tmp_path).read("t").column("n").to_pylist())
    assert found == list(range(1, len(found) + 1))
    assert len(found) in (acknowledged, acknowledged + 1)
