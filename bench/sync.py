"""A sync that finds nothing changed, over many files; what an import of the RAG plane costs; what [rag] downloads.

    python bench/sync.py [--files 10000]

Bars: a no-change sync of 10,000 files <= 2 s and no embedding; the import <= 300 ms of CPU; the download of `[rag]`
beyond the base <= 150 MB, and no torch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAINSPRING = [sys.executable, "-m", "mainspring.cli"]
APP = """
from mainspring import App

app = App("shelf")
library = app.index(app.documents("manuals/", include=["**/*.md"], called="manuals"))
"""
IMPORTS = "mainspring, mainspring.rag.steps, mainspring.rag.retrieve, mainspring.rag.versions, mainspring.rag.chunk"


def apply(project: Path, *words: str) -> tuple[float, float, dict]:
    """Wall and CPU seconds of the command, its children's included, and its report."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run([*MAINSPRING, *words, "--json"], cwd=project, capture_output=True, text=True, check=True)
    wall, after = time.monotonic() - began, os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return wall, cpu, json.loads(done.stdout)


def synced(project: Path) -> tuple[float, float, str]:
    """The same of a look at every file, within one process that has everything open."""
    code = """
import json, time
from pathlib import Path
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.rag.steps import build_index, index_named
services = Services.of_project(Path.cwd())
index = index_named(services, "library")
services.embedder, services.manifest, services.parser
wall, cpu = time.monotonic(), time.process_time()
built = build_index(services, index, "bench")
print(json.dumps([time.monotonic() - wall, time.process_time() - cpu]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu, done.stderr.strip().splitlines()[0]


def imported(code: str) -> float:
    """Milliseconds of CPU that a fresh interpreter needs beyond starting."""

    def used(text: str) -> float:
        best = float("inf")
        for _ in range(5):
            before = os.times()
            subprocess.run([sys.executable, "-c", text], check=True)
            after = os.times()
            spent = after.children_user - before.children_user + after.children_system - before.children_system
            best = min(best, spent)
        return best * 1000

    return used(f"import {code}") - used("pass")


def closure(extras: tuple[str, ...]) -> set[str]:
    """The distributions that an install of mainspring with these extras brings."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    todo = [("mainspring", extra) for extra in ("", *extras)]
    seen = set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in needs:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                own = re.sub(r"[-_.]+", "-", need.name).lower()
                todo += [(own, one) for one in ("", *need.extras)]
    return found


def download(names: set[str]) -> float:
    """Megabytes of the wheels of these distributions, as pip would fetch them."""
    versions = []
    for name in sorted(names - {"mainspring", "mainspring-embed-minilm"}):
        try:
            versions.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"not installed, not counted: {name}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, *versions], check=True)
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "shelf.py").write_text(APP)
        (project / "mainspring.toml").write_text('app = "shelf:app"\n')
        for number in range(given.files):
            page = project / "manuals" / f"{number % 97}" / f"{number}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(f"# Part {number}\n\nPart {number} turns valve {number * 7} of line {number % 13}.\n")
            os.utime(page, (1_700_000_000, 1_700_000_000))
        wall, _, _ = apply(project, "apply")  # the CPU of its workers is not ours to see
        print(f"{datetime.now(UTC):%Y-%m-%d}  {given.files:,} files, read and embedded in {wall:.1f} s")
        wall, cpu, report = apply(project, "apply")
        (step,) = report["steps"]
        print(f"mainspring apply, nothing changed: {wall:.2f} s, {cpu:.2f} s of CPU, {step['status']}")
        took, used, said = synced(project)
        print(f"the sync itself, forced: {took:.2f} s, {used:.2f} s of CPU: {said}")
    plane = imported(IMPORTS)
    extra = closure(("rag",)) - closure(())
    size = download(extra)
    print(f"import of the plane: {plane:.0f} ms of CPU; [rag] beyond the base: {len(extra)} wheels, {size:.0f} MB")
    bars = {
        "no-change sync <= 2 s, nothing embedded": took <= 2 and " 0 embedded" in said,
        "import <= 300 ms": plane <= 300,
        "[rag] <= 150 MB, no torch": size <= 150 and "torch" not in extra,
    }
    for bar, met in bars.items():
        print(f"bar {bar}: {'met' if met else 'missed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
