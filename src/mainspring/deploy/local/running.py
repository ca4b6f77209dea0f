"""How a replica is started and stopped: as a container under runc, or as a plain process of this machine."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mainspring.deploy.local.image import Unpacked
from mainspring.engine.workers.processes import Owner
from mainspring.errors import RefusedError
from mainspring.ports.target import Workload

__all__ = ["Contained", "Plain", "Way", "bundle_config", "re_rooted", "why_no_container", "why_no_limits"]

_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH")
"""Of this machine's environment, what a plain process gets."""
_PERIOD_US = 100_000
"""Within so many microseconds a share of them is granted: a kubelet's period."""


class Way(Protocol):
    """A way to run one replica."""

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; its logs come by ``stdout``."""

    def signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send it a signal."""

    def remove(self) -> None:
        """Take away what a stopped one leaves."""


def why_no_container() -> str:
    """What this machine lacks for containers; empty when it lacks nothing."""
    if os.name != "posix" or not sys.platform.startswith("linux"):
        return "containers need Linux"
    missing = [name for name in ("runc", "umoci") if program(name) is None]
    if missing:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    return "" if os.geteuid() == 0 else "containers are made by root"


def program(name: str) -> str | None:
    """A program's path, also of those that are root's."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def why_no_limits(root: Path = Path("/sys/fs/cgroup")) -> str:
    """Why containers cannot be held to memory and cores here; empty when they can.

    Args:
        root: where control groups are: of the second kind, or a folder for each controller of the first.
    """
    wanted = ("cpu", "memory")
    unified = root / "cgroup.controllers"
    there = unified.read_text("ascii").split() if unified.exists() else [one for one in wanted if (root / one).is_dir()]
    lacking = [one for one in wanted if one not in there]
    if lacking:
        return f"this machine has no control group for {' and '.join(lacking)}"
    places = [root] if unified.exists() else [root / one for one in wanted]
    return "" if all(os.access(place, os.W_OK) for place in places) else "control groups are read-only here"


class Contained(msgspec.Struct, frozen=True):
    """Under runc, as restricted as a cluster would have it.

    Attributes:
        name: of the container.
        bundle: its folder, with ``config.json``.
    """

    name: str
    bundle: Path

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; its logs come by ``stdout``."""
        self.remove()
        words = [program("runc") or "runc", "run", "--bundle", str(self.bundle), self.name]
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send it a signal."""
        words = [program("runc") or "runc", "kill", self.name, number.name.removeprefix("SIG")]
        subprocess.run(words, check=False, capture_output=True)

    def remove(self) -> None:
        """Take away what a stopped one leaves."""
        words = [program("runc") or "runc", "delete", "--force", self.name]
        subprocess.run(words, check=False, capture_output=True)


def bundle_config(
    under: Mapping[str, Any],
    image: Unpacked,
    workload: Workload,
    variables: Mapping[str, str],
    files: Path,
    *,
    limited: bool = True,
) -> dict[str, Any]:
    """The OCI runtime's config of a replica. Pure.

    Args:
        under: the config that umoci has made of the image.
        image: unpacked.
        workload: what the target runs.
        variables: its environment besides what the image sets.
        files: the folder with its secrets.
        limited: whether it is held to the target's memory and cores.
    """
    config: dict[str, Any] = json.loads(json.dumps(under))
    process, linux = config["process"], config["linux"]
    process["terminal"] = False
    process["user"] = {"uid": workload.user, "gid": workload.user}
    process["args"] = [*image.run["Entrypoint"], *workload.arguments]
    taken = [line for line in process["env"] if line.partition("=")[0] not in variables]
    process["env"] = taken + [f"{name}={value}" for name, value in sorted(variables.items())]
    process["noNewPrivileges"] = True
    process["capabilities"] = {}
    config["root"]["readonly"] = True
    if limited:
        linux["resources"] = {**linux.get("resources", {}), **_limits(workload)}
    # The host's network: requests come in on loopback, without a bridge that this machine would have to have.
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "network"]
    kept = [one for one in config["mounts"] if one["destination"] not in ("/tmp", "/etc/resolv.conf")]
    size = f"size={workload.scratch}"
    scratch = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
    config["mounts"] = [*kept, {**scratch, "options": ["nosuid", "nodev", "mode=1777", size]}]
    bound = {f"/{name}": path for name, path in image.places.items()} | {workload.secrets_at: files}
    if os.path.exists("/etc/resolv.conf"):
        bound["/etc/resolv.conf"] = Path("/etc/resolv.conf")
    config["mounts"] += [
        {"destination": place, "type": "bind", "source": str(path), "options": ["rbind", "ro", "nosuid", "nodev"]}
        for place, path in bound.items()
    ]
    return config


def _limits(workload: Workload) -> dict[str, Any]:
    """What control groups hold it to, in the words of the OCI runtime's specification."""
    cpu = {"period": _PERIOD_US, "quota": round(workload.cpu * _PERIOD_US)}
    return {"memory": {"limit": workload.memory}, **({"cpu": cpu} if workload.cpu else {})}


class Plain(msgspec.Struct, frozen=True):
    """A process of this machine's Python, in a folder that stands for the image's root.

    Attributes:
        command: with its arguments.
        environment: all of it.
        folder: where it starts.
        noted: the file that is to say which process it is.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    noted: Path | None = None

    @classmethod
    def of(
        cls,
        image: Unpacked,
        workload: Workload,
        variables: Mapping[str, str],
        root: Path,
        scratch: Path,
        files: Path,
        noted: Path | None = None,
    ) -> Plain:
        """The image's command with every path of the image led into these folders.

        Args:
            image: unpacked.
            workload: what the target runs.
            variables: its environment besides what the image sets.
            root: the folder with the image's ``app``.
            scratch: what stands for ``/tmp``.
            files: the folder with its secrets.
            noted: the file that is to say which process it is.

        Raises:
            RefusedError: MS-5161, the image runs something else than our server.
        """
        entry = list(image.run.get("Entrypoint") or ())
        if entry[:1] != ["python3"]:
            raise RefusedError(
                "the image cannot be run without a container",
                code="MS-5161",
                why=f"its entrypoint is {' '.join(entry) or 'nothing'}, and not python3",
                fix="install runc and umoci, and run it as root",
            )
        places = {"/app": str(root / "app"), "/tmp": str(scratch), workload.secrets_at: str(files)}
        said = dict(line.partition("=")[::2] for line in image.run.get("Env") or ())
        named = {name: re_rooted(value, places) for name, value in {**said, **variables}.items()}
        here = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment = {**named, **here, "TMPDIR": str(scratch)}
        python = str(getattr(sys, "_base_executable", "") or sys.executable)
        folder = Path(re_rooted(str(image.run.get("WorkingDir") or "/app/src"), places))
        return cls((python, "-s", *entry[1:], *workload.arguments), environment, folder, noted)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; its logs come by ``stdout``."""
        process = subprocess.Popen(
            self.command, cwd=self.folder, env=dict(self.environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, umask=0o077,
        )  # fmt: skip
        if self.noted is not None:
            self.noted.write_text(str(Owner.of(process.pid)), "ascii")
        return process

    def signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send it a signal; the last one goes to its children, too."""
        try:
            os.killpg(process.pid, number) if number == signal.SIGKILL else process.send_signal(number)
        except ProcessLookupError:
            return

    def remove(self) -> None:
        """Nothing is left."""


def re_rooted(value: str, places: Mapping[str, str]) -> str:
    """A variable's value with every path of the image led elsewhere: a folder itself, or what is below it.

    >>> re_rooted("/app/deps:/app/src", {"/app": "/x/app"})
    '/x/app/deps:/x/app/src'
    """
    longest = sorted(places, key=len, reverse=True)
    whole = re.compile(rf"(?<![\w./-])({'|'.join(map(re.escape, longest))})(?=$|[/:,}}\s])")
    return whole.sub(lambda found: places[found[1]], value)


def name_of(app: str) -> str:
    """A container's name: several of an app may run at once."""
    return f"mainspring-{app}-{secrets.token_hex(4)}"
