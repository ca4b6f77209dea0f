"""The server as replicas of Ray Serve: each has a server of its own, passes requests on, and says when it dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def test_a_replica_serves_the_app_and_says_when_its_server_is_gone(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project)
    row = json.dumps({"customer": "c01", "amount": 20.0})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).parent / "ray_replica.py", row],
        cwd=project, env={**os.environ, "PYTHONPATH": str(project)}, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    status, kind, text = found["answer"]
    assert (status, kind) == (200, "application/json"), text
    assert set(json.loads(text)) >= {"prediction", "features"}
    assert found["absent"] == 404
    assert found["gone"] == 502
    assert found["unwell"] == "MS-5150"
    assert found["stopped"] == 0
