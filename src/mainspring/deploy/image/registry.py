"""A registry's client: the OCI distribution API, with tokens by oras."""

from __future__ import annotations

import contextlib
import functools
import hashlib
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
from mainspring.deploy.image.problems import answered, corrupt, missing, no_repository, refused, unreachable
from mainspring.deploy.image.reference import Reference
from mainspring.deploy.image.wire import BROKEN, Answer, Body, Wire, origin_of
from mainspring.errors import ConfigError, MainspringError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import requests
    from oras import auth, container
else:  # for a registry that wants to know who asks; not oras.provider, whose schemas of manifests take longer still
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
        self._wire = Wire(_TIMEOUTS)
        self._token = ""
        self._uploads: list[str] = []
        self._known = credentials(at.host, os.environ)

    @functools.cached_property
    def _auth(self) -> Any:
        """What answers a registry that asks who we are."""
        try:
            session = requests.Session()
            found: Any = auth.get_auth_backend("token", session, insecure=self.at.scheme == "http")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed",
                code="MS-3090",
                why="registries are told by oras who asks",
                fix="pip install 'mainspring[image]'",
            ) from error
        session.request = functools.partial(session.request, timeout=_TIMEOUTS)  # type: ignore[method-assign]
        found._auth_config = self._known
        found.load_configs(container.Container(f"{self.at.host}/{self.at.name}"))
        return found

    # -- reading ------------------------------------------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        return self._ask("HEAD", f"{self.at.root}/blobs/{digest}", (200, 404)).status == 200

    def digest_of(self, wanted: str) -> str:
        """The digest that a tag stands for now; empty when there is no such one."""
        head = self._ask("HEAD", f"{self.at.root}/manifests/{wanted}", (200, 404), headers=_accept())
        if head.status == 404:
            return ""
        return str(head.headers.get("Docker-Content-Digest", ""))

    def manifest(self, wanted: str) -> Described:
        """A manifest or an index by its tag or digest.

        Raises:
            ServiceError: MS-4080 to MS-4084.
        """
        answer = self._ask("GET", f"{self.at.root}/manifests/{wanted}", (200, 404), headers=_accept())
        if answer.status == 404:
            tag, digest = ("", wanted) if ":" in wanted else (wanted, "")
            raise missing(Reference(self.at.host, self.at.name, tag, digest))
        data: bytes = answer.body
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
            except BROKEN as error:
                if tries == self._tries - 1:
                    raise unreachable(self.at, error) from error
                self._wait(tries)

    def _blob(self, digest: str, most: int | None) -> Iterator[bytes]:
        answer = self._ask("GET", f"{self.at.root}/blobs/{digest}", (200, 404), stream=True)
        with contextlib.closing(answer):
            if answer.status == 404:
                raise missing(Reference(self.at.host, self.at.name, "", digest))
            seen, size = hashlib.sha256(), 0
            for piece in answer.pieces(_CHUNK):
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
        return bool(answer.status == 201)

    def upload(self, digest: str, size: int, path: Path) -> None:
        """Upload a blob: one POST, one PUT; a try that fails begins anew.

        Raises:
            ServiceError: MS-4080 to MS-4083; RefusedError: MS-5070, a quota.
        """
        self.put_blob(digest, size, lambda: open(path, "rb"))  # noqa: SIM115 - who sends it closes it

    def put_blob(self, digest: str, size: int, body: Body) -> None:
        """Upload a blob from what `body` opens, once a try."""
        for tries in range(self._tries):
            where = self._taken() or self._begun()
            query = ("&" if "?" in where else "?") + urllib.parse.urlencode({"digest": digest})
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            answer = self._once("PUT", where + query, headers=headers, data=body)
            if answer is not None and answer.status == 201:
                return
            if answer is not None and answer.status not in _AGAIN | {400, 404, 416}:
                raise answered(self.at, answer)
            # What a broken try has left of its upload is of no use: the next one has an upload of its own.
            if tries == self._tries - 1:
                raise answered(self.at, answer) if answer is not None else unreachable(self.at, "the upload breaks off")
            self._wait(tries, answer)

    def _begun(self) -> str:
        answer = self._ask("POST", f"{self.at.root}/blobs/uploads/", (202, 404), data=lambda: b"")
        if answer.status == 404:
            raise no_repository(self.at)
        return urllib.parse.urljoin(answer.url, str(answer.headers["Location"]))

    def _taken(self) -> str:
        """The upload that `knock` has begun, for the first that wants one."""
        with contextlib.suppress(IndexError):
            return self._uploads.pop()
        return ""

    def knock(self) -> None:
        """Begin an upload, as only who may push can; the first blob that is sent takes it.

        Raises:
            ServiceError: MS-4080, MS-4081, MS-4083, MS-8303, there is no repository; RefusedError: MS-5070.
        """
        self._uploads.append(self._begun())

    def leave(self) -> None:
        """Take back an upload that `knock` has begun and that nothing has taken; a registry forgets it, if not now."""
        if where := self._taken():
            with contextlib.suppress(MainspringError):
                self._once("DELETE", where, headers={})

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
    ) -> Answer:
        """Ask until there is an answer that is one."""
        for tries in range(self._tries):
            answer = self._once(method, url, headers=headers or {}, data=data, stream=stream)
            if answer is not None and answer.status in wanted:
                return answer
            last = tries == self._tries - 1
            if answer is None and last:
                raise unreachable(self.at, self._fault)
            if answer is not None and (last or answer.status not in _AGAIN):
                raise missing(self.at) if answer.status == 404 else answered(self.at, answer)
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
    ) -> Answer | None:
        """One request, with a new token when the one at hand is not taken; None when the connection broke.

        oras sends a body once and no more, so a request that it would repeat after a 401 is repeated here, with its
        body opened anew. Where a registry leads to another host it is not said who we are: the token is the registry's.

        Raises:
            ServiceError: MS-4081, the registry refuses.
        """
        answer, own = None, origin_of(url) == origin_of(self.at.root)
        for _ in range(3):
            token = self._token if own else ""
            sent = {**headers, **({"Authorization": token} if token else {})}
            try:
                answer = self._wire.ask(method, url, sent, data)
                if not stream or answer.status >= 300:
                    _ = answer.body
            except BROKEN as error:
                self._fault = str(unreachable(self.at, error).why)
                return None
            if answer.status not in (401, 403) or not own or not self._authorised(answer, token):
                break
        if answer is not None and answer.status in (401, 403):
            raise refused(self.at, answer, bool(getattr(self._auth, "_basic_auth", "")))
        return answer

    def _authorised(self, answer: Answer, used: str) -> bool:
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

    def _bearer(self, answer: Answer) -> str:
        try:
            headers, changed = self._auth.authenticate_request(answer, {}, refresh=True)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise unreachable(self.at, error) from error
        except (AttributeError, ValueError):  # a challenge, or a token server's answer, that is none
            return ""
        return str(headers.get("Authorization", "")) if changed else ""

    def _wait(self, tries: int, answer: Answer | None = None) -> None:
        """Wait before another try: as long as the registry says, else twice as long each time, and a little apart."""
        said = "" if answer is None else answer.headers.get("Retry-After", "")
        seconds = float(said) if said.isdigit() else 0.5 * 2**tries * (1 + random.random() / 4)
        self._sleep(min(seconds, _LONGEST))


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(_ACCEPTED)}
