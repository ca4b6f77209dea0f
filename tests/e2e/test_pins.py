"""A training set that was recorded can be made again to the byte, whatever happened to its tables since."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import msgspec
import pyarrow as pa

from mainspring.cli.options import open_app
from mainspring.declare.declaration import spec_of
from mainspring.declare.model import ModelDeclaration
from mainspring.features.logs.tidy import pinned_versions, tidy
from mainspring.features.logs.write import append_rows
from mainspring.features.offline.history import ARITHMETIC
from mainspring.features.steps import sources_of, views_of
from mainspring.plan.encoding import digest, encode
from mainspring.ports.tables import Txn
from mainspring.server.features.rows import rows_to_table
from mainspring.server.planning import plan_of
from mainspring.training.pins import TrainingSetSpec
from mainspring.training.sets import build, shape_of

DAY = 86_400_000_000
NOW = 1_800_000_000_000_000


def test_a_pinned_set_keeps_its_hash_after_commits_compaction_a_new_column_and_vacuum(
    built: Path, tmp_path: Path
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    services, app = open_app(project, None)
    plan = plan_of(app)
    views, source = views_of(plan), sources_of(plan)["visits"]
    (entity,) = services.catalog.entities("training_set", "returns")
    spec = msgspec.convert(entity.spec, TrainingSetSpec)
    (node,) = plan.of_kind("model")
    shape = shape_of("returns", spec_of(cast(ModelDeclaration, node.declaration)), views)
    assert spec.arithmetic == ARITHMETIC
    pins = {"habits": spec.tables["/feature_view/habits"]}

    def made() -> tuple[str, str]:
        found = build(services, shape, spec.tables["/source/visits"], pins)
        return digest(encode(found.frame)), found.spine

    before = made()
    assert before[1] == spec.spine
    for number in range(100):
        row = {"customer": f"c{number % 7:02d}", "amount": float(number), "at": "2025-11-05T10:00:00Z"}
        append_rows(services, source, rows_to_table(source, [row]), NOW + number, [views["habits"]])
    assert made() == before
    logs = (source.log, views["habits"].log)
    for day in range(10):
        for log in logs:
            tidy(services.tables, log, lambda: pinned_versions(services.catalog), now_us=NOW + day * DAY)
    assert made() == before
    for log in logs:
        held = services.tables.read(log).slice(0, 1)
        wider = held.append_column("new_feature", pa.array([1.5]))
        services.tables.append(log, wider, Txn("test", 1))
        services.tables.compact(log)
        keep = pinned_versions(services.catalog)[log]
        assert services.tables.vacuum(log, keep=keep, retention_hours=0) > 0
    assert "new_feature" in services.tables.schema(views["habits"].log).names
    assert made() == before
    services.close()
