"""`mainspring bench vectors` through the real command line: measured, refused, stopped; the index stays as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.conftest import mainspring
from postgres import running

APP = """
from mainspring import App

app = App("shelf")
library = app.index(app.documents("manuals/", called="manuals"), tokens=64)
"""
PARTS = ("valve", "lever", "pump", "fan", "belt", "switch", "gauge", "filter", "hose", "motor")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose index has about 240 chunks."""
    project = tmp_path_factory.mktemp("bench") / "shelf"
    (project / "manuals").mkdir(parents=True)
    (project / "shelf.py").write_text(APP)
    (project / "mainspring.toml").write_text('app = "shelf:app"\n')
    for number in range(24):
        sections = (f"## The {part} of machine {number}\n\nTurn {part} {n * number} twice.\n" for n, part in CASES)
        (project / "manuals" / f"machine{number}.md").write_text("\n".join(sections))
    mainspring("apply", cwd=project)
    return project


CASES = tuple(enumerate(PARTS, 3))


def left(project: Path) -> list[str]:
    """What lies in the state folder that a trial made."""
    return [path.name for path in (project / ".mainspring").glob("bench-*")]


def versions(project: Path) -> list[dict[str, object]]:
    return json.loads(mainspring("show", "index/library", "--json", cwd=project).stdout)["index"]["versions"]


def test_the_embedded_stores_and_a_service_are_measured_on_the_apps_own_rows(shelf: Path) -> None:
    before = versions(shelf)
    with running() as url:
        words = ("bench", "vectors", "--json", "--store", "pgvector=env:BENCH_URL")
        found = json.loads(mainspring(*words, cwd=shelf, env={"BENCH_URL": url}).stdout)
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(url) as connection:
            tables = connection.execute(
                "select table_name from information_schema.tables where table_schema = 'mainspring_vectors'"
            ).fetchall()
    assert not [name for (name,) in tables if "bench" in name], "what was built in the service is dropped"
    assert (found["index"], found["version"], found["current"]) == ("library", 1, "qdrant_edge")
    assert found["of"] == found["report"]["rows"] == before[0]["rows"]
    measured = {one["store"]: one for one in found["report"]["measured"]}
    assert set(measured) == {"qdrant_edge", "zvec", "pgvector"}
    for one in measured.values():
        assert one["plain"]["recall"] >= 0.95
        assert one["filtered"]["complete"] == 1.0
        assert one["build"]["bytes_allocated"] > 0
    assert measured["pgvector"]["elsewhere"]
    assert measured["qdrant_edge"]["questions_per_cpu_second"] > 0
    assert measured["qdrant_edge"]["build_cpu_seconds"] > 0
    assert found["report"]["recommended"] in measured
    assert set(found["left_out"]) == {"qdrant"}
    assert versions(shelf) == before
    assert not left(shelf)


def test_people_read_a_table_a_reason_and_who_was_left_out(shelf: Path) -> None:
    told = mainspring("bench", "vectors", "index/library", "--rows", "60", "--k", "5", cwd=shelf)
    assert "library version 1, in qdrant_edge: 60 rows of 2" in told.stdout
    assert "few rows flatter recall" in told.stdout
    assert "pgvector is left out: no profile has its url: --store pgvector=postgresql://..." in told.stdout
    assert "of the true nearest at" in told.stdout
    assert "zvec: 60 rows are indexed" in told.stderr, "what goes on is told, and not among the data"


def test_a_service_that_does_not_answer_is_left_out_with_its_reason(shelf: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:9/none?connect_timeout=1"
    found = json.loads(mainspring("bench", "vectors", "--json", "--store", f"pgvector={url}", cwd=shelf).stdout)
    assert "pgvector" in found["left_out"]
    assert found["left_out"]["pgvector"]
    assert {one["store"] for one in found["report"]["measured"]} == {"qdrant_edge", "zvec"}
    assert not left(shelf)


@pytest.mark.parametrize(
    ("words", "status", "code", "said"),
    [
        (("vectors", "libary"), 2, "MS-2602", "did you mean 'library'?"),
        (("vectors", "--store", "pgvector"), 2, "MS-2640", "--store pgvector=env:DATABASE_URL"),
        (("vectors", "--store", "pgvektor=postgresql://h"), 2, "MS-2694", "did you mean 'pgvector'?"),
        (("vectors", "--store", "zvec=x"), 2, "MS-2698", "leave --store zvec=... out"),
        (("vectors", "--store", "pgvector=http://h"), 2, "MS-2699", "postgresql://"),
        (("vectors", "--store", "pgvector=env:BENCH_NOT_SET"), 3, "MS-3007", "export BENCH_NOT_SET=..."),
        (("vectors", "--rows", "0"), 2, "MS-2620", "--rows"),
        (("stores",), 2, "MS-2620", "vectors"),
    ],
)
def test_a_wrong_command_is_refused_with_the_remedy(
    shelf: Path, words: tuple[str, ...], status: int, code: str, said: str
) -> None:
    told = mainspring("bench", *words, cwd=shelf, status=status)
    assert f"error {code}" in told.stderr
    assert said in told.stderr
    assert not left(shelf)


def project_of(folder: Path, app: str) -> Path:
    (folder / "manuals").mkdir()
    (folder / "shelf.py").write_text(app)
    (folder / "mainspring.toml").write_text(
        'app = "shelf:app"\n[profiles.other]\nvectors.adapter = "zvec"\n'
        'manifest.adapter = "sqlite"\ncatalog.adapter = "sqlite"\nobjects.adapter = "localfs"\n'
    )
    return folder


def test_an_index_that_cannot_be_compared_is_refused_with_the_remedy(tmp_path: Path) -> None:
    project = project_of(tmp_path, APP)
    told = mainspring("bench", "vectors", cwd=project, status=2)
    assert "MS-2695" in told.stderr
    assert "mainspring apply" in told.stderr
    assert not (project / ".mainspring" / "indexes" / "library-v1").exists()
    (project / "manuals" / "broken.pdf").write_bytes(b"%PDF-1.7 not a real one")
    mainspring("apply", cwd=project)
    told = mainspring("bench", "vectors", cwd=project, status=2)
    assert "MS-2696" in told.stderr
    assert "mainspring show index/library" in told.stderr
    told = mainspring("bench", "vectors", "--profile", "other", cwd=project, status=2)
    assert "MS-2697" in told.stderr
    assert "--profile" in told.stderr


def test_without_a_name_the_app_must_have_one_index(tmp_path: Path) -> None:
    project = project_of(tmp_path, APP + 'second = app.index(app.documents("manuals/", called="more"))\n')
    told = mainspring("bench", "vectors", cwd=project, status=2)
    assert "MS-2693" in told.stderr
    assert "library, second" in told.stderr
    (project / "shelf.py").write_text('from mainspring import App\n\napp = App("shelf")\nchat = app.llm("chat")\n')
    told = mainspring("bench", "vectors", cwd=project, status=2)
    assert "MS-2693" in told.stderr
    assert "app.index(" in told.stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_leaves_nothing(shelf: Path, sign: signal.Signals) -> None:
    before = versions(shelf)
    process = subprocess.Popen(
        [sys.executable, "-m", "mainspring.cli", "bench", "vectors"],
        cwd=shelf,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
        text=True,
    )
    assert process.stderr is not None
    assert "rows are indexed" in process.stderr.readline()
    assert left(shelf), "it is at work"
    process.send_signal(sign)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "stopped" in error
    assert not out
    assert not left(shelf)
    assert versions(shelf) == before
    mainspring("bench", "vectors", "--rows", "50", cwd=shelf)
