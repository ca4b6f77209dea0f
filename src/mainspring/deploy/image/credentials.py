"""The credentials that docker, podman and skopeo have for registries."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.errors import ConfigError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from oras import defaults
else:
    defaults = lazy("oras.defaults")

__all__ = ["credentials"]


def credentials(host: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """``auths``, ``credsStore`` and ``credHelpers`` of the first docker config that there is.

    It is looked for as docker does, then as podman does: in the folder that ``DOCKER_CONFIG`` names, else at home;
    in the file that ``REGISTRY_AUTH_FILE`` names, else in podman's own.

    Args:
        host: the registry.
        environment: the process's environment.

    Raises:
        ConfigError: MS-3091, a file cannot be read.
    """
    found: dict[str, Any] = {"auths": {}, "credsStore": None, "credHelpers": {}}
    for path in _places(environment):
        try:
            read = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                "the credentials for registries cannot be read",
                code="MS-3091",
                why=str(getattr(error, "strerror", "") or error),
                origin=path.name,
                fix=f"mend the file, or docker login {host}",
            ) from error
        found["auths"] = {**(read.get("auths") or {}), **found["auths"]}
        found["credHelpers"] = {**(read.get("credHelpers") or {}), **found["credHelpers"]}
        found["credsStore"] = found["credsStore"] or read.get("credsStore")
    names = defaults.registry
    if host == names.index_name and (old := found["auths"].get(names.index_server)) is not None:
        found["auths"].setdefault(host, old)
    for auth in found["auths"].values():  # docker also writes the two apart
        if isinstance(auth, dict) and "auth" not in auth and auth.get("username"):
            pair = f"{auth['username']}:{auth.get('password', '')}".encode()
            auth["auth"] = binascii.b2a_base64(pair, newline=False).decode()
    return found


def _places(environment: Mapping[str, str]) -> list[Path]:
    home = Path(environment.get("HOME") or "/")
    docker = Path(environment["DOCKER_CONFIG"]) if environment.get("DOCKER_CONFIG") else home / ".docker"
    found = [docker / "config.json"]
    if environment.get("REGISTRY_AUTH_FILE"):
        return [*found, Path(environment["REGISTRY_AUTH_FILE"])]
    if environment.get("XDG_RUNTIME_DIR"):
        found.append(Path(environment["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    return [*found, home / ".config" / "containers" / "auth.json"]
