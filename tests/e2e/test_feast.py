"""Feast's wire on a running server: reads, pushes, materialisations, and its own shapes of errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Served, call, mainspring, serve

APP = """
from datetime import UTC, datetime

from mainspring import App, Entity, Field, Record, count, distinct, first, last, last_n, quantile, total

app = App("store")
user, shop = Entity("user_id"), Entity("shop")


class Sale(Record):
    user_id: int
    shop: str
    at: datetime
    price: float | None
    paid_at: datetime | None
    note: bytes | None


sales = app.source(Sale, time="at")
spending = app.features(sales, entity=user, ttl="3650d", price=last("price"), paid=last("paid_at"), note=last("note"))
traffic = app.features(sales, entity=(user, shop), sales_7d=count("7d"), total_7d=total("price", "7d"))
habits = app.features(
    sales, entity=user, prices=last_n("price", 2, "3650d"), dates=last_n("paid_at", 3, "3650d"),
    shops=distinct("shop", "3650d"), middle=quantile("price", 0.5, "3650d"), began=first("shop", "3650d"),
)
app.feature_service("prices", [spending.price])
app.feature_service("twins", [spending.price])
"""
ROWS = """user_id,shop,at,price,paid_at,note
1,north,2025-01-01T10:00:00Z,12.5,2025-01-02T00:00:00.250000Z,
2,south,2025-01-02T10:00:00.000001Z,,,
1,north,2025-01-03T10:00:00Z,99.0,2025-01-04T00:00:00Z,
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("feast") / "store"
    (project / "data").mkdir(parents=True)
    (project / "store.py").write_text(APP)
    (project / "mainspring.toml").write_text('app = "store:app"\n[sources.sales]\npath = "data/sales.csv"\n')
    (project / "data" / "sales.csv").write_text(ROWS)
    mainspring("apply", cwd=project)
    found = serve(project)
    yield found
    assert found.stop() == 0, found.log.read_text()


def ask(served: Served, path: str, body: object) -> tuple[int, Any]:
    status, data, _ = call(f"{served.url}{path}", body)
    return status, json.loads(data) if data else None


def read(served: Served, **body: Any) -> Any:
    status, found = ask(served, "/get-online-features", body)
    assert status == 200, found
    return found


def test_one_result_a_column_keys_first(store: Served) -> None:
    found = read(
        store,
        features=["spending:price", "spending:paid", "traffic:sales_7d"],
        entities={"user_id": [1, "2", 3], "shop": ["north", "south", "none"]},
    )
    assert found["metadata"] == {"feature_names": ["user_id", "shop", "price", "paid", "sales_7d"]}
    user, shop, price, paid, sales = found["results"]
    nothing = "1970-01-01T00:00:00Z"
    assert (user["values"], user["statuses"], user["event_timestamps"]) == ([1, "2", 3], ["PRESENT"] * 3, [nothing] * 3)
    assert shop["values"] == ["north", "south", "none"]
    assert (price["values"], price["statuses"]) == ([99.0, None, None], ["PRESENT", "PRESENT", "NOT_FOUND"])
    assert price["event_timestamps"] == ["2025-01-03T10:00:00Z", "2025-01-02T10:00:00.000001Z", nothing]
    assert paid["values"] == ["2025-01-04T00:00:00Z", None, None]
    assert (sales["values"], sales["statuses"]) == ([0, 0, 0], ["PRESENT", "PRESENT", "NOT_FOUND"])
    full = read(store, features=["spending:price"], entities={"user_id": [1]}, full_feature_names=True)
    assert full["metadata"]["feature_names"] == ["user_id", "spending__price"]
    told = read(
        store, features=["traffic:total_7d"], entities={"user_id": [1], "shop": ["north"]},
        include_feature_view_version_metadata=True,
    )  # fmt: skip
    (view,) = told["metadata"]["feature_view_metadata"]
    assert (view["name"], len(view["version"])) == ("traffic", 32)


def test_lists_and_the_other_windows(store: Served) -> None:
    names = [f"habits:{name}" for name in ("prices", "dates", "shops", "middle", "began")]
    found = read(store, features=names, entities={"user_id": [1, 2, 3]})
    prices, dates, shops, middle, began = (result["values"] for result in found["results"][1:])
    assert prices == [[12.5, 99.0], [None], None]
    assert dates == [["2025-01-02T00:00:00.250Z", "2025-01-04T00:00:00Z"], [None], None]
    assert (shops, middle, began) == ([1, 1, None], [12.5, None, None], ["north", "south", None])


def test_the_order_is_the_request_s_also_over_views(store: Served) -> None:
    entities = {"shop": ["north"], "user_id": [1]}
    names = ["traffic:total_7d", "spending:paid", "traffic:sales_7d", "spending:price"]
    found = read(store, features=names, entities=entities)
    assert found["metadata"]["feature_names"] == ["shop", "user_id", "total_7d", "paid", "sales_7d", "price"]
    assert [result["values"][0] for result in found["results"][3:]] == ["2025-01-04T00:00:00Z", 0, 99.0]


def test_what_is_pushed_is_read_at_once(store: Served) -> None:
    frame = {"user_id": [7], "shop": ["west"], "at": ["2025-02-01T00:00:00Z"], "price": [7.25], "note": [None]}
    for to in ("online", "online_and_offline"):
        assert ask(store, "/push", {"push_source_name": "sales", "df": frame, "to": to}) == (200, None)
    found = read(store, features=["spending:price"], entities={"user_id": [7]})
    assert found["results"][1]["values"] == [7.25]


def test_materialisation_changes_nothing_that_is_there(store: Served) -> None:
    before = read(store, features=["spending:price"], entities={"user_id": [1, 2]})
    body = {"start_ts": "2020-01-01T00:00:00", "end_ts": "2030-01-01T00:00:00"}
    assert ask(store, "/materialize", body) == (200, None)
    assert ask(store, "/materialize-incremental", {"end_ts": "2030-01-01T00:00:00", "feature_views": ["traffic"]}) == (
        200,
        None,
    )
    accepted = {"status": "accepted", "feature_views": ["spending"]}
    assert ask(store, "/materialize?async=true", {**body, "feature_views": ["spending"]}) == (202, accepted)
    assert read(store, features=["spending:price"], entities={"user_id": [1, 2]}) == before
    assert call(f"{store.url}/health")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/get-online-features", {"features": ["nobody:price"], "entities": {"user_id": [1]}}, 404, "FeatureView"),
        ("/get-online-features", {"features": ["spending:prize"], "entities": {"user_id": [1]}}, 404, "FeatureView"),
        ("/get-online-features", {"features": ["price"], "entities": {"user_id": [1]}}, 422, "FeastError"),
        ("/get-online-features", {"feature_service": "nobody", "entities": {}}, 404, "FeatureService"),
        ("/get-online-features", {"entities": {"user_id": [1]}}, 422, "FeastError"),
        ("/get-online-features", {"features": ["spending:price"], "entities": {"shop": ["a"]}}, 422, "FeastError"),
        ("/get-online-features", {"features": ["spending:price"], "entities": {"user_id": ["a"]}}, 422, "FeastError"),
        ("/get-online-features", {"features": ["spending:price"], "entities": {"user_id": [1.5]}}, 422, "FeastError"),
        (
            "/get-online-features",
            {"features": ["traffic:sales_7d"], "entities": {"user_id": [1, 2], "shop": ["a"]}},
            422,
            "FeastError",
        ),
        ("/push", {"push_source_name": "nobody", "df": {"a": [1]}}, 422, "PushSource"),
        ("/push", {"push_source_name": "sales", "df": {"what": [1]}}, 422, "FeastError"),
        ("/push", {"push_source_name": "sales", "df": {"user_id": [1], "shop": []}}, 422, "FeastError"),
        ("/write-to-online-store", {"feature_view_name": "nobody", "df": {}}, 404, "FeatureView"),
        ("/write-to-online-store", {"feature_view_name": "spending", "df": {}}, 422, "FeastError"),
        ("/materialize", {"feature_views": ["nobody"]}, 404, "FeatureView"),
    ],
)
def test_a_client_s_fault_is_told_as_feast_tells_it(
    store: Served, path: str, body: object, status: int, kind: str
) -> None:
    found, text = ask(store, path, body)
    assert found == status
    told = json.loads(text)
    assert told["module"] == "feast.errors"
    assert told["class"].startswith(kind)
    assert told["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"features": 1, "entities": {}}', b'{"features": []}'])
def test_a_body_that_is_none_has_details(store: Served, body: bytes) -> None:
    status, found = ask(store, "/get-online-features", body)
    assert status == 422
    assert found["detail"][0]["msg"]


def test_an_endpoint_is_a_feature_service(served: Served) -> None:
    found = read(served, feature_service="returns", entities={"customer": ["c01", "nobody"]})
    assert found["metadata"]["feature_names"] == ["customer", "visits_30d", "amount_30d"]
    assert found["results"][1]["statuses"][1] == "NOT_FOUND"


def test_reads_count_for_the_service_that_was_asked_for(store: Served) -> None:
    def counted() -> dict[str, float]:
        lines = call(f"{store.console}/actuator/prometheus")[1].decode().splitlines()
        found = [line.rpartition(" ") for line in lines if line.startswith("mainspring_feature_reads_total{")]
        mine = [(labels, value) for labels, _, value in found if 'view="spending"' in labels]
        return {labels.partition('service="')[2].partition('"')[0]: float(value) for labels, value in mine}

    before = counted()
    entities = {"user_id": [1]}
    read(store, features=["spending:price"], entities=entities)
    read(store, feature_service="prices", entities=entities)
    for _ in range(2):
        read(store, feature_service="twins", entities=entities)
    after = counted()
    more = {service: value - before.get(service, 0) for service, value in after.items()}
    assert more == {"(by name)": 1, "prices": 1, "twins": 2}, "the features of all three are the same"


def test_an_app_without_features_has_no_such_routes(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(
        'from mainspring import App\n\napp = App("bare")\napp.endpoint(app.llm("chat"))\n'
    )
    (tmp_path / "mainspring.toml").write_text('app = "bare:app"\n[llms.chat]\nadapter = "fake"\n')
    bare = serve(tmp_path)
    try:
        assert call(f"{bare.url}/get-online-features", {"features": [], "entities": {}})[0] == 404
    finally:
        assert bare.stop() == 0
