"""Every table store, against the one contract."""

import json
import os
import signal
import subprocess
import sys

import pytest
from deltalake import exceptions as delta_errors

from mainspring.adapters.delta import ADAPTER
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


WRITER = """
import sys
from pathlib import Path
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.ports.tables import Txn
from mainspring.testing.tables import numbers
store = open_tables(DeltaSettings(), Path(sys.argv[1]))
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
