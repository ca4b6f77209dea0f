"""What registries answer, turned into cause and remedy."""

from __future__ import annotations

import json
from typing import Any

from mainspring.deploy.image.reference import Reference
from mainspring.deploy.image.wire import Answer
from mainspring.errors import RefusedError, ServiceError

__all__ = ["answered", "corrupt", "missing", "no_repository", "refused", "unreachable"]


def unreachable(at: Reference, error: Exception | str) -> ServiceError:
    """No connection, or none that lasts."""
    why = error if isinstance(error, str) else _innermost(error)
    return ServiceError(
        f"registry {at.host} does not answer",
        code="MS-4080",
        why=why,
        origin=str(at),
        fix="check the name, the network and the proxy; --layout DIR builds without a registry to push to",
    )


def refused(at: Reference, answer: Answer, known: bool) -> ServiceError:
    """The registry wants to know who asks, or says no to who did."""
    who = "the credentials were not accepted" if known else "no credentials for it are in the docker config"
    return ServiceError(
        f"registry {at.host} refuses access to {at.name}",
        code="MS-4081",
        why=f"{answer.status} {_told(answer)}; {who}",
        origin=str(at),
        fix=f"docker login {at.host}, podman login, or write config.json into the folder that DOCKER_CONFIG names",
    )


def missing(at: Reference) -> ServiceError:
    """There is no such image."""
    return ServiceError(
        f"image {at} is not there",
        code="MS-4082",
        why=f"registry {at.host} knows no {at.wanted or 'such blob'} of {at.name}",
        fix="check the name and the tag, or whether you may read it",
    )


def no_repository(at: Reference) -> ServiceError:
    """The registry begins no upload, since it makes no repository by itself."""
    return ServiceError(
        f"registry {at.host} has no repository {at.name}",
        code="MS-8303",
        why="404 to an upload; some registries want each repository to be made first",
        origin=str(at),
        fix="make it there (of ECR: aws ecr create-repository), or check image.repository",
    )


def answered(at: Reference, answer: Answer) -> ServiceError | RefusedError:
    """Any other answer than the one that was asked for."""
    if answer.status in (413, 507) or b"quota" in answer.body[:2000].lower():
        return RefusedError(
            f"registry {at.host} takes no more",
            code="MS-5070",
            why=f"{answer.status} {_told(answer)}",
            origin=str(at),
            fix="free some of the quota, or raise it, and build again: what was uploaded is not uploaded twice",
        )
    return ServiceError(
        f"registry {at.host} answers {answer.status} to {answer.method} of {at.name}",
        code="MS-4083",
        why=_told(answer),
        origin=str(at),
        fix="look at the registry's log; building again goes on where it stopped",
    )


def corrupt(at: Reference, wanted: str, found: str) -> ServiceError:
    """What came is not what was asked for."""
    return ServiceError(
        f"registry {at.host} sent other content than {wanted[:19]}",
        code="MS-4084",
        why=f"it has digest {found[:19]}",
        origin=str(at),
        fix="try again; if it stays so, the registry or a proxy before it is damaged",
    )


def _told(answer: Answer) -> str:
    """What a registry says of its refusal; never more than a line."""
    try:
        first: Any = json.loads(answer.body)["errors"][0]
        return f"{first.get('code', '')} {first.get('message', '')}".strip()
    except (ValueError, LookupError, TypeError, AttributeError):
        return answer.reason


def _innermost(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", "") or error)
