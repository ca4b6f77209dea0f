"""What several workers answer that is made of models: it moves with them, in all workers at one moment."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import Served, mainspring, serve
from e2e.test_compositions import EXAMPLE
from e2e.test_workers import Load, port_of, wait_for


@pytest.fixture(scope="module")
def composed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers that serve a composition, of whose first model there are two versions."""
    project = tmp_path_factory.mktemp("together") / "shop"
    shutil.copytree(built, project)
    example = EXAMPLE.read_text().replace(', rollout=["shadow for 10m", "5% for 10m", "25% for 30m"]', "")
    app = project / "shop.py"
    app.write_text(example.replace("LogisticRegression())", "LogisticRegression(C=0.01))"))
    mainspring("apply", cwd=project)
    app.write_text(example)
    mainspring("run", "returns", cwd=project)
    mainspring("promote", "returns", "1", "--force", cwd=project)
    with open(project / "mainspring.toml", "a") as file:
        file.write("\n[server]\nworkers = 2\n")
    found = serve(project, "serve")
    try:
        wait_for(lambda: "2 answer" in found.log.read_text())
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()


def test_a_composition_flips_with_its_model_in_all_workers_at_one_moment(composed: Served) -> None:
    load = Load(
        port_of(composed), path="/endpoint/blended", version=lambda body: body.get("models", {}).get("returns", "")
    )
    with load:
        wait_for(lambda: len(load.answered) > 50)
        for version in ("2", "1", "2"):
            had = len(load.answered)
            mainspring("promote", "returns", version, "--force", cwd=composed.project)
            wait_for(lambda version=version: load.answered[-1].version == version)
            had_new = len(load.answered)
            wait_for(lambda had_new=had_new: len(load.answered) > had_new + 200)
            part = Load(0, answered=load.answered[had:])
            assert part.came_back(version) == [], "once anybody was answered by it, nobody is by another"
            assert {one.version for one in part.answered} == {"1", "2"}
    assert load.failed == []
    assert load.statuses() == {200}


def test_a_composition_is_as_new_as_its_model(composed: Served) -> None:
    """Who has an answer of a model's new version never has one of the composition with the old one after that."""
    one = Load(port_of(composed))
    both = Load(
        port_of(composed), path="/endpoint/blended", version=lambda body: body.get("models", {}).get("returns", "")
    )
    with one, both:
        wait_for(lambda: len(one.answered) > 50 and len(both.answered) > 50)
        had = len(one.answered), len(both.answered)
        mainspring("promote", "returns", "1", "--force", cwd=composed.project)
        wait_for(lambda: one.answered[-1].version == both.answered[-1].version == "1")
        wait_for(lambda: len(both.answered) > had[1] + 200)
    together = Load(0, answered=[*one.answered[had[0] :], *both.answered[had[1] :]])
    assert together.came_back("1") == []
    assert {answer.version for answer in together.answered} == {"1", "2"}
    assert one.statuses() == both.statuses() == {200}
