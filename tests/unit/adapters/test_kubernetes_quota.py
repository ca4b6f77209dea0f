"""What quotas count: quantities, and what a deployment adds to them."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.adapters.kubernetes.objects import url_of
from mainspring.adapters.kubernetes.quota import amount, demand, shortfalls
from mainspring.ports.target import Change
from unit.adapters.test_kubernetes_render import objects

POWERS = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
POWERS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "e2": 100, "E-1": Decimal("0.1")}


@given(st.decimals(0, 10**6, places=3), st.sampled_from(sorted(POWERS)))
def test_a_quantity_is_its_number_times_its_unit(number: Decimal, unit: str) -> None:
    assert amount(f"{number}{unit}") == Fraction(number) * Fraction(POWERS[unit])


@pytest.mark.parametrize("text", ["", "m", "1mm", "-1", "1 Gi", "one", "1KI", None])
def test_what_is_no_quantity_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        amount(text)


def changed(what: str, found: list[dict[str, Any]]) -> list[Change]:
    return [Change(what, url_of(one), ()) for one in found]


def test_the_first_deployment_needs_its_least_replicas_and_the_next_one_pod_more() -> None:
    found = [one for one in objects() if one["metadata"]["name"] == "shop-server"]
    deployment = next(one for one in found if one["kind"] == "Deployment")
    first = demand(found, {}, changed("create", found))
    assert first["pods"] == 2
    assert first["requests.cpu"] == first["cpu"] == 1
    assert first["limits.cpu"] == 2
    assert first["requests.memory"] == first["limits.memory"] == 2 * 2**30
    assert first["count/deployments.apps"] == 1
    assert first["services"] == first["count/services"] == 1
    there = {url_of(deployment): {**deployment, "spec": {**deployment["spec"], "replicas": 5}}}
    assert demand(found, there, changed("update", [deployment]))["pods"] == 1
    assert demand(found, there, []) == {}


def test_only_what_does_not_fit_is_told() -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {}}, "status": {"hard": {"pods": "5"}, "used": {"pods": "3"}}}
    assert shortfalls([quota], {"pods": Fraction(2), "cpu": Fraction(99)}) == []
    (told,) = shortfalls([quota], {"pods": Fraction(3)})
    assert told == "pods of ResourceQuota 'q': 3 of 5 is used, 3 more is needed"
    scoped = {**quota, "spec": {"scopes": ["BestEffort"]}}
    assert shortfalls([scoped], {"pods": Fraction(99)}) == []
