"""On-demand features from the declaration to the answer: one definition, trained on and served."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2e.conftest import Served, call, mainspring, serve
from mainspring.errors import UserCodeError
from mainspring.testing import open_project

APP = """
from datetime import datetime

import polars as pl

from mainspring import App, Entity, Frame, Model, Record, avg, last

app = App("rides")
zone = Entity("zone")


class Ride(Record):
    zone: str
    at: datetime
    seats: int
    fare: float | None
    tipped: bool | None


class Load(Record):
    ratio: float | None
    crowded: bool
    since: datetime | None


class Batch(Record):
    doubled: float | None


rides = app.source(Ride, time="at")
fares = app.features(rides, entity=zone, mean=avg("fare", "7d"), newest=last("at"))


@app.on_demand(mean=fares.mean, seats=app.request(int))
def per_seat(mean: float | None, seats: int) -> float | None:
    return None if mean is None else mean / seats


@app.on_demand(each=per_seat, seats=app.request(int), since=fares.newest)
def load(each: float | None, seats: int, since: datetime | None) -> Load:
    return Load(ratio=None if each is None else round(each / 10, 6), crowded=seats > 3, since=since)


@app.on_demand(mean=fares.mean, seats=app.request(int), returns=Batch)
def batch(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(doubled=pl.col("mean") * 2 * pl.col("seats"))


@app.on_demand(mean=fares.mean, seats=app.request(int), returns=float | None)
def asked() -> str:
    return "select mean + seats as asked from inputs"


@app.model(inputs=[fares.mean, per_seat, load.ratio, batch, asked, rides.seats], label=rides.tipped)
def tips(x: Frame, y: Frame) -> Model:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.impute import SimpleImputer

    return Model(make_pipeline(SimpleImputer(), LogisticRegression()).fit(x.numpy(), y.numpy()))


app.endpoint(tips)


@app.on_demand(seats=app.request(int))
def unlucky(seats: int) -> int:
    return 1 // (seats - 13)


app.feature_service("luck", [unlucky])
ranking = app.feature_service("ranking", [fares, per_seat, load, batch, asked])
"""


def write(folder: Path, text: str = APP) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "rides.py").write_text(text)
    (folder / "mainspring.toml").write_text('app = "rides:app"\n[sources.rides]\npath = "data/rides.csv"\n')
    lines = ["zone,at,seats,fare,tipped"]
    for hour in range(240):
        moment = f"2025-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z"
        lines.append(f"{'nsew'[hour % 4]},{moment},{1 + hour % 5},{hour % 7 + 0.5},{'true' if hour % 3 else 'false'}")
    (folder / "data" / "rides.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    yield write(tmp_path / "rides")
    sys.modules.pop("rides", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path / "rides")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = write(tmp_path_factory.mktemp("served") / "rides")
    mainspring("apply", cwd=folder)
    found = serve(folder)
    yield found
    assert found.stop() == 0, found.log.read_text()


def ask(served: Served, path: str, body: object = None) -> tuple[int, Any]:
    status, data, _ = call(f"{served.url}{path}", body)
    return status, json.loads(data) if data else None


def test_training_reads_what_serving_computes(project: Path, tmp_path: Path) -> None:
    with open_project(project, state=tmp_path / "state") as opened:
        opened.check()
        report = opened.build()
        assert {step.status for step in report.steps} == {"ok"}
        at = datetime(2025, 1, 10, 22, tzinfo=UTC)
        answer = opened.ask("tips", {"zone": "n", "seats": 4}, at=at)
        mean, per_seat, ratio, doubled, asked, seats = answer.values
        assert isinstance(mean, float)
        assert per_seat == mean / 4
        assert ratio == round(mean / 40, 6)
        assert (doubled, asked, seats) == (mean * 8, mean + 4, 4)
        assert answer.statuses == {"fares": "PRESENT"}
        never = opened.ask("tips", {"zone": "nowhere", "seats": 4}, at=at)
        assert never.values == (None, None, None, None, None, 4)


def test_a_changed_function_makes_another_training_set(project: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with open_project(project, state=state) as opened:
        opened.build()
        assert {step.status for step in opened.build().steps} == {"hit"}
    sys.modules.pop("rides")
    write(project, APP.replace("mean / seats", "mean / (seats + 1)"))
    with open_project(project, state=state) as opened:
        steps = {step.name: step.status for step in opened.build().steps}
        assert steps["feature_view/fares"] == "hit"
        assert steps["training_set/tips"] == steps["model/tips"] == "ok"


def test_a_function_that_fails_names_itself_and_the_row(project: Path, tmp_path: Path) -> None:
    write(project, APP.replace("None if mean is None else mean / seats", "mean / (seats - 3)"))
    with open_project(project, state=tmp_path / "state") as opened, pytest.raises(UserCodeError) as caught:
        opened.build()
    assert caught.value.code == "MS-2161"
    assert re.search(r"'per_seat' failed at row \d+$", caught.value.what)
    assert "division by zero" in str(caught.value.why)
    assert str(caught.value.origin).startswith("rides.py:")


def test_a_batch_that_looks_at_other_rows_is_refused(project: Path, tmp_path: Path) -> None:
    write(project, APP.replace('pl.col("mean") * 2 * pl.col("seats")', 'pl.col("mean") - pl.col("seats").mean()'))
    with open_project(project, state=tmp_path / "state") as opened, pytest.raises(UserCodeError) as caught:
        opened.build()
    assert caught.value.code == "MS-2163"


def test_over_http_the_request_is_checked_first(served: Served) -> None:
    status, found = ask(served, "/endpoint/tips", {"zone": "n", "seats": 4})
    assert status == 200, found
    status, found = ask(served, "/endpoint/tips", {"zone": "n", "seats": "4"})
    assert (status, found["code"]) == (400, "MS-2302")
    status, found = ask(served, "/endpoint/tips", {"zone": "n"})
    assert (status, found["code"]) == (400, "MS-2301")
    status, found = ask(
        served, "/feature-services/ranking/read", {"entities": {"zone": ["n"]}, "request": {"seats": "x"}}
    )
    assert (status, found["code"]) == (400, "MS-2302")


def test_a_service_answers_in_rows_with_a_letter_and_a_moment_a_view(served: Served) -> None:
    body = {"entities": {"zone": ["n", "nowhere", None]}, "request": {"seats": [1, 2, 4]}}
    status, found = ask(served, "/feature-services/ranking/read", body)
    assert status == 200, found
    names = ["mean", "newest", "per_seat", "ratio", "crowded", "since", "doubled", "asked"]
    assert found["names"] == names
    assert found["status"] == {"fares": "PMM"}
    newest = int(datetime(2025, 1, 10, 20, tzinfo=UTC).timestamp() * 1e6)
    assert found["event_us"] == {"fares": [newest, None, None]}
    nothing = [None, None, None, None, False, None, None, None]
    assert found["rows"] == [
        [None, newest, None, None, False, newest, None, None],
        nothing,
        [*nothing[:4], True, *nothing[5:]],
    ]
    _, one = ask(served, "/feature-services/ranking/read", {"entities": {"zone": ["n", "e"]}, "request": {"seats": 4}})
    assert [row[4] for row in one["rows"]] == [True, True]
    _, told = ask(served, "/feature-services/ranking")
    assert (told["entities"], told["request"]) == ({"zone": "string"}, {"seats": "int64"})
    assert told["features"][2] == {"name": "per_seat", "type": "float64 | null", "from": "per_seat"}
    assert ask(served, "/feature-services")[1] == {"feature_services": ["luck", "ranking"]}


def test_a_service_answers_in_arrow(served: Served) -> None:
    body = {"entities": {"zone": ["n", "nowhere"]}, "request": {"seats": 2}}
    accept = {"accept": "application/vnd.apache.arrow.stream"}
    status, data, headers = call(f"{served.url}/feature-services/ranking/read", body, headers=accept)
    assert (status, headers["content-type"]) == (200, "application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(data).read_all()
    assert table.column("fares__status").to_pylist() == ["PRESENT", "MISSING"]
    assert table.column("since").to_pylist() == [datetime(2025, 1, 10, 20, tzinfo=UTC), None]
    assert str(table.schema.field("per_seat").type) == "double"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"entities": {"zone": ["n"]}}, 400, "MS-2302"),
        ({"entities": {"zone": ["n"], "x": [1]}, "request": {"seats": 1}}, 400, "MS-2310"),
        ({"entities": {"zone": ["n"]}, "request": {"seats": 1, "y": 2}}, 400, "MS-2310"),
        ({"entities": {}, "request": {"seats": 1}}, 400, "MS-2310"),
        ({"entities": {"zone": ["n", "e"]}, "request": {"seats": [1]}}, 400, "MS-2310"),
        ({"entities": {"zone": [1]}, "request": {"seats": 1}}, 400, "MS-2120"),
        ({"entities": {"zone": "n"}, "request": {"seats": 1}}, 400, None),
        ({"entities": {"zone": ["n"]}, "request": {"seats": 1}, "now": "yesterday"}, 400, None),
        ({"entities": {"zone": ["n"] * 100_001}, "request": {"seats": 1}}, 413, None),
        ({"entities": {"zone": ["n"]}, "request": {"seats": 0}}, 200, None),
    ],
)
def test_what_a_service_cannot_take_is_told(served: Served, body: Any, status: int, code: str | None) -> None:
    found = ask(served, "/feature-services/ranking/read", body)
    assert (found[0], found[1].get("code")) == (status, code), found


def test_a_function_that_fails_online_is_a_fault_of_the_app(served: Served) -> None:
    status, found = ask(served, "/feature-services/luck/read", {"entities": {}, "request": {"seats": [14, 12]}})
    assert (status, found["rows"]) == (200, [[1], [-1]])
    status, found = ask(served, "/feature-services/luck/read", {"entities": {}, "request": {"seats": [14, 13]}})
    assert (status, found) == (500, {"error": "the server cannot answer now", "code": "MS-2161"})


def test_feast_s_clients_read_services_and_on_demand_features(served: Served) -> None:
    body = {"feature_service": "ranking", "entities": {"zone": ["n", "nowhere"], "seats": ["2", 4]}}
    status, found = ask(served, "/get-online-features", body)
    assert status == 200, found
    assert found["metadata"]["feature_names"][:5] == ["zone", "seats", "mean", "newest", "per_seat"]
    newest, crowded, since = (found["results"][place] for place in (3, 6, 7))
    assert newest["values"] == since["values"] == ["2025-01-10T20:00:00Z", None]
    assert newest["statuses"] == ["PRESENT", "NOT_FOUND"]
    assert (crowded["values"], crowded["statuses"]) == ([False, True], ["PRESENT", "PRESENT"])
    body = {"features": ["load:crowded", "fares:newest"], "entities": {"zone": ["n"], "seats": [9]}}
    named = ask(served, "/get-online-features", {**body, "full_feature_names": True})[1]
    assert named["metadata"]["feature_names"] == ["zone", "seats", "load__crowded", "fares__newest"]
    assert [column["values"][0] for column in named["results"][2:]] == [True, "2025-01-10T20:00:00Z"]
    status, told = ask(served, "/get-online-features", {**body, "entities": {"zone": ["n"]}})
    assert (status, "lack the key seats" in json.loads(told)["message"]) == (422, True)
    status, told = ask(served, "/get-online-features", {**body, "features": ["load:crowdy"]})
    assert (status, json.loads(told)["class"]) == (404, "FeatureViewNotFoundException")


def test_an_unknown_service_is_not_found(served: Served) -> None:
    status, found = ask(served, "/feature-services/none/read", {"entities": {}})
    assert (status, found["error"]) == (404, "no feature service is called 'none'; there are: luck, ranking")


def test_the_command_line_lists_them(served: Served) -> None:
    shown = mainspring("show", "feature_service/ranking", cwd=served.project)
    assert "fares:mean" in shown.stdout
    assert "/on_demand/per_seat" in mainspring("show", "feature_services", cwd=served.project).stdout


def test_reads_are_counted_by_view_and_status(served: Served) -> None:
    def counted() -> dict[str, float]:
        lines = call(f"{served.console}/actuator/prometheus")[1].decode().splitlines()
        found = [line.rpartition(" ") for line in lines if line.startswith("mainspring_feature_reads_total{")]
        return {labels: float(value) for labels, _, value in found}

    def more(status: str, service: str, before: dict[str, float]) -> float:
        return sum(
            value - before.get(labels, 0)
            for labels, value in counted().items()
            if f'status="{status}"' in labels and f'service="{service}"' in labels and 'view="fares"' in labels
        )

    before = counted()
    asked = {"entities": {"zone": ["n", "e", "nowhere"]}, "request": {"seats": 4}}
    _, answer = ask(served, "/feature-services/ranking/read", asked)
    letters = answer["status"]["fares"]
    assert "M" in letters
    for letter, status in (("P", "PRESENT"), ("M", "MISSING"), ("E", "EXPIRED")):
        assert more(status, "ranking", before) == letters.count(letter)
    ask(served, "/get-online-features", {"feature_service": "ranking", "entities": {"zone": ["nowhere"], "seats": [4]}})
    assert more("MISSING", "ranking", before) == letters.count("M") + 1
    ask(served, "/get-online-features", {"features": ["fares:newest"], "entities": {"zone": ["nowhere"]}})
    assert more("MISSING", "(by name)", before) == 1
    assert {labels.partition('app="')[2].partition('"')[0] for labels in counted()} == {"rides"}, "not a worker's name"
