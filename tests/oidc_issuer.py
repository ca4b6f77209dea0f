"""An OpenID Connect issuer on loopback: discovery, keys that rotate, and tokens of every kind, signed by joserfc."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

__all__ = ["ALL", "Issued", "encoded", "issuer"]

ALL = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "none"]
_GROUP = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_DISCOVERY = "/realms/main/.well-known/openid-configuration"


def encoded(value: object) -> str:
    """Base64url of bytes, or of something as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issued:
    """The issuer.

    Attributes:
        url: as in its tokens.
        keys: its signing keys by their names; each with the algorithm that it signs with.
        described: what its description says; a test may change it.
        asked: the paths that were asked, in order.
        failing: the status that it answers with instead, or 0.
        published: what is sent as its keys, when it is not `keys`.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Any]] = {}
        self.asked: list[str] = []
        self.failing = 0
        self.published: bytes | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if outer.failing:
                    self.send_response(outer.failing)
                    self.send_header("location", f"http://127.0.0.1:{outer.port}/elsewhere")
                    self.end_headers()
                    return
                pages = {_DISCOVERY: json.dumps(outer.described).encode(), "/keys": outer.set()}
                body = pages.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/realms/main"
        self.described: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"http://127.0.0.1:{self.port}/keys"}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def rotate(self, name: str, algorithm: str = "RS256", *, keep: bool = False) -> None:
        """Sign with a new key, and publish the old ones no more unless they are kept."""
        made: Any
        if algorithm in _GROUP:
            made = ECKey.generate_key(_GROUP[algorithm])
        elif algorithm == "EdDSA":
            made = OKPKey.generate_key("Ed25519")
        else:
            made = RSAKey.generate_key(2048)
        self.keys = {**(self.keys if keep else {}), name: (algorithm, made)}

    def set(self) -> bytes:
        """Its JWK set."""
        if self.published is not None:
            return self.published
        shown = [
            {**key.as_dict(private=False), "kid": name, "alg": algorithm, "use": "sig"}
            for name, (algorithm, key) in self.keys.items()
        ]
        return json.dumps({"keys": shown}).encode()

    def claims(self, **claims: object) -> dict[str, object]:
        """The claims of a good token, with others in their place; None takes one away."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": "mainspring", "sub": "ada", "iat": now, "exp": now + 600}
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}

    def token(
        self,
        name: str = "",
        *,
        header: Mapping[str, object] | None = None,
        key: Any = None,
        payload: bytes | None = None,
        **claims: object,
    ) -> str:
        """A token signed by one of its keys.

        Args:
            name: of the key; its newest when left out.
            header: what its header says beside, or instead.
            key: signs in the place of the issuer's own.
            payload: instead of the claims.
            claims: see `claims`.
        """
        name = name or list(self.keys)[-1]
        algorithm, own = self.keys[name]
        said = {"alg": algorithm, "kid": name, "typ": "JWT", **(header or {})}
        said = {one: value for one, value in said.items() if value is not None}
        body = json.dumps(self.claims(**claims)).encode() if payload is None else payload
        registry = jws.JWSRegistry(algorithms=ALL, strict_check_header=False)
        with warnings.catch_warnings():  # the name EdDSA is out of favour (RFC 9864), and what issuers use
            warnings.simplefilter("ignore", SecurityWarning)
            return jws.serialize_compact(said, body, key or own, registry=registry)

    def forged(self, secret: bytes, **header: object) -> str:
        """A token that is signed by a secret which everybody knows."""
        said = {"alg": "HS256", "typ": "JWT", **header}
        text = f"{encoded(said)}.{encoded(self.claims())}"
        return f"{text}.{encoded(hmac.digest(secret, text.encode(), 'sha256'))}"  # joserfc refuses to be so unwise

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def issuer() -> Iterator[Issued]:
    """An issuer with one key of RSA, named ``one``."""
    made = Issued()
    made.rotate("one")
    try:
        yield made
    finally:
        made.close()
