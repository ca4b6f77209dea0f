"""What a killed `deploy --local` leaves, and what a container is held to: real processes, real containers of runc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.adapters.kubernetes.target import KubernetesTarget
from mainspring.deploy.image.manifest import Described, Manifest
from mainspring.deploy.local import left
from mainspring.deploy.local.image import Unpacked
from mainspring.deploy.local.left import PROCESS, end_left
from mainspring.deploy.local.running import Contained, bundle_config, name_of, why_no_limits
from mainspring.engine.workers.processes import Owner
from mainspring.ports.target import App, Release, Revision, Workload, World
from registry import program

DEPLOYER = """
import sys
from pathlib import Path
from mainspring.deploy.local.left import PROCESS, noted
from mainspring.deploy.local.running import Contained, Plain
notes, folder, name, script = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
with noted(notes, name, folder, container=not script):
    plain = Plain((sys.executable, "-S", "-c", script), {}, folder, folder / PROCESS)
    process = (plain if script else Contained(name, folder)).start()
    print(process.pid, process.stdout.readline().decode(), flush=True)
    input()
"""
LIVES = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('up', flush=True)\n"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\n"
FOREVER = "while True: time.sleep(0.05)\n"


def deployer(tmp_path: Path, name: str, script: str) -> tuple[subprocess.Popen[str], int, Path]:
    """A deployer with a replica of that name, once the replica says that it is up; the replica's pid and folder."""
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", DEPLOYER, tmp_path / "notes", folder, name, script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, word = process.stdout.readline().split()
    assert word == "up"
    return process, int(pid), folder


@pytest.mark.parametrize("script", [LIVES + FOREVER, DEAF + FOREVER], ids=["heeds", "deaf"])
def test_a_process_of_a_killed_deployer_is_ended_and_that_of_a_living_one_is_not(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left, "_GRACE_S", 0.5)
    killed, orphan, folder = deployer(tmp_path, "mainspring-shop-1", script)
    living, other, kept = deployer(tmp_path, "mainspring-shop-2", LIVES + FOREVER)
    told: list[str] = []
    try:
        assert end_left(tmp_path / "notes", told.append) == 0, "both live"
        killed.kill()
        killed.communicate()
        process = Owner.parse((folder / PROCESS).read_text())
        assert process is not None
        assert process.pid == orphan
        assert end_left(tmp_path / "notes", told.append) == 1
        deadline = time.monotonic() + 60
        while not process.is_dead(process) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.is_dead(process)
        assert told == ["ended mainspring-shop-1, which a killed deployment had left"]
        assert not folder.exists()
        os.kill(other, 0)
        assert kept.exists()
        assert living.poll() is None
        assert end_left(tmp_path / "notes", told.append) == 0
    finally:
        for pid in (orphan, other):
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
        living.communicate("\n", timeout=60)
    assert not list((tmp_path / "notes").iterdir()), "who ends in peace takes its note away"


def test_a_note_that_was_cut_short_is_no_replica(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"deployer": "h/')
    assert end_left(tmp_path, pytest.fail) == 0
    assert end_left(tmp_path / "none", pytest.fail) == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_replicas_is_never_removed(tmp_path: Path) -> None:
    """Notes are files in a project's state: one that was edited or copied may name anything."""
    precious, notes = tmp_path / "documents", tmp_path / "notes"
    ours = tmp_path / "mainspring-local-1"
    for folder in (precious, notes, ours):
        folder.mkdir()
    gone = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    deployer = str(Owner.of(gone.pid))
    gone.communicate(b"\n")
    for name, folder in (("a", precious), ("b", ours)):
        (notes / f"{name}.json").write_text(json.dumps({"deployer": deployer, "container": "", "folder": str(folder)}))
    assert end_left(notes, pytest.fail) == 0
    assert precious.exists()
    assert not ours.exists()
    assert not list(notes.iterdir())


# -- containers -------------------------------------------------------------------------------------------------------


def workload(settings: KubernetesSettings) -> Workload:
    target = KubernetesTarget(settings)
    revision = Revision(App("shop"), Release("registry.example.com/team/shop@sha256:" + "a" * 64))
    return target.workload(target.render(revision, None, World((1, 30))))


def bundle(folder: Path, script: str, settings: KubernetesSettings) -> Path:
    """A container with this machine's own programs, held as a target's replica is."""
    root = folder / "rootfs"
    mounted = [path for path in ("/usr", "/lib", "/lib64", "/bin") if os.path.exists(path)]
    for place in ("proc", "dev", "tmp", "etc", "run/secrets/mainspring", *(path[1:] for path in mounted)):
        (root / place).mkdir(parents=True)
    (root / "etc/resolv.conf").touch()
    subprocess.run([program("runc"), "spec"], cwd=folder, check=True)
    under = json.loads((folder / "config.json").read_text())
    under["mounts"] = [one for one in under["mounts"] if one["destination"] in ("/proc", "/dev")]
    options = ["rbind", "ro"]
    under["mounts"] += [{"destination": one, "type": "bind", "source": one, "options": options} for one in mounted]
    nothing = Described("", "", 0)
    image = Unpacked(Manifest(nothing, nothing, (), "amd64"), {"config": {"Entrypoint": ["/usr/bin/python3"]}}, {})
    files = folder / "secrets"
    files.mkdir()
    wanted = workload(settings)
    config = bundle_config(under, image, wanted, {}, files, limited=not why_no_limits())
    config["process"]["args"] = ["/usr/bin/python3", "-S", "-c", script]
    config["process"]["cwd"] = "/"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_container_is_held_to_the_target_s_memory_and_cores(tmp_path: Path) -> None:
    assert not why_no_limits(), "where this runs in CI it can be held"
    spend = "import time; t = time.monotonic()\nwhile time.monotonic() < t + 1: pass\nprint(time.process_time())\n"
    script = f"{spend}print('up', flush=True); b = bytearray(400 << 20); print('not held')"
    place = bundle(tmp_path, script, KubernetesSettings(cpu="100m", memory="128Mi"))
    container = Contained(name_of("held"), place)
    process = container.start()
    try:
        out = process.communicate(timeout=60)[0].decode()
    finally:
        container.remove()
    spent, up = out.split()
    assert up == "up"
    assert float(spent) < 0.5, "two tenths of a core, for a second"
    assert process.returncode == 137


def test_a_container_of_a_killed_deployer_is_ended(tmp_path: Path) -> None:
    name = name_of("left")
    (tmp_path / name).mkdir()
    bundle(tmp_path / name, LIVES + FOREVER, KubernetesSettings())
    process, pid, folder = deployer(tmp_path, name, "")
    told: list[str] = []
    try:
        process.kill()
        process.communicate()
        assert json.loads(subprocess.check_output([program("runc"), "state", name]))["status"] == "running"
        assert end_left(tmp_path / "notes", told.append) == 1
        assert subprocess.run([program("runc"), "state", name], capture_output=True).returncode == 1
        assert told == [f"ended {name}, which a killed deployment had left"]
        assert not folder.exists()
    finally:
        subprocess.run([program("runc"), "delete", "--force", name], capture_output=True)
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def test_what_this_machine_lacks_for_limits_is_told(tmp_path: Path) -> None:
    assert "no control group for cpu and memory" in why_no_limits(tmp_path)
    (tmp_path / "memory").mkdir()
    assert "no control group for cpu" in why_no_limits(tmp_path)
    (tmp_path / "cpu").mkdir()
    assert why_no_limits(tmp_path) == ""
    (tmp_path / "cgroup.controllers").write_text("cpuset io pids cpu")
    assert "no control group for memory" in why_no_limits(tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    assert why_no_limits(tmp_path) == ""
