"""A look before a deployment: the image's own config, the nodes that it would land on, the clocks of both sides."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mainspring.adapters.kubernetes.preflight import clock, image_fits
from mainspring.adapters.kubernetes.settings import RaySettings
from mainspring.errors import ServiceError
from mainspring.ports.cluster import Kind
from mainspring.ports.target import ImageFacts, Release

OURS = ImageFacts("10001:10001", ("python3", "-m", "mainspring"), ("linux/amd64",), "prod")
RELEASE = Release("registry.example.com/x@sha256:" + "a" * 64, {}, {"MAINSPRING_PROFILE": "prod"})


class Nodes:
    """A cluster with nodes of these architectures, or one that lets nobody look at them, and a clock."""

    def __init__(self, *architectures: str, forbidden: bool = False, at: float | None = None) -> None:
        self.architectures, self.forbidden, self.at = architectures, forbidden, at

    def list(self, kind: Kind, labels: str = "") -> list[dict[str, Any]]:
        if self.forbidden:
            raise ServiceError("nodes may not be listed", code="MS-2732")
        return [{"status": {"nodeInfo": {"architecture": one}}} for one in self.architectures]

    def clock(self) -> float | None:
        return self.at


def fits(facts: ImageFacts = OURS, cluster: Nodes | None = None, release: Release = RELEASE) -> list[tuple[str, str]]:
    return [(one.level, one.what) for one in image_fits(facts, release, cluster or Nodes("amd64"))]  # type: ignore[arg-type]


def test_ours_fits() -> None:
    assert fits() == []
    assert fits(cluster=Nodes()) == []
    assert fits(cluster=Nodes("arm64", forbidden=True)) == []


def test_an_image_that_runs_something_else_does_not_serve() -> None:
    ((level, what),) = fits(ImageFacts("1000", ("/bin/sh",), ("linux/amd64",)))
    assert (level, "the image runs /bin/sh" in what) == ("error", True)
    assert fits(ImageFacts("1000", (), ("linux/amd64",)))[0][1].startswith("the image runs nothing")


@pytest.mark.parametrize("user", ["", "0", "0:0", "00"])
def test_root_is_told(user: str) -> None:
    ((level, what),) = fits(ImageFacts(user, OURS.entrypoint, OURS.platforms))
    assert (level, "as root" in what) == ("warning", True)


def test_another_profile_is_told() -> None:
    other = Release(RELEASE.image, {}, {"MAINSPRING_PROFILE": "eu"})
    ((level, what),) = fits(release=other)
    assert (level, what) == ("warning", "the image was built for profile prod, and runs eu")


def test_nodes_of_another_kind() -> None:
    ((level, what),) = fits(cluster=Nodes("arm64", "arm64"))
    assert (level, "the nodes are linux/arm64" in what) == ("error", True)
    ((level, what),) = fits(cluster=Nodes("arm64", "amd64"))
    assert (level, "land on nodes of linux/arm64" in what) == ("warning", True)
    both = ImageFacts(OURS.user, OURS.entrypoint, ("linux/amd64", "linux/arm64"))
    assert fits(both, Nodes("arm64", "amd64")) == []


def test_kuberay_needs_the_ray_of_the_image_unless_another_is_named() -> None:
    def told(facts: ImageFacts, ray: RaySettings | None) -> list[str]:
        return [one.what for one in image_fits(facts, RELEASE, Nodes(), ray)]  # type: ignore[arg-type]

    with_ray = ImageFacts(*msgspec.structs.astuple(OURS)[:4], ray="2.60.0")
    assert told(with_ray, RaySettings("2.60.0")) == []
    assert told(OURS, None) == []
    assert told(OURS, RaySettings("2.60.0", RELEASE.image)) == []
    assert told(OURS, RaySettings("2.60.0")) == ["the image has no Ray, and KubeRay is to start it"]
    assert told(with_ray, RaySettings("2.50.0")) == ["the image has Ray 2.60.0, and targets.NAME.ray.version is 2.50.0"]


@pytest.mark.parametrize(
    ("there", "level", "way"),
    [
        (1000.0, None, ""),
        (996.0, None, ""),  # its second had just begun
        (1004.0, None, ""),
        (None, None, ""),
        (980.0, "warning", "19 s ahead of"),
        (1020.0, "warning", "20 s behind"),
        (900.0, "error", "99 s ahead of"),
        (1030.0, "error", "30 s behind"),
    ],
)
def test_clocks_that_are_apart(there: float | None, level: str | None, way: str) -> None:
    """By a lease's time they must agree: whoever is ahead would take a living apply for a dead one."""
    found = clock(Nodes(at=there), 30, lambda: 1000.0)  # type: ignore[arg-type]
    assert [one.level for one in found] == ([level] if level else [])
    assert way in "".join(one.what for one in found)


def test_a_slow_answer_is_no_other_clock() -> None:
    times = iter([1000.0, 1060.0])
    assert clock(Nodes(at=1030.0), 30, lambda: next(times)) == []  # type: ignore[arg-type]
