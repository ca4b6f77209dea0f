"""Tokens of a real issuer: those that let in, and every way to make one that must not."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import OctKey, RSAKey

from mainspring.declare.identity import Identity
from mainspring.errors import ServiceError
from mainspring.protocols.http import Fault
from mainspring.server.http.callers import Callers, digest_of
from mainspring.server.http.issuer import Issuer, is_safe_url, read_keys
from mainspring.server.http.tokens import ALGORITHMS, Claims, Tokens
from oidc_issuer import Issued, encoded, issuer


@pytest.fixture(scope="module")
def issued() -> Iterator[Issued]:
    """An issuer with a key of each kind."""
    with issuer() as made:
        for algorithm in ("PS256", "ES256", "ES384", "ES512", "EdDSA"):
            made.rotate(algorithm.lower(), algorithm, keep=True)
        made.rotate("second", "ES256", keep=True)
        yield made


def tokens(issued: Issued, claims: Claims = Claims(), *, leeway: float = 5.0, fetched: bool = True) -> Tokens:  # noqa: B008
    made = Tokens(Issuer(issued.url, ALGORITHMS, timeout=5, refresh=300), ["mainspring"], ALGORITHMS, claims, leeway)
    if fetched:
        made.issuer.fetch()
        made.issuer._busy = False  # as its thread leaves it
    return made


def refused(verifier: Tokens, token: str) -> tuple[int, str]:
    with pytest.raises(Fault) as found:
        verifier.of(token.encode())
    return found.value.status, found.value.message.removeprefix("the token is not accepted: ")


@pytest.mark.parametrize("name", ["one", "ps256", "es256", "es384", "es512", "eddsa"])
def test_a_token_of_each_algorithm_lets_in(issued: Issued, name: str) -> None:
    assert tokens(issued).of(issued.token(name).encode()) == Identity("ada")


def test_a_token_may_name_no_key_where_there_is_one_of_its_kind(issued: Issued) -> None:
    assert tokens(issued).of(issued.token("one", header={"kid": None}).encode()) == Identity("ada")


def test_claims_say_who_somebody_is(issued: Issued) -> None:
    verifier = tokens(issued, Claims("email", "realm_access.roles", "https://example.org/tenant"))
    token = issued.token(
        email="ada@example.org",
        realm_access={"roles": ["staff", "staff", 7, "", "ops"]},
        **{"https://example.org/tenant": "acme"},
    )
    assert verifier.of(token.encode()) == Identity("ada@example.org", ("staff", "ops"), "acme")
    assert verifier.of(issued.token(email="bob").encode()) == Identity("bob")
    assert refused(verifier, issued.token()) == (401, "it names no user")
    wrong = issued.token(email="eve", **{"https://example.org/tenant": ["acme", "umbrella"]})
    assert refused(verifier, wrong) == (401, "its tenant is no name")


def test_the_audience_may_be_one_of_several_and_the_clock_a_little_wrong(issued: Issued) -> None:
    verifier, now = tokens(issued), int(time.time())
    for claims in ({"aud": ["other", "mainspring"]}, {"exp": now - 2}, {"nbf": now + 3}, {"iat": now + 3}):
        assert verifier.of(issued.token(**claims).encode()) == Identity("ada")


def public_pem(issued: Issued) -> bytes:
    return issued.keys["one"][1].as_pem(private=False)


def unsigned(issued: Issued, header: object, signature: bytes = b"") -> str:
    """A token of any header, with what is no signature."""
    return f"{encoded(header)}.{encoded(issued.claims())}.{encoded(signature)}"


HOSTILE: dict[str, tuple[Callable[[Issued], str], str]] = {
    "expired": (lambda i: i.token(exp=int(time.time()) - 60), "it has expired"),
    "not yet": (lambda i: i.token(nbf=int(time.time()) + 60), "it is not valid yet"),
    "from the future": (lambda i: i.token(iat=int(time.time()) + 60), "it is not valid yet"),
    "no end": (lambda i: i.token(exp=None), "it lacks a claim"),
    "endless": (
        lambda i: i.token(payload=json.dumps(i.claims(exp="end")).replace('"end"', "1e999").encode()),
        "it is not valid",
    ),
    "no audience": (lambda i: i.token(aud=None), "it lacks a claim"),
    "another audience": (lambda i: i.token(aud="billing"), "it is for somebody else"),
    "part of the audience": (lambda i: i.token(aud="mainspring2"), "it is for somebody else"),
    "another issuer": (lambda i: i.token(iss="https://evil.example.org"), "it is of another issuer"),
    "the issuer with a slash": (lambda i: i.token(iss=i.url + "/"), "it is of another issuer"),
    "no user": (lambda i: i.token(sub=None), "it names no user"),
    "an empty user": (lambda i: i.token(sub=""), "it names no user"),
    "a user of two lines": (lambda i: i.token(sub="ada\nroot"), "it names no user"),
    "a list of claims": (lambda i: i.token(payload=b"[1]"), "it is not valid"),
    "no algorithm": (lambda i: unsigned(i, {"alg": "none"}), "its algorithm is not accepted"),
    "nOnE": (
        lambda i: unsigned(i, {"alg": "nOnE", "kid": "one"}),
        "its algorithm is not accepted",
    ),
    "an algorithm in a list": (
        lambda i: unsigned(i, {"alg": ["RS256"], "kid": "one"}, b"x"),
        "its algorithm is not accepted",
    ),
    "the public key as a secret": (lambda i: i.forged(public_pem(i), kid="one"), "its algorithm is not accepted"),
    "the key set as a secret": (lambda i: i.forged(i.set(), kid="one"), "its algorithm is not accepted"),
    "a secret by path": (lambda i: i.forged(b"x" * 32, kid="../../dev/null"), "its algorithm is not accepted"),
    "another algorithm of the same key": (lambda i: i.token("one", header={"alg": "PS256"}), "its key is not known"),
    "another curve": (lambda i: i.token("es256", header={"kid": "es384"}), "its key is not known"),
    "another key under the name": (lambda i: i.token("one", key=RSAKey.generate_key(2048)), "its signature is wrong"),
    "its own key in the header": (
        lambda i: own_key(i, "jwk"),
        "its signature is wrong",
    ),
    "a key elsewhere": (lambda i: own_key(i, "jku"), "its signature is wrong"),
    "no name of a key, of which there are several": (lambda i: i.token("es256", header={"kid": None}), ""),
    "a name that is a number": (
        lambda i: unsigned(i, {"alg": "RS256", "kid": 1}, b"x"),
        "it is no signed token",
    ),
    "what must be understood": (
        lambda i: unsigned(i, {"alg": "RS256", "kid": "one", "crit": ["b64"], "b64": True}, b"x"),
        "it is of a kind that is not accepted",
    ),
    "a token of another kind": (
        lambda i: i.token(header={"typ": "logout+jwt"}),
        "it is of a kind that is not accepted",
    ),
    "a changed claim": (lambda i: changed(i.token()), "its signature is wrong"),
    "no signature": (lambda i: i.token().rpartition(".")[0] + ".", "its signature is wrong"),
    "words": (lambda i: "a.b.c", "it is no signed token"),
    "emptiness": (lambda i: "..", "it is no signed token"),
    "a deep header": (lambda i: encoded(b"[" * 9000) + ".e30.", "it is no signed token"),
    "too long": (lambda i: i.token(sub="a" * 20_000), "it is too long"),
    "too many groups": (lambda i: i.token(groups=[str(n) for n in range(1001)]), "it names too many groups"),
}


def own_key(issued: Issued, member: str) -> str:
    """A token that brings the key by which it is to be verified."""
    mine = RSAKey.generate_key(2048)
    there = mine.as_dict(private=False) if member == "jwk" else f"http://127.0.0.1:{issued.port}/evil"
    return issued.token("one", header={member: there}, key=mine)


def changed(token: str) -> str:
    head, body, signature = token.split(".")
    middle = len(body) // 2
    return f"{head}.{body[:middle]}{'A' if body[middle] != 'A' else 'B'}{body[middle + 1 :]}.{signature}"


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_token_is_refused(issued: Issued, case: str) -> None:
    make, why = HOSTILE[case]
    verifier = tokens(issued)
    before = list(issued.asked)
    status, said = refused(verifier, make(issued))
    assert status == 401
    assert why in said
    assert issued.asked == before, "a refusal asks nobody"
    assert not verifier._kept


def test_no_request_asks_the_issuer_and_a_verdict_ends_with_the_token(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier, token = tokens(issued, leeway=0), issued.token(exp=int(time.time()) + 100).encode()
    before = list(issued.asked)
    identity = verifier.of(token)
    verified: list[bytes] = []
    whole = Tokens._verified
    monkeypatch.setattr(Tokens, "_verified", lambda self, given: verified.append(given) or whole(self, given))
    assert all(verifier.of(token) is identity for _ in range(50))
    assert not verified
    assert issued.asked == before
    later = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: later)
    verifier.of(token)  # PyJWT reads another clock, which is still before its end
    assert verified == [token]


def test_verdicts_are_bounded(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.server.http.tokens._MOST_KEPT", 3)
    verifier = tokens(issued)
    for number in range(6):
        verifier.of(issued.token("eddsa", sub=f"user-{number}").encode())
        assert len(verifier._kept) <= 3


def test_a_key_that_is_published_no_more_ends_the_verdicts_that_it_gave() -> None:
    with issuer() as made:
        verifier, old = tokens(made), made.token().encode()
        assert verifier.of(old) == Identity("ada")
        keys = verifier.issuer.keys
        verifier.issuer.fetch()
        assert verifier.issuer.keys is keys, "the same keys are the same set, and verdicts stay"
        made.rotate("two")
        verifier.issuer.fetch()
        verifier.issuer._looked = time.monotonic()
        assert refused(verifier, old.decode()) == (401, "its key is not known")
        assert verifier.of(made.token().encode()) == Identity("ada")


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_issuer_that_is_away_is_waited_for_and_a_new_key_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with issuer() as made:
        made.failing = 302
        verifier = tokens(made, fetched=False)
        verifier.issuer._told = told.append
        assert refused(verifier, made.token())[0] == 503
        verifier.issuer.start()
        try:
            until(lambda: bool(told))
            assert "MS-4385" in told[0]
            assert "/elsewhere" not in made.asked
            made.failing = 0
            until(lambda: len(told) == 2)
            assert verifier.of(made.token().encode()) == Identity("ada")
            asked = len(made.asked)
            made.rotate("two", keep=True)
            # Within the pause nobody is asked, whoever names keys that there are none of.
            until(lambda: not verifier.issuer._busy)
            assert {refused(verifier, made.token(header={"kid": f"k{n}"}))[0] for n in range(50)} == {401}
            assert len(made.asked) == asked
            monkeypatch.setattr("mainspring.server.http.issuer._PAUSE_S", 0.0)
            assert refused(verifier, made.token("two"))[0] == 503
            until(lambda: verifier.issuer.keys is not None and verifier.issuer.keys.knows("two"))
            assert verifier.of(made.token("two").encode()) == Identity("ada")
            assert len(made.asked) == asked + 2
            made.failing = 500
            verifier.issuer.look_again()
            until(lambda: len(told) == 3)
            assert verifier.of(made.token("two", sub="bob").encode()) == Identity("bob"), "the known keys stay"
        finally:
            verifier.issuer.stop()
    assert verifier.issuer._thread is not None
    assert not verifier.issuer._thread.is_alive()


def test_an_issuer_that_is_not_itself_is_refused(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    for described in (
        {"issuer": "https://other.example.org", "jwks_uri": issued.described["jwks_uri"]},
        {"issuer": issued.url, "jwks_uri": "http://keys.example.org/"},
        {"issuer": issued.url, "jwks_uri": "file:///etc/passwd"},
        {"issuer": issued.url},
        [],
    ):
        monkeypatch.setattr(issued, "described", described)
        with pytest.raises(ServiceError) as found:
            tokens(issued)
        assert found.value.code == "MS-4386"
    monkeypatch.undo()
    secret = OctKey.generate_key(256).as_dict()
    for published in (b"[]", b"{", b'{"keys": 3}', json.dumps({"keys": [secret, 7, {}]}).encode()):
        monkeypatch.setattr(issued, "published", published)
        with pytest.raises(ServiceError) as found:
            tokens(issued)
        assert found.value.code == "MS-4387"
    monkeypatch.setattr(issued, "published", b" " * (1 << 20) + b"{}")
    with pytest.raises(ServiceError) as found:
        tokens(issued)
    assert found.value.code == "MS-4385"


def test_only_keys_that_verify_are_kept() -> None:
    strong = RSAKey.generate_key(2048)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        weak = RSAKey.generate_key(1024)
    public = strong.as_dict(private=False)
    shown = [
        {**weak.as_dict(private=False), "kid": "weak"},
        {**strong.as_dict(private=True), "kid": "private"},
        {**public, "kid": "encrypts", "use": "enc"},
        {**public, "kid": "wraps", "key_ops": ["wrapKey"]},
        {**public, "kid": "other", "alg": "RSA-OAEP"},
        {**public, "kid": "broken", "n": "!"},
        {"kty": "oct", "k": encoded(b"x" * 32), "kid": "secret"},
        {**public, "kid": "good"},
    ]
    found = read_keys(json.dumps({"keys": shown}).encode(), ("RS256", "HS256"))
    assert set(found.named) == {("good", "RS256")}
    assert set(found.alone) == {"RS256"}


def test_a_key_beside_tokens(issued: Issued) -> None:
    callers = Callers([(digest_of(b"a.b.c"), Identity("key"))], tokens(issued))
    assert callers.of(b"a.b.c") == Identity("key")
    assert callers.of(b"nobody") is None
    assert callers.of(issued.token().encode()) == Identity("ada")
    assert bool(Callers((), tokens(issued)))


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example.org/realms/main", True),
        ("http://127.0.0.1:80/", True),
        ("http://[::1]:80/", True),
        ("http://login.example.org/", False),
        ("http://127.0.0.1.example.org/", False),
        ("https://user:word@example.org/", False),
        ("https://example.org:port/", False),
        ("file:///etc/passwd", False),
        ("https:///x", False),
    ],
)  # fmt: skip
def test_addresses_of_issuers(url: str, safe: bool) -> None:
    assert is_safe_url(url) is safe
