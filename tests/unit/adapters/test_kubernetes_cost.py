"""What a plan comes to: what the pods ask for, at least and at most, and in money where prices are named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mainspring.adapters.kubernetes.cost import cost_of
from mainspring.adapters.kubernetes.render import render
from mainspring.adapters.kubernetes.settings import (
    EngineSettings,
    KedaSettings,
    KubernetesSettings,
    PriceSettings,
    RaySettings,
)
from mainspring.ports.target import App, LanguageModel, Release, Revision, Split, World

IMAGE = "registry.example.com/team/shop@sha256:" + "a" * 64
APP = App("shop", language_models=(LanguageModel("chat", 2, 8192, 0.9, 140e9),))
REVISION = Revision(APP, Release(IMAGE))
SMALL = KubernetesSettings(replicas=2, replicas_max=5, cpu="500m", memory="2Gi")


def objects(settings: KubernetesSettings, split: Split | None = None, *, kserve: bool = False) -> list[dict[str, Any]]:
    return list(render(REVISION, split, settings, "team", World((1, 30)), kserve=kserve).objects)


@pytest.mark.parametrize("kserve", [False, True])
def test_replicas_at_least_and_at_most(kserve: bool) -> None:
    found = cost_of(objects(SMALL, kserve=kserve), [], None)
    assert found.now == {}
    assert found.least == {"pods": 2, "cpu": 1.0, "memory_gib": 4.0}
    assert found.most == {"pods": 5, "cpu": 2.5, "memory_gib": 10.0}
    assert found.hourly is None


def test_what_runs_now_is_what_was_scaled_to() -> None:
    there = objects(SMALL)
    next(item for item in there if item["kind"] == "Deployment")["spec"]["replicas"] = 4
    larger = msgspec.structs.replace(SMALL, cpu="1")
    found = cost_of(objects(larger), there, PriceSettings(cpu=0.04, memory=0.005, currency="EUR"))
    assert found.now == {"pods": 4, "cpu": 2.0, "memory_gib": 8.0}
    assert found.least["cpu"] == 2.0
    assert found.hourly == (pytest.approx(0.12), pytest.approx(0.1), pytest.approx(0.25))
    assert found.currency == "EUR"


def test_gpus_of_engines_and_a_canary_count() -> None:
    settings = msgspec.structs.replace(
        SMALL, gateway="infra/public", engines={"chat": EngineSettings(IMAGE, "m", "weights", replicas_max=3)}
    )
    alone = cost_of(objects(settings), [], PriceSettings(gpu=2.0))
    assert (alone.least["gpu"], alone.most["gpu"]) == (2, 6)
    assert alone.hourly == (0.0, 4.0, 12.0)
    both = cost_of(objects(settings, Split(REVISION, 50)), [], None)
    assert both.least["pods"] == alone.least["pods"] + 1


def test_none_runs_where_something_wakes_it_and_ray_s_clusters_stand() -> None:
    keda = msgspec.structs.replace(SMALL, keda=KedaSettings("http://p:9090", wake="sum(x)"))
    assert cost_of(objects(keda), [], None).least == {}
    ray = msgspec.structs.replace(SMALL, ray=RaySettings("2.60.0", IMAGE, serve=True, workers=3, cpu="4", memory="1Gi"))
    assert cost_of(objects(ray), [], None).least == {"pods": 4, "cpu": 16.0, "memory_gib": 4.0}
