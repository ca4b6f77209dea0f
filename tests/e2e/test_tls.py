"""HTTPS: the endpoints and the management listener prove who they are, and may ask the same of clients."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import signed_certificate
from e2e.conftest import free_port, mainspring
from mainspring.client import AnswerError, Client

ROW = {"customer": "c1", "amount": 12.5}
SETTINGS = """
[server]
certificate = "tls.crt"
private_key = "tls.key"
client_ca = "signers.crt"

[management]
certificate = "tls.crt"
private_key = "tls.key"
"""


@pytest.fixture(scope="module")
def secured(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, int]]:
    """A server that wants certificates of its clients, on which nobody but its clients' signer may call."""
    project = tmp_path_factory.mktemp("tls") / "shop"
    shutil.copytree(built, project)
    for name in ("tls", "clients", "expired", "strange"):
        certificate, key = signed_certificate("localhost", days=-1 if name == "expired" else 1)
        (project / f"{name}.crt").write_bytes(certificate)
        (project / f"{name}.key").write_bytes(key)
    (project / "signers.crt").write_bytes(b"".join((project / f"{n}.crt").read_bytes() for n in ("clients", "expired")))
    with open(project / "mainspring.toml", "a") as settings:
        settings.write(SETTINGS)
    port, management = free_port(), free_port()
    log = project / "server.log"
    words = ["dev", "--no-watch", "--port", str(port), "--console-port", str(management)]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mainspring.cli", *words], cwd=project, stdout=output, stderr=output
        )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if asked(project, f"https://localhost:{port}/v2/health/ready", mutual=True)[0] == 200:
                break
        except OSError:
            time.sleep(0.1)
    yield project, port, management
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()
    assert f"https://127.0.0.1:{port}" in log.read_text()


def context(project: Path, *, mutual: bool, name: str = "clients") -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=project / "tls.crt")
    if mutual:
        found.load_cert_chain(project / f"{name}.crt", project / f"{name}.key")
    return found


def asked(project: Path, url: str, *, mutual: bool, body: object = None, name: str = "clients") -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            url, data, timeout=30, context=context(project, mutual=mutual, name=name)
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_who_has_a_certificate_is_answered(secured: tuple[Path, int, int]) -> None:
    project, port, management = secured
    status, body = asked(project, f"https://localhost:{port}/endpoint/returns", mutual=True, body=ROW)
    assert (status, json.loads(body)["model"]) == (200, "returns")
    big = {"rows": [ROW] * 5000}
    _, body = asked(project, f"https://localhost:{port}/endpoint/returns/batch", mutual=True, body=big)
    assert len(json.loads(body)["predictions"]) == 5000
    assert asked(project, f"https://localhost:{management}/actuator/health", mutual=False)[0] == 200
    assert asked(project, f"https://localhost:{management}/", mutual=False)[0] == 200  # the console


def test_nobody_else_is(secured: tuple[Path, int, int]) -> None:
    project, port, _ = secured
    with pytest.raises(OSError, match=r"(?i)certificate|reset|closed|eof"):
        asked(project, f"https://localhost:{port}/endpoint/returns", mutual=False, body=ROW)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not plain.recv(65_536).startswith(b"HTTP/1.1 200")
    with Client(f"https://localhost:{port}", tries=1, timeout=20) as stranger, pytest.raises(AnswerError):
        stranger.models()  # it does not know who signed


@pytest.mark.parametrize("name", ["expired", "strange"])
def test_a_certificate_that_is_expired_or_of_nobody_known_lets_nobody_in(
    secured: tuple[Path, int, int], name: str
) -> None:
    project, port, _ = secured
    with pytest.raises(OSError, match=r"(?i)certificate|unknown ca|reset|closed|eof"):
        asked(project, f"https://localhost:{port}/v2/health/live", mutual=True, name=name)
    assert asked(project, f"https://localhost:{port}/v2/health/live", mutual=True)[0] == 200


def test_a_name_that_is_not_the_servers_is_no_reason_to_fail(secured: tuple[Path, int, int]) -> None:
    """One certificate is all there is: the client sees that it is not for the name, and may leave."""
    project, port, _ = secured
    own = context(project, mutual=True)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        own.wrap_socket(plain, server_hostname="elsewhere.org")
    own.check_hostname = False
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    with own.wrap_socket(plain, server_hostname="elsewhere.org") as wrapped:
        wrapped.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: elsewhere.org\r\n\r\n")
        assert wrapped.recv(65_536).startswith(b"HTTP/1.1 200")


def test_the_client_trusts_the_file_that_it_is_given(secured: tuple[Path, int, int]) -> None:
    project, _, management = secured
    with Client(f"https://localhost:{management}", ca=str(project / "tls.crt")) as client:
        assert client._pool.request("GET", f"{client.url}/actuator/health").status == 200


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ('certificate = "tls.crt"', "MS-4331"),
        ('private_key = "tls.key"', "MS-4331"),
        ('certificate = "none.crt"\nprivate_key = "tls.key"', "MS-4330"),
        ('certificate = "tls.key"\nprivate_key = "tls.crt"', "MS-4332"),
        ('certificate = "tls.crt"\nprivate_key = "tls.key"\nclient_ca = "tls.key"', "MS-4332"),
    ],
)
def test_files_that_do_not_fit_are_told_before_anybody_comes(
    built: Path, tmp_path: Path, lines: str, code: str
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project)
    certificate, key = signed_certificate("localhost")
    (project / "tls.crt").write_bytes(certificate)
    (project / "tls.key").write_bytes(key)
    with open(project / "mainspring.toml", "a") as settings:
        settings.write(f"\n[server]\n{lines}\n")
    told = mainspring("serve", "--port", "0", cwd=project, status=3).stderr
    assert code in told
    assert "mainspring.toml" in told
