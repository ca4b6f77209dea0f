"""Data as a user handles it: files that are corrected or lost, rows that do not fit, a function that reads others."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.conftest import call, mainspring, serve


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Path:
    """A copy of the built project; its state moves with it."""
    return Path(shutil.copytree(built, tmp_path / "shop"))


def visits(project: Path) -> list[list[str]]:
    with open(project / "data" / "visits.csv", newline="") as file:
        return list(csv.reader(file))


def write(project: Path, rows: list[list[str]]) -> None:
    with open(project / "data" / "visits.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def apply(project: Path, *words: str) -> dict[str, dict[str, object]]:
    done = mainspring("apply", "--json", *words, cwd=project)
    return {step["name"]: step for step in json.loads(done.stdout)["steps"]}


def test_a_corrected_file_is_what_is_trained_on(shop: Path) -> None:
    rows = visits(shop)
    corrected = [
        [row[0], str(float(row[1] or 0) * 100), *row[2:]] if 0 < n <= 100 else row for n, row in enumerate(rows)
    ]
    write(shop, corrected)
    steps = apply(shop)
    assert steps["source/visits"]["note"] == "100 rows added, 100 rows removed"
    assert steps["training_set/returns"]["status"] == "ok"
    assert "on 676 rows" in mainspring("logs", "model/returns", cwd=shop).stdout
    write(shop, rows)
    assert apply(shop)["source/visits"]["note"] == "100 rows added, 100 rows removed"
    write(shop, rows[:800])
    assert apply(shop)["source/visits"]["note"] == "46 rows removed"
    shown = json.loads(mainspring("show", "source/visits", "--json", cwd=shop).stdout)
    assert shown["table"]["rows"] == 799
    assert "799 rows" in mainspring("show", "source/visits", cwd=shop).stdout


def test_tables_that_were_lost_are_made_again(shop: Path) -> None:
    shutil.rmtree(shop / ".mainspring" / "tables" / "source")
    assert apply(shop)["source/visits"]["status"] == "ok"
    shutil.rmtree(shop / ".mainspring" / "tables" / "feature_view")
    done = json.loads(mainspring("run", "returns", "--force", "--json", cwd=shop).stdout)
    steps = {step["name"]: step["status"] for step in done["steps"]}
    assert steps["feature_view/habits"] == "ok"
    assert all(step["status"] == "hit" for step in apply(shop).values())


def test_a_damaged_table_says_what_to_do_and_that_does_it(shop: Path) -> None:
    (log,) = (shop / ".mainspring" / "tables" / "source" / "visits").glob("*/_delta_log")
    for commit in log.glob("*.json"):
        commit.write_text("garbage")
    done = mainspring("apply", cwd=shop, status=4)
    assert "MS-4133" in done.stderr
    assert "Traceback" not in done.stderr
    shutil.rmtree(log.parent)
    assert apply(shop)["source/visits"]["status"] == "ok"


def test_rows_set_aside_are_told(shop: Path) -> None:
    rows = visits(shop)
    write(shop, [*rows, ["c01", "-5", "2025-12-01T00:00:00Z", "true"], ["", "5", "2025-12-01T00:00:00Z", "true"]])
    done = mainspring("apply", cwd=shop)
    assert "2 of 847 rows set aside (" in done.stderr
    shown = mainspring("show", "source/visits", cwd=shop).stdout
    assert "2 rows set aside" in shown
    assert "amount is not >= 0" in shown
    assert "-5" in shown
    assert "quarantine/visits/" in shown


JOINED = """

import polars as pl


@app.features(visits, entity=customer)
def lz(v: pl.LazyFrame) -> pl.LazyFrame:
    return v.join(pl.scan_csv("extra.csv"), on="customer").select("customer", "at", "level")
"""


def test_a_view_that_reads_beside_its_sources_is_computed_anew(shop: Path) -> None:
    with open(shop / "shop.py", "a") as file:
        file.write(JOINED)

    def level_now() -> int:
        code = (
            "import sys; from pathlib import Path; from mainspring.cli.options import open_app\n"
            "from mainspring.server.loop import online_views\nfrom mainspring.server.planning import plan_of\n"
            "from mainspring.features.logs.log import read_log, standing\n"
            "services, app = open_app(Path.cwd(), None)\nview = online_views(services, plan_of(app))['lz']\n"
            "rows = standing(read_log(services.tables, view.log))\n"
            "print(rows.sort_by('_seq').column('level').to_pylist()[-1])"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=shop, capture_output=True, text=True, check=True)
        return int(done.stdout)

    for level in (1, 2, 3):
        (shop / "extra.csv").write_text(f"customer,level\nc01,{level}\n")
        assert apply(shop)["feature_view/lz"]["status"] == "ok"
        assert level_now() == level


FOLLOWING = """


@app.features(visits, entity=customer)
def spent(v):
    return 'select customer, "at", amount * 2 as double, amount + 1 as more from visits'


@app.model(inputs=[spent], label=visits.returned, metric="roc_auc")
def doubles(x: Frame, y: Frame) -> Model:
    from sklearn.tree import DecisionTreeClassifier

    return Model(DecisionTreeClassifier(max_depth=2).fit(x.numpy(), y.numpy()))


app.promote(doubles)
app.endpoint(doubles)
"""


def test_a_push_reaches_decorated_views(shop: Path) -> None:
    with open(shop / "shop.py", "a") as file:
        file.write(FOLLOWING)
    apply(shop)
    served = serve(shop)
    try:
        asked = {"customer": "newcomer"}
        before = json.loads(call(f"{served.url}/endpoint/doubles?features=true", asked)[1])
        assert before["status"] == {"spent": "MISSING"}
        for number, amount in enumerate((12.5, 13.5)):
            row = {"customer": "newcomer", "amount": amount, "at": f"2025-12-0{number + 5}T10:00:00Z"}
            status, body, _ = call(f"{served.url}/sources/visits/push", {"rows": [row]})
            assert (status, json.loads(body)["accepted"]) == (200, 1)
            after = json.loads(call(f"{served.url}/endpoint/doubles?features=true", asked)[1])
            assert (after["status"], after["features"]) == (
                {"spent": "PRESENT"},
                {"double": 2 * amount, "more": amount + 1},
            )
    finally:
        assert served.stop() == 0, served.log.read_text()
    assert apply(shop)["feature_view/spent"]["status"] == "ok"
    assert all(step["status"] == "hit" for step in apply(shop).values())
