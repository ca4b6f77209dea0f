"""The docs build offline and strictly, the reference pages are up to date, and code in them is from tested files."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

from mainspring.cli import VERBS, module_of

ROOT = Path(__file__).parents[2]


def test_the_docs_build_offline(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    words = re.sub("<[^>]*>", "", (tmp_path / "index.html").read_text("utf-8"))
    assert "app.monitor(late, false_alarms=" in words, "the example is not on the page"


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_shows_the_example_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert (ROOT / "examples" / "flights" / "flights.py").read_text("utf-8") in readme


ADVICE = re.compile(r"mainspring ([a-z]+)((?: +[^\s`'\"()]+)*)")
TEXTS = [
    *(ROOT / "src").rglob("*.py"),
    *(path for path in (ROOT / "docs").rglob("*.md") if path.name != "cli.md"),
    ROOT / "README.md",
]


def test_every_command_line_that_we_advise_exists() -> None:
    """Errors, docs and docstrings name verbs and options; each must be one that the command line has."""
    seen = set()
    for path in TEXTS:
        text = path.read_text("utf-8")
        marked = path.suffix == ".py"
        for verb, rest in ADVICE.findall(text):
            options = re.findall(r"(--[a-z][a-z0-9-]*)", rest)
            if verb not in VERBS:
                # In prose the word may follow the name: only what stands like a command is held to it.
                assert not options, f"{path.name}: mainspring {verb}{rest}"
                assert f"`mainspring {verb}" not in text or not marked, f"{path.name}: mainspring {verb}"
                continue
            command = importlib.import_module(module_of(verb)).command
            every = [command, *getattr(command, "commands", {}).values()]
            parameters = [parameter for each in every for parameter in each.params]
            known = {name for parameter in parameters for name in [*parameter.opts, *parameter.secondary_opts]}
            assert set(options) <= known | {"--help"}, f"{path.name}: mainspring {verb}{rest}"
            seen.update(options)
    assert "--force" in seen
