"""The page "From laptop to cluster in ten commands", command by command: a real registry, a real API server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cluster_kit
import image_kit
from cluster_kit import api_server
from registry import program, registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"


def commands() -> list[list[str]]:
    """The page's commands, in order."""
    blocks = re.findall(r"```\n(mainspring [^\n]*)\n```", PAGE.read_text("utf-8"))
    return [block.split() for block in blocks]


def test_the_page_has_ten() -> None:
    assert len(commands()) == 10


def run(folder: Path, words: list[str], status: int, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **more},
    )  # fmt: skip
    assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def pushed(told: str) -> str:
    """The image that a build has told."""
    return re.findall(r"^\S+@sha256:[0-9a-f]{64}$", told, re.MULTILINE)[-1]


@pytest.mark.slow
@pytest.mark.skipif(not cluster_kit.available(), reason=cluster_kit.HOW)
def test_every_command_of_the_page_does_what_it_says(tmp_path: Path, shipped: image_kit.Shipped) -> None:
    for name in ("docker-registry", "skopeo", "umoci"):
        program(name)
    layout = image_kit.empty_layout(tmp_path)
    with registry(tmp_path / "registry") as host, api_server(tmp_path / "kubernetes") as server:
        image_kit.push_base(layout, f"{host}/base/python:1")
        server.define("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
        server.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
        more = {"KUBECONFIG": str(server.kubeconfig), "DOCKER_CONFIG": str(tmp_path / "none")}
        new, apply, image, preflight, *rest = commands()
        run(tmp_path, new, 0)
        shop = tmp_path / "shop"
        run(shop, apply, 0)
        image_kit.ship(shop, shipped.wheel, f"{host}/base/python:1", "serving")
        shipped.hand_to(shop / ".mainspring")
        settings = shop / "mainspring.toml"
        target = '[profiles.prod.targets.kubernetes]\nnamespace = "shop"\ngateway = "infra/public"\nlease_s = 5\n'
        text = settings.read_text().replace("[image]\n", f'[image]\nrepository = "{host}/team/shop"\n')
        settings.write_text(f"{text}\n{target}")
        first = pushed(run(shop, image, 0, **more))
        assert first.startswith(f"{host}/team/shop@")

        told = run(shop, preflight, 5, **more)
        command = re.search(r"kubectl -n shop create secret generic shop --from-literal=management-token=", told)
        assert command, told
        secret = {"metadata": {"name": "shop"}, "stringData": {"management-token": "t0ken"}}
        server.ask("POST", "/api/v1/namespaces/shop/secrets", secret)
        run(shop, preflight, 0, **more)

        plan, carry, status, canary, traffic, rollback = rest
        assert "to create" in run(shop, plan, 2, **more)
        assert (shop / "plan.json").exists()
        assert "shop is healthy at revision" in run(shop, carry, 0, **more)
        assert first in run(shop, status, 0, **more)
        (shop / "shop.py").write_text((shop / "shop.py").read_text() + "\n# changed\n")
        second = pushed(run(shop, image, 0, **more))
        assert second != first
        run(shop, canary, 0, **more)
        assert "10 % of the requests" in run(shop, status, 0, **more)
        run(shop, traffic, 0, **more)
        assert second in run(shop, status, 0, **more)
        run(shop, rollback, 0, **more)
        told = run(shop, [*status, "--json"], 0, **more)
        assert json.loads(told[: told.rindex("}") + 1])["image"] == first
        run(shop, ["mainspring", "deploy", "destroy", "--yes", "--profile", "prod"], 0, **more)
        left = server.ask("GET", "/apis/apps/v1/namespaces/shop/deployments")["items"]
        assert left == []
