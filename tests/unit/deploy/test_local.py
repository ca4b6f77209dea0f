"""A target's server on this machine: its probes, its restarts, its stop; real processes, and a clock of the test's."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mainspring.adapters.kubernetes.settings import KubernetesSettings, RaySettings
from mainspring.adapters.kubernetes.target import KubernetesTarget
from mainspring.deploy.image.manifest import Described, Manifest
from mainspring.deploy.local.image import Unpacked
from mainspring.deploy.local.replica import Replica
from mainspring.deploy.local.running import Plain, bundle_config, re_rooted
from mainspring.errors import RefusedError, UsageError
from mainspring.ports.target import App, Probe, Release, Revision, Secret, Workload, World

LIVES = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('up', flush=True)\n"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\n"
FOREVER = "while True: time.sleep(0.05)\n"
WORKLOAD = Workload(
    ("serve",), {"A": "1"}, ("KEY",), "/run/secrets/mainspring", 8080, Probe("/live", 2, 1, 150),
    Probe("/ready", 5, 1, 2), Probe("/live", 10, 1, 3), 60.0, 10001, 1 << 30, 1 << 20,
)  # fmt: skip
IMAGE = "registry.example.com/team/shop@sha256:" + "a" * 64


class Scene:
    """A clock that goes on by what is waited for, and what the probes answer at a time."""

    def __init__(self, answers: Callable[[str, float], bool]) -> None:
        self.now, self.asked, self.answers = 0.0, [], answers

    def ask(self, probe: Probe) -> bool:
        self.asked.append((self.now, probe.path))
        return self.answers(probe.path, self.now)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if seconds < 0.05:  # a stop waits for a real process
            time.sleep(seconds)


class Script:
    """Runs a script in the place of a server."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.started = list(texts), 0

    def start(self) -> subprocess.Popen[bytes]:
        text = self.texts[min(self.started, len(self.texts) - 1)]
        self.started += 1
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        if "exit(" not in text or "lambda" in text:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"  # its handler of signals is there
        else:
            process.wait()
        return process

    def signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        process.send_signal(number)

    def remove(self) -> None:
        pass


def replica(way: Script, world: Scene, workload: Workload = WORKLOAD) -> tuple[Replica, list[str]]:
    told: list[str] = []
    return Replica(way, workload, world.ask, lambda line: None, told.append, lambda: world.now, world.pause), told


def test_nothing_else_is_asked_until_it_has_started() -> None:
    world = Scene(lambda path, now: now >= (3 if path == "/live" else 9))
    one, told = replica(Script(LIVES + FOREVER), world)
    seconds = one.until_ready(600)
    first = next(at for at, path in world.asked if path == "/ready")
    assert 3 <= first < 3.3
    assert [round(at - first) for at, path in world.asked if path == "/ready"] == [0, 5, 10]
    assert seconds == pytest.approx(13.1, abs=0.3)
    assert told == ["ready"]
    assert one.stop().well


def test_what_does_not_start_in_its_time_is_told_with_its_last_words() -> None:
    world = Scene(lambda path, now: False)
    one, _ = replica(Script(LIVES + FOREVER), world)
    with pytest.raises(RefusedError) as caught:
        one.until_ready(600)
    assert caught.value.code == "MS-5163"
    assert "within 300 s" in caught.value.why
    assert one.stop().well
    one, _ = replica(Script("print('no such profile'); raise SystemExit(3) # exit("), Scene(lambda path, now: False))
    with pytest.raises(RefusedError) as caught:
        one.until_ready(600)
    assert caught.value.why == "it ended with status 3"
    assert caught.value.origin == "no such profile"


def test_two_failures_of_readiness_and_three_of_liveness() -> None:
    """Not ready is told and nothing more; what does not live is stopped and started anew."""
    ill = {"/ready": (20.0, 40.0), "/live": (100.0, 135.0)}

    def well(path: str, now: float) -> bool:
        begin, end = ill[path]
        return not begin <= now < end

    world, way = Scene(well), Script(LIVES + FOREVER)
    one, told = replica(way, world)
    one.until_ready(600)
    one.watch(lambda: world.now > 99)
    assert told == ["ready", "not ready: /ready fails", "ready"]
    assert way.started == 1
    one.watch(lambda: world.now > 150)
    assert told[3:] == [
        "it does not live: /live fails; it is stopped", "it does not live: /live fails; it is started anew", "ready",
    ]  # fmt: skip
    assert way.started == 2
    assert one.stop().well


def test_what_ends_by_itself_waits_longer_each_time() -> None:
    world, way = Scene(lambda path, now: True), Script(LIVES + FOREVER, "raise SystemExit(1) # exit(")
    one, told = replica(way, world)
    one.until_ready(600)
    assert one._process is not None
    one._process.send_signal(signal.SIGKILL)
    one._process.wait()
    one.watch(lambda: world.now > 100)
    assert told[1] == "it ended with SIGKILL; it is started anew"
    assert [line.rpartition(" in ")[2] for line in told[2:]] == ["10 s", "20 s", "40 s", "80 s"]
    assert way.started == 5


def test_what_does_not_heed_sigterm_is_killed_when_its_grace_is_over() -> None:
    world = Scene(lambda path, now: True)
    one, _ = replica(Script(DEAF + FOREVER), world, msgspec.structs.replace(WORKLOAD, grace_s=2.0))
    one.until_ready(600)
    stopped = one.stop()
    assert stopped.killed
    assert not stopped.well
    assert stopped.seconds >= 2.0


def test_a_second_ctrl_c_does_not_wait_for_its_grace() -> None:
    world, way = Scene(lambda path, now: True), Script(DEAF + FOREVER)
    one, _ = replica(way, world)
    one.until_ready(600)
    process = one._process
    assert process is not None

    def impatient(seconds: float) -> None:
        raise KeyboardInterrupt

    one.pause = impatient
    with pytest.raises(KeyboardInterrupt):
        one.stop()
    assert process.poll() is None
    one.kill()
    assert process.poll() == -signal.SIGKILL
    one.kill()


def rendered(settings: KubernetesSettings, *, kserve: bool = False) -> Workload:
    app = App("shop", secrets=(Secret("online.url", "MAINSPRING_ONLINE_URL", "redis://:${file:{PW}}@c/0", ("PW",)),))
    target = KubernetesTarget(settings, kserve=kserve)
    revision = Revision(app, Release(IMAGE, {}, {"MAINSPRING_PROFILE": "prod"}))
    return target.workload(target.render(revision, None, World((1, 30))))


@pytest.mark.parametrize("kserve", [False, True])
def test_a_target_s_pod_is_what_is_run(kserve: bool) -> None:
    found = rendered(KubernetesSettings(memory="2Gi", tmp="500M"), kserve=kserve)
    assert found.arguments == ("serve",)
    assert found.variables["MAINSPRING_PROFILE"] == "prod"
    assert found.variables["MAINSPRING_ONLINE_URL"] == "redis://:${file:/run/secrets/mainspring/PW}@c/0"
    assert found.secrets == ("PW", "management-token")
    assert (found.startup.every_s, found.startup.failures) == (2, 150)
    assert (found.user, found.memory, found.scratch) == (10001, 2 << 30, 500_000_000)
    assert found.grace_s == 60
    assert found.cpu == 1.0, "twice what is requested"


def test_what_ray_serves_is_no_process() -> None:
    ray = RaySettings("2.60.0", IMAGE, serve=True)
    with pytest.raises(UsageError) as caught:
        rendered(KubernetesSettings(ray=ray))
    assert caught.value.code == "MS-5160"


def unpacked(places: dict[str, Path], **run: object) -> Unpacked:
    nothing = Described("", "", 0)
    config = {"config": {"Entrypoint": ["python3", "-m", "mainspring"], "WorkingDir": "/app/src", **run}}
    return Unpacked(Manifest(nothing, nothing, (), "amd64"), config, places)


def test_a_container_is_as_restricted_as_a_pod(tmp_path: Path) -> None:
    under = {
        "process": {"terminal": True, "args": ["sh"], "env": ["A=0", "PATH=/bin"], "capabilities": {"b": ["KILL"]}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc"}, {"destination": "/tmp"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]},
    }  # fmt: skip
    image = unpacked({"app/src": tmp_path})
    config = bundle_config(under, image, WORKLOAD, {"A": "1"}, tmp_path / "secrets")
    assert config["process"]["args"] == ["python3", "-m", "mainspring", "serve"]
    assert config["process"]["env"] == ["PATH=/bin", "A=1"]
    assert config["process"]["user"] == {"uid": 10001, "gid": 10001}
    assert config["process"]["capabilities"] == {}
    assert config["process"]["noNewPrivileges"]
    assert config["root"]["readonly"]
    mounts = {one["destination"]: one for one in config["mounts"]}
    assert "size=1048576" in mounts["/tmp"]["options"]
    for place in ("/app/src", "/run/secrets/mainspring"):
        assert {"ro", "nosuid", "nodev"} <= set(mounts[place]["options"])
    assert under["root"] == {"path": "rootfs"}, "what is given is not changed"


def test_a_plain_process_sees_the_image_s_paths_elsewhere(tmp_path: Path) -> None:
    env = ["PYTHONPATH=/app/deps:/app/src", "HOME=/tmp", "MAINSPRING_STATE_FOLDER=/tmp/mainspring", "PATH=/x"]
    image = unpacked({}, Env=env)
    variables = {"MAINSPRING_ONLINE_URL": "redis://:${file:/run/secrets/mainspring/PW}@c/tmp/0"}
    one = Plain.of(image, WORKLOAD, variables, tmp_path / "r", tmp_path / "t", tmp_path / "s")
    assert one.environment["PYTHONPATH"] == f"{tmp_path}/r/app/deps:{tmp_path}/r/app/src"
    assert one.environment["HOME"] == f"{tmp_path}/t"
    assert one.environment["MAINSPRING_STATE_FOLDER"] == f"{tmp_path}/t/mainspring"
    assert one.environment["MAINSPRING_ONLINE_URL"] == f"redis://:${{file:{tmp_path}/s/PW}}@c/tmp/0"
    assert one.environment["PATH"] != "/x", "this machine's programs are where this machine has them"
    assert "PYTHONHOME" not in one.environment
    assert one.folder == tmp_path / "r/app/src"
    assert one.command[1:] == ("-s", "-m", "mainspring", "serve")
    with pytest.raises(RefusedError, match="without a container"):
        Plain.of(unpacked({}, Entrypoint=["/bin/sh"]), WORKLOAD, {}, tmp_path, tmp_path, tmp_path)


def test_only_whole_folders_are_led_elsewhere() -> None:
    places = {"/app": "/x/app", "/tmp": "/x/tmp"}
    assert re_rooted("/apple:/app", places) == "/apple:/x/app"
    assert re_rooted("/var/tmp,/tmp/a", places) == "/var/tmp,/x/tmp/a"
