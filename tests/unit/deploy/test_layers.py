"""Layers and manifests: the same bytes whatever the order, the machine and the time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from isal import igzip_threaded

from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.entries import Entry, archive, entry_of_bytes, entry_of_file
from mainspring.deploy.image.layer import CODECS, spell
from mainspring.deploy.image.manifest import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    VARIANTS,
    Base,
    Described,
    Spec,
    index_of,
    manifest_of,
)  # fmt: skip
from mainspring.errors import UsageError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def trees() -> st.SearchStrategy[dict[str, tuple[bytes, bool]]]:
    """Files by path; no file is another's folder."""
    files = st.dictionaries(PATHS, st.tuples(st.binary(max_size=2000), st.booleans()), max_size=12)
    return files.map(
        lambda found: {
            path: item for path, item in found.items() if not any(other.startswith(path + "/") for other in found)
        }
    )


def entries_of(tree: dict[str, tuple[bytes, bool]]) -> list[Entry]:
    return [entry_of_bytes(path, data, executable=run) for path, (data, run) in tree.items()]


@given(trees(), st.randoms())
def test_an_archive_is_what_tar_reads_and_does_not_know_the_order(tree: dict, rng: random.Random) -> None:
    entries = entries_of(tree)
    data = b"".join(archive(entries, 7))
    rng.shuffle(entries)
    assert b"".join(archive(entries, 7)) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        members = read.getmembers()
        files = {
            item.name: (read.extractfile(item).read(), bool(item.mode & 0o100)) for item in members if item.isreg()
        }
    assert files == tree
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} <= {(0, 0, "", "", 7)}
    assert {m.mode for m in members} <= {0o644, 0o755}
    names = [member.name for member in members]
    assert names == sorted(names), "sorted, so that a folder is before what is in it"
    for name in names:
        assert "/" not in name or name.rpartition("/")[0] in names, "folders are explicit"


@given(trees())
def test_one_pass_hashes_what_is_written(tree: dict) -> None:
    plain = b"".join(archive(entries_of(tree), 1))
    for codec in CODECS:
        file = io.BytesIO()
        layer = spell(entries_of(tree), file, codec=codec, epoch=1)
        data = file.getvalue()
        assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
        assert layer.size == len(data)
        if codec == "gzip":
            assert gzip.decompress(data) == plain
        elif codec == "zstd":
            assert zstandard.ZstdDecompressor().decompressobj().decompress(data) == plain
        else:
            assert data == plain


def test_how_many_threads_compress_does_not_show() -> None:
    rng = random.Random(3)
    data = bytes(rng.choices(b"abcdefgh\n", k=5 << 20))
    entries = [entry_of_bytes("a", data)]
    plain = b"".join(archive(entries, 1))
    file = io.BytesIO()
    spell(entries, file, codec="gzip", epoch=1)
    for threads in (1, 2, 5):
        other = io.BytesIO()
        with igzip_threaded.open(other, "wb", 1, threads=threads, block_size=1 << 20) as writer:
            for start in range(0, len(plain), 1 << 20):
                writer.write(plain[start : start + (1 << 20)])
        assert other.getvalue() == file.getvalue(), threads


GOLDEN = {
    "none": "sha256:dc3cd8b3bfae9e488448e35e49f7284925b1c69da586f46125e3c6565e04049d",
    "zstd": "sha256:e450ac36108dd9129792092aa9c289fe9e5d067e8d8fb81606e62f7b1a633996",
}


@pytest.mark.parametrize("codec", GOLDEN)
def test_a_release_of_ours_changes_no_digest_unnoticed(codec: str) -> None:
    entries = [entry_of_bytes("app/a.py", b"print(1)\n"), entry_of_bytes("é", b"", executable=True)]
    entries.append(Entry("app/b", link="a.py"))
    assert spell(entries, io.BytesIO(), codec=codec, epoch=1).digest == GOLDEN[codec]


def test_another_path_user_time_and_hash_seed_give_the_same_bytes(tmp_path: Path) -> None:
    """A process each, in other folders, with other hash seeds, umasks, time zones and orders of making."""
    code = """
import io, os, sys
from pathlib import Path
from mainspring.deploy.image.entries import entry_of_file
from mainspring.deploy.image.layer import spell
os.umask(int(sys.argv[3], 8))
root = Path(sys.argv[1]); names = sys.argv[2].split(",")
for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name * 3000)
    os.utime(path, (int(sys.argv[4]),) * 2)
print([spell({entry_of_file("app/" + n, root / n) for n in names}, io.BytesIO(), codec=c, epoch=1).digest
       for c in ("none", "gzip", "zstd")])
"""
    names = ["a/b.py", "a-b.py", "ü/ä.txt", "z" * 150 + "/" + "y" * 150]
    told = set()
    for number, umask, seed in ((0, "022", "0"), (1, "077", "1"), (2, "000", "77")):
        names.reverse()
        folder = tmp_path / ("deep/" * number + "x")
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), ",".join(names), umask, str(10**9 + number)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo" if number else "UTC"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told.add(done.stdout)
    assert len(told) == 1, told


def test_what_cannot_be_in_a_layer_is_refused(tmp_path: Path) -> None:
    twice = [entry_of_bytes("a", b"1"), entry_of_bytes("a", b"2")]
    both = [entry_of_bytes("a", b"1"), entry_of_bytes("a/b", b"2")]
    growing = tmp_path / "log"
    growing.write_bytes(b"1")
    grown = [entry_of_file("log", growing)]
    growing.write_bytes(b"12")
    for entries in (twice, both, grown, [entry_of_bytes("../a", b"")], [entry_of_bytes("/a", b"")]):
        with pytest.raises(UsageError) as caught:
            list(archive(entries, 1))
        assert caught.value.code == "MS-2700"
        assert caught.value.fix


def test_links_are_kept() -> None:
    data = b"".join(archive([Entry("a/link", link="../b")], 1))
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        found = read.getmember("a/link")
    assert (found.linkname, found.mode, found.issym()) == ("../b", 0o777, True)


def test_a_kept_layer_is_not_made_again_and_a_damaged_one_is(tmp_path: Path) -> None:
    store, made = BlobStore(tmp_path), []

    def entries() -> list[Entry]:
        made.append(1)
        return [entry_of_bytes("a", b"data" * 5000)]

    def layer(key: str = "k", codec: str = "gzip", epoch: int = 1) -> object:
        return store.layer(entries, [key], codec=codec, epoch=epoch, title="t")

    first = layer()
    assert layer() == first
    assert len(made) == 1
    assert layer("other") == first
    assert len(made) == 2
    assert layer(epoch=2) != first
    assert layer(codec="zstd") != first
    assert len(made) == 4
    path = store.path(first.digest)
    path.write_bytes(path.read_bytes()[:-1])
    assert layer() == first
    assert len(made) == 5
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for key in (tmp_path / "keys").iterdir():
        key.write_bytes(b"{")
    assert layer() == first
    assert not list(tmp_path.glob("*.part"))


def spec(**more: object) -> Spec:
    given = {
        "architecture": "amd64", "epoch": 1, "environment": {"B": "2", "A": "1", "PATH": "/x"},
        "command": ["python3", "-m", "mainspring"], "folder": "/app/src", "port": 8080, "labels": {"l": "1"},
    }  # fmt: skip
    return Spec(**{**given, **more})


BASE = Base(
    "registry.example/python:3", "sha256:" + "b" * 64,
    (Described("application/vnd.docker.image.rootfs.diff.tar.gzip", "sha256:" + "1" * 64, 10),),
    {"config": {"Env": ["PATH=/usr/bin", "LANG=C"], "Cmd": ["python3"], "Entrypoint": ["sh"], "Labels": {"b": "0"}},
     "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "2" * 64]},
     "history": [{"created_by": "base"}]},
)  # fmt: skip


def test_a_manifest_is_the_base_and_our_layers() -> None:
    layer = spell([entry_of_bytes("a", b"1")], io.BytesIO(), codec="gzip", epoch=1, title="src")
    plain = spell([entry_of_bytes("m", b"1")], io.BytesIO(), codec="none", epoch=1, title="model")
    found = manifest_of(BASE, [plain, layer], spec(), VARIANTS["kubernetes"])
    assert found == manifest_of(
        BASE, [plain, layer], spec(environment={"A": "1", "PATH": "/x", "B": "2"}), VARIANTS["kubernetes"]
    )
    document, config = json.loads(found.described.data), json.loads(found.config.data)
    assert document["mediaType"] == OCI_MANIFEST
    assert [one["mediaType"].rpartition(".")[2] for one in document["layers"]] == ["tar+gzip", "tar", "tar+gzip"]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + "2" * 64, plain.diff_id, layer.diff_id]
    assert len(config["history"]) == 3
    assert config["config"]["Env"] == ["A=1", "B=2", "LANG=C", "PATH=/x"]
    assert config["config"]["User"] == "10001:10001"
    assert "Cmd" not in config["config"]
    assert config["config"]["Entrypoint"] == ["python3", "-m", "mainspring"]
    assert config["config"]["Labels"] == {"b": "0", "l": "1"}
    assert config["created"] == "1970-01-01T00:00:01Z"
    docker = manifest_of(BASE, [plain, layer], spec(), VARIANTS["sagemaker"])
    document, config = json.loads(docker.described.data), json.loads(docker.config.data)
    assert document["mediaType"] == DOCKER_MANIFEST
    assert all(
        one["mediaType"].startswith("application/vnd.docker.") for one in [document["config"], *document["layers"]]
    )
    assert [one.digest for one in docker.layers] == [one.digest for one in found.layers], "the same layers"
    assert config["config"]["User"] == "0"


def test_an_index_names_its_platforms_in_order() -> None:
    layer = spell([entry_of_bytes("a", b"1")], io.BytesIO(), codec="gzip", epoch=1)
    both = [manifest_of(BASE, [layer], spec(architecture=one), VARIANTS["kubernetes"]) for one in ("arm64", "amd64")]
    found = index_of(both)
    assert found == index_of(both[::-1])
    listed = json.loads(found.data)["manifests"]
    assert [one["platform"]["architecture"] for one in listed] == ["amd64", "arm64"]
    assert [one["digest"] for one in listed] == [both[1].described.digest, both[0].described.digest]


def test_the_help_of_build_loads_no_library_of_images() -> None:
    code = """
import sys
from mainspring.cli import main
try:
    main(["build", "--help"])
except SystemExit:
    pass
print("LOADED", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("LOADED ")[2].split())
    heavy = {
        "oras",
        "requests",
        "isal",
        "zstandard",
        "packaging",
        "numpy",
        "pyarrow",
        "jsonschema",
        "kubernetes",
        "uvloop",
    }
    assert not heavy & loaded
    assert len(loaded) < 450
