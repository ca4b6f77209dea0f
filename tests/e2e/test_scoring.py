"""A whole table scored: the same as row by row, whatever is killed meanwhile, and nothing half written."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from e2e.conftest import Served, call, mainspring
from mainspring import feature_store, score
from mainspring.choose.services import Services
from mainspring.engine.workers.processes import children
from mainspring.errors import DataError, RefusedError, UsageError
from mainspring.server.rollouts.unpacking import unpacked
from mainspring.serving.models import LiveModel, load_live
from mainspring.training.versions import champion_of

FEATURES = ["visits_30d", "amount_30d"]
COLUMNS = [*FEATURES, "amount"]


@pytest.fixture(scope="module")
def shop(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("scored") / "shop"
    shutil.copytree(built, project)
    return project


@pytest.fixture(scope="module")
def model(shop: Path) -> LiveModel:
    """The champion, loaded here."""
    services = Services.of_project(shop)
    try:
        entity, _ = champion_of(services.catalog, "returns")
        assert entity is not None
        return load_live(
            entity.version, entity.id, unpacked(services, str(entity.spec["artifact"])), services.own_predictor
        )
    finally:
        services.close()


def near(wanted: object) -> object:
    """A runtime may add up one row in another order than many: in float32, a few units of the last place."""
    return pytest.approx(wanted, rel=0, abs=1e-6)


def visits(shop: Path) -> pa.Table:
    kinds = {"customer": pa.string(), "amount": pa.float64(), "at": pa.timestamp("us", "UTC"), "returned": pa.bool_()}
    return pa_csv.read_csv(shop / "data" / "visits.csv", convert_options=pa_csv.ConvertOptions(column_types=kinds))


def wide(rows: int) -> pa.Table:
    """A table that holds all of the model's columns."""
    draw = random.Random(rows)
    holes = [None if draw.random() < 0.1 else draw.uniform(1, 90) for _ in range(rows)]
    counts = [draw.randint(0, 9) for _ in range(rows)]
    return pa.table({"id": list(range(rows)), "visits_30d": counts, "amount_30d": holes, "amount": holes[::-1]})


def scored(project: Path, *words: str, status: int = 0) -> dict[str, object]:
    return json.loads(mainspring("score", "returns", *words, "--json", cwd=project, status=status).stdout)


def test_keys_are_scored_as_row_by_row_with_the_features_of_their_moments(
    shop: Path, model: LiveModel, tmp_path: Path
) -> None:
    rows = visits(shop)
    told = scored(shop, "--input", "data/visits.csv", "--output", str(tmp_path / "out.parquet"), "--rows", "300")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["customer", "amount", "at", "returned", "score", "prediction"]
    assert found["customer"].equals(rows["customer"]), "the order of the rows is kept"
    assert told["scores"] == {
        "model": "returns",
        "version": 1,
        "entity": model.entity,
        "rows": len(rows),
        "scored": len(rows),
        "set_aside": 0,
        "joined": True,
        "parts": told["scores"]["parts"],
    }
    assert (told["parts"], told["kept"]) == (3, 0)
    with feature_store(shop) as store:
        for at in random.Random(3).sample(range(len(rows)), 12):
            one = rows.slice(at, 1)
            features = store.history(["habits"], one.select(["customer", "at"]), time="at").arrow()
            row = [features[name][0].as_py() for name in FEATURES] + [one["amount"][0].as_py()]
            assert found["score"][at].as_py() == near(model.score([row])[0])
    assert pc.all(pc.equal(found["prediction"], pc.greater_equal(found["score"], 0.5))).as_py()


def test_a_source_gives_the_same_scores_and_a_second_scoring_is_kept(shop: Path, tmp_path: Path) -> None:
    first = score("returns", "visits", tmp_path / "one.parquet", folder=shop, rows=450, keep=["customer", "at"])
    again = score("returns", "visits", tmp_path / "two.parquet", folder=shop, rows=450, keep=["customer", "at"])
    assert (first.parts, first.kept) == (2, 0)
    assert (again.parts, again.kept) == (2, 2)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    given = score("returns", visits(shop).sort_by("at"), tmp_path / "three.parquet", folder=shop)
    assert given.scores.joined
    one, three = pq.read_table(tmp_path / "one.parquet"), pq.read_table(tmp_path / "three.parquet")
    assert sorted(one.select(["at", "score"]).to_pylist(), key=str) == sorted(
        three.select(["at", "score"]).to_pylist(), key=str
    )


def test_rows_with_all_columns_are_scored_like_over_the_wire_and_lineage_says_from_what(
    served: Served, shop: Path, model: LiveModel, tmp_path: Path
) -> None:
    table = wide(40)
    done = score("returns", table, tmp_path / "out.arrow", folder=shop, keep=["id"])
    assert not done.scores.joined
    with pa.memory_map(str(tmp_path / "out.arrow")) as mapped:
        found = pa.ipc.open_file(mapped).read_all()
    assert found["id"].to_pylist() == list(range(40))
    for at, row in enumerate(table.select(COLUMNS).to_pylist()):
        data = [float("nan") if row[name] is None else float(row[name]) for name in COLUMNS]
        body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": data}]}
        status, answer, _ = call(f"{served.url}/v2/models/returns/infer", body)
        assert status == 200, answer
        assert json.loads(answer)["outputs"][0]["data"] == near(model.score([list(row.values())]))
        assert found["score"][at].as_py() == near(model.score([list(row.values())])[0])
    services = Services.of_project(shop)
    try:
        (entity,) = [one for one in services.catalog.entities("scores", "returns") if one.spec["rows"] == 40]
        edges = [*services.catalog.lineage(entity.id, "up", 1), *services.catalog.lineage(entity.id, "down", 1)]
        assert {(edge.src, edge.rel, edge.dst) for edge in edges} >= {
            (entity.id, "used", model.entity),
            (entity.id, "built_from", entity.spec["table"]),
            (done.run, "produced", entity.id),
        }
        assert set(services.catalog.artifacts([str(entity.spec["table"])])) == {entity.spec["table"]}
    finally:
        services.close()


def test_rows_that_do_not_fit_are_named_or_set_aside(shop: Path, tmp_path: Path) -> None:
    lines = (shop / "data" / "visits.csv").read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split(",")[1], "much")
    lines[250] = ",5.0,2025-03-01T00:00:00Z,true"
    lines[251] = "c1,5.0,yesterday,true"
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    words = ("--input", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out.parquet"), "--rows", "200")
    fault = scored(shop, *words, status=1)["error"]
    first = {"row 2 cannot be scored": "amount is 'much'", "row 250 cannot be scored": "at is 'yesterday'"}
    assert fault["code"] == "MS-5125"
    assert first[fault["what"]] in fault["why"]  # of the part that came to its end first
    assert not list(tmp_path.glob("*out*"))
    told = scored(shop, *words, "--set-aside", str(tmp_path / "aside.parquet"))
    assert (told["scores"]["rows"], told["scores"]["scored"]) == (len(lines) - 1, len(lines) - 3)
    aside = pq.read_table(tmp_path / "aside.parquet")
    assert aside["_row"].to_pylist() == [2, 250]
    assert "yesterday" in aside["_reason"][1].as_py()
    assert aside["customer"].to_pylist() == [lines[3].split(",")[0], "c1"]
    assert len(pq.read_table(tmp_path / "out.parquet")) == len(lines) - 3


@pytest.mark.parametrize(
    ("more", "error", "code"),
    [
        ({"version": 99}, RefusedError, "MS-5040"),
        ({"version": "canary"}, RefusedError, "MS-5127"),
        ({"keep": ["id", "id"]}, UsageError, "MS-5126"),
        ({"keep": ["nothing"]}, UsageError, "MS-5126"),
        ({"rows": 0}, UsageError, "MS-5126"),
        ({"table": "nowhere"}, UsageError, "MS-5126"),
        ({"table": {"amount": [1.0]}}, DataError, "MS-5124"),
        ({"table": {"amount": [1.0], "customer": ["c1"]}, "moment": "2025-01-01"}, UsageError, "MS-5126"),
        ({"table": {"score": [1.0]}}, UsageError, "MS-5126"),
        ({"model": "visits"}, UsageError, "MS-2602"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    shop: Path, tmp_path: Path, more: dict[str, object], error: type[Exception], code: str
) -> None:
    asked = {"model": "returns", "table": wide(3), "output": tmp_path / "out.parquet", "folder": shop} | more
    with pytest.raises(error) as caught:
        score(**asked)
    assert caught.value.code == code
    assert not list(tmp_path.iterdir())


def test_one_moment_for_all_rows_and_an_empty_table(shop: Path, model: LiveModel, tmp_path: Path) -> None:
    rows = {"customer": ["c17", "nobody"], "amount": [10.0, 20.0]}
    score("returns", rows, tmp_path / "out.parquet", folder=shop, moment="2025-03-01T00:00:00Z")
    with feature_store(shop) as store:
        spine = {"customer": rows["customer"], "at": [datetime(2025, 3, 1, tzinfo=UTC)] * 2}
        features = store.history(["habits"], spine).arrow().select(FEATURES).to_pylist()
    wanted = [model.score([[*row.values(), amount]])[0] for row, amount in zip(features, rows["amount"], strict=True)]
    assert pq.read_table(tmp_path / "out.parquet")["score"].to_pylist() == wanted
    done = score("returns", wide(3).slice(0, 0), tmp_path / "none.parquet", folder=shop)
    assert (done.scores.rows, done.parts) == (0, 1)
    assert pq.read_schema(tmp_path / "none.parquet").names == ["id", *COLUMNS, "score", "prediction"]


def start(project: Path, table: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mainspring.cli", "score", "returns", "--rows", "100", "--json"]
    command += ["--input", str(table), "--output", str(output)]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def at_work(project: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the scoring has kept a part."""
    services = Services.of_project(project)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            runs = [run for run in services.catalog.runs(limit=3) if run.status == "running"]
            steps = [step for run in runs for step in services.catalog.steps(run.id)]
            if any(step.name == "scored/returns" and step.status == "ok" for step in steps):
                return
            time.sleep(0.02)
    finally:
        services.close()


def test_any_kill_leaves_a_scoring_that_the_same_command_finishes(shop: Path, tmp_path: Path) -> None:
    table, output = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    rows = wide(1500)
    pq.write_table(rows, table, row_group_size=70)
    score("returns", rows, tmp_path / "wanted.parquet", folder=shop)
    choose = random.Random(int(os.environ.get("MAINSPRING_TEST_SEED", "1")))
    output.write_bytes(b"of the day before")
    killed = 0
    for what in ("driver", "worker"):
        process = start(shop, table, output)
        at_work(shop, process)
        time.sleep(choose.uniform(0, 0.3))
        workers = [pid for zygote in children(process.pid) for pid in children(zygote)]
        pids = [process.pid] if what == "driver" else workers
        if process.poll() is None and pids:
            os.kill(choose.choice(pids), signal.SIGKILL)
            killed += 1
        process.communicate(timeout=120)
        if what == "driver" and process.returncode < 0:
            assert output.read_bytes() == b"of the day before"
    assert killed
    process = start(shop, table, output)
    told, _ = process.communicate(timeout=120)
    assert json.loads(told)["kept"], "what was scored before the kills is not scored again"
    assert pq.read_table(output).equals(pq.read_table(tmp_path / "wanted.parquet"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.parquet", "rows.parquet", "wanted.parquet"]
    services = Services.of_project(shop)
    try:
        steps = [step for run in services.catalog.runs(limit=100) for step in services.catalog.steps(run.id)]
        done = Counter(step.cache_key for step in steps if step.status == "ok" and step.name == "scored/returns")
        assert not [key for key, count in done.items() if count > 1]
    finally:
        services.close()


def test_ctrl_c_leaves_the_output_as_it_was(shop: Path, tmp_path: Path) -> None:
    table, output = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    pq.write_table(wide(3000), table)
    output.write_bytes(b"of the day before")
    process = start(shop, table, output)
    at_work(shop, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert output.read_bytes() == b"of the day before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.parquet", "rows.parquet"]
