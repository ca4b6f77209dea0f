"""Images: size, what a rebuild and a push cost, the cold start and the stop of a container under runc.

Needs docker-registry, skopeo, umoci, runc and mmdebstrap (apt), and root. Each figure is printed beside its bar; wall
seconds count only on a quiet machine, CPU seconds are of the build and its children. Where buildah is, a change of the
code is built and pushed by both in turn: buildah on overlay, with layers, the dependencies unpacked beside the code.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import image_kit  # noqa: E402
from registry import free_port, registry  # noqa: E402


def mainspring(project: Path, *words: str, **more: str) -> tuple[str, float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "mainspring", *words],
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, **more},
    )
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Buildah:
    """The same image by buildah: what it builds from, and where it keeps its layers."""

    def __init__(self, folder: Path, host: str, deps: Path, code: Path) -> None:
        self.context, self.tag = folder / "context", f"{host}/team/buildah:1"
        self.command = ["buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self.command += ["--storage-driver", "overlay"]
        (self.context / "src").mkdir(parents=True)
        with tarfile.open(deps) as layer:
            layer.extractall(self.context / "unpacked", filter="tar")
        (self.context / "unpacked/app/deps").rename(self.context / "deps")
        shutil.rmtree(self.context / "unpacked")
        shutil.copy(code, self.context / "src")
        self.code = self.context / "src" / code.name
        text = f"FROM {host}/base/python:1\nCOPY deps /app/deps\nCOPY src /app/src\nUSER 10001:10001\n"
        (self.context / "Dockerfile").write_text(text)

    def run(self) -> tuple[float, float]:
        """Build and push; wall and CPU seconds."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        build = ["bud", "--tls-verify=false", "--layers", "--isolation", "chroot", "-q", "-t", self.tag]
        for words in ([*build, str(self.context)], ["push", "-q", "--tls-verify=false", self.tag]):
            done = subprocess.run([*self.command, *words], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def beside_buildah(project: Path, to: dict[str, str], other: Buildah, rounds: int = 3) -> None:
    """A change of the code, built and pushed by both in turn."""
    other.run()
    pairs = []
    for number in range(rounds):
        for path in (project / "shop.py", other.code):
            path.write_text(f"{path.read_text()}\n# beside {number}\n")
        theirs = other.run()
        _, *ours = mainspring(project, "build", "--image", "--json", **to)
        pairs.append((ours, theirs))
    for name, part in (("wall", 0), ("CPU", 1)):
        ours, theirs = (sorted(pair[side][part] for pair in pairs)[rounds // 2] for side in (0, 1))
        what = f"a change of the code, {name}: buildah / ours"
        met = "met" if theirs >= 10 * ours else "MISSED"
        print(f"{what:<46} {theirs / ours:8.1f} times  bar 10  {met}  ({theirs:.2f} s / {ours:.2f} s)")


def told(what: str, value: float, unit: str, bar: float) -> None:
    print(f"{what:<46} {value:8.2f} {unit:<6} bar {bar:g}  {'met' if value <= bar else 'MISSED'}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mainspring-bench-") as name, registry(Path(name) / "registry") as host:
        folder = Path(name)
        layout = image_kit.layout_of(image_kit.rootfs(), folder / "layout")
        image_kit.push_base(layout, f"{host}/base/python:1")
        (folder / "wheels").mkdir()
        wheel = image_kit.own_wheel(folder / "wheels")
        mainspring(folder, "new", "shop")
        project = folder / "shop"
        mainspring(project, "apply")
        image_kit.ship(project, wheel, f"{host}/base/python:1", "serving")
        to = {"MAINSPRING_IMAGE_REPOSITORY": f"{host}/team/shop"}
        text, wall, cpu = mainspring(project, "build", "--image", "--json", **to)
        first = json.loads(text)
        deps = next(one["size"] for one in first["layers"] if one["title"] == "dependencies")
        told("dependencies with bytecode, compressed", deps / 1e6, "MB", 150)
        print(f"{'first build and push':<46} {wall:8.2f} s      {cpu:.2f} CPU s")
        for what, bar, edit in (("unchanged", 1.0, False), ("a change of the code", 1.5, True)):
            rounds = []
            for number in range(3):
                if edit:
                    source = project / "shop.py"
                    source.write_text(f"{source.read_text()}\n# change {number}\n")
                text, wall, cpu = mainspring(project, "build", "--image", "--json", **to)
                rounds.append((wall, cpu, json.loads(text)["sent"]["uploaded"]))
            wall, cpu, uploaded = min(rounds)
            told(f"{what}: build and push", wall, "s", bar)
            print(f"{'':<46} {cpu:8.2f} CPU s, {uploaded} uploaded")
        if shutil.which("buildah"):
            digest = next(one["digest"] for one in first["layers"] if one["title"] == "dependencies")
            deps = next((folder / "registry/data").rglob(f"{digest[7:]}/data"))
            beside_buildah(project, to, Buildah(folder / "buildah", host, deps, project / "shop.py"))
        bundle = image_kit.unpack(str(first["image"]), folder)
        port = free_port()
        image_kit.restrict(bundle, "serve", MAINSPRING_SERVER_PORT=str(port))
        started = time.monotonic()
        container = image_kit.Container(bundle, f"bench-{os.getpid()}")
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).close()
                    break
                except OSError:
                    assert container.process.poll() is None, container.told()
                    time.sleep(0.01)
            told("cold start to ready", time.monotonic() - started, "s", 2.5)
            started = time.monotonic()
            container.signal("TERM")
            assert container.process.wait(60) == 0
            told("SIGTERM to exit 0, nothing under way", time.monotonic() - started, "s", 26)
        finally:
            container.remove()


if __name__ == "__main__":
    main()
