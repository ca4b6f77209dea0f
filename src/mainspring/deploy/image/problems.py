"""What registries answer, turned into cause and remedy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mainspring.deploy.image.reference import Reference
from mainspring.errors import RefusedError, ServiceError

if TYPE_CHECKING:
    import requests

__all__ = ["answered", "corrupt", "missing", "refused", "unreachable"]


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


def refused(at: Reference, response: requests.Response, known: bool) -> ServiceError:
    """The registry wants to know who asks, or says no to who did."""
    who = "the credentials were not accepted" if known else "no credentials for it are in the docker config"
    return ServiceError(
        f"registry {at.host} refuses access to {at.name}",
        code="MS-4081",
        why=f"{response.status_code} {_told(response)}; {who}",
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


def answered(at: Reference, response: requests.Response) -> ServiceError | RefusedError:
    """Any other answer than the one that was asked for."""
    if response.status_code in (413, 507) or "quota" in response.text[:2000].lower():
        return RefusedError(
            f"registry {at.host} takes no more",
            code="MS-5070",
            why=f"{response.status_code} {_told(response)}",
            origin=str(at),
            fix="free some of the quota, or raise it, and build again: what was uploaded is not uploaded twice",
        )
    method = response.request.method if response.request is not None else ""
    return ServiceError(
        f"registry {at.host} answers {response.status_code} to {method} of {at.name}",
        code="MS-4083",
        why=_told(response),
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


def _told(response: requests.Response) -> str:
    """What a registry says of its refusal; never more than a line."""
    try:
        first: Any = json.loads(response.text)["errors"][0]
        return f"{first.get('code', '')} {first.get('message', '')}".strip()
    except (ValueError, LookupError, TypeError, AttributeError):
        return response.reason or ""


def _innermost(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", "") or error)
