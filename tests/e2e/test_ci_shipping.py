"""Generated CI that really ships: gate, image, push and rollout by act and by Jenkins, into a registry and a cluster.

cosign and grype, which no package registry has, are recorded; all else is run. Without an API server the rollout
is rendered in its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import cluster_kit
import image_kit
from ci_kit import Bench, act, generated, git, jenkins
from cluster_kit import ApiServer, api_server
from e2e.conftest import mainspring
from mainspring.deploy.ci.verdict import read_verdict
from registry import program, registry, uploads

pytestmark = pytest.mark.slow

CI = """
[ci]
target = "kubernetes"
"""
REALLY = ["mainspring gate", "mainspring build --image"]
TARGET = """
[targets.kubernetes]
namespace = "shop"
gateway = "infra/public"
lease_s = 5
"""


@dataclass
class Shipping:
    bench: Bench
    registry: Path
    server: ApiServer | None

    def images(self) -> list[str]:
        """The images that were deployed, or rendered, in order."""
        found = []
        for line in self.bench.ran():
            if match := re.match(r"mainspring deploy --canary 5 --image (\S+) ", line):
                found.append(match[1])
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer | None]:
    if not cluster_kit.available():
        yield None
        return
    with api_server(tmp_path_factory.mktemp("kubernetes")) as server:
        server.define("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
        server.namespace("shop")
        yield server


@pytest.fixture(scope="module")
def shipping(
    tmp_path_factory: pytest.TempPathFactory, cluster: ApiServer | None, shipped: image_kit.Shipped
) -> Iterator[Shipping]:
    """A repository whose image goes to a registry on loopback, and what all its machines share: the state."""
    for name in ("docker-registry", "skopeo", "umoci"):
        program(name)
    place = tmp_path_factory.mktemp("shipping")
    mainspring("new", "shop", cwd=place)
    root = place / "shop"
    layout = image_kit.empty_layout(place)
    with registry(place / "registry") as host:
        image_kit.push_base(layout, f"{host}/base/python:1")
        image_kit.ship(root, shipped.wheel, f"{host}/base/python:1", "serving")
        shipped.hand_to(place / "state")
        settings = root / "mainspring.toml"
        settings.write_text(settings.read_text().replace("[image]\n", f'[image]\nrepository = "{host}/team/shop"\n'))
        bench = generated(root, TARGET + CI)
        bench.timeout = 400
        bench.env = {"MAINSPRING_STATE_FOLDER": str(place / "state"), "DOCKER_CONFIG": str(place / "none")}
        bench.real = list(REALLY)
        if cluster is not None:
            bench.env["KUBECONFIG"] = str(cluster.kubeconfig)
            bench.real.append("mainspring deploy")
        yield Shipping(bench, place / "registry", cluster)


def run(bench: Bench, *words: str) -> str:
    """What a person does beforehand: the first version, promoted, pushed and deployed."""
    done = subprocess.run(
        [sys.executable, "-m", "mainspring", *words],
        cwd=bench.root, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **bench.env},
    )  # fmt: skip
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def running(shipping: Shipping) -> Shipping:
    """With a champion in the shared catalog; where there is a cluster, its image runs there."""
    run(shipping.bench, "apply")
    if shipping.server is not None:
        run(shipping.bench, "build", "--image")
        run(shipping.bench, "deploy")
    return shipping


def in_the_registry(host_and_name: str) -> set[str]:
    done = subprocess.run(
        [program("skopeo"), "inspect", "--tls-verify=false", f"docker://{host_and_name}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {json.loads(done.stdout)["Digest"]}


def deployed(shipping: Shipping) -> str:
    """The image that runs in the cluster now; of a rendering, without one."""
    if shipping.server is not None:
        told = run(shipping.bench, "deploy", "status", "--json")
        health = json.loads(told)
        assert (health["state"], health["canary"]) == ("healthy", "")
        return str(health["image"])
    (image,) = shipping.images()
    told = run(shipping.bench, "build", "--k8s", "--use", image)
    (server,) = [item for item in yaml.safe_load_all(told) if item["kind"] == "Deployment"]
    return str(server["spec"]["template"]["spec"]["containers"][0]["image"])


@contextlib.contextmanager
def changed(bench: Bench, text: str) -> Iterator[None]:
    """Somebody has changed the app, and committed it."""
    path = bench.root / "shop.py"
    path.write_text(path.read_text() + text)
    git(bench.root, "commit", "-qam", "Change")
    yield


def signed(bench: Bench) -> list[str]:
    return [line.split()[-1] for line in bench.ran() if line.startswith("cosign sign ")]


def test_github_judges_builds_pushes_and_rolls_out(running: Shipping) -> None:
    bench = running.bench
    with changed(bench, "\n# by a pull request\n"):
        done = act(bench, "push", {"ref": "refs/heads/main"})
    assert done.returncode == 0, done.stdout[-4000:]
    (image,) = running.images()
    assert in_the_registry(image) == {image.partition("@")[2]}
    assert signed(bench) == [image], "what is signed is what was pushed"
    assert deployed(running) == image
    bench.log.unlink()


def test_jenkins_does_the_same_and_pushes_nothing_twice(running: Shipping) -> None:
    """The same commit by the other service: the same digest, and not one upload."""
    bench = running.bench
    with changed(bench, "\n# by Jenkins\n"):
        done = jenkins(bench, "main")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = read_verdict((bench.root / "verdicts/returns.json").read_bytes())
    assert verdict.passed
    (image,) = running.images()
    assert in_the_registry(image) == {image.partition("@")[2]}
    assert signed(bench) == [image]
    assert (bench.root / "sbom/image.cdx.json").exists()
    assert deployed(running) == image
    before = uploads(running.registry)
    again = run(bench, "build", "--image").strip()
    assert again == image
    assert uploads(running.registry) == before
    bench.log.unlink()


def test_a_gate_that_really_refuses_ships_nothing(running: Shipping) -> None:
    """A limit that no model keeps: nothing is built, pushed, signed or deployed."""
    bench = running.bench
    was = deployed(running) if running.server is not None else ""
    before = uploads(running.registry)
    bench.env["MAINSPRING_GATE_LEAKAGE"] = "0.01"
    try:
        done = jenkins(bench, "main")
    finally:
        del bench.env["MAINSPRING_GATE_LEAKAGE"]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(line.startswith("mainspring gate") for line in bench.ran())
    assert running.images() == []
    assert signed(bench) == []
    assert uploads(running.registry) == before
    if running.server is not None:
        assert deployed(running) == was
    bench.log.unlink()
