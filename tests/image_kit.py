"""What image tests and the image bench share: a base, a lock of what is installed here, a project to ship."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from registry import program, registry
from tool_env import KEPT, tool_env

ROOT = Path(__file__).parent.parent
PROFILE = """
[profiles.prod]
catalog.adapter = "sqlite"
objects.adapter = "localfs"
tables.adapter = "delta"
online.adapter = "lmdb"
"""
"""A profile in which one container has all it needs."""


def done(*words: str | Path, cwd: Path | None = None) -> str:
    """What a program says that does what it shall."""
    ran = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
    return ran.stdout


def rootfs() -> Path:
    """A minimal Debian with Python, as a tar file; made once a month and kept beside the tests' tools."""
    paths = ("locale", "doc", "man")
    drop = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in paths]
    words = ["--quiet", "--variant=minbase", "--include=python3,ca-certificates", *drop, "bookworm"]
    digest = hashlib.sha256("\n".join([*words, time.strftime("%Y-%m")]).encode()).hexdigest()[:12]
    place = KEPT / f"rootfs-{digest}.tar"
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / ".rootfs.lock", "w") as lock:  # several test processes may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            part = place.with_suffix(".part.tar")
            done(program("mmdebstrap"), *words, part)
            part.rename(place)
    return place


def layout_of(tar: Path, folder: Path) -> Path:
    """An OCI layout with that one layer, as the base's maker would have it; made by umoci."""
    umoci = program("umoci")
    done(umoci, "init", "--layout", folder)
    done(umoci, "new", "--image", f"{folder}:base")
    done(umoci, "raw", "add-layer", "--image", f"{folder}:base", tar)
    environment = ["--config.env", "PATH=/usr/bin:/bin", "--config.cmd", "python3"]
    done(umoci, "config", "--image", f"{folder}:base", *environment)
    return folder


def push_base(layout: Path, reference: str) -> None:
    """Push it as people push bases: with skopeo, which need not have a policy of what it trusts."""
    copy = [program("skopeo"), "--insecure-policy", "copy", "--dest-tls-verify=false"]
    done(*copy, f"oci:{layout}:base", f"docker://{reference}")


def own_wheel(folder: Path) -> Path:
    """A wheel of this checkout, as a release would have it."""
    hatchling = tool_env("hatchling", "hatchling==1.33.0") / "hatchling"
    done(hatchling, "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    return next(folder.glob("mainspring-*.whl"))


@functools.cache
def _locked() -> dict[str, str]:
    """The project's own lock by distribution."""
    found = {}
    for block in re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text("utf-8")):
        if match := re.match(r"([a-z0-9._-]+)==", block):
            name = canonicalize_name(match[1])
            found[name] = f"{found[name]}\n{block}" if name in found else block  # one for each Python
    return found


def lock_of(*roots: str) -> str:
    """A lock of these requirements and all that they need, in the versions of the project's own lock."""
    found: dict[str, str] = {}
    waiting = [Requirement(root) for root in roots]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        if name in _locked():
            found[name] = _locked()[name]
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return "\n".join(found[name] for name in sorted(found)) + "\n"


def ship(project: Path, wheel: Path, base: str, *extras: str) -> None:
    """Give a project what an image needs: a profile, a base, a lock."""
    wanted = f"mainspring[{','.join(extras)}]"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    version = importlib.metadata.version("mainspring")
    own = f"mainspring=={version} --hash=sha256:{digest}\n"
    (project / "requirements.in").write_text(wanted + "\n", "utf-8")
    (project / "requirements.lock").write_text(lock_of(wanted) + own, "utf-8")
    settings = project / "mainspring.toml"
    image = f'[image]\nbase = "{base}"\nprofile = "prod"\nwheels = ["{wheel.parent}"]\n'
    settings.write_text(
        f"{settings.read_text('utf-8').replace('[profiles.prod]', '[profiles.cloud]')}\n{image}{PROFILE}", "utf-8"
    )


class Shipped:
    """What a first build of an image has left in a folder; whoever starts from it packs the dependencies no more.

    Attributes:
        wheel: of this checkout.
    """

    def __init__(self, folder: Path) -> None:
        (self.wheel,) = folder.glob("wheels/*.whl")
        self._kept = folder / "shop" / ".mainspring" / "image"

    def hand_to(self, state: Path) -> None:
        """Let a project start from it whose state is in that folder, and which `ship` gave this wheel and "serving"."""
        shutil.copytree(self._kept, state / "image")


def first_build(folder: Path, project: Path) -> None:
    """Build an image of a copy of a project from nothing, on a base that is empty; see `Shipped`."""
    shutil.copytree(project, folder / "shop")
    (folder / "wheels").mkdir()
    wheel = own_wheel(folder / "wheels")
    with registry(folder / "registry") as host:
        push_base(empty_layout(folder), f"{host}/base/python:1")
        ship(folder / "shop", wheel, f"{host}/base/python:1", "serving")
        words = ["-m", "mainspring", "build", "--image", "--layout", folder / "out"]
        done(sys.executable, *words, cwd=folder / "shop")
    for name in ("registry", "out"):
        shutil.rmtree(folder / name)


def empty_layout(folder: Path) -> Path:
    """An OCI layout of a base that has nothing."""
    with tarfile.open(folder / "empty.tar", "w"):
        pass
    return layout_of(folder / "empty.tar", folder / "layout")


def small_project(folder: Path, base: str) -> Path:
    """A project whose lock has one distribution of machine code, and a mainspring that has nothing in it."""
    done(sys.executable, "-m", "mainspring", "new", "shop", cwd=folder)
    project, version = folder / "shop", importlib.metadata.version("mainspring")
    wheel = folder / "wheels" / f"mainspring-{version}-py3-none-any.whl"
    wheel.parent.mkdir()
    about = f"mainspring-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("mainspring/__init__.py", "")
        made.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: mainspring\nVersion: {version}\n")
        made.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{about}/RECORD", "")
    ship(project, wheel, base)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    own = f"mainspring=={version} --hash=sha256:{digest}\n"
    (project / "requirements.lock").write_text(lock_of("msgspec") + own)
    return project


def unpack(reference: str, folder: Path) -> Path:
    """A bundle for runc from an image in a registry on loopback: pulled by skopeo, unpacked by umoci."""
    layout = folder / "pulled"
    copy = [program("skopeo"), "--insecure-policy", "copy", "--src-tls-verify=false"]
    done(*copy, f"docker://{reference}", f"oci:{layout}:it")
    done(program("umoci"), "unpack", "--image", f"{layout}:it", folder / "bundle")
    return folder / "bundle"


def restrict(bundle: Path, *arguments: str, mounted: dict[str, Path] | None = None, **environment: str) -> None:
    """Make a bundle's container what Kubernetes' restricted policy lets run: read-only root, no capability, /tmp alone.

    It shares the host's network, so that tests reach it on loopback.
    """
    path = bundle / "config.json"
    config = json.loads(path.read_text("utf-8"))
    process = config["process"]
    process["terminal"] = False
    process["args"] = [*process["args"], *arguments]
    environment = {"MAINSPRING_GRPC_PORT": "0", **environment}  # containers of several tests share the host's ports
    process["env"] += [f"{name}={value}" for name, value in environment.items()]
    process["noNewPrivileges"] = True
    process["capabilities"] = {}
    config["root"]["readonly"] = True
    config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "network"]
    config["mounts"] = [one for one in config["mounts"] if one["destination"] not in ("/etc/resolv.conf", "/tmp")]
    config["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
    )
    for place, source in (mounted or {}).items():
        options = ["bind", "ro"]
        config["mounts"].append({"destination": place, "type": "bind", "source": str(source), "options": options})
    path.write_text(json.dumps(config), "utf-8")


class Container:
    """A container under runc, started in the foreground."""

    def __init__(self, bundle: Path, name: str) -> None:
        self.name, self.log = name, bundle.parent / f"{name}.log"
        self.errors = bundle.parent / f"{name}.err"
        with open(self.log, "wb") as out, open(self.errors, "wb") as err:
            self.process = subprocess.Popen(
                [program("runc"), "run", "--bundle", str(bundle), name],
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
            )

    def signal(self, name: str) -> None:
        done(program("runc"), "kill", self.name, name)

    def inside(self, *command: str) -> str:
        words = [program("runc"), "exec", self.name, *command]
        ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        return ran.stdout + ran.stderr

    def told(self) -> str:
        return self.log.read_text("utf-8") + self.errors.read_text("utf-8")

    def remove(self) -> None:
        words = [program("runc"), "delete", "--force", self.name]
        subprocess.run(words, check=False, capture_output=True, timeout=60)
        self.process.wait(30)
