"""``mainspring deploy --local``: a target's server on this machine, under the contract that it has there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from mainspring.choose.services import Services
from mainspring.cli.options import ended_like_stopped, open_services
from mainspring.cli.output import emit, tell
from mainspring.cli.shipping import revision_with
from mainspring.deploy.image.build import base_registry, build, epoch_of, image_store
from mainspring.deploy.image.manifest import VARIANTS, Manifest
from mainspring.deploy.image.reference import Reference, reference_of
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.transport import pulled
from mainspring.deploy.local.image import Unpacked, linked, python_of, rootfs, unpacked
from mainspring.deploy.local.left import PROCESS, end_left, noted
from mainspring.deploy.local.replica import Replica, Stopped, answers_at
from mainspring.deploy.local.running import (
    Contained,
    Plain,
    Way,
    bundle_config,
    name_of,
    program,
    why_no_container,
    why_no_limits,
)
from mainspring.deploy.shipping import app_name, release_at, secret_values
from mainspring.errors import RefusedError
from mainspring.ports.target import Release, Workload

__all__ = ["run_local"]


_NOTES = "local"
"""Where in the state of a project it is noted who runs a replica here."""


class _Wanted(msgspec.Struct, frozen=True):
    """What of the command line says how it is run."""

    image: str | None
    port: int | None
    process: bool
    wait: float
    check: bool
    as_json: bool


def run_local(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    target: str,
    image: str | None,
    port: int | None,
    process: bool,
    wait: float,
    check: bool,
) -> int:
    """Run one replica of a target's server here until it is stopped; with `check` until it is ready.

    Raises:
        UsageError: MS-5160, the target runs it on a cluster of Ray.
        RefusedError: MS-5161 to MS-5164: the image is not ours or of another Python, its port is taken, it does not
            come up, it does not end in peace.
    """
    wanted = _Wanted(image, port, process, wait, check, as_json)
    flags = {} if image is not None else {"image.platforms": [f"linux/{_architecture()}"]}
    services = open_services(project, profile, flags)
    try:
        end_left(services.state / _NOTES, tell)
        deployment = services.target(target)
        manifest, registry, release = _image(services, image)
        found = unpacked(manifest, registry, image_store(services))
        revision = revision_with(services, release)
        rendered = deployment.target.render(revision, None, deployment.target.world)
        workload = deployment.target.workload(rendered)
        base = (registry or base_registry(services.settings)).at
        with _way(services, found, workload, wanted, revision.app.name, base) as (way, how):
            services.close()  # nothing of the project is held while it runs
            return _run(way, workload, how, wanted, release.image)
    finally:
        services.close()


def _image(services: Services, image: str | None) -> tuple[Manifest, Registry | None, Release]:
    """The image that is named; or the one that is built here now, and pushed nowhere."""
    store = image_store(services)
    if image is not None:
        release = release_at(services, image)
        registry = Registry(reference_of(release.image, origin="--image"))
        return pulled(registry, _architecture(), store), registry, release
    built = build(services, VARIANTS["kubernetes"], epoch=epoch_of(os.environ), told=tell).built
    name = f"localhost/{app_name(services.project.name)}@{built.top.digest}"
    return built.manifests[0], None, release_at(services, name)


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


@contextlib.contextmanager
def _way(
    services: Services, image: Unpacked, workload: Workload, wanted: _Wanted, app: str, base: Reference
) -> Iterator[tuple[Way, str]]:
    """How it is run, ready to be started, and in words."""
    values = {name: secrets.token_urlsafe(24) for name in workload.secrets} | secret_values(services)
    lacking = "--process" if wanted.process else why_no_container()
    name = name_of(app)
    with (
        tempfile.TemporaryDirectory(prefix="mainspring-local-") as place,
        noted(services.state / _NOTES, name, folder := Path(place), container=not lacking),
    ):
        files = _secret_files(folder, workload, values, owner=0 if lacking else workload.user)
        variables = _variables(workload, wanted)
        if lacking:
            _of_this_python(image)
            root, scratch = linked(image, folder / "root"), folder / "tmp"
            scratch.mkdir()
            way = Plain.of(image, workload, variables, root, scratch, files, folder / PROCESS)
            yield way, f"as a process, not contained, memory and CPU not limited: {lacking}"
            return
        unlimited = why_no_limits()
        under = rootfs(image, base, image_store(services), program("umoci") or "umoci")
        config = bundle_config(
            json.loads((under / "config.json").read_bytes()), image, workload, variables, files, limited=not unlimited
        )
        config["root"]["path"] = str(under / "rootfs")
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        held = f"memory and CPU not limited: {unlimited}" if unlimited else _held(workload)
        yield Contained(name, folder), f"under runc, user {workload.user}, read-only but /tmp, {held}"


def _held(workload: Workload) -> str:
    """What it is held to, in words."""
    cores = f" and {workload.cpu:g} CPU" if workload.cpu else ""
    return f"at most {workload.memory / 2**20:.0f} MiB{cores}"


def _variables(workload: Workload, wanted: _Wanted) -> dict[str, str]:
    """The target's variables, listening to this machine alone."""
    found = {**workload.variables, "MAINSPRING_SERVER_HOST": "127.0.0.1", "MAINSPRING_MANAGEMENT_HOST": "127.0.0.1"}
    if wanted.port is not None:
        found["MAINSPRING_SERVER_PORT"] = str(wanted.port)
        found |= {"MAINSPRING_MANAGEMENT_PORT": "0", "MAINSPRING_GRPC_PORT": "0"}
    return found


def _secret_files(folder: Path, workload: Workload, values: Mapping[str, str], *, owner: int) -> Path:
    """The secrets as the target mounts them: a file each, that the server alone may read."""
    files = folder / "secrets"
    files.mkdir(mode=0o750)
    for name in workload.secrets:
        path = files / name
        path.touch(mode=0o600)
        path.write_text(values[name], "utf-8")
        path.chmod(0o440)
        if owner:
            os.chown(path, 0, owner)
    if owner:
        os.chown(files, 0, owner)
    return files


def _of_this_python(image: Unpacked) -> None:
    here, wanted = ".".join(map(str, sys.version_info[:2])), python_of(image.config)
    if wanted != here:
        raise RefusedError(
            f"the image is of Python {wanted or 'unknown'}, and this is {here}",
            code="MS-5161",
            why="without a container it is run by this machine's Python",
            fix="install runc and umoci, and run it as root; or set image.python",
        )


def _free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RefusedError(
                f"port {port} cannot be listened at",
                code="MS-5162",
                why=str(error.strerror),
                origin="--port",
                fix="stop what listens there, or mainspring deploy --local --port N",
            ) from error


def _run(way: Way, workload: Workload, how: str, wanted: _Wanted, image: str) -> int:
    port = wanted.port or workload.port
    _free(port)
    said: Callable[[str], None] = tell if wanted.as_json else _print
    replica = Replica(way, workload, answers_at(port), said, tell)
    tell(f"{image} {how}")
    ready_s, stopped = 0.0, None
    try:
        with ended_like_stopped():
            ready_s = replica.until_ready(wanted.wait)
            tell(f"ready after {ready_s:.1f} s at http://127.0.0.1:{port}")
            if not wanted.check:
                replica.watch()
    except KeyboardInterrupt:
        if wanted.check:
            raise
    finally:
        stopped = _end(replica)
    if not stopped.well:
        raise _not_in_peace(stopped, workload)
    if wanted.as_json:
        emit({"image": image, "how": how, "ready_s": round(ready_s, 3), "stopped": _told(stopped)})
    else:
        tell(f"stopped {stopped.seconds:.1f} s after SIGTERM")
    return 0


def _end(replica: Replica) -> Stopped:
    """Stop it in peace; a second Ctrl-C does not wait for that, and leaves nothing behind either."""
    try:
        with ended_like_stopped():
            return replica.stop()
    except KeyboardInterrupt:
        replica.kill()
        raise


def _print(text: str) -> None:
    print(text, flush=True)


def _told(stopped: Stopped) -> dict[str, object]:
    return {"seconds": round(stopped.seconds, 3), "status": stopped.status}


def _not_in_peace(stopped: Stopped, workload: Workload) -> RefusedError:
    why = f"it was killed after {workload.grace_s:g} s" if stopped.killed else f"its exit status is {stopped.status}"
    return RefusedError(
        "the server does not end in peace",
        code="MS-5164",
        why=f"{why}; the contract is 0 once open requests are answered",
        fix="shorten server.drain, or see its log for what keeps it",
    )
