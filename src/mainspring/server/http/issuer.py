"""The public keys of an OpenID Connect issuer, kept fresh off the path of requests."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import orjson

from mainspring.errors import ServiceError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import jwt
else:
    jwt = lazy("jwt")

__all__ = ["Issuer", "KeySet", "is_safe_url", "read_keys"]

_MOST_BYTES = 1 << 20
"""The greatest answer of an issuer."""
_MOST_KEYS = 256
_LEAST_RSA_BITS = 2048
_PAUSE_S = 10.0
"""The least time between two looks for a key that nobody has seen; whoever makes up names of keys causes no more."""
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CURVES = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


def is_safe_url(url: str) -> bool:
    """Whether keys may be asked for there: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


class KeySet(msgspec.Struct, frozen=True):
    """The keys of an issuer at one time.

    Attributes:
        named: by the key's name and the algorithm that it verifies.
        alone: by the algorithm, where exactly one key is for it; for tokens that name no key.
        text: what the issuer has sent.
    """

    named: Mapping[tuple[str, str], Any] = msgspec.field(default_factory=dict)
    alone: Mapping[str, Any] = msgspec.field(default_factory=dict)
    text: bytes = b""

    def find(self, name: str | None, algorithm: str) -> Any:
        """The key of a token's header; None where there is none for that algorithm."""
        return self.alone.get(algorithm) if name is None else self.named.get((name, algorithm))

    def knows(self, name: str) -> bool:
        """Whether there is a key of that name, for whatever algorithm."""
        return any(known == name for known, _ in self.named)


def read_keys(text: bytes, allowed: Sequence[str]) -> KeySet:
    """The public keys of a JWK set that verify one of the allowed algorithms; all others are left out.

    A key verifies only what its type, and its ``alg`` where it has one, is for: no text of a token can make a public
    key the secret of another algorithm.

    Raises:
        ValueError: it is no JWK set.
    """
    found = orjson.loads(text)
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or len(keys) > _MOST_KEYS:
        raise ValueError("it is no set of keys")
    named: dict[tuple[str, str], Any] = {}
    fitting: dict[str, list[Any]] = {}
    for one in keys:
        for algorithm in _algorithms(one):
            if algorithm not in allowed:
                continue
            try:
                key = jwt.PyJWK(one, algorithm)
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                continue  # a kind that is none of ours, or one that is broken: the others are as good as before
            if getattr(key.key, "key_size", _LEAST_RSA_BITS) < _LEAST_RSA_BITS and algorithm in _RSA:
                continue
            fitting.setdefault(algorithm, []).append(key)
            if isinstance(one.get("kid"), str):
                named.setdefault((one["kid"], algorithm), key)
    alone = {algorithm: those[0] for algorithm, those in fitting.items() if len(those) == 1}
    return KeySet(named, alone, text)


def _algorithms(key: object) -> Sequence[str]:
    """The algorithms that a key may verify; none for secrets, private keys, and keys that encrypt."""
    if not isinstance(key, dict) or "d" in key or key.get("use", "sig") != "sig":
        return ()
    operations = key.get("key_ops")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        return ()
    by_type: Sequence[str] = ()
    if key.get("kty") == "RSA":
        by_type = _RSA
    elif key.get("kty") == "EC":
        by_type = _CURVES.get(str(key.get("crv")), ())
    elif key.get("kty") == "OKP" and key.get("crv") == "Ed25519":
        by_type = ("EdDSA",)
    own = key.get("alg")
    return by_type if own is None else tuple(one for one in by_type if one == own)


class Issuer:
    """Fetches an issuer's keys in a thread of its own: at the start, now and then, and when a token names a new one.

    Args:
        url: the issuer's, as in its tokens.
        algorithms: those whose keys are kept.
        timeout: seconds that one answer of the issuer may take.
        refresh: seconds between two looks.
        told: told when the issuer cannot be asked, and when it can again.

    Attributes:
        keys: the newest that are known; None before the first. They stay while the issuer is away.
    """

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str],
        *,
        timeout: float,
        refresh: float,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.url = url
        self.keys: KeySet | None = None
        self._algorithms = tuple(algorithms)
        self._timeout = timeout
        self._refresh = refresh
        self._told = told
        self._fault = ""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._busy = True
        self._looked = -_PAUSE_S
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to keep the keys fresh."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="oidc-keys", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop; an answer that is awaited is waited for no longer than it may take."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._timeout + 1)

    def look_again(self) -> bool:
        """Fetch the keys soon, unless that was done just now; whether they are being fetched."""
        with self._lock:
            if self._busy:
                return True
            if time.monotonic() - self._looked < _PAUSE_S:
                return False
            self._busy = True
        self._wake.set()
        return True

    def _run(self) -> None:
        retry = _FIRST_RETRY_S
        while not self._stopped:
            with self._lock:
                self._busy = True
            self._wake.clear()
            try:
                self.fetch()
            except ServiceError as error:
                self._tell(error.what + (f": {error.why}" if error.why else ""), error)
                pause, retry = retry, min(2 * retry, _LAST_RETRY_S)
            else:
                self._tell("", None)
                pause, retry = self._refresh, _FIRST_RETRY_S
            finally:
                with self._lock:
                    self._busy = False
                    self._looked = time.monotonic()
            if not self._stopped:
                self._wake.wait(pause)

    def _tell(self, fault: str, error: ServiceError | None) -> None:
        if fault != self._fault:
            self._told(f"oidc        the keys of {self.url} are there again" if error is None else error.lines())
        self._fault = fault

    def fetch(self) -> None:
        """Ask the issuer for its keys, and take them over.

        Raises:
            ServiceError: MS-4385, it does not answer; MS-4386, what it says of itself is not its description; MS-4387,
                its keys are none that can be used.
        """
        page = self.url.rstrip("/") + "/.well-known/openid-configuration"
        try:
            described = orjson.loads(self._read(page))
            named = described["issuer"], described["jwks_uri"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._strange("what it answers is no description of an issuer") from error
        if named[0] != self.url:
            raise self._strange(f"it says that it is {str(named[0])[:200]!r}")
        if not isinstance(named[1], str) or not is_safe_url(named[1]):
            raise self._strange("its keys are at no address of https")
        text = self._read(named[1])
        if self.keys is not None and self.keys.text == text:
            return  # the same object: what was verified by it stays so
        try:
            found = read_keys(text, self._algorithms)
        except ValueError as error:
            raise self._unusable("what it answers is no set of keys") from error
        if not found.alone and not found.named:
            raise self._unusable(f"none of them verifies {', '.join(self._algorithms)}")
        self.keys = found

    def _read(self, url: str) -> bytes:
        """The body of an answer, whole within the time; addresses elsewhere are not followed."""
        until = time.monotonic() + self._timeout
        request = urllib.request.Request(url, headers={"accept": "application/json"})
        try:
            with _OPENER.open(request, timeout=self._timeout) as answer:
                parts, size = [], 0
                while part := answer.read1(65_536):
                    parts.append(part)
                    size += len(part)
                    if size > _MOST_BYTES:
                        raise OSError(f"its answer is larger than {_MOST_BYTES} bytes")
                    if time.monotonic() > until:
                        raise TimeoutError("its answer took too long")
                return b"".join(parts)
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                f"the issuer {self.url} does not answer",
                code="MS-4385",
                why=f"{url}: {error}",
                fix=f"curl {url}; tokens are answered with 503 until it does, and API keys go on working",
            ) from error

    def _strange(self, why: str) -> ServiceError:
        return ServiceError(
            f"{self.url} is no issuer of OpenID Connect",
            code="MS-4386",
            why=why,
            fix="server.oidc.issuer is what the tokens' iss says, to the letter",
        )

    def _unusable(self, why: str) -> ServiceError:
        return ServiceError(
            f"the keys of the issuer {self.url} cannot be used",
            code="MS-4387",
            why=why,
            fix="server.oidc.algorithms names those that the issuer signs with",
        )


class _Staying(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **named: Any) -> None:
        """None: what is elsewhere is not the issuer's."""


_OPENER = urllib.request.build_opener(_Staying)
