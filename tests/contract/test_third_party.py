"""An adapter in a package of its own: it passes the port's suite, and once installed it serves an app."""

import csv
import io
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from e2e.conftest import call, mainspring, serve
from mainspring.testing.online import OnlineStoreContract

ASKED = {"customer": "c01", "amount": 20.0}
PACKAGE = Path(__file__).resolve().parent.parent / "packages" / "mainspring-shelf"


class TestShelf(OnlineStoreContract):
    @pytest.fixture
    def opening(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(PACKAGE))
        from mainspring_shelf.online_store import open_store
        from mainspring_shelf.settings import ShelfSettings

        return lambda: open_store(ShelfSettings(), tmp_path)


def wheel(folder: Path) -> Path:
    """The package as its build would make it (PEP 427): the build needs a network for its tools, and this does not."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    points = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    info = f"{name}-{version}.dist-info"
    files = {f"{name}/{path.name}": path.read_text() for path in sorted((PACKAGE / name).glob("*.py"))}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = points
    record = io.StringIO()
    csv.writer(record, lineterminator="\n").writerows([[path, "", ""] for path in [*files, f"{info}/RECORD"]])
    files[f"{info}/RECORD"] = record.getvalue()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process that finds the installed package."""
    folder = tmp_path_factory.mktemp("third")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]
    subprocess.run([*command, str(folder / "site"), str(wheel(folder))], check=True)
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


def test_an_installed_adapter_serves_an_app_that_names_it(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", installed["PYTHONPATH"])
    mainspring("new", "shop", cwd=tmp_path)
    project = tmp_path / "shop"
    before = json.loads(mainspring("conditions", "online", "--json", cwd=project).stdout)
    assert "shelf" in json.dumps(before)
    settings = project / "mainspring.toml"
    settings.write_text(f'{settings.read_text()}\n[online]\nurl = "shelf://{tmp_path}/shelf.db"\npatience = 20\n')
    told = mainspring("conditions", "online", cwd=project).stdout
    assert "shelf" in told
    assert "online.url has scheme 'shelf'" in told
    mainspring("apply", cwd=project)
    assert (tmp_path / "shelf.db").stat().st_size > 0
    assert not (project / ".mainspring" / "online").exists()
    served = serve(project)
    try:
        status, body, _ = call(f"{served.url}/endpoint/returns", ASKED)
        assert status == 200, body
        assert json.loads(body)["status"] == {"habits": "PRESENT"}
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_its_settings_are_checked_like_ours(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", installed["PYTHONPATH"])
    mainspring("new", "shop", cwd=tmp_path)
    settings = tmp_path / "shop" / "mainspring.toml"
    settings.write_text(f'{settings.read_text()}\n[online]\nadapter = "shelf"\npatiense = 20\n')
    done = mainspring("apply", cwd=tmp_path / "shop", status=3)
    assert "MS-3014" in done.stderr
    assert "patience" in done.stderr


def test_without_the_package_the_scheme_is_told_to_be_unknown(tmp_path):
    mainspring("new", "shop", cwd=tmp_path)
    settings = tmp_path / "shop" / "mainspring.toml"
    settings.write_text(f'{settings.read_text()}\n[online]\nurl = "shelf:///nowhere"\n')
    done = mainspring("apply", cwd=tmp_path / "shop", status=3)
    assert "shelf" in done.stderr
    assert "fix" in done.stderr
