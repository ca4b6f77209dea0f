"""The API server over lightkube's connection: plain JSON, server-side apply as ``mainspring``."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from mainspring.adapters.kubernetes.login import connection, context_of
from mainspring.adapters.kubernetes.objects import MANAGER
from mainspring.adapters.kubernetes.problems import answered, conflicts_of, refused, told_by, unreachable
from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.errors import MainspringError
from mainspring.ports.cluster import Applied, Kind, Object

__all__ = ["LightkubeCluster", "open_cluster"]

_TRIES = 4
_AGAIN = frozenset({429, 500, 502, 503, 504})
_PAGE = 500
_OF_THE_CLUSTER = ("Namespace", "Node")
_LONGEST_WAIT_S = 8.0
_NUMBERS = re.compile(r"\d+")


def open_cluster(settings: KubernetesSettings, place: Path) -> LightkubeCluster:
    """The cluster that the settings, or the kubeconfig, name.

    Raises:
        ConfigError: MS-2733, there is no way to it.
    """
    config = context_of(settings)
    client = connection(config, settings.timeout)
    return LightkubeCluster(client, settings.namespace or config.namespace)


class LightkubeCluster:
    """A namespace of a cluster.

    Args:
        client: connected and logged in.
        namespace: the namespace.
        sleep: waits before another try.
    """

    def __init__(self, client: httpx2.Client, namespace: str, sleep: Any = time.sleep) -> None:
        self.namespace = namespace
        self._client = client
        self._sleep = sleep
        self._found: dict[str, dict[str, Kind]] = {}

    def version(self) -> tuple[int, int]:
        """The server's version; clouds write ``30+`` as the minor."""
        told = self._json("GET", "/version")
        found = _NUMBERS.findall(f"{told.get('major')}.{told.get('minor')}")
        if len(found) != 2:
            raise answered(str(self._client.base_url), 200, "GET /version", "no version: this is no Kubernetes")
        return int(found[0]), int(found[1])

    def clock(self) -> float | None:
        """The server's time now, in seconds since 1970 and to a second; None when it does not say."""
        told = self._ask("GET", "/version").headers.get("Date", "")
        try:
            return parsedate_to_datetime(told).timestamp()
        except ValueError:
            return None

    def groups(self) -> frozenset[str]:
        """The groups of kinds that the server knows."""
        return frozenset(group["name"] for group in self._json("GET", "/apis")["groups"])

    def kind(self, version: str, kind: str) -> Kind | None:
        """A kind, or None when the server does not know it."""
        if version not in self._found:
            response = self._ask("GET", _root(version))
            told = self._body(response) if response.status_code != 404 else {"resources": []}
            self._found[version] = {
                one["kind"]: Kind(version, one["kind"], one["name"])
                for one in told["resources"]
                if "/" not in one["name"]
            }
        return self._found[version].get(kind)

    def get(self, kind: Kind, name: str) -> Object | None:
        """An object, or None when there is none of that name."""
        response = self._ask("GET", self._path(kind, name))
        return None if response.status_code == 404 else self._body(response)

    def list(self, kind: Kind, labels: str = "") -> Sequence[Object]:
        """The objects with these labels, by name; in pages."""
        found: list[Object] = []
        more = ""
        while True:
            asked = {"labelSelector": labels, "limit": str(_PAGE), "continue": more}
            told = self._json("GET", self._path(kind), {key: value for key, value in asked.items() if value})
            found += [{"apiVersion": kind.version, "kind": kind.kind, **item} for item in told.get("items") or ()]
            more = told["metadata"].get("continue") or ""
            if not more:
                return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    def apply(self, kind: Kind, item: Object, *, dry_run: bool = False, force: bool = False) -> Applied:
        """Server-side apply; a dry run writes nothing."""
        parameters = {"fieldManager": MANAGER, "force": "true" if force else "false"}
        if dry_run:
            parameters["dryRun"] = "All"
        path = self._path(kind, item["metadata"]["name"])
        response = self._ask("PATCH", path, parameters, item, "application/apply-patch+yaml")
        if response.status_code == 409:
            told = self._told(response)
            if conflicts := conflicts_of(told):
                return Applied(None, conflicts)
        if response.status_code in (400, 422) or self._is_admission(response):
            return Applied(None, refused=told_by(self._told(response), response.text))
        return Applied(self._body(response))

    def create(self, kind: Kind, item: Object) -> Object | None:
        """Create an object; None when there is one already."""
        response = self._ask("POST", self._path(kind), {"fieldManager": MANAGER}, item)
        return None if response.status_code == 409 else self._body(response)

    def replace(self, kind: Kind, item: Object) -> Object | None:
        """Write an object if it is still of its ``resourceVersion``; None when it is not, or is gone."""
        path = self._path(kind, item["metadata"]["name"])
        response = self._ask("PUT", path, {"fieldManager": MANAGER}, item)
        return None if response.status_code in (404, 409) else self._body(response)

    def delete(self, kind: Kind, name: str, uid: str = "") -> bool:
        """Delete an object, and in the background what it owns; whether there was one of that uid."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        response = self._ask("DELETE", self._path(kind, name), {}, options)
        if response.status_code in (404, 409):
            return False
        self._body(response)
        return True

    def log(self, pod: str, container: str, lines: int) -> Sequence[str]:
        """The last lines that a container wrote; of the one before, if it has just been started again."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        for before in ("false", "true"):
            asked = {"container": container, "tailLines": str(lines), "previous": before, "limitBytes": "65536"}
            try:
                response = self._ask("GET", path, asked)
            except MainspringError:
                return ()
            if response.status_code == 200 and response.text.strip():
                return response.text.splitlines()[-lines:]
        return ()

    def may(self, verb: str, group: str, plural: str) -> bool:
        """Whether the user may do that in the namespace."""
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": plural}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        told = self._json("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {}, review)
        return bool(told["status"].get("allowed"))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _path(self, kind: Kind, name: str = "") -> str:
        place = "" if kind.kind in _OF_THE_CLUSTER else f"/namespaces/{self.namespace}"
        return f"{_root(kind.version)}{place}/{kind.plural}" + (f"/{name}" if name else "")

    def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
    ) -> httpx2.Response:
        """Ask; what may pass is asked again, at most as often as is good for the server."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Accept": "application/json"} | ({} if data is None else {"Content-Type": media})
        for attempt in range(1, _TRIES + 1):
            try:
                response = self._client.request(method, path, params=parameters, content=data, headers=headers)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                if attempt == _TRIES or method == "POST":
                    raise unreachable(str(self._client.base_url), error) from error
                self._sleep(0.2 * 2**attempt)
                continue
            last = attempt == _TRIES or response.status_code not in _AGAIN
            if last or (method == "POST" and response.status_code != 429):
                return response
            self._sleep(_patience(response, attempt))
        raise AssertionError("the last attempt returns or raises")

    def _json(
        self, method: str, path: str, parameters: Mapping[str, str] | None = None, body: Object | None = None
    ) -> dict[str, Any]:
        return self._body(self._ask(method, path, parameters, body))

    def _body(self, response: httpx2.Response) -> dict[str, Any]:
        if response.is_success:
            told = self._told(response)
            if told:
                return told
        asked = f"{response.request.method} {response.request.url.path}"
        told_text = told_by(self._told(response), response.text)
        server = str(self._client.base_url)
        if response.status_code in (401, 403) and "exceeded quota" not in told_text:
            raise refused(server, response.status_code, asked, told_text)
        raise answered(server, response.status_code, asked, told_text)

    def _told(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            return {}
        return found if isinstance(found, dict) else {}

    def _is_admission(self, response: httpx2.Response) -> bool:
        """Whether a webhook or a policy says no to the object, not the server to the user."""
        if response.status_code != 403:
            return False
        message = str(self._told(response).get("message", ""))
        return "admission" in message or "violates PodSecurity" in message


def _root(version: str) -> str:
    return f"/api/{version}" if "/" not in version else f"/apis/{version}"


def _patience(response: httpx2.Response, attempt: int) -> float:
    """Seconds until the next try: what the server says, else twice as long each time."""
    said = response.headers.get("Retry-After", "")
    return min(float(said) if said.isdigit() else 0.2 * 2**attempt, _LONGEST_WAIT_S)
