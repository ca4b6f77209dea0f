"""The examples as ``mainspring new --from`` gives them to a user, each with its own tests."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from e2e.conftest import mainspring

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "tests"), [("flights", 6), ("support", 6)])
def test_a_project_from_an_example_passes_its_own_tests(kind: str, tests: int, tmp_path: Path) -> None:
    made = json.loads(mainspring("new", "desk", "--from", kind, "--json", cwd=tmp_path).stdout)
    assert {f"{kind}.py", "mainspring.toml", f"tests/test_{kind}.py"} <= set(made["files"])
    assert not any(".mainspring" in name or "/images/" in name for name in made["files"])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "desk",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{tests} passed" in done.stdout


def test_the_package_has_every_page_that_the_help_desk_answers_from() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    manuals = {place for place in packed["force-include"] if place.startswith("docs/")}
    assert manuals == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} | {"docs/adr"}
