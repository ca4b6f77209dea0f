"""Choosing adapters: the ranking, ties, and no silent fall-back outside dev."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.choose.decide import decide, outcomes_of, serving
from mainspring.config.settings import Setting, Settings
from mainspring.errors import ConfigError
from mainspring.ports.adapter import Adapter

LMDB = Adapter("online", "lmdb", "m:f", "m:S", embedded=True, modules=("lmdb",), extra="tabular")
REDIS = Adapter("online", "redis", "m:f", "m:S", schemes=("redis", "rediss"), modules=("redis",), extra="redis")
VALKEY = Adapter("online", "valkey", "m:f", "m:S", schemes=("redis",), modules=("valkey",), extra="valkey")


def settings(profile: str = "dev", **values: object) -> Settings:
    items = {key.replace("__", "."): value for key, value in values.items()}
    return Settings(profile, Path(), {key: Setting(key, value, f"file:{key}") for key, value in items.items()})


def everything(_: str) -> bool:
    return True


def test_embedded_is_what_remains_in_dev() -> None:
    decision = decide("online", [LMDB, REDIS], settings(), everything)
    assert decision.chosen is LMDB
    assert "embedded default" in decision.why


def test_a_url_chooses_by_scheme() -> None:
    decision = decide("online", [LMDB, REDIS], settings("prod", online__url="rediss://h"), everything)
    assert decision.chosen is REDIS


def test_the_user_s_name_wins_over_the_url() -> None:
    chosen = settings("prod", online__url="redis://h", online__adapter="lmdb")
    assert decide("online", [LMDB, REDIS], chosen, everything).chosen is LMDB


def test_nothing_falls_back_to_embedded_outside_dev() -> None:
    with pytest.raises(ConfigError) as caught:
        decide("online", [LMDB, REDIS], settings("prod"), everything)
    assert caught.value.code == "MS-3012"
    assert 'online.adapter = "lmdb"' in caught.value.fix


def test_a_tie_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        decide("online", [REDIS, VALKEY], settings(online__url="redis://h"), everything)
    assert caught.value.code == "MS-3011"
    assert "redis, valkey" in caught.value.what


def test_a_missing_module_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError) as caught:
        decide("online", [LMDB], settings(), lambda _: False)
    assert caught.value.code == "MS-3010"
    assert "mainspring[tabular]" in caught.value.why


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        decide("online", [LMDB, REDIS], settings(online__adapter="memcached"), everything)
    assert "'memcached'" in caught.value.why


@given(st.permutations([LMDB, REDIS, VALKEY]), st.sampled_from(["dev", "prod"]), st.sampled_from([None, "redis://h"]))
def test_the_order_of_candidates_never_matters(adapters: list[Adapter], profile: str, url: str | None) -> None:
    chosen = settings(profile, **({} if url is None else {"online__url": url}))

    def outcome(candidates: list[Adapter]) -> str:
        try:
            return decide("online", candidates, chosen, everything).chosen.name
        except ConfigError as error:
            return error.code

    assert outcome(adapters) == outcome([LMDB, REDIS, VALKEY])


def test_every_candidate_is_reported_with_its_conditions() -> None:
    decision = decide("online", [LMDB, REDIS], settings(), lambda module: module != "redis")
    report = {o.adapter.name: {c.name: c.ok for c in o.conditions} for o in decision.outcomes}
    assert report == {
        "lmdb": {"installed": True, "profile": True},
        "redis": {"installed": False, "configured": False},
    }


ONNX = Adapter("runtime", "onnx", "m:f", "m:S", embedded=True, modules=("onnxruntime",), extra="tabular", order=1)
BOOSTER = Adapter("runtime", "booster", "m:f", "m:S", embedded=True, modules=("lightgbm",), extra="tabular", order=2)


def names(chosen: Settings, installed: Callable[[str], bool] = everything) -> list[str]:
    return [adapter.name for adapter in serving("runtime", [BOOSTER, ONNX], chosen, installed)]


@pytest.mark.parametrize("profile", ["dev", "prod"])
def test_libraries_in_the_process_serve_together_in_every_profile_and_say_why(profile: str) -> None:
    assert names(settings(profile)) == ["onnx", "booster"]
    report = outcomes_of("runtime", [BOOSTER, ONNX], settings(profile), everything)
    assert all(outcome.fits for outcome in report)
    assert "no fallback" in report[0].conditions[-1].message


def test_one_of_them_can_be_named_or_be_missing() -> None:
    assert names(settings("prod", runtime__adapter="booster")) == ["booster"]
    assert names(settings(), lambda module: module != "lightgbm") == ["onnx"]
    with pytest.raises(ConfigError) as caught:
        names(settings(runtime__adapter="boster"))
    assert caught.value.code == "MS-3010"
