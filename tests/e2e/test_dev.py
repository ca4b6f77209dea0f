"""`mainspring dev` beside somebody who edits: the newest app that could be built is served, whatever happens."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Served, call, serve

_SERVICE = '\napp.feature_service("{}", [habits])\n'


@pytest.fixture
def dev(built: Path, tmp_path: Path) -> Iterator[Served]:
    project = tmp_path / "shop"
    shutil.copytree(built, project)
    found = serve(project, "dev", "--watch")
    try:
        until(lambda: built_again(found, 1), found)
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def until(holds: Callable[[], bool], served: Served, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert served.process.poll() is None, served.log.read_text()
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.05)


def built_again(served: Served, times: int) -> bool:
    return sum(line.startswith("run 0") for line in served.log.read_text().splitlines()) >= times


def serves(served: Served, service: str) -> bool:
    """Whether the app that answers has a feature service of that name."""
    try:
        status, page, _ = call(f"{served.url}/openapi.json")
    except OSError:
        return False
    return status == 200 and f"/{service}" in json.dumps(sorted(json.loads(page)["paths"]))


def add(project: Path, text: str, file: str = "shop.py") -> None:
    with open(project / file, "a") as code:
        code.write(text)


def test_an_app_that_is_broken_while_it_is_built_leaves_the_old_one_at_work(dev: Served) -> None:
    code = (dev.project / "shop.py").read_text()
    before = len(dev.log.read_text())
    add(dev.project, "\nimport time\ntime.sleep(1)" + _SERVICE.format("first"))
    until(lambda: "/feature_service/first" in dev.log.read_text()[before:], dev)
    add(dev.project, "\ndef broken(:\n")
    until(lambda: "MS-1031" in dev.log.read_text()[before:], dev)
    assert call(f"{dev.url}/v2/health/ready")[0] == 200
    (dev.project / "shop.py").write_text(code + _SERVICE.format("second"))
    until(lambda: serves(dev, "second"), dev)


def test_an_edit_whose_build_failed_is_served_when_its_data_is_mended(dev: Served) -> None:
    """The data is that of a source which the app that is served does not have."""
    add(dev.project, '\n[sources.calls]\npath = "data/calls.csv"\n', "mainspring.toml")
    add(
        dev.project,
        """

class Call(Record):
    customer: str
    at: datetime


calls = app.source(Call, time="at")
calling = app.features(calls, entity=customer, calls_7d=count("7d"))
app.feature_service("called", [calling])
""",
    )
    until(lambda: "MS-2112" in dev.log.read_text(), dev)
    (dev.project / "data" / "calls.csv").write_text("customer,at\nc1,2025-01-01T00:00:00Z\n")
    until(lambda: serves(dev, "called"), dev)


def test_an_edit_while_the_app_is_loaded_is_served(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project)
    code = (project / "shop.py").read_text()
    edited = repr(code + _SERVICE.format("late"))
    add(project, f"\nfrom pathlib import Path\nPath(__file__).write_text({edited})\n")
    found = serve(project, "dev", "--watch")
    try:
        until(lambda: serves(found, "late"), found)
    finally:
        found.process.kill()
        found.process.wait()


def test_an_app_that_is_broken_when_it_starts_anew_is_waited_for(dev: Served) -> None:
    """Drained, and about to load the new app: then the file breaks, which no look can foresee."""
    code = (dev.project / "shop.py").read_text()
    add(
        dev.project,
        f"""
import sys
if "--again" in sys.argv:
    from pathlib import Path
    Path(__file__).write_text({code!r} + "broken(")
    raise ValueError("broken")
""",
    )
    until(lambda: "nothing is served until that is mended" in dev.log.read_text(), dev)
    (dev.project / "shop.py").write_text(code + _SERVICE.format("mended"))
    until(lambda: serves(dev, "mended"), dev)
