"""Quotas as the real controller counts them and as the real admission holds them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

import cluster_kit
from e2e.test_kubernetes import Place, place, revision, server
from mainspring.errors import RefusedError

__all__ = ["place", "server"]

pytestmark = pytest.mark.skipif(not cluster_kit.available(), reason=cluster_kit.HOW)


def allow(at: Place, hard: dict[str, str], name: str = "team", **spec: Any) -> None:
    """Set a quota, and wait until its controller has counted what is there."""
    quotas, body = at.path("/api/v1:resourcequotas"), {"spec": {"hard": hard, **spec}}
    if name in {one["metadata"]["name"] for one in at.server.ask("GET", quotas)["items"]}:
        at.server.ask("PATCH", f"{quotas}/{name}", body, "application/merge-patch+json")
    else:
        at.server.ask("POST", quotas, {"metadata": {"name": name}, **body})
    counted(at, name, lambda status: status.get("hard") == hard)


def counted(at: Place, name: str, fits: Callable[[dict[str, Any]], bool]) -> None:
    until = time.monotonic() + 120
    while not fits(status := at.get(f"/api/v1:resourcequotas/{name}").get("status") or {}):
        assert time.monotonic() < until, status
        time.sleep(0.1)


def test_a_quota_without_room_is_told_before_anything_is_written(place: Callable[..., Place]) -> None:
    at = place(replicas=3, replicas_max=3)
    allow(at, {"requests.cpu": "1200m", "pods": "10"})
    with pytest.raises(RefusedError) as caught:
        at.apply(revision(1))
    assert caught.value.code == "MS-5085"
    assert "requests.cpu of ResourceQuota 'team': 0 of 1200m is used, 1500m more is needed" in caught.value.why
    assert "targets.NAME.replicas" in caught.value.fix
    allow(at, {"requests.cpu": "2", "pods": "2"})
    with pytest.raises(RefusedError) as caught:
        at.apply(revision(1))
    assert "pods of ResourceQuota 'team': 0 of 2 is used, 3 more is needed" in caught.value.why
    assert at.writes() == 0
    assert at.labelled() == []
    allow(at, {"requests.cpu": "2", "pods": "4"})
    assert at.apply(revision(1)) == at.writes()
    at.rollout.wait(60)


def test_what_runs_counts_and_an_update_needs_one_pod_more(place: Callable[..., Place]) -> None:
    at = place(replicas=2, replicas_max=2)
    allow(at, {"pods": "2"})
    at.apply(revision(1))
    at.rollout.wait(60)
    counted(at, "team", lambda status: status.get("used") == {"pods": "2"})
    before = at.writes()
    with pytest.raises(RefusedError) as caught:
        at.apply(revision(2))
    assert caught.value.code == "MS-5085"
    assert "2 of 2 is used, 1 more is needed" in caught.value.why
    assert at.writes() == before
    assert at.target.status("shop", at.client, 5).revision == revision(1).id
    allow(at, {"pods": "3"})
    at.apply(revision(2))
    assert at.rollout.wait(60).revision == revision(2).id


def test_who_may_not_read_quotas_is_told_by_the_server_before_anything_is_written(place: Callable[..., Place]) -> None:
    """The admission's own refusal, of what a plan asks it to try."""
    at = place(replicas=1)
    at.server.dressed.before = _hides_quotas
    allow(at, {"count/deployments.apps": "0"})
    with pytest.raises(RefusedError) as caught:
        at.apply(revision(1))
    assert caught.value.code == "MS-5085"
    assert "exceeded quota: team, requested: count/deployments.apps=1" in caught.value.why
    assert at.writes() == 0
    assert at.labelled() == []
    allow(at, {"count/deployments.apps": "1"})
    assert at.apply(revision(1)) == at.writes()
    assert at.rollout.wait(60).revision == revision(1).id


def test_pods_that_no_quota_lets_in_are_told_while_they_are_waited_for(place: Callable[..., Place]) -> None:
    """A quota with scopes counts some pods only; which, the server decides. What served goes on."""
    at = place(replicas=1, replicas_max=1)
    at.apply(revision(1))
    at.rollout.wait(60)
    allow(at, {"pods": "1"}, scopes=["NotTerminating"])
    counted(at, "team", lambda status: status.get("used") == {"pods": "1"})
    at.apply(revision(2))
    with pytest.raises(RefusedError) as caught:
        at.rollout.wait(60)
    assert "exceeded quota: team, requested: pods=1, used: pods=1, limited: pods=1" in caught.value.why
    health = at.target.status("shop", at.client, 5)
    assert (health.state, health.parts[0].ready) == ("degraded", 1)
    allow(at, {"pods": "2"}, scopes=["NotTerminating"])
    assert at.rollout.wait(120).revision == revision(2).id


def _hides_quotas(method: str, path: str) -> None:
    if "/resourcequotas" in path:
        raise cluster_kit.RefusedError(403, json.dumps("resourcequotas is forbidden: User cannot list"))
