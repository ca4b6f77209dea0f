"""Deployments: rendering 50 objects, what the command line loads to show its help, and a warm plan's CPU.

Rendering and help are counted in CPU seconds and modules, which a busy machine does not change. With the API server of
tests/cluster/build.sh there, a plan and a second apply against it are measured too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import cluster_kit  # noqa: E402
from mainspring.adapters.kubernetes.cluster import open_cluster  # noqa: E402
from mainspring.adapters.kubernetes.files import spelled  # noqa: E402
from mainspring.adapters.kubernetes.render import render  # noqa: E402
from mainspring.adapters.kubernetes.settings import KubernetesSettings  # noqa: E402
from mainspring.adapters.kubernetes.target import KubernetesTarget  # noqa: E402
from mainspring.deploy.rollout import Rollout  # noqa: E402
from mainspring.ports.target import App, Job, Release, Revision, World  # noqa: E402

IMAGE = "registry.example.com/team/shop@sha256:" + "a" * 64
CLOUDS = ("lightkube", "httpx2", "kubernetes", "boto3", "azure", "google", "kfp", "oras", "ray")
ROUNDS = 20


def told(what: str, value: float, unit: str, bar: float) -> None:
    print(f"{what:<46} {value:8.3f} {unit:<8} bar {bar:g}  {'met' if value <= bar else 'MISSED'}", flush=True)


def revision(jobs: int) -> Revision:
    all_of_them = tuple(Job(f"job-{number}", "0 3 * * *", "UTC", ("run", f"step/s{number}")) for number in range(jobs))
    return Revision(App("shop", ("late",), all_of_them), Release(IMAGE, {}, {"MAINSPRING_PROFILE": "prod"}))


def rendering() -> None:
    one, settings, world = revision(43), KubernetesSettings(), World((1, 29))
    count = len(render(one, None, settings, "team", world).objects)
    took = []
    for _ in range(ROUNDS):
        started = time.process_time()
        spelled(render(one, None, settings, "team", world).objects)
        took.append(time.process_time() - started)
    told(f"render and spell {count} objects", sorted(took)[ROUNDS // 2], "CPU s", 0.3)


def helping() -> None:
    for verb in ("build", "deploy"):
        code = (
            f"import sys\nfrom mainspring.cli import cli\ncli.main(['{verb}', '--help'], standalone_mode=False)\n"
            f"print('LOADED', sum(name.partition('.')[0] in {CLOUDS!r} for name in sys.modules), len(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        clouds, whole = done.stdout.rpartition("LOADED ")[2].split()
        told(f"cloud modules for {verb} --help, of {whole}", float(clouds), "modules", 0)


def against_a_server() -> None:
    if not cluster_kit.available():
        print(cluster_kit.HOW)
        return
    with tempfile.TemporaryDirectory() as folder, cluster_kit.api_server(Path(folder)) as server:
        server.namespace("team")
        settings = KubernetesSettings(namespace="team", kubeconfig=str(server.kubeconfig))
        rollout = Rollout("kubernetes", KubernetesTarget(settings), open_cluster(settings, Path(".")), "shop")
        rollout.apply(rollout.plan(revision(1), None))
        took, spent = [], []
        for _ in range(5):
            started, cpu = time.monotonic(), time.thread_time()
            found = rollout.plan(revision(1), None)
            took.append(time.monotonic() - started)
            spent.append(time.thread_time() - cpu)
        told("warm plan", min(took), "s", 2.0)
        print(f"{'':<46} {min(spent):8.3f} CPU s of ours")
        told("writes of a second apply", float(rollout.apply(found)), "objects", 0)


def main() -> None:
    rendering()
    helping()
    against_a_server()


if __name__ == "__main__":
    main()
