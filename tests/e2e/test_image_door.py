"""Whether a registry may be pushed to is asked while the image is built: who may not is told before it is."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import image_kit
from e2e.conftest import mainspring
from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.door import door_of
from mainspring.deploy.image.entries import entry_of_bytes
from mainspring.deploy.image.manifest import VARIANTS, Base, Spec, manifest_of
from mainspring.deploy.image.reference import reference_of
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.transport import Built, push
from registry import TokenRegistry, registry, uploads

WORDS = ("build", "--image", "--json")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("registry")
    with registry(folder) as host:
        yield host, folder


@pytest.fixture(scope="module")
def fresh(served: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which nothing has been built yet."""
    host, folder = served[0], tmp_path_factory.mktemp("fresh")
    to, store = Registry(reference_of(f"{host}/base/small:v1")), BlobStore(folder / "s")
    layer = store.layer(lambda: [entry_of_bytes("etc/base", b"base")], "base", codec="gzip", epoch=1, title="base")
    spec = Spec("amd64", 1, {}, ["python3"], "/", 8080, {})
    found = manifest_of(Base("scratch", "sha256:" + "0" * 64), [layer], spec, VARIANTS["kubernetes"])
    push(Built((found,), found.described, to.at), to, lambda: to, store, ["v1"], print)
    return image_kit.small_project(folder, str(to.at))


@pytest.fixture
def project(fresh: Path, tmp_path: Path) -> Path:
    shutil.copytree(fresh, tmp_path / "shop")
    return tmp_path / "shop"


def test_a_platform_that_there_is_not_is_told_as_it_was_said(project: Path) -> None:
    told = mainspring("build", "--image", "--platform", "windows/amd64", cwd=project, status=3,
                      env={"MAINSPRING_IMAGE_REPOSITORY": "127.0.0.1:1/x"}).stderr  # fmt: skip
    assert "MS-3097  --platform names 'windows/amd64'" in told
    assert "fix    --platform linux/amd64" in told
    assert "--platforms" not in told


def refused(project: Path, to: str, status: int, **env: str) -> str:
    """What a build says that is refused at the door; nothing that takes long has been begun."""
    told = mainspring("build", "--image", cwd=project, status=status, env={"MAINSPRING_IMAGE_REPOSITORY": to, **env})
    assert "packing" not in told.stderr
    assert not list((project / ".mainspring/image/wheels").glob("*")), "no distribution was fetched"
    return told.stderr


def test_a_registry_that_does_not_answer_is_told_before_anything_is_built(project: Path) -> None:
    assert "MS-4080" in refused(project, "127.0.0.1:1/team/shop", 4)


def test_who_may_not_push_is_told_before_anything_is_built(
    served: tuple[str, Path], project: Path, tmp_path: Path
) -> None:
    with TokenRegistry(served[0]) as guarded:
        told = refused(project, f"{guarded.host}/team/shop", 4, DOCKER_CONFIG=str(tmp_path))
        assert "MS-4081" in told
        assert f"docker login {guarded.host}" in told
        assert [method for method, path in guarded.requests if "/team/shop/" in path] == ["POST"]


def login(guarded: TokenRegistry, folder: Path) -> str:
    secret = base64.b64encode(b"ada:s3cret-pass").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": secret}}}))
    return str(folder)


@pytest.mark.parametrize(("status", "code", "leaves"), [(404, "MS-8303", 4), (405, "MS-4083", 4), (507, "MS-5070", 5)])
def test_a_repository_that_takes_nothing_is_told_before_anything_is_built(
    served: tuple[str, Path], project: Path, tmp_path: Path, status: int, code: str, leaves: int
) -> None:
    """Not made yet, as some registries want it; of a registry that only mirrors another; of one that is full."""
    with TokenRegistry(served[0], faults=[("POST", "/blobs/uploads/", status)]) as guarded:
        config = login(guarded, tmp_path)
        assert code in refused(project, f"{guarded.host}/team/shop", leaves, DOCKER_CONFIG=config)


def test_asking_costs_no_upload_and_what_is_unchanged_is_not_asked_for(
    served: tuple[str, Path], project: Path, tmp_path: Path
) -> None:
    host, folder = served
    with TokenRegistry(host) as guarded:
        env = {"MAINSPRING_IMAGE_REPOSITORY": f"{guarded.host}/team/used", "DOCKER_CONFIG": login(guarded, tmp_path)}
        env["MAINSPRING_IMAGE_BASE"] = f"{host}/base/small:v1"
        first = json.loads(mainspring(*WORDS, cwd=project, env=env).stdout)
        begun = [path for method, path in guarded.requests if method == "POST"]
        sent = [path for method, path in guarded.requests if method == "PUT" and "/blobs/" in path]
        assert len(begun) == 1 + len(sent), "the first was answered with who asks; then one for each blob that was sent"
        before, requests = uploads(folder), list(guarded.requests)
        again = json.loads(mainspring(*WORDS, cwd=project, env=env).stdout)
        assert again["digest"] == first["digest"]
        assert uploads(folder) == before
        asked = [method for method, path in guarded.requests[len(requests) :] if "/team/used/" in path]
        assert set(asked) == {"HEAD"}
    assert not [path for path in (folder / "data").rglob("_uploads/*") if path.is_dir()], "nothing half-begun is left"


def test_an_upload_that_nothing_took_is_taken_back(served: tuple[str, Path]) -> None:
    host, folder = served
    registry_ = Registry(reference_of(f"{host}/team/left"))
    with door_of(registry_) as door:
        door.enter()
        assert not door_is_known(folder), "nobody was asked yet"
        door.wait()
        assert door_is_known(folder)
    assert not door_is_known(folder)
    with contextlib.suppress(ZeroDivisionError), door_of(registry_) as door:
        door.wait()
        _ = 1 // 0  # a build that fails
    assert not door_is_known(folder)


def door_is_known(folder: Path) -> bool:
    return bool(list((folder / "data").rglob("team/left/_uploads/*/startedat")))
