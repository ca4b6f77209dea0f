"""A store that has lost its rows is written anew, by whoever saw them there: and nothing else is."""

from types import SimpleNamespace

import pytest

from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.project import project as projected
from mainspring.features.wal.commit import drain, log_of, rows_waiting
from mainspring.features.wal.rows import drafted
from mainspring.server.features.refilling import Refilling
from unit.features.online.test_corrections import LOOSE, NAMED, NOW, SECOND, Project, rows


@pytest.fixture(params=[LOOSE, NAMED], ids=["loose", "named"])
def project(request, tmp_path):
    made = Project(tmp_path, request.param)
    yield made
    made.store.close()


def test_what_a_store_has_lost_is_written_anew(project):
    told = []
    services = SimpleNamespace(tables=project.tables, online=project.store)
    refilling = Refilling(services, lambda: project.views, {project.source.name: project.source}, told.append)
    project.read_files(("a", 1.0, 900, "1"), ("b", 5.0, 950, "2"))
    refilling.once()
    assert project.online("a", NOW)[1] == ["MISSING", "MISSING"], "what was never online is for apply to bring"
    project.publish()
    refilling.once()
    project.push(("a", 2.0, 950, "3"))
    before = project.both("a", NOW)
    refilling.once()
    assert told == []
    project.store.drop(b"")
    assert project.online("a", NOW)[1] == ["MISSING", "MISSING"]
    refilling.once()
    assert project.both("a", NOW) == before
    assert told == [f"the online store had lost feature view {name}: 2 entities written anew" for name in HABITS]
    refilling.once()
    assert len(told) == 2


HABITS = ("habits", "newest")


def test_what_was_acknowledged_and_is_in_no_table_comes_back_with_its_commit(project):
    services = SimpleNamespace(tables=project.tables, online=project.store)
    refilling = Refilling(services, lambda: project.views, {project.source.name: project.source}, [].append)
    project.read_files(("a", 1.0, 900, "1"))
    project.publish()
    refilling.once()
    log = log_of(project.tables, project.source)
    log.append(drafted(project.source, prepare_rows(project.source, rows(("a", 4.0, 940, "3"))), NOW, None))
    log.close()
    waiting = rows_waiting(project.tables, project.source, -1)
    assert len(projected(project.views[0], project.source, waiting)) == 1
    project.store.drop(b"")
    refilling.once()
    drain(project.tables)
    project.publish(NOW + SECOND)
    assert project.both("a", NOW + SECOND)[0]["amount"] == 4.0
