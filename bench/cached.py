"""A cached re-run of the flights app and the cost of ``--help``: the engine's own time a step, modules loaded.

Bars: engine time <= 1.5 ms a step when everything is kept; ``mainspring --help`` <= 100 modules, click alone as third
party.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 7
MODULES = """
import sys
sys.argv = ["mainspring", "--help"]
from mainspring.cli import main
try: main()
except SystemExit: pass
print("MODULES", len(sys.modules))
"""


def main() -> int:
    example = Path(__file__).resolve().parent.parent / "examples" / "flights"
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary) / "flights"
        shutil.copytree(example, project, ignore=shutil.ignore_patterns(".mainspring", "__pycache__"))
        if not (project / "data" / "planes.parquet").exists():
            subprocess.run([sys.executable, "data.py"], cwd=project, check=True)
        command = [sys.executable, "-m", "mainspring.cli"]
        subprocess.run([*command, "apply"], cwd=project, check=True, stderr=subprocess.DEVNULL)
        kept = [*command, "run", "model/late", "--json"]
        found = []
        for _ in range(ROUNDS):
            done = subprocess.run(kept, cwd=project, check=True, capture_output=True, text=True)
            report = json.loads(done.stdout)
            hits = [step for step in report["steps"] if step["status"] == "hit"]
            found.append((report["engine_seconds"] / len(report["steps"]) * 1e3, len(hits), len(report["steps"])))
    milliseconds = statistics.median(item[0] for item in found)
    print(f"cached re-run: {milliseconds:.2f} ms engine time a step (bar 1.5), {found[-1][1]} of {found[-1][2]} kept")
    helped = subprocess.run([sys.executable, "-c", MODULES], capture_output=True, text=True, check=True).stdout
    modules = int(helped.rpartition("MODULES ")[2])
    print(f"--help: {modules} modules (bar 100)")
    return int(milliseconds > 1.5 or modules > 100)


if __name__ == "__main__":
    sys.exit(main())
