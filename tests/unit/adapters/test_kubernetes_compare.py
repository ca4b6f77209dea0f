"""Drift: which fields differ, and what counts as another world."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mainspring.adapters.kubernetes.compare import differences, is_ours_alone, owned_state
from mainspring.adapters.kubernetes.observing import Seen, Sight, plan
from mainspring.ports.target import Rendered, World

_KEYS = st.sampled_from("abcd")
_VALUES = st.recursive(
    st.integers(0, 3) | st.sampled_from(["x", "y"]),
    lambda inner: st.dictionaries(_KEYS, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)
_SPECS = st.dictionaries(_KEYS, _VALUES, max_size=4)


def item(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", **metadata}, "spec": spec}


def put(value: Any, path: list[Any], new: Any) -> Any:
    """The value with one place set, slowly."""
    if not path:
        return new
    value = copy.deepcopy(value)
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


@given(_SPECS, _SPECS)
def test_there_is_a_difference_exactly_when_something_differs(old: Any, new: Any) -> None:
    there = item(old, resourceVersion="1", managedFields=[{"manager": "x"}], generation=3)
    found = differences(there | {"status": {"replicas": 1}}, item(new, resourceVersion="2"))
    assert bool(found) == (old != new)
    assert found == () or all(path.startswith("spec") for path, _, _ in found)


@given(_SPECS, st.data())
def test_only_what_we_set_tells_a_moved_world(wanted: Any, data: Any) -> None:
    live = item(copy.deepcopy(wanted), uid="1", resourceVersion="1")
    before = owned_state(live, item(wanted))
    live["spec"]["zz"] = data.draw(_VALUES)  # a field of somebody else's
    live["metadata"]["resourceVersion"] = "9"
    live["status"] = {"replicas": 3}
    assert owned_state(live, item(wanted)) == before
    if wanted:
        key = data.draw(st.sampled_from(sorted(wanted)))
        live["spec"][key] = "other"
        assert owned_state(live, item(wanted)) != before
    assert owned_state({**live, "metadata": {"name": "a", "uid": "2"}}, item(wanted)) != before
    assert owned_state(None, item(wanted)) is None


def test_lists_of_named_things_are_told_by_name() -> None:
    old = {"containers": [{"name": "server", "image": "a"}]}
    new = {"containers": [{"name": "server", "image": "b"}]}
    assert differences(item(old), item(new)) == (("spec.containers[server].image", "a", "b"),)
    assert differences(item({"a": 1}), item({})) == (("spec.a", "1", ""),)
    assert len(differences(item({"a": "x" * 500}), item({}))[0][1]) == 120


def test_an_object_is_ours_when_it_says_so_and_we_wrote_it() -> None:
    ours = item({}, labels={"mainspring.dev/app": "shop"}, managedFields=[{"manager": "mainspring"}])
    assert is_ours_alone(ours, "mainspring.dev/app", "shop")
    assert not is_ours_alone(ours, "mainspring.dev/app", "other")
    foreign = item({}, labels={"mainspring.dev/app": "shop"}, managedFields=[{"manager": "kubectl"}])
    assert not is_ours_alone(foreign, "mainspring.dev/app", "shop")


def seen(wanted: Any, there: Any, would_be: Any, *conflicts: str) -> Seen:
    managed = {"labels": {"mainspring.dev/app": "shop"}, "managedFields": [{"manager": "mainspring"}], "uid": "1"}
    return Seen(item(wanted), there and item(there, **managed), would_be and item(would_be, **managed), conflicts)


def test_a_plan_is_pure_and_its_hash_is_of_all_that_matters() -> None:
    rendered = Rendered("shop", "r", (item({"a": 1}),))
    world = World((1, 29))
    create = plan(rendered, Sight(world, (seen({"a": 1}, None, {"a": 1}),), ()))
    again = plan(rendered, Sight(world, (seen({"a": 1}, None, {"a": 1}),), ()))
    assert create == again
    assert [change.what for change in create[0]] == ["create"]
    keep = plan(rendered, Sight(world, (seen({"a": 1}, {"a": 1}, {"a": 1}),), ()))
    update = plan(rendered, Sight(world, (seen({"a": 1}, {"a": 2}, {"a": 1}),), ()))
    taken = plan(rendered, Sight(world, (seen({"a": 1}, {"a": 2}, {"a": 1}, "spec.a: kubectl"),), ()))
    replace = plan(rendered, Sight(world, (seen({"a": 1}, {"a": 2}, None),), ()))
    gone = plan(rendered, Sight(world, (seen({"a": 1}, {"a": 1}, {"a": 1}),), (item({}, uid="7"),)))
    assert keep[0] == ()
    assert [change.what for change in (*update[0], *taken[0], *replace[0], *gone[0])] == [
        "update", "update", "replace", "delete",
    ]  # fmt: skip
    assert len({found[1] for found in (create, keep, update, taken, replace, gone)}) == 6
