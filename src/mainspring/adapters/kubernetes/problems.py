"""What an API server answers, turned into cause and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mainspring.errors import ConfigError, RefusedError, ServiceError

__all__ = [
    "answered", "bad_login", "conflicts_of", "misplaced", "refused", "unknown_kind", "unreachable",
]  # fmt: skip


def unreachable(server: str, error: Exception) -> ServiceError:
    """No connection, or none that lasts."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return ServiceError(
        f"the cluster at {server} does not answer",
        code="MS-2730",
        why=str(inner).splitlines()[0] if str(inner) else type(inner).__name__,
        origin=server,
        fix="check the context of the kubeconfig, the network and the VPN; kubectl version asks the same server",
    )


def refused(server: str, status: int, asked: str, told: str) -> ServiceError:
    """The server wants to know who asks, or says no to who did."""
    return ServiceError(
        f"the cluster at {server} refuses access",
        code="MS-2731",
        why=f"{status} to {asked}: {told}",
        origin=server,
        fix="log in again; or have your role allow it: kubectl auth can-i --list",
    )


def answered(server: str, status: int, asked: str, told: str) -> ServiceError | RefusedError:
    """Any other answer than the one that was asked for."""
    if "exceeded quota" in told:
        return RefusedError(
            f"the namespace's quota is exhausted: {asked}",
            code="MS-5085",
            why=told,
            origin=server,
            fix="raise the ResourceQuota, or ask for less: targets.NAME.replicas, cpu, memory",
        )
    return ServiceError(
        f"the cluster at {server} answers {status}",
        code="MS-2732",
        why=f"to {asked}: {told}",
        origin=server,
        fix="look at the object, and at the server's log; the same command goes on where it stopped",
    )


def misplaced(why: str, origin: str) -> ConfigError:
    """No kubeconfig, or none that can be read."""
    return ConfigError(
        "there is no way to the cluster",
        code="MS-2733",
        why=why,
        origin=origin,
        fix="export KUBECONFIG=PATH, or set targets.NAME.kubeconfig and targets.NAME.context",
    )


def bad_login(command: str, why: str) -> ServiceError:
    """The kubeconfig's own command for a token does not give one."""
    return ServiceError(
        f"the kubeconfig's login {command!r} gives no token",
        code="MS-2734",
        why=why,
        origin="kubeconfig, users[].user.exec",
        fix="run that command yourself; log in to the cloud again if it says so",
    )


def unknown_kind(kind: str, version: str) -> RefusedError:
    """The cluster lacks what an object needs."""
    return RefusedError(
        f"the cluster knows no {kind} of {version}",
        code="MS-5086",
        why="its operator is not installed",
        fix="install it, or leave out the setting that asks for it: targets.NAME.gateway, ray, or --target kserve",
    )


def told_by(body: Mapping[str, Any], text: str) -> str:
    """What a Status says; a line of anything else."""
    message = str(body.get("message") or "") or text
    return message.strip().splitlines()[0][:500] if message.strip() else "nothing"


def conflicts_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields that somebody else owns: ``.spec.replicas: kubectl-edit``."""
    causes = (body.get("details") or {}).get("causes") or ()
    found = []
    for cause in causes:
        if cause.get("reason") == "FieldManagerConflict":
            owner = str(cause.get("message", "")).removeprefix("conflict with ").partition(" using ")[0].strip('"')
            found.append(f"{cause.get('field', '')}: {owner}")
    return tuple(found)
