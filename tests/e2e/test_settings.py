"""Settings as a user meets them: what is checked before anything runs, and what the remedies lead to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.conftest import call, mainspring, serve

MINE = """\
import numpy as np


class Mean:
    def fit(self, x, y):
        self.classes_, self.mean_ = np.array([0, 1]), float(np.mean(y))
        return self

    def predict_proba(self, x):
        return np.tile([1 - self.mean_, self.mean_], (len(x), 1))
"""


def copy(built: Path, tmp_path: Path) -> Path:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    return project


def write(project: Path, text: str) -> None:
    with open(project / "mainspring.toml", "a") as file:
        file.write(f"\n{text}\n")


def test_an_estimator_of_one_s_own_is_served_once_the_remedy_is_followed(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    (project / "mine.py").write_text(MINE)
    app = (project / "shop.py").read_text()
    (project / "shop.py").write_text(
        app.replace("    pipeline = make_pipeline", "    from mine import Mean\n\n    pipeline = Mean() or make_pipeline")
    )
    refused = mainspring("apply", cwd=project, status=1).stderr
    assert 'runtime.trust = ["mine.Mean"]' in refused, refused
    write(project, '[runtime]\nthreads = 2\ntrust = ["mine.Mean"]')
    mainspring("check", cwd=project)
    mainspring("apply", cwd=project)
    mainspring("promote", "returns", "2", "--force", cwd=project)
    served = serve(project)
    try:
        status, body, _ = call(f"{served.url}/endpoint/returns", {"customer": "c01", "amount": 20.0})
        assert status == 200, body
    finally:
        assert served.stop() == 0, served.log.read_text()
