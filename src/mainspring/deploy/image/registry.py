"""A registry's client: the OCI distribution API over requests, with tokens by oras."""

from __future__ import annotations

import functools
import hashlib
import http.cookiejar
import os
import random
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mainspring.deploy.image.credentials import credentials
from mainspring.deploy.image.manifest import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Described,
)  # fmt: skip
from mainspring.deploy.image.problems import answered, corrupt, missing, refused, unreachable
from mainspring.deploy.image.reference import Reference
from mainspring.errors import ConfigError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import requests
    from oras import auth, container
else:  # not oras.provider: its schemas of manifests, which are not used here, take longer than a whole build
    requests, auth, container = lazy("requests"), lazy("oras.auth"), lazy("oras.container")

__all__ = ["Registry"]

_ACCEPTED = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
_TIMEOUTS = (10.0, 120.0)
"""Seconds to connect, and between two bytes."""
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_TRIES = 5
_LONGEST = 30.0
_CHUNK = 1 << 20
_MOST = 32 << 20
"""The most bytes of a manifest or a config."""

Body = Callable[[], "BinaryIO | bytes"]


class Registry:
    """One repository of a registry, and what is read from others through the same credentials.

    Args:
        at: the repository.
        sleep: waits so many seconds between two tries.
        tries: how often what may pass is asked for.

    Raises:
        ConfigError: MS-3090, oras is not installed; MS-3091, the docker config cannot be read.
    """

    def __init__(self, at: Reference, sleep: Callable[[float], None] = time.sleep, tries: int = _TRIES) -> None:
        self.at = at
        self._tries = tries
        self._sleep = sleep
        try:
            session: Any = requests.Session()
            self._auth: Any = auth.get_auth_backend("token", session, insecure=at.scheme == "http")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed",
                code="MS-3090",
                why="registries are spoken to by oras",
                fix="pip install 'mainspring[image]'",
            ) from error
        self._session = session
        # A registry that sets cookies takes whoever sends them back for a browser.
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self._session.request = functools.partial(self._session.request, timeout=_TIMEOUTS)
        self._token = ""
        self._auth._auth_config = credentials(at.host, os.environ)
        self._auth.load_configs(container.Container(f"{at.host}/{at.name}"))

    # -- reading ------------------------------------------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        return self._ask("HEAD", f"{self.at.root}/blobs/{digest}", (200, 404)).status_code == 200

    def has_manifest(self, digest: str) -> bool:
        """Whether the repository has a manifest."""
        return self.digest_of(digest) == digest

    def digest_of(self, wanted: str) -> str:
        """The digest that a tag stands for now; empty when there is no such one."""
        head = self._ask("HEAD", f"{self.at.root}/manifests/{wanted}", (200, 404), headers=_accept())
        if head.status_code == 404:
            return ""
        return str(head.headers.get("Docker-Content-Digest", ""))

    def manifest(self, wanted: str) -> Described:
        """A manifest or an index by its tag or digest.

        Raises:
            ServiceError: MS-4080 to MS-4084.
        """
        answer = self._ask("GET", f"{self.at.root}/manifests/{wanted}", (200, 404), headers=_accept())
        if answer.status_code == 404:
            tag, digest = ("", wanted) if ":" in wanted else (wanted, "")
            raise missing(Reference(self.at.host, self.at.name, tag, digest))
        data: bytes = answer.content
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if wanted.startswith("sha256:") and wanted != digest:
            raise corrupt(self.at, wanted, digest)
        kind = str(answer.headers.get("Content-Type", "")).partition(";")[0].strip()
        return Described(kind, digest, len(data), data)

    def blob(self, digest: str) -> bytes:
        """A small blob, verified."""
        found = b"".join(self._blob(digest, _MOST))
        return found

    def fetch(self, digest: str, file: BinaryIO) -> None:
        """Write a blob to a file, verified; what was written of a try that failed is written over."""
        for tries in range(self._tries):
            file.seek(0)
            file.truncate()
            try:
                for piece in self._blob(digest, None):
                    file.write(piece)
                return
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                if tries == self._tries - 1:
                    raise unreachable(self.at, error) from error
                self._wait(tries)

    def _blob(self, digest: str, most: int | None) -> Iterator[bytes]:
        answer = self._ask("GET", f"{self.at.root}/blobs/{digest}", (200, 404), stream=True)
        with answer:
            if answer.status_code == 404:
                raise missing(Reference(self.at.host, self.at.name, "", digest))
            seen, size = hashlib.sha256(), 0
            for piece in answer.iter_content(_CHUNK):
                seen.update(piece)
                size += len(piece)
                if most is not None and size > most:
                    raise corrupt(self.at, digest, "more bytes than a config may have")
                yield piece
        if (found := f"sha256:{seen.hexdigest()}") != digest:
            raise corrupt(self.at, digest, found)

    # -- writing ------------------------------------------------------------------------------------------------

    def mount(self, digest: str, source: str) -> bool:
        """Take a blob over from another repository of the same registry; whether that was possible."""
        query = urllib.parse.urlencode({"mount": digest, "from": source})
        answer = self._ask("POST", f"{self.at.root}/blobs/uploads/?{query}", (201, 202), data=lambda: b"")
        return bool(answer.status_code == 201)

    def upload(self, digest: str, size: int, path: Path) -> None:
        """Upload a blob: one POST, one PUT; a try that fails begins anew.

        Raises:
            ServiceError: MS-4080 to MS-4083; RefusedError: MS-5070, a quota.
        """
        self.put_blob(digest, size, lambda: open(path, "rb"))  # noqa: SIM115 - `_send` closes it

    def put_blob(self, digest: str, size: int, body: Body) -> None:
        """Upload a blob from what `body` opens, once a try."""
        for tries in range(self._tries):
            begun = self._ask("POST", f"{self.at.root}/blobs/uploads/", (202,), data=lambda: b"")
            where = urllib.parse.urljoin(begun.url, begun.headers["Location"])
            query = ("&" if "?" in where else "?") + urllib.parse.urlencode({"digest": digest})
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            answer = self._once("PUT", where + query, headers=headers, data=body)
            if answer is not None and answer.status_code == 201:
                return
            if answer is not None and answer.status_code not in _AGAIN | {400, 404, 416}:
                raise answered(self.at, answer)
            # What a broken try has left of its upload is of no use: the next one has an upload of its own.
            if tries == self._tries - 1:
                raise answered(self.at, answer) if answer is not None else unreachable(self.at, "the upload breaks off")
            self._wait(tries, answer)

    def put_manifest(self, wanted: str, found: Described) -> Mapping[str, str]:
        """Put a manifest's own bytes under a tag or its digest; the headers of the answer."""
        headers = {"Content-Type": found.media_type}
        answer = self._ask(
            "PUT", f"{self.at.root}/manifests/{wanted}", (201,), headers=headers, data=lambda: found.data
        )
        return dict(answer.headers)

    # -- asking -------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        url: str,
        wanted: tuple[int, ...],
        *,
        headers: Mapping[str, str] | None = None,
        data: Body | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Ask until there is an answer that is one."""
        for tries in range(self._tries):
            answer = self._once(method, url, headers=headers or {}, data=data, stream=stream)
            if answer is not None and answer.status_code in wanted:
                return answer
            last = tries == self._tries - 1
            if answer is None and last:
                raise unreachable(self.at, self._fault)
            if answer is not None and (last or answer.status_code not in _AGAIN):
                raise missing(self.at) if answer.status_code == 404 else answered(self.at, answer)
            self._wait(tries, answer)
        raise AssertionError("every try ends in an answer or an error")

    _fault = "no connection"

    def _once(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: Body | None = None,
        stream: bool = False,
    ) -> requests.Response | None:
        """One request, with a new token when the one at hand is not taken; None when the connection broke.

        oras sends a body once and no more, so a request that it would repeat after a 401 is repeated here, with its
        body opened anew. Where a registry leads to another host it is not said who we are: the token is the registry's.

        Raises:
            ServiceError: MS-4081, the registry refuses.
        """
        answer, own = None, _origin(url) == _origin(self.at.root)
        for _ in range(3):
            token = self._token if own else ""
            sent = {**headers, **({"Authorization": token} if token else {})}
            try:
                answer = self._send(method, url, sent, data, stream)
            except (requests.ConnectionError, requests.Timeout) as error:
                self._fault = str(unreachable(self.at, error).why)
                return None
            if answer.status_code not in (401, 403) or not own or not self._authorised(answer, token):
                break
        if answer is not None and answer.status_code in (401, 403):
            raise refused(self.at, answer, bool(getattr(self._auth, "_basic_auth", "")))
        return answer

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: Body | None, stream: bool
    ) -> requests.Response:
        body = None if data is None else data()
        try:
            answer: requests.Response = self._session.request(method, url, headers=headers, data=body, stream=stream)
            return answer
        finally:
            if body is not None and not isinstance(body, bytes):
                body.close()

    def _authorised(self, answer: requests.Response, used: str) -> bool:
        """Get a token for what was refused; whether there is one that was not refused yet."""
        if self._token != used:
            return True  # another thread has got a new one meanwhile
        challenge = answer.headers.get("Www-Authenticate", "")
        basic = getattr(self._auth, "_basic_auth", "") or ""
        if challenge.lower().startswith("basic"):
            fresh = f"Basic {basic}" if basic else ""
        else:
            fresh = self._bearer(answer) if challenge else ""
        if not fresh or (fresh == used and challenge.lower().startswith("basic")):
            return False
        self._token = fresh
        return True

    def _bearer(self, answer: requests.Response) -> str:
        try:
            headers, changed = self._auth.authenticate_request(answer, {}, refresh=True)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise unreachable(self.at, error) from error
        except (AttributeError, ValueError):  # a challenge, or a token server's answer, that is none
            return ""
        return str(headers.get("Authorization", "")) if changed else ""

    def _wait(self, tries: int, answer: requests.Response | None = None) -> None:
        """Wait before another try: as long as the registry says, else twice as long each time, and a little apart."""
        said = "" if answer is None else answer.headers.get("Retry-After", "")
        seconds = float(said) if said.isdigit() else 0.5 * 2**tries * (1 + random.random() / 4)
        self._sleep(min(seconds, _LONGEST))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Whom a URL asks."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(_ACCEPTED)}
