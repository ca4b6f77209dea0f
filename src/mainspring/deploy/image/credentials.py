"""The credentials that docker, podman and skopeo have for registries."""

from __future__ import annotations

import binascii
import subprocess
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

_SECONDS = 60.0
"""That a credential helper may take: some ask a cloud for a token."""
_UNKNOWN = "credentials not found"
"""What a helper says of a registry that it knows nothing of."""


def credentials(host: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """``auths``, ``credsStore`` and ``credHelpers`` of the first docker config that there is.

    It is looked for as docker does, then as podman does: in the folder that ``DOCKER_CONFIG`` names, else at home;
    in the file that ``REGISTRY_AUTH_FILE`` names, else in podman's own. A helper that is named for the registry is
    asked first; the store of all others is asked when no file knows the registry. What they say is under ``auths``.

    Args:
        host: the registry.
        environment: the process's environment.

    Raises:
        ConfigError: MS-3091, a file cannot be read; MS-2751, a credential helper gives nothing that can be used.
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
    _ask_helpers(host, found, environment)
    for auth in found["auths"].values():  # docker also writes the two apart
        if isinstance(auth, dict) and "auth" not in auth and auth.get("username"):
            pair = f"{auth['username']}:{auth.get('password', '')}".encode()
            auth["auth"] = binascii.b2a_base64(pair, newline=False).decode()
    return found


def _ask_helpers(host: str, found: dict[str, Any], environment: Mapping[str, str]) -> None:
    named = str(found["credHelpers"].pop(host, "") or "")
    known = found["auths"].get(host)
    store = "" if named or (isinstance(known, dict) and known) else str(found["credsStore"] or "")
    found["credsStore"] = None
    if (helper := named or store) and (said := _said(helper, host, environment, needed=bool(named))):
        found["auths"][host] = said


def _said(helper: str, host: str, environment: Mapping[str, str], *, needed: bool) -> dict[str, str]:
    """What a helper knows of a registry; nothing when it knows nothing.

    A store of all registries that is not installed is passed over, as a public image needs none; a helper that is named
    for the very registry is not.
    """
    command = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [command, "get"], input=host, capture_output=True, text=True, timeout=_SECONDS, check=False,
            env=dict(environment),
        )  # fmt: skip
    except FileNotFoundError:
        if needed:
            raise _unusable(command, host, "it is not on the PATH") from None
        return {}
    except subprocess.TimeoutExpired:
        raise _unusable(command, host, f"it says nothing for {_SECONDS:g} s") from None
    except OSError as error:
        raise _unusable(command, host, str(error.strerror or error)) from error
    if done.returncode:
        told = (done.stdout + done.stderr).strip()
        if _UNKNOWN in told:
            return {}
        raise _unusable(command, host, told.splitlines()[0][:200] if told else f"it ends with {done.returncode}")
    try:
        read = msgspec.json.decode(done.stdout, type=dict[str, str])
        name, secret = read["Username"], read["Secret"]
    except (msgspec.DecodeError, KeyError):  # what it printed may be a secret: it is not told
        raise _unusable(command, host, "its answer has no Username and Secret") from None
    if name == "<token>":
        raise _unusable(command, host, "it gives an identity token, which only docker's own login can exchange")
    return {"username": name, "password": secret}


def _unusable(command: str, host: str, why: str) -> ConfigError:
    return ConfigError(
        f"{command} gives no credentials for {host}",
        code="MS-2751",
        why=why,
        origin="credHelpers and credsStore of the docker config",
        fix=f"echo {host} | {command} get shows what it says; install it, or log in again",
    )


def _places(environment: Mapping[str, str]) -> list[Path]:
    home = Path(environment.get("HOME") or "/")
    docker = Path(environment["DOCKER_CONFIG"]) if environment.get("DOCKER_CONFIG") else home / ".docker"
    found = [docker / "config.json"]
    if environment.get("REGISTRY_AUTH_FILE"):
        return [*found, Path(environment["REGISTRY_AUTH_FILE"])]
    if environment.get("XDG_RUNTIME_DIR"):
        found.append(Path(environment["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    return [*found, home / ".config" / "containers" / "auth.json"]
