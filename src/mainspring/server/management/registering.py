"""Keeps a server known to a Spring Boot Admin (its client's protocol, version 4.1)."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Instance", "Registration"]

_EVERY_S = 10.0
_TIMEOUT_S = 5.0
_MOST = 65_536


@dataclass(frozen=True, slots=True)
class Instance:
    """What an admin is told of a server.

    Attributes:
        name: of the application.
        service: its address.
        management: of its actuator's index; it must be another than `service`, or the admin does not read the index.
        metadata: more of it, such as the user and password that the admin asks with.
    """

    name: str
    service: str
    management: str
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)

    def body(self) -> bytes:
        """As the admin reads it."""
        return json.dumps(
            {
                "name": self.name,
                "serviceUrl": self.service,
                "managementUrl": self.management,
                "healthUrl": f"{self.management}/health",
                "metadata": dict(self.metadata),
            }
        ).encode()


class Registration:
    """Registers at an admin every ten seconds, and takes itself out at a clean stop.

    Args:
        admin: the admin's address.
        instance: what it is told.
        login: user and password that the admin asks for; None without.
        told: told when the admin does not answer, and when it does again.
        every: seconds between two times.
    """

    def __init__(
        self,
        admin: str,
        instance: Instance,
        login: tuple[str, str] | None,
        told: Callable[[str], None],
        every: float = _EVERY_S,
    ) -> None:
        self._instances = admin.rstrip("/") + "/instances"
        self._host = urllib.parse.urlsplit(admin).netloc.rpartition("@")[2]
        self._instance = instance
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if login is not None:
            self._headers["authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
        self._told = told
        self._every = every
        self._over = threading.Event()
        self._fault = ""
        self._id = ""
        self._thread = threading.Thread(target=self._keep, name="admin", daemon=True)

    def start(self) -> None:
        """Begin to register, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Take the server out of the admin's list; an admin that is away keeps nobody from ending."""
        self._over.set()
        self._thread.join(2 * _TIMEOUT_S)
        if self._id:
            with contextlib.suppress(OSError):
                self._ask("DELETE", f"{self._instances}/{urllib.parse.quote(self._id, safe='')}")

    def _keep(self) -> None:
        while True:
            try:
                answer = json.loads(self._ask("POST", self._instances, self._instance.body()))
                self._id = str(answer["id"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._said(f"{type(error).__name__}: {error}")
            else:
                self._said("")
            if self._over.wait(self._every):
                return

    def _said(self, fault: str) -> None:
        if fault and not self._fault:
            self._told(f"admin {self._host} does not take this server: {fault}; it is tried again")
        elif self._fault and not fault:
            self._told(f"admin {self._host} takes this server again")
        self._fault = fault

    def _ask(self, method: str, url: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(url, body, self._headers, method=method)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return bytes(answer.read(_MOST))
