"""The way to the cluster: a kubeconfig's context, or the service account of a pod; tokens by a command."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User, UserExec
from lightkube.core.exceptions import ConfigError as LightkubeError

from mainspring.adapters.kubernetes.problems import bad_login, misplaced
from mainspring.adapters.kubernetes.settings import KubernetesSettings

__all__ = ["ExecLogin", "connection", "context_of"]

_LOGIN_S = 60
"""How long a login's command may take: some ask a cloud."""
_EARLY_S = 30
"""So long before it runs out a token is no longer used."""


def context_of(settings: KubernetesSettings) -> SingleConfig:
    """The context to work in.

    Raises:
        ConfigError: MS-2733, there is none.
    """
    named = settings.kubeconfig or next(iter(filter(None, os.environ.get("KUBECONFIG", "").split(os.pathsep))), "")
    path = Path(named or "~/.kube/config").expanduser()
    origin = "targets.NAME.kubeconfig" if settings.kubeconfig else "KUBECONFIG" if named else str(path)
    try:
        if not named and not path.is_file() and Path(SERVICE_ACCOUNT, "token").is_file():
            found = KubeConfig.from_service_account().get()
        else:
            found = KubeConfig.from_file(path).get(settings.context)
    except (LightkubeError, OSError, KeyError, TypeError, msgspec.ValidationError, yaml.YAMLError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise misplaced(why, origin) from error
    assert found is not None
    return found


def connection(config: SingleConfig, timeout: float) -> httpx2.Client:
    """A client that trusts the cluster's authority and logs in as the context says.

    Raises:
        ConfigError: MS-2733, a certificate cannot be read.
    """
    user = config.user or User()
    try:
        verify = verify_cluster(config.cluster, user, config.abs_file)
        auth = ExecLogin(user.exec) if user.exec is not None else user_auth(user)
    except (LightkubeError, OSError, ssl.SSLError, ValueError) as error:
        raise misplaced(str(error), f"context {config.context_name}") from error
    return httpx2.Client(base_url=config.cluster.server, verify=verify, auth=auth, timeout=timeout)


class ExecLogin(httpx2.Auth):
    """A token by the kubeconfig's command, as kubectl asks for it: of every version of the protocol.

    lightkube's own refuses ``client.authentication.k8s.io/v1``, tells the command nothing and waits for it for ever.
    """

    def __init__(self, command: UserExec) -> None:
        self._command = command
        self._token = ""
        self._until = 0.0
        self._lock = threading.Lock()

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send the token; when it is no longer accepted, another."""
        with self._lock:
            if not self._token or time.time() > self._until:
                self._fetch()
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == 401:
            with self._lock:
                self._fetch()
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _fetch(self) -> None:
        command = self._command
        told = {"apiVersion": command.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
        environment = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(told)}
        environment |= {one.name: one.value for one in command.env or ()}
        words = [command.command, *(command.args or ())]
        try:
            done = subprocess.run(
                words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOGIN_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            hint = command.installHint or str(error)
            raise bad_login(command.command, hint.strip().splitlines()[0]) from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise bad_login(command.command, f"it ends with {done.returncode}: {said[-1] if said else 'no word'}")
        try:
            status = json.loads(done.stdout)["status"]
            self._token = str(status["token"])
        except (ValueError, KeyError, TypeError) as error:
            raise bad_login(command.command, "its answer has no status.token") from error
        self._until = _moment(status.get("expirationTimestamp")) - _EARLY_S


def _moment(text: object) -> float:
    """When a token runs out; one that does not say lasts until it is refused."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")
