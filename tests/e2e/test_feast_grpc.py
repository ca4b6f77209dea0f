"""Feast's gRPC services on a running server, asked by grpcio with the messages that the server describes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_on_demand import write
from mainspring.protocols.feast.messages import messages

SERVING, SERVER = "feast.serving.ServingService", "GrpcFeatureServer"
KEY = "a-key-of-thirty-two-characters-or-so"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = write(tmp_path_factory.mktemp("grpc") / "rides")
    with open(folder / "mainspring.toml", "a") as file:
        file.write('[grpc]\nport = 0\n[server]\nkeys = ["env:RIDES_KEY"]\n')
    os.environ["RIDES_KEY"] = KEY
    mainspring("apply", cwd=folder)
    found = serve(folder)
    yield found
    assert found.stop() == 0, found.log.read_text()
    del os.environ["RIDES_KEY"]


@pytest.fixture(scope="module")
def channel(served: Served) -> Iterator[grpc.Channel]:
    deadline = time.monotonic() + 60
    while (told := re.search(r"^grpc +(\S+)$", served.log.read_text(), re.MULTILINE)) is None:
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.05)
    with grpc.insecure_channel(told[1]) as opened:
        yield opened


def ask(channel: grpc.Channel, service: str, method: str, request: Any, answer: str, key: str = KEY) -> Any:
    called = channel.unary_unary(
        f"/{service}/{method}", lambda message: message.SerializeToString(), messages()[answer].FromString
    )
    return called(request, timeout=30, metadata=(("authorization", f"Bearer {key}"),))


def read(channel: grpc.Channel, service: str = SERVING, **columns: list[Any]) -> Any:
    request = messages()["GetOnlineFeaturesRequest"](feature_service="ranking")
    for name, values in columns.items():
        into = request.request_context if name == "seats" else request.entities
        for value in values:
            into[name].val.add(**value)
    return ask(channel, service, "GetOnlineFeatures", request, "GetOnlineFeaturesResponse")


def test_services_are_read_with_request_data(channel: grpc.Channel) -> None:
    zones, seats = [{"string_val": "n"}, {"string_val": "nowhere"}], [{"int64_val": 2}, {"string_val": "4"}]
    found = read(channel, zone=zones, seats=seats)
    names = list(found.metadata.feature_names.val)
    assert names == ["zone", "seats", "mean", "newest", "per_seat", "ratio", "crowded", "since", "doubled", "asked"]
    assert found.status
    newest, crowded, mean = (found.results[names.index(name)] for name in ("newest", "crowded", "mean"))
    assert [value.unix_timestamp_val for value in newest.values] == [1736539200, 0]
    assert [value.WhichOneof("val") for value in newest.values] == ["unix_timestamp_val", None]
    assert list(newest.statuses) == [1, 3]
    assert [moment.seconds for moment in newest.event_timestamps] == [1736539200, 0]
    assert [value.bool_val for value in crowded.values] == [False, True]
    assert list(crowded.statuses) == [1, 1]
    assert mean.values[0].WhichOneof("val") is None
    assert read(channel, SERVER, zone=zones, seats=seats) == found


def test_what_is_pushed_is_read(channel: grpc.Channel) -> None:
    push = messages()["PushRequest"](stream_feature_view="rides", to="online")
    push.typed_features["zone"].string_val = "west"
    push.typed_features["at"].unix_timestamp_val = 1_738_368_000
    push.typed_features["seats"].int64_val = 3
    push.typed_features["fare"].double_val = 7.25
    assert ask(channel, SERVER, "Push", push, "PushResponse").status
    request = messages()["GetOnlineFeaturesRequest"](full_feature_names=True)
    request.features.val.append("fares:newest")
    request.entities["zone"].val.add(string_val="west")
    found = ask(channel, SERVING, "GetOnlineFeatures", request, "GetOnlineFeaturesResponse")
    assert list(found.metadata.feature_names.val) == ["zone", "fares__newest"]
    assert found.results[1].values[0].unix_timestamp_val == 1_738_368_000


def test_it_says_that_it_is_there(channel: grpc.Channel) -> None:
    asked = messages()["GetFeastServingInfoRequest"]()
    assert ask(channel, SERVING, "GetFeastServingInfo", asked, "GetFeastServingInfoResponse").version == "1"


def test_what_is_wrong_has_its_status(channel: grpc.Channel, served: Served) -> None:
    def fails(method: str, request: Any, answer: str, service: str = SERVING, key: str = KEY) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, service, method, request, answer, key)
        error: Any = caught.value
        return error.code().name, error.details()

    def asked(**fields: Any) -> Any:
        request = messages()["GetOnlineFeaturesRequest"](**fields)
        request.entities["zone"].val.add(string_val="n")
        return request

    response = "GetOnlineFeaturesResponse"
    assert fails("GetOnlineFeatures", asked(feature_service="none"), response)[0] == "NOT_FOUND"
    unknown = asked()
    unknown.features.val.append("fare:newest")
    assert fails("GetOnlineFeatures", unknown, response)[0] == "NOT_FOUND"
    lacking = fails("GetOnlineFeatures", asked(feature_service="ranking"), response)
    assert lacking == ("INVALID_ARGUMENT", "the entities lack the key seats")
    assert fails("GetOnlineFeatures", asked(), response)[0] == "INVALID_ARGUMENT"
    unlucky = messages()["GetOnlineFeaturesRequest"](feature_service="luck")
    unlucky.request_context["seats"].val.add(int64_val=13)
    assert fails("GetOnlineFeatures", unlucky, response) == ("INTERNAL", "the server cannot answer now (MS-2161)")
    assert "on-demand feature 'unlucky' failed at row 0" in served.log.read_text()
    push = messages()["PushRequest"](stream_feature_view="none")
    assert fails("Push", push, "PushResponse", SERVER)[0] == "NOT_FOUND"
    push = messages()["PushRequest"](stream_feature_view="rides")
    push.features["nothing"] = "n"
    assert fails("Push", push, "PushResponse", SERVER)[0] == "INVALID_ARGUMENT"
    written = messages()["WriteToOnlineStoreRequest"](feature_view_name="fares")
    assert fails("WriteToOnlineStore", written, "WriteToOnlineStoreResponse", SERVER)[0] == "INVALID_ARGUMENT"
    info = messages()["GetFeastServingInfoRequest"]()
    assert fails("GetFeastServingInfo", info, "GetFeastServingInfoResponse", key="no")[0] == "UNAUTHENTICATED"
    assert call(f"{served.url}/feature-services", headers={"authorization": "Bearer no"})[0] == 401
