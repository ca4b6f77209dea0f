"""Images on their way to and from a real registry: Debian's docker-registry, skopeo as the other side's client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import image_kit
from e2e.conftest import mainspring
from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.entries import entry_of_bytes
from mainspring.deploy.image.layer import Layer
from mainspring.deploy.image.manifest import VARIANTS, Base, Described, Spec, descriptor, manifest_of, spelled
from mainspring.deploy.image.reference import reference_of
from mainspring.deploy.image.referrers import attached
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.transport import Built, Sent, base_of, push, write_layout
from mainspring.errors import MainspringError
from registry import STALL, TokenRegistry, program, registry, uploads

PASSWORD = "s3cret-pass"
HASHED = "$2b$04$j3Iu0xSEeEU9YFaL69UpAu0r36uBEsRVmKIiNjexOBK8PqZf7c7L2"
QUIET = print


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("registry")
    with registry(folder) as host:
        yield host, folder


@pytest.fixture(autouse=True)
def no_docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def login(folder: Path, host: str, password: str = PASSWORD) -> None:
    secret = base64.b64encode(f"ada:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": secret}}}))


def opened(host: str, name: str, tag: str = "v1", waits: list[float] | None = None) -> Registry:
    return Registry(reference_of(f"{host}/{name}:{tag}"), sleep=(waits if waits is not None else []).append)


def a_layer(store: BlobStore, name: str, data: bytes, codec: str = "gzip") -> Layer:
    return store.layer(lambda: [entry_of_bytes(name, data)], [name, data.hex()], codec=codec, epoch=1, title=name)


def spec(architecture: str = "amd64") -> Spec:
    return Spec(architecture, 1, {"A": "1"}, ["python3"], "/app/src", 8080, {})


def a_base(host: str, store: BlobStore, name: str = "base/python", *, docker: bool = False, index: bool = False) -> str:
    """A base in the registry, put there by our own client; skopeo reads it in another test."""
    at = opened(host, name)
    layer = a_layer(store, "etc/base", b"base" * 20_000)
    nothing = Base("scratch", "sha256:" + "0" * 64)
    variant = VARIANTS["docker" if docker else "kubernetes"]
    found = [manifest_of(nothing, [layer], spec(one), variant) for one in (("amd64", "arm64") if index else ("amd64",))]
    top = found[0].described
    if index:
        kind = (
            "application/vnd.docker.distribution.manifest.list.v2+json"
            if docker
            else "application/vnd.oci.image.index.v1+json"
        )
        entries = [
            descriptor(one.described, platform={"architecture": one.architecture, "os": "linux"}) for one in found
        ]
        data = spelled({"schemaVersion": 2, "mediaType": kind, "manifests": entries})
        top = Described(kind, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), data)
    push(Built(tuple(found), top, at.at), at, lambda: at, store, ["v1"], QUIET)
    return str(at.at)


def built_on(
    reference: str, store: BlobStore, app: bytes = b"code", variant: str = "kubernetes", **names: str
) -> Built:
    registry_ = Registry(reference_of(reference))
    base = base_of(registry_, "amd64", store)
    layers = [a_layer(store, "app/models/m", b"weights" * 90_000, "none"), a_layer(store, "app/src/a.py", app)]
    image = manifest_of(base, layers, spec(), VARIANTS[variant])
    return Built((image,), image.described, registry_.at, frozenset(one.digest for one in base.layers))


def read_back(host: str, name: str, folder: Path) -> dict[str, object]:
    """What skopeo finds, having verified every digest on the way."""
    done = subprocess.run(
        [program("skopeo"), "copy", "--src-tls-verify=false", f"docker://{host}/{name}", f"dir:{folder}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("index", [False, True])
def test_a_base_of_either_kind_is_built_on_and_only_changed_layers_go(
    served: tuple[str, Path], tmp_path: Path, docker: bool, index: bool
) -> None:
    host, folder = served
    name = f"team/app-{docker:d}{index:d}"
    reference = a_base(host, BlobStore(tmp_path / "a"), f"base/py-{docker:d}{index:d}", docker=docker, index=index)
    store = BlobStore(tmp_path / "b")
    built = built_on(reference, store)
    to, source = opened(host, name), opened(host, f"base/py-{docker:d}{index:d}")
    before = uploads(folder)
    sent = push(built, to, lambda: source, store, ["v1"], QUIET)
    assert sent.uploaded == 3, "the model, the code and the config"
    assert sent.mounted == 1, "the base"
    assert uploads(folder) - before == 3
    document = read_back(host, f"{name}:v1", tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == built.top.data, "the manifest's own bytes"
    assert len(document["layers"]) == 3

    again = push(built, to, lambda: source, store, ["v1"], QUIET)
    assert (again.uploaded, again.mounted) == (0, 0)
    changed = built_on(reference, store, app=b"other code")
    sent = push(changed, to, lambda: source, store, ["v2"], QUIET)
    assert (sent.uploaded, sent.mounted, sent.there) == (2, 0, 2), "the code and the config alone"
    assert push(built, to, lambda: source, store, ["v2"], QUIET).uploaded == 0, "a tag moves without an upload"
    assert to.digest_of("v2") == built.top.digest


def test_docker_manifests_and_layouts_are_read_by_others(served: tuple[str, Path], tmp_path: Path) -> None:
    host, _ = served
    store = BlobStore(tmp_path / "store")
    reference = a_base(host, store, "base/layouts")
    docker = built_on(reference, store, variant="sagemaker")
    to, source = opened(host, "team/docker"), opened(host, "base/layouts")
    push(docker, to, lambda: source, store, ["v1"], QUIET)
    assert read_back(host, "team/docker:v1", tmp_path / "out")["mediaType"].endswith("manifest.v2+json")
    fresh = BlobStore(tmp_path / "fresh")  # has no blob of the base: it is fetched
    built = built_on(reference, fresh)
    write_layout(built, tmp_path / "layout", lambda: source, fresh, "v1")
    done = subprocess.run(
        [program("skopeo"), "inspect", "--raw", f"oci:{tmp_path / 'layout'}:v1"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == built.top.data
    subprocess.run(
        [program("umoci"), "unpack", "--image", f"{tmp_path / 'layout'}:v1", tmp_path / "bundle"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert (tmp_path / "bundle/rootfs/app/src/a.py").read_bytes() == b"code"
    assert (tmp_path / "bundle/rootfs/etc/base").exists()


def test_layers_in_zstd_are_read_by_others_and_hold_the_same_files(served: tuple[str, Path], tmp_path: Path) -> None:
    host, _ = served
    project = image_kit.small_project(tmp_path, a_base(host, BlobStore(tmp_path / "store"), "base/zstd"))
    found: dict[str, tuple[str, list[str]]] = {}
    for codec in ("gzip", "zstd"):
        env = {"MAINSPRING_IMAGE_REPOSITORY": f"{host}/team/{codec}", "MAINSPRING_IMAGE_COMPRESSION": codec}
        built = json.loads(mainspring("build", "--image", "--json", cwd=project, env=env).stdout)
        assert (
            json.loads(mainspring("build", "--image", "--json", cwd=project, env=env).stdout)["sent"]["uploaded"] == 0
        )
        manifest = read_back(host, f"team/{codec}@{built['digest']}", tmp_path / f"{codec}-out")
        kinds = [layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"][1:]]  # the first is the base's
        assert set(kinds) == {codec}
        plain = tmp_path / codec  # unpacked by skopeo, for umoci reads no zstd
        copy = [program("skopeo"), "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-decompress"]
        image_kit.done(*copy, f"docker://{host}/team/{codec}@{built['digest']}", f"dir:{plain}")
        copied = json.loads((plain / "manifest.json").read_text())
        layers = [layer["digest"] for layer in copied["layers"]]
        config = json.loads((plain / copied["config"]["digest"].partition(":")[2]).read_text())
        assert layers == config["rootfs"]["diff_ids"], "what is unpacked is what the image says of itself"
        found[codec] = built["digest"], layers
    assert found["gzip"][0] != found["zstd"][0]
    assert found["gzip"][1] == found["zstd"][1]


def test_a_base_of_another_registry_is_carried_over(served: tuple[str, Path], tmp_path: Path) -> None:
    host, _ = served
    reference = a_base(host, BlobStore(tmp_path / "a"), "base/foreign")
    with registry(tmp_path / "other") as other:
        store = BlobStore(tmp_path / "b")
        built = built_on(reference, store)
        sent = push(built, opened(other, "x"), lambda: opened(host, "base/foreign"), store, ["v1"], QUIET)
        assert (sent.uploaded, sent.mounted) == (4, 0)
        read_back(other, "x:v1", tmp_path / "out")


def test_what_is_attached_is_found_by_the_referrers_tag(served: tuple[str, Path], tmp_path: Path) -> None:
    host, _ = served
    store = BlobStore(tmp_path / "store")
    built = built_on(a_base(host, store, "base/sbom"), store)
    to = opened(host, "team/sbom")
    kind = "application/vnd.cyclonedx+json"
    documents = [attached(built.top, kind, data) for data in (b'{"a":1}', b'{"a":1}', b'{"a":2}')]
    for document in documents:
        push(built, to, lambda: opened(host, "base/sbom"), store, ["v1"], QUIET, [document])
    one, again, two = (document.own.digest for document in documents)
    assert one == again
    listed = json.loads(to.manifest(built.top.digest.replace(":", "-")).data)["manifests"]
    assert {entry["digest"] for entry in listed} == {one, two}
    assert {entry["artifactType"] for entry in listed} == {kind}
    manifest = json.loads(to.manifest(one).data)
    assert manifest["subject"]["digest"] == built.top.digest
    assert to.blob(manifest["layers"][0]["digest"]) == b'{"a":1}'


def test_basic_credentials_of_the_docker_config(tmp_path: Path, no_docker_config: Path) -> None:
    (tmp_path / "users").write_text(f"ada:{HASHED}\n")
    with registry(tmp_path / "r", f"auth: {{htpasswd: {{realm: here, path: {tmp_path / 'users'}}}}}") as host:
        for password in (None, "wrong"):
            if password:
                login(no_docker_config, host, password)
            with pytest.raises(MainspringError) as caught:
                opened(host, "a").digest_of("v1")
            assert caught.value.code == "MS-4081"
            assert ("no credentials" in caught.value.why) == (password is None)
            assert "wrong" not in caught.value.lines()
        login(no_docker_config, host)
        reference = a_base(host, BlobStore(tmp_path / "s"), "a")
        assert base_of(Registry(reference_of(reference)), "amd64", BlobStore(tmp_path / "t")).layers


def test_a_token_that_runs_out_amid_a_push_is_renewed_and_the_body_sent_anew(
    served: tuple[str, Path], tmp_path: Path, no_docker_config: Path
) -> None:
    host, _ = served
    store = BlobStore(tmp_path / "s")
    with TokenRegistry(host) as guarded:
        login(no_docker_config, guarded.host)
        for at in (1, 2, 3):
            guarded.expire_at_put = at
            name, issued = f"tokens/app-{at}", guarded.issued
            reference = f"{host}/base/tokens:v1" if at > 1 else a_base(host, store, "base/tokens")
            built = built_on(reference, store, app=f"code {at}".encode())
            source = opened(host, "base/tokens")
            sent = push(built, opened(guarded.host, name), lambda s=source: s, store, ["v1"], QUIET)
            assert sent.uploaded == 4
            assert guarded.expire_at_put == 0
            assert guarded.issued >= issued + 2
            read_back(host, f"{name}:v1", tmp_path / f"out-{at}")
        login(no_docker_config, guarded.host, "wrong")
        with pytest.raises(MainspringError) as caught:
            opened(guarded.host, "tokens/app-1").digest_of("v1")
        assert caught.value.code == "MS-4081"


@pytest.mark.parametrize(
    "fault", [("PUT", "/blobs/", 503), ("PUT", "/blobs/", 0), ("POST", "/blobs/", 429), ("PUT", "/manifests/", 502)]
)
def test_what_breaks_is_tried_again(
    served: tuple[str, Path], tmp_path: Path, no_docker_config: Path, fault: tuple[str, str, int]
) -> None:
    host, _ = served
    store = BlobStore(tmp_path / "s")
    name = f"faults/{fault[0].lower()}-{fault[2]}"
    with TokenRegistry(host, faults=[fault, fault]) as guarded:
        login(no_docker_config, guarded.host)
        built = built_on(a_base(host, store, "base/faults"), store)
        waits: list[float] = []
        source = opened(host, "base/faults")
        push(built, opened(guarded.host, name, waits=waits), lambda: source, store, ["v1"], QUIET)
        assert len(waits) == 2
        assert not guarded.faults
        if fault[2] in (429, 502):
            assert waits == [1.0, 1.0], "as long as the registry says"
    read_back(host, f"{name}:v1", tmp_path / "out")


def test_a_registry_that_stalls_is_told_and_the_next_push_goes_on(
    served: tuple[str, Path], tmp_path: Path, no_docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a body and says no more: each try has its time, and then the push ends; what has arrived stays."""
    host, _ = served
    store = BlobStore(tmp_path / "s")
    built = built_on(a_base(host, store, "base/stalls"), store)
    monkeypatch.setattr("mainspring.deploy.image.registry._TIMEOUTS", (5.0, 0.5))
    with TokenRegistry(host, faults=[("PUT", "/blobs/", STALL)] * 40) as guarded:
        login(no_docker_config, guarded.host)
        source = opened(host, "base/stalls")
        begun = time.monotonic()
        with pytest.raises(MainspringError) as caught:
            push(built, opened(guarded.host, "stalls/app"), lambda: source, store, ["v1"], QUIET)
        assert caught.value.code == "MS-4080"
        assert time.monotonic() - begun < 30
        assert opened(host, "stalls/app").digest_of("v1") == "", "a name stands only for a whole image"
        guarded.faults.clear()
        monkeypatch.setattr("mainspring.deploy.image.registry._TIMEOUTS", (10.0, 120.0))
        again = push(built, opened(guarded.host, "stalls/app"), lambda: source, store, ["v1"], QUIET)
        assert again.uploaded + again.there == 4
    read_back(host, "stalls/app:v1", tmp_path / "out")


def test_what_a_dead_build_has_left_half_written_is_swept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with store.writing() as (file, _):
        file.write(b"of a living process")
        (tmp_path / "999999999-ab.part").write_bytes(b"of a dead one")
        store.sweep()
        assert [path.name.partition("-")[0] for path in tmp_path.glob("*.part")] == [str(os.getpid())]


def test_what_stays_broken_says_so(served: tuple[str, Path], tmp_path: Path, no_docker_config: Path) -> None:
    host, _ = served
    waits: list[float] = []
    with pytest.raises(MainspringError) as caught:
        opened("127.0.0.1:1", "x", waits=waits).digest_of("v1")
    assert caught.value.code == "MS-4080"
    assert "refused" in caught.value.why.lower()
    assert len(waits) == 4
    with pytest.raises(MainspringError) as caught:
        base_of(opened(host, "none"), "amd64", BlobStore(tmp_path))
    assert caught.value.code == "MS-4082"
    store = BlobStore(tmp_path / "s")
    reference = a_base(host, store, "base/alone")
    with pytest.raises(MainspringError) as caught:
        base_of(Registry(reference_of(reference)), "arm64", store)
    assert caught.value.code == "MS-3092"
    with TokenRegistry(host, faults=[("POST", "/blobs/", 413)]) as guarded:
        login(no_docker_config, guarded.host)
        with pytest.raises(MainspringError) as caught:
            push(
                built_on(reference, store),
                opened(guarded.host, "full"),
                lambda: opened(host, "base/alone"),
                store,
                ["v1"],
                QUIET,
            )
        assert caught.value.code == "MS-5070"
    (no_docker_config / "config.json").write_text("{")
    with pytest.raises(MainspringError) as caught:
        opened(host, "x")
    assert caught.value.code == "MS-3091"


def test_a_damaged_blob_is_noticed(served: tuple[str, Path], tmp_path: Path) -> None:
    host, folder = served
    store = BlobStore(tmp_path / "s")
    reference = a_base(host, store, "base/damaged")
    base = base_of(Registry(reference_of(reference)), "amd64", store)
    alone = a_layer(store, "only/here", b"x" * 1000)
    at = opened(host, "base/damaged")
    at.put_blob(alone.digest, alone.size, lambda: store.path(alone.digest).read_bytes())
    data = next((folder / "data").rglob(f"{alone.digest[7:]}/data"))
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(MainspringError) as caught:
        at.blob(alone.digest)
    assert caught.value.code == "MS-4084"
    assert base.layers
    assert Sent().uploaded == 0


# -- images for several platforms -------------------------------------------------------------------------------------

MACHINES = {"amd64": 62, "arm64": 183}
"""What ELF calls them."""


def machine_of(host: str, name: str, architecture: str, folder: Path) -> set[int]:
    """The machines that the shared objects of an image's dependencies are for, as skopeo takes the image for one."""
    words = ["copy", "--override-arch", architecture, "--src-tls-verify=false", f"docker://{host}/{name}"]
    done = subprocess.run([program("skopeo"), *words, f"dir:{folder}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((folder / "manifest.json").read_text())
    assert json.loads((folder / manifest["config"]["digest"][7:]).read_text())["architecture"] == architecture
    found = set()
    for layer in manifest["layers"]:
        with tarfile.open(folder / layer["digest"][7:]) as opened:
            for member in opened:
                if member.name.endswith(".so"):
                    head = opened.extractfile(member).read(20)
                    assert head[:4] == b"\x7fELF"
                    found.add(struct.unpack_from("<H", head, 18)[0])
    return found


def test_one_index_holds_the_image_of_each_platform(served: tuple[str, Path], tmp_path: Path) -> None:
    """The wheels of each are those of its machine; none of them is run, and the app's layers are the same ones."""
    host, folder = served
    project = image_kit.small_project(tmp_path, a_base(host, BlobStore(tmp_path / "s"), "base/both", index=True))
    env = {"MAINSPRING_IMAGE_REPOSITORY": f"{host}/team/both"}
    words = ("build", "--image", "--json", "--tag", "v1")
    both = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    told = json.loads(mainspring(*words, *both, cwd=project, env=env).stdout)
    raw = subprocess.run(
        [program("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{host}/team/both:v1"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == told["digest"]
    index = json.loads(raw)
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [one["platform"] for one in index["manifests"]] == [
        {"architecture": one, "os": "linux"} for one in ("amd64", "arm64")
    ]
    for one, machine in MACHINES.items():
        assert machine_of(host, "team/both:v1", one, tmp_path / one) == {machine}
    apart = [{one["digest"] for one in json.loads((tmp_path / one / "manifest.json").read_text())["layers"]}
             for one in MACHINES]  # fmt: skip
    assert len(apart[0] ^ apart[1]) == 2, "only the dependencies differ"
    assert set(told["sbom"]) == {one["digest"] for one in index["manifests"]}
    before = uploads(folder)
    assert json.loads(mainspring(*words, *both, cwd=project, env=env).stdout)["digest"] == told["digest"]
    assert uploads(folder) == before
    alone = json.loads(mainspring(*words[:3], *both[2:], cwd=project, env=env).stdout)
    assert alone["digest"] == index["manifests"][1]["digest"], "one platform alone needs no index"


# -- credential helpers -----------------------------------------------------------------------------------------------

HELPER = """#!/bin/sh
read host
echo "$1 $host" >> {log}
{does}
"""


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> Path:
    """A credential helper on the PATH; the log of what it was asked."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    program_ = place / "docker-credential-fake"
    program_.write_text(HELPER.format(log=folder / "asked", does=does))
    program_.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return folder / "asked"


@pytest.mark.parametrize("how", ["credHelpers", "credsStore"])
def test_a_credential_helper_is_asked(
    served: tuple[str, Path], tmp_path: Path, no_docker_config: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    host, _ = served
    reference = a_base(host, BlobStore(tmp_path / "s"), "base/helped")
    with TokenRegistry(host) as guarded:
        config = {"credHelpers": {guarded.host: "fake"}} if how == "credHelpers" else {"credsStore": "fake"}
        (no_docker_config / "config.json").write_text(json.dumps(config))
        answer = json.dumps({"ServerURL": guarded.host, "Username": "ada", "Secret": PASSWORD})
        asked = helper(tmp_path, monkeypatch, f"echo '{answer}'")
        assert opened(guarded.host, "base/helped").manifest("v1").digest == opened(host, "base/helped").digest_of("v1")
        assert asked.read_text().splitlines()[0] == f"get {guarded.host}"
        login(no_docker_config, guarded.host, "wrong")
        config |= json.loads((no_docker_config / "config.json").read_text())
        (no_docker_config / "config.json").write_text(json.dumps(config))
        if how == "credHelpers":
            assert opened(guarded.host, "base/helped").digest_of("v1"), "it goes before what a file says"
    assert reference


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("echo 'boom: keychain is locked' >&2; exit 1", "keychain is locked"),
        ("echo hunter2", "has no Username"),
        ('echo \'{"Username":"ada"}\'', "has no Username"),
        ('echo \'{"Username":"<token>","Secret":"hunter2"}\'', "identity token"),
        (None, "not on the PATH"),
    ],
)
def test_a_helper_that_gives_nothing_is_named(
    tmp_path: Path, no_docker_config: Path, monkeypatch: pytest.MonkeyPatch, does: str | None, why: str
) -> None:
    host = "127.0.0.1:5"
    (no_docker_config / "config.json").write_text(json.dumps({"credHelpers": {host: "fake"}}))
    if does is not None:
        helper(tmp_path, monkeypatch, does)
    with pytest.raises(MainspringError) as caught:
        opened(host, "x")
    assert caught.value.code == "MS-2751"
    assert why in caught.value.why
    assert "hunter2" not in "\n".join(caught.value.lines())


def test_a_store_without_the_registry_or_without_a_program_is_passed_over(
    served: tuple[str, Path], tmp_path: Path, no_docker_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = served
    (no_docker_config / "config.json").write_text(json.dumps({"credsStore": "fake"}))
    assert opened(host, "nobody/x").digest_of("v1") == ""
    asked = helper(tmp_path, monkeypatch, "echo 'credentials not found in native keychain'; exit 1")
    assert opened(host, "nobody/x").digest_of("v1") == ""
    assert asked.read_text() == f"get {host}\n"
