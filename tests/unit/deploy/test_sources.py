"""What goes into an image: the lock, wheels, the project's files, the release."""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import io
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker

from mainspring.choose.services import Services
from mainspring.config.settings import load_settings
from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.entries import archive
from mainspring.deploy.image.files import app_files, left_out, refuse_secrets
from mainspring.deploy.image.lock import Pin, Platform, read_lock
from mainspring.deploy.image.reference import reference_of, refuse_tags
from mainspring.deploy.image.wheels import DEPS, Wheel, compiled, deps_entries
from mainspring.deploy.release import FILE, Release, plant, release_of
from mainspring.errors import MainspringError
from mainspring.plan.encoding import digest
from mainspring.ports.catalog import Alias, Entity, Event

HASH = "--hash=sha256:" + "a" * 64
OWN = f"mainspring==0.1.0 {HASH}\n"


def a_lock(folder: Path, text: str, asked: str | None = None) -> Path:
    (folder / "requirements.lock").write_text(text)
    if asked is not None:
        (folder / "requirements.in").write_text(asked)
    return folder


def code_of(folder: Path) -> str:
    with pytest.raises(MainspringError) as caught:
        read_lock(folder)
    assert "requirements.lock" in caught.value.fix
    return f"{caught.value.code} {caught.value.origin} {caught.value.why}"


def test_a_lock_is_read_as_pip_reads_it(tmp_path: Path) -> None:
    text = f"""# made by uv
--index-url https://packages.example/simple
Foo_Bar[extra]==1.2 ; python_version < '3.12' \\
    --hash=sha256:{"b" * 64} \\
    --hash=sha256:{"a" * 64}
    # via x
zed==2 {HASH}  # why
{OWN}"""
    lock = read_lock(
        a_lock(tmp_path, text, "foo-bar>=1\nmainspring[tabular]\n-c constraints.txt\nzed; sys_platform == 'x'\n")
    )
    assert lock.options == ("--index-url https://packages.example/simple",)
    assert [pin.name for pin in lock.on(Platform("amd64", "3.11", "2.36"))] == ["foo-bar", "mainspring", "zed"]
    assert [pin.name for pin in lock.on(Platform("amd64", "3.12.1", "2.36"))] == ["mainspring", "zed"]
    assert lock.pins[0].line() == f"foo-bar==1.2 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}"


@pytest.mark.parametrize(
    "line",
    ["foo", "foo>=1 " + HASH, "foo==1", "foo==1.* " + HASH, "-e .", "./x.whl " + HASH, "foo @ file:///x " + HASH],
)
def test_what_locks_nothing_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    assert code_of(a_lock(tmp_path, f"# one\n{line}\n{OWN}")).startswith("MS-3094 requirements.lock:2")


def test_a_stale_lock_says_what_it_lacks(tmp_path: Path) -> None:
    assert code_of(tmp_path).startswith("MS-3093")
    assert "MS-3095" in code_of(a_lock(tmp_path, f"foo==1 {HASH}\n"))
    assert "MS-3095 requirements.in:2 requirements.in needs foo>=2" in code_of(
        a_lock(tmp_path, f"foo==1 {HASH}\n{OWN}", "mainspring\nfoo>=2\n")
    )
    assert "bar" in code_of(a_lock(tmp_path, OWN, "bar\n"))
    (tmp_path / "requirements.in").unlink()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["baz~=3.0"]\n')
    assert "MS-3095 pyproject.toml" in code_of(a_lock(tmp_path, OWN))
    read_lock(a_lock(tmp_path, f"baz==3.1 {HASH}\n{OWN}"))


@given(
    st.sampled_from(["python_version < '3.12'", "platform_machine == 'aarch64'", "sys_platform == 'win32'",
                     "os_name == 'posix'",
                     "python_full_version >= '3.11.4' and platform_system == 'Linux'",
                     "implementation_name == 'pypy'"]),
    st.sampled_from(["amd64", "arm64"]),
    st.sampled_from(["3.11.2", "3.12.9", "3.13.0"]),
)  # fmt: skip
def test_markers_are_those_of_the_image_s_platform(marker: str, architecture: str, python: str) -> None:
    platform = Platform(architecture, python, "2.36")
    lock = read_lock_of(f"foo==1 ; {marker} {HASH}\n{OWN}")
    names = [pin.name for pin in lock.on(platform)]
    assert ("foo" in names) == Marker(marker).evaluate(platform.markers())


def read_lock_of(text: str) -> object:
    with tempfile.TemporaryDirectory() as folder:
        return read_lock(a_lock(Path(folder), text))


def test_platforms_of_wheels_go_back_to_the_oldest() -> None:
    tags = Platform("arm64", "3.11", "2.36").tags()
    assert tags[0] == "manylinux_2_36_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"} <= set(tags)
    assert not [tag for tag in tags if "2_37" in tag or "x86" in tag]


@pytest.mark.parametrize(
    ("text", "host", "name", "tag", "digest"),
    [
        ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000", "a/b", "1", ""),
        ("registry.example/a-b_c/d", "registry.example", "a-b_c/d", "latest", ""),
        ("localhost/x@sha256:" + "0" * 64, "localhost", "x", "", "sha256:" + "0" * 64),
        ("registry.example/x:1@sha256:" + "0" * 64, "registry.example", "x", "1", "sha256:" + "0" * 64),
    ],
)
def test_references(text: str, host: str, name: str, tag: str, digest: str) -> None:
    found = reference_of(text)
    assert (found.host, found.name, found.tag, found.digest) == (host, name, tag, digest)
    assert found.scheme == ("http" if host.startswith(("127.", "localhost")) else "https")
    assert reference_of("python:3.11").name == "library/python"
    assert reference_of("team/app").name == "team/app"


@pytest.mark.parametrize("tag", ["", "-1", ".a", "a b", "a:b", "ä", "x" * 129, "a@sha256:1"])
def test_what_is_no_tag_is_told_before_anything_is_built(tag: str) -> None:
    refuse_tags(["1.4.0", "_a-B", "x" * 128])
    with pytest.raises(MainspringError) as caught:
        refuse_tags(["1.4.0", tag])
    assert (caught.value.code, caught.value.exit_status) == ("MS-8300", 2)


@pytest.mark.parametrize(
    "text", ["", "A/b", "h.x/a:", "h.x/a@", "h.x/a@sha256:1", "h.x/..", "h.x/a b", "https://h.x/a"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(MainspringError) as caught:
        reference_of(text)
    assert caught.value.code == "MS-2701"


# -- wheels -----------------------------------------------------------------------------------------------------------


def a_wheel(folder: Path, name: str, files: dict[str, bytes], *, modes: dict[str, int] | None = None) -> Wheel:
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for at, data in files.items():
            info = zipfile.ZipInfo(at, (2020 + len(name), 1, 1, 0, 0, 0))
            info.external_attr = (modes or {}).get(at, 0o644) << 16
            opened.writestr(info, data)
    return Wheel(Pin(name, "1", "", ()), path, digest(path.read_bytes()))


def read(wheels: list[Wheel], bytecode: dict[str, Path]) -> dict[str, bytes]:
    with contextlib.ExitStack() as opened:
        found = {}
        for entry in deps_entries(wheels, bytecode, opened):
            with entry.open() as file:
                assert entry.path not in found
                found[entry.path] = file.read()
            assert len(found[entry.path]) == entry.size
        return found


def test_a_wheel_is_unpacked_without_what_names_its_builder(tmp_path: Path) -> None:
    record = "z/b.py,sha256=x,1\nz/a.py,sha256=y,1\nz-1.data/scripts/run,sha256=z,1\nz-1.dist-info/RECORD,,\n"
    wheel = a_wheel(tmp_path, "z", {
        "z/b.py": b"B = 1\n", "z/a.py": b"A = 1\n", "z/old.pyc": b"?", "z-1.data/scripts/run": b"#!python\n",
        "z-1.data/platlib/z/c.so": b"so", "z-1.data/headers/h.h": b"h", "z-1.dist-info/RECORD": record.encode(),
        "z-1.dist-info/METADATA": b"Name: z\n", "z-1.dist-info/INSTALLER": b"pip",
    }, modes={"z-1.data/platlib/z/c.so": 0o755})  # fmt: skip
    found = read([wheel], {})
    assert set(found) == {
        f"{DEPS}/{name}" for name in ("z/a.py", "z/b.py", "z/c.so", "z-1.dist-info/RECORD", "z-1.dist-info/METADATA")
    }
    rows = list(csv.reader(io.StringIO(found[f"{DEPS}/z-1.dist-info/RECORD"].decode())))
    assert [row[0] for row in rows] == ["z-1.dist-info/RECORD", "z/a.py", "z/b.py"]


def test_ray_has_its_command_where_a_login_shell_looks_and_it_runs(tmp_path: Path) -> None:
    """Made of the entry points of the Ray that is installed here, and run by its own name."""
    own = importlib.metadata.distribution("ray")
    points = own.read_text("entry_points.txt")
    assert points
    wheel = a_wheel(tmp_path, "ray", {
        "ray/__init__.py": b"", "ray-1.dist-info/entry_points.txt": points.encode(), "ray-1.data/scripts/x": b"#!x\n",
    })  # fmt: skip
    other = a_wheel(tmp_path, "raye", {"raye/__init__.py": b"", "raye-1.dist-info/entry_points.txt": points.encode()})
    found = read([wheel, other], {})
    assert [path for path in found if not path.startswith(DEPS)] == ["usr/local/bin/ray"]
    with contextlib.ExitStack() as opened:
        (entry,) = [one for one in deps_entries([wheel], {}, opened) if one.path == "usr/local/bin/ray"]
        assert entry.executable
    command = tmp_path / "ray"
    command.write_bytes(found["usr/local/bin/ray"])
    command.chmod(0o755)
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        [command, "--version"], capture_output=True, text=True, timeout=100, check=False,
        env={"PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert own.version in done.stdout


def test_of_a_file_in_two_wheels_the_first_by_name_stays_with_its_own_bytecode(tmp_path: Path) -> None:
    one = a_wheel(tmp_path, "a", {"tests/__init__.py": b"WHO = 'a'\n"})
    two = a_wheel(tmp_path, "b", {"tests/__init__.py": b"WHO = 'b'\n", "b.py": b""})
    found = read([one, two], compiled([one, two], BlobStore(tmp_path / "store")))
    assert found[f"{DEPS}/tests/__init__.py"] == b"WHO = 'a'\n"
    (code,) = [data for path, data in found.items() if path.startswith(f"{DEPS}/tests/__pycache__/")]
    assert b"WHO" in code
    assert b"\x01a" in code or b"\xda\x01a" in code
    list(archive([], 1))


def test_bytecode_is_the_same_elsewhere_and_python_takes_it_unchecked(tmp_path: Path) -> None:
    files = {
        f"p/m{n}.py": f"X{n} = {{'a', 'b', 'c'}}\ndef f(x): return x in {{'q', 'r', 's', {n}}}\n".encode()
        for n in range(9)
    }
    files |= {"p/__init__.py": b"", "p/broken.py": b"print 1\n"}
    wheel = a_wheel(tmp_path, "p", files)
    found = []
    for number in (1, 2):
        environment = {"PYTHONHASHSEED": str(number)}
        store = tmp_path / ("deep/" * number + "store")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            found.append(read([wheel], compiled([wheel], BlobStore(store))))
    assert found[0] == found[1]
    codes = [path for path in found[0] if path.endswith(".pyc")]
    assert len(codes) == 10, "all but the one that is no Python of today"
    root = tmp_path / "root"
    for path, data in found[0].items():
        at = root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(data)
    (root / DEPS / "p" / "m1.py").write_text("raise SystemError")  # the code that runs is the bytecode
    code = "import p.m1; print(p.m1.f('q'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root / DEPS)}
    )
    assert done.stdout.split() == ["True"]
    assert f"/{DEPS}/p/m1.py".encode() in found[0][f"{DEPS}/p/__pycache__/m1.{sys.implementation.cache_tag}.pyc"]


# -- the project's files ----------------------------------------------------------------------------------------------


def a_project(folder: Path, more: str = "") -> Path:
    folder.mkdir()
    prod = '[profiles.prod]\ncatalog.adapter = "sqlite"\nobjects.adapter = "localfs"\n'
    (folder / "mainspring.toml").write_text(f'app = "a:app"\n{more}\n{prod}')
    return folder


def test_what_is_no_part_of_the_app_stays_out(tmp_path: Path) -> None:
    more = '[sources.s]\npath = "rows"\n[documents.d]\npath = "docs/"\n[server]\nkeys = ["file:tokens/a"]\n'
    more += '[image]\nexclude = ["notes/*"]'
    project = a_project(tmp_path / "p", more)
    kept = ("a.py", "verdicts/rules.py", "pkg/sbom/x.cdx.json", "pkg/m.py", "pkg/rows/x", "docs2/x", "tokens/b")
    dropped = (
        ".env", ".git/config", "pkg/.hidden", "pkg/__pycache__/m.pyc", "rows/1.csv", "docs/a.md", "tokens/a", "notes/x",
        "tls.pem", "pkg/id_rsa", "venv/pyvenv.cfg", "venv/lib/x.py", "image/models/m/card.json", "Dockerfile",
        "verdicts/late.json", "sbom/image.cdx.json",
    )  # fmt: skip
    for name in (*kept, *dropped):
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (project / "pkg" / "link").symlink_to("m.py")
    os.mkfifo(project / "pipe")
    settings = load_settings(project, profile="prod")
    found = list(app_files(project, left_out(settings)))
    assert {file.name for file in found} == {*kept, "mainspring.toml", "pkg/link"}
    for to in ("/etc/passwd", "../../x"):
        (project / "pkg" / "link").unlink()
        (project / "pkg" / "link").symlink_to(to)
        with pytest.raises(MainspringError) as caught:
            list(app_files(project, ()))
        assert caught.value.code == "MS-2703"


@given(st.integers(0, 3 << 20), st.binary(min_size=8, max_size=40).filter(lambda value: len(set(value)) > 2))
def test_a_secret_is_found_wherever_it_stands(offset: int, value: bytes) -> None:
    text = value.hex()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "a.txt").write_bytes(b"\0" * offset + text.encode() + b"\0" * 5)
        files = list(app_files(project, ()))
        with pytest.raises(MainspringError) as caught:
            refuse_secrets(files, {"of x": text})
        assert caught.value.code == "MS-5071"
        assert text not in caught.value.lines()
        refuse_secrets(files, {"of x": text + "0", "of y": "short"})


def test_a_file_that_keeps_its_size_and_time_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("one")
    (before,) = app_files(tmp_path, ())
    made = before.made_of()
    stated = path.stat()
    path.write_text("two")
    os.utime(path, ns=(stated.st_atime_ns, stated.st_mtime_ns))
    assert next(iter(app_files(tmp_path, ()))).made_of() != made
    made = before.made_of()
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    assert before.made_of() != made


# -- the release ------------------------------------------------------------------------------------------------------


def an_entity(kind: str, name: str, version: int, identity: str) -> Entity:
    return Entity(identity, kind, name, version, digest(identity.encode()), {"artifact": f"art-{identity}"}, version)


def services_of(folder: Path, release: Path | None = None) -> Services:
    if not folder.exists():
        a_project(folder)
    flags = {} if release is None else {"release.folder": str(release)}
    return Services.of_project(folder, profile="prod", flags=flags)


def test_a_server_takes_over_what_the_image_carries_under_the_same_numbers(tmp_path: Path) -> None:
    source = services_of(tmp_path / "source")
    for number in range(1, 8):
        source.catalog.add_entity(an_entity("model", "m", 0, f"m{number}"))
        source.catalog.add_entity(an_entity("online_view", "all", 0, f"v{number}"))
    source.catalog.move_alias(Alias("model", "m", "champion", "m5", 0), Event(1, "t", "model.champion", "/model/m"))
    source.catalog.move_alias(Alias("model", "m", "challenger", "m7", 0), Event(1, "t", "model.challenger", "/model/m"))
    release = release_of(source)
    source.close()
    assert release.models == {"m": "art-m5"}
    assert [one.id for one in release.entities if one.kind == "model"] == ["m5"], "the champion alone"
    carried = tmp_path / "models"
    (carried / "m").mkdir(parents=True)
    (carried / FILE).write_bytes(msgspec.json.encode(release))

    told: list[str] = []
    served = services_of(tmp_path / "served", carried)
    plant(served, told.append)
    plant(served, told.append)
    alias = served.catalog.alias("model", "m", "champion")
    assert alias is not None
    entity = served.catalog.entity_by_id(alias.entity_id)
    assert entity is not None
    assert (entity.version, entity.id) == (5, "m5")
    numbers = {one.digest: one.version for one in served.catalog.entities("online_view")}
    assert numbers == {an_entity("online_view", "all", 0, f"v{n}").digest: n for n in range(1, 8)}
    assert (served.state / "models" / "art-m5").readlink() == carried / "m"
    assert told == []
    served.catalog.add_entity(an_entity("model", "m", 0, "m6"))
    served.catalog.move_alias(
        Alias("model", "m", "champion", "m6", alias.rev), Event(1, "t", "model.champion", "/model/m")
    )
    plant(served, told.append)
    assert served.catalog.alias("model", "m", "champion").entity_id == "m6", "a promotion stands"
    assert "version 5" in told[0]
    served.close()


@pytest.mark.parametrize("text", [None, "{", '{"format": 2}'])
def test_a_release_that_is_none_is_told(tmp_path: Path, text: str | None) -> None:
    carried = tmp_path / "models"
    carried.mkdir()
    if text is not None:
        (carried / FILE).write_text(text)
    services = services_of(tmp_path / "p", carried)
    with pytest.raises(MainspringError) as caught:
        plant(services, print)
    assert caught.value.code == "MS-3099"
    services.close()
    assert Release(1).models == {}
