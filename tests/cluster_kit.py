"""A real Kubernetes API server with its controllers, for tests: etcd, kube-apiserver, kube-controller-manager.

They are of version 1.20, which Debian's source builds (`tests/cluster/build.sh`). `Dressed` stands before it and says
that it is 1.29: what has another version there is turned into it and back, and fields that came later are left out.
There is no node: `Kubelet` says of every pod that it runs, unless its image is one that cannot be pulled.
"""

import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from registry import free_port

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mainspring-cluster"
BIN = Path(os.environ.get("MAINSPRING_TESTS_KUBERNETES") or CACHE) / "bin"
TOKEN = "tests-admin"
HOW = "no Kubernetes API server: tests/cluster/build.sh makes one, in 10 to 20 minutes, once"
_AGES = {("policy", "v1"): "v1beta1", ("autoscaling", "v2"): "v2beta2"}
_LATER = ("timeZone", "podFailurePolicy", "unhealthyPodEvictionPolicy")


def available() -> bool:
    return all((BIN / name).exists() for name in ("etcd", "kube-apiserver", "kube-controller-manager"))


def down(value: Any) -> Any:
    """An object as 1.20 takes it."""
    if isinstance(value, list):
        return [down(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: down(item) for key, item in value.items() if key not in _LATER}
    if isinstance(seconds := (found.get("preStop") or {}).get("sleep"), dict):
        found["preStop"] = {"exec": {"command": ["sleep", str(seconds["seconds"])]}}
    version, kind = found.get("apiVersion"), found.get("kind")
    for (group, new), old in _AGES.items():
        if version == f"{group}/{new}":
            found["apiVersion"] = f"{group}/{old}"
    if version == "batch/v1" and kind in ("CronJob", "CronJobList"):
        found["apiVersion"] = "batch/v1beta1"
    return found


def up(value: Any) -> Any:
    """What 1.20 says, as a newer one would."""
    if isinstance(value, list):
        return [up(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: up(item) for key, item in value.items()}
    for (group, new), old in _AGES.items():
        for key in ("apiVersion", "groupVersion"):
            if found.get(key) == f"{group}/{old}":
                found[key] = f"{group}/{new}"
    if found.get("apiVersion") == "batch/v1beta1":
        found["apiVersion"] = "batch/v1"
    return found


def path_down(path: str) -> str:
    for (group, new), old in _AGES.items():
        path = re.sub(rf"^/apis/{group}/{new}(?=[/?]|$)", f"/apis/{group}/{old}", path)
    if "/cronjobs" in path:
        path = path.replace("/apis/batch/v1/", "/apis/batch/v1beta1/", 1)
    return path


class _Server(ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


class Dressed:
    """The API server as a newer one: over plain HTTP, on loopback.

    Attributes:
        url: where.
        version: what it says it is.
        asked: the requests that wrote: method and path.
        before: called before each request is passed on, with method and path; may raise `RefusedError`.
    """

    def __init__(self, behind: str, context: ssl.SSLContext) -> None:
        self.asked: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.version = (1, 29)
        dressed = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer's body waits 40 ms for word that its head has come
            wbufsize = -1

            def log_message(self, format: str, *values: object) -> None:
                pass

            def behind(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
                """Ask the server over a connection that lasts as long as the client's."""
                if (asked := getattr(self, "asked", None)) is None:
                    place = urllib.parse.urlsplit(behind)
                    self.asked = asked = http.client.HTTPSConnection(place.netloc, context=context, timeout=60)
                asked.request(method, path, body, headers)
                response = asked.getresponse()
                return response.status, response.read(), response.headers.get("Content-Type", "")

            def finish(self) -> None:
                super().finish()
                if (asked := getattr(self, "asked", None)) is not None:
                    asked.close()

            def _pass(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                with contextlib.suppress(BrokenPipeError):  # the client was killed
                    dressed._answer(self, body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _answer(self, handler: Any, body: bytes | None) -> None:
        method, path = handler.command, handler.path
        try:
            self.before(method, path)
            status, data, headers = self._ask(method, path, handler, body)
        except RefusedError as refusal:
            status, data, headers = refusal.status, refusal.body, refusal.headers
        if method != "GET" and "dryRun" not in path and "selfsubject" not in path and status < 300:
            self.asked.append((method, path.partition("?")[0]))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _ask(self, method: str, path: str, handler: Any, body: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        headers = handler.headers
        if body is not None and "strategic" not in headers.get("Content-Type", ""):
            body = json.dumps(down(json.loads(body))).encode()
        sent = {name: headers[name] for name in ("Authorization", "Content-Type") if name in headers}
        status, data, media = handler.behind(method, path_down(path), body, {**sent, "Accept": "application/json"})
        if "json" in media and data.startswith((b"{", b"[")):
            data = json.dumps(self._dressed(path, json.loads(data), handler)).encode()
        return status, data, {"Content-Type": media or "application/json"}

    def _dressed(self, path: str, told: Any, handler: Any) -> Any:
        if path.startswith("/openapi"):
            return told
        if path.startswith("/version"):
            major, minor = map(str, self.version)
            return told | {"major": major, "minor": minor, "gitVersion": "v{}.{}.0".format(*self.version)}
        if path.partition("?")[0] == "/apis/batch/v1":
            given = {"Authorization": handler.headers["Authorization"]}
            told["resources"] += json.loads(handler.behind("GET", "/apis/batch/v1beta1", None, given)[1])["resources"]
        return up(told)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class RefusedError(Exception):
    """What stands before the server answers in its place."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = json.dumps({"kind": "Status", "apiVersion": "v1", "message": message, "code": status}).encode()
        self.headers = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}


class ApiServer:
    """The processes, and the way to them.

    Attributes:
        kubeconfig: for the dressed server.
        dressed: what stands before it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = threading.local()
        self._connections: list[http.client.HTTPSConnection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        etcd, peer, self.port = free_port(), free_port(), free_port()
        client = f"http://127.0.0.1:{etcd}"
        etcd_data = [
            f"--data-dir={folder}/etcd",
            "--unsafe-no-fsync=true",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        ]
        self._start("etcd", f"--listen-client-urls={client}", f"--advertise-client-urls={client}", *etcd_data)
        self._keys()
        (folder / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\ntests-reader,reader,2,readers\n")
        self._start(
            "kube-apiserver", f"--etcd-servers={client}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            f"--cert-dir={folder}/certs", f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
            "--service-account-issuer=https://tests", f"--service-account-key-file={folder}/sa.pem",
            f"--service-account-signing-key-file={folder}/sa.pem", "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount", "--watch-cache=false",
        )  # fmt: skip
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.url = f"https://127.0.0.1:{self.port}"
        self._until_ready()
        inner = self._write_kubeconfig("inner.yaml", self.url)
        self._start(
            "kube-controller-manager", f"--kubeconfig={inner}", "--leader-elect=false", "--port=0",
            f"--secure-port={free_port()}", f"--cert-dir={folder}/cm-certs",
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--controllers=deployment,replicaset,horizontalpodautoscaling,garbagecollector,job,cronjob,namespace,resourcequota",
        )  # fmt: skip
        self.dressed = Dressed(self.url, self.context)
        self.kubeconfig = self._write_kubeconfig("kubeconfig.yaml", self.dressed.url)

    def _keys(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        kinds = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
        (self.folder / "sa.pem").write_bytes(key.private_bytes(*kinds, serialization.NoEncryption()))

    def _start(self, name: str, *flags: str) -> None:
        log = open(self.folder / f"{name}.log", "wb")  # noqa: SIM115
        with log:
            self._processes.append(subprocess.Popen([BIN / name, *flags], stdout=log, stderr=log, cwd=self.folder))

    def _until_ready(self) -> None:
        until = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/readyz") is not None:
                    return
            if time.monotonic() > until or any(process.poll() is not None for process in self._processes):
                raise RuntimeError((self.folder / "kube-apiserver.log").read_text()[-3000:])
            time.sleep(0.2)

    def _write_kubeconfig(self, name: str, url: str, user: dict[str, Any] | None = None) -> Path:
        cluster: dict[str, Any] = {"server": url}
        if url.startswith("https"):
            cluster["insecure-skip-tls-verify"] = True
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "admin", "user": user or {"token": TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        }  # fmt: skip
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return path

    def kubeconfig_for(self, name: str, user: dict[str, Any]) -> Path:
        """A kubeconfig of another user."""
        return self._write_kubeconfig(name, self.dressed.url, user)

    def ask(self, method: str, path: str, body: Any = None, media: str = "application/json") -> Any:
        """Ask the server itself, undressed, as its admin."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {TOKEN}"} | ({} if data is None else {"Content-Type": media})
        status, text, told = self._told(method, path, data, headers)
        if status >= 400:
            raise urllib.error.HTTPError(path, status, text.decode(), told, None)
        return json.loads(text) if text.startswith(b"{") else text.decode()

    def _told(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes, Any]:
        """Over a connection of each thread's own, as TLS is dear; over a new one when it has been idle for too long."""
        for connection in (getattr(self._own, "connection", None), None):
            connection = connection or self._connection()
            try:
                connection.request(method, path, data, headers)
                response = connection.getresponse()
                return response.status, response.read(), response.headers
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failed = error
        raise ConnectionError(f"{method} {path}: {failed}")

    def _connection(self) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(f"127.0.0.1:{self.port}", context=self.context, timeout=30)
        self._own.connection = made
        self._connections.append(made)
        return made

    def namespace(self, name: str) -> str:
        """A new namespace with the secret that the server's metrics need."""
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        secret = {"metadata": {"name": "shop"}, "stringData": {"management-token": "t0ken-of-tests"}}
        self.ask("POST", f"/api/v1/namespaces/{name}/secrets", secret)
        return name

    def define(self, group: str, version: str, kind: str, plural: str) -> None:
        """A custom kind, of any content."""
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        one = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
        body = {
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": f"{plural}.{group}",
                "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
            },
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [one]},
        }  # fmt: skip
        self.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(urllib.error.HTTPError):
                self.ask("GET", f"/apis/{group}/{version}/{plural}")
                return
            time.sleep(0.1)
        raise RuntimeError(f"{kind} is not served")

    def close(self) -> None:
        self.dressed.close()
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.kill()  # nobody wants what they hold, and on a word they take 15 s to let go of each other
        for process in self._processes:
            process.wait(60)
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)


class Kubelet:
    """Says of every pod that it runs, as far as there is something to run."""

    def __init__(self, server: ApiServer, bad: str = "bad") -> None:
        self._server = server
        self._bad = bad
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(OSError):
                for pod in self._server.ask("GET", "/api/v1/pods")["items"]:
                    if not (pod.get("status") or {}).get("containerStatuses"):
                        self._say(pod)

    def _say(self, pod: Any) -> None:
        container = pod["spec"]["containers"][0]
        bad = self._bad in container["image"]
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": f"cannot pull {container['image']}"}}
        state = waiting if bad else {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        told = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
        conditions = [{"type": kind, "status": "False" if bad else "True"} for kind in ("Ready", "ContainersReady")]
        status = {
            "phase": "Pending" if bad else "Running",
            "conditions": [*conditions, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{**told, "ready": not bad, "state": state}],
        }
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
        self._server.ask("PATCH", path, {"status": status}, "application/merge-patch+json")

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)


@contextlib.contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    server = ApiServer(folder)
    kubelet = Kubelet(server)
    try:
        yield server
    finally:
        kubelet.close()
        server.close()
