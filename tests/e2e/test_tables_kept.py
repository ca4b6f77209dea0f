"""Tables that nothing reads any more are told, and removed by a word: but not what cannot be made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from e2e.conftest import mainspring
from mainspring.cli.options import open_app
from mainspring.features.logs.write import append_rows
from mainspring.features.steps import sources_of, views_of
from mainspring.server.features.rows import rows_to_table
from mainspring.server.planning import plan_of

NOW = 1_800_000_000_000_000
EXTRA = '\nextra = app.features(visits, entity=customer, spent=avg("amount", "7d"))\n'
RULED, FREE = 'amount: float | None = Field(ge=0, unit="EUR")', 'amount: float | None = Field(ge=-1, unit="EUR")'


def listed(project: Path) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(mainspring("tables", "--json", cwd=project).stdout)}


def change(project: Path, old: str, new: str) -> None:
    (app,) = project.glob("src/*/app.py") if (project / "src").is_dir() else project.glob("*.py")
    text = app.read_text()
    assert old in text
    app.write_text(text.replace(old, new))


def test_tables_that_nothing_reads_are_told_and_removed_by_a_word(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    change(project, "app.endpoint(returns)", f"app.endpoint(returns){EXTRA}")
    mainspring("apply", cwd=project)
    before = listed(project)
    assert len(before) == 3
    assert {reader for one in before.values() for reader in one["read_by"]} == {"app", "model returns"}
    assert not any(one["unread"] for one in before.values())
    assert mainspring("tables", "drop", cwd=project).stdout == "nothing to drop\n"
    (source,) = (name for name in before if name.startswith("source/visits"))
    (habits,) = (name for name in before if name.startswith("feature_view/habits"))
    (extra,) = (name for name in before if name.startswith("feature_view/extra"))
    refused = mainspring("tables", "drop", source, extra, "--force", cwd=project, status=5).stderr
    assert ("MS-2803" in refused, "read by app" in refused) == (True, True)
    assert set(listed(project)) == set(before), "all go or none"

    services, app = open_app(project, None)
    plan = plan_of(app)
    rows = rows_to_table(sources_of(plan)["visits"], [{"customer": "c01", "amount": 1.0, "at": "2025-11-05T10:00:00Z"}])
    append_rows(services, sources_of(plan)["visits"], rows, NOW, list(views_of(plan).values()))
    services.close()
    assert listed(project)[source]["pushed"]

    change(project, EXTRA, "")
    change(project, RULED, FREE)  # another record: its log, and those made from it, are others
    applied = mainspring("apply", cwd=project)
    assert "3 tables are kept that nothing reads: mainspring tables" in applied.stderr, "the new version has taken over"
    mainspring("rollback", "returns", cwd=project)
    after = listed(project)
    assert {name for name, one in after.items() if one["unread"]} == {source, extra}
    assert after[habits]["read_by"] == ["model returns"], "the champion answers from it again"
    assert not after[source]["pushed"], "the push has passed on to the new log"
    assert after[source]["training_sets"] == 1
    planned = json.loads(mainspring("plan", "--json", cwd=project).stdout)
    assert planned["unread_tables"] == sorted([source, extra])
    assert f"table {extra}, until mainspring tables drop" in mainspring("plan", cwd=project).stdout

    dropped = json.loads(mainspring("tables", "drop", "--json", cwd=project).stdout)["dropped"]
    assert [one["name"] for one in dropped] == [extra], "no training set can be made again from a log that is gone"
    assert not list(project.glob(f".mainspring/**/{extra}"))
    refused = mainspring("tables", "drop", source, cwd=project, status=5).stderr
    assert ("MS-2804" in refused, "training sets were made from 1 of its versions" in refused) == (True, True)
    assert "MS-2802" in mainspring("tables", "drop", "source/none", cwd=project, status=2).stderr
    told = json.loads(mainspring("tables", "--json", "drop", source, "--force", cwd=project).stdout)
    assert [one["name"] for one in told["dropped"]] == [source]
    assert listed(project)[habits]["rows"] == after[habits]["rows"]


def test_every_word_of_tables_takes_json(built: Path) -> None:
    assert json.loads(mainspring("tables", "owner", "--json", cwd=built).stdout) is None
    assert json.loads(mainspring("tables", "--json", "owner", cwd=built).stdout) is None
    refused = json.loads(mainspring("tables", "take", "abcdef", "--json", cwd=built, status=None).stdout)
    assert refused["error"]["code"].startswith("MS-42")
