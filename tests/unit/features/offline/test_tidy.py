"""Putting files together and deleting old ones changes no answer: not of the newest version, nor of a pinned one."""

import json
import os
import time
from types import SimpleNamespace

import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.frame import Frame
from mainspring.errors import StoreError
from mainspring.features.logs.digest import content_digest
from mainspring.features.logs.log import newest
from mainspring.features.logs.tidy import tidy
from mainspring.features.logs.write import append_rows
from mainspring.features.offline.history import history
from thoroughly import rounds
from unit.features.offline.test_write import HEATS, NOW, PLAIN, SECOND, rows

DAY = 86_400 * SECOND
MOMENT = pa.timestamp("us", "UTC")
SPINE = Frame({"sensor": ["a", "b", "a"], "at": pa.array([NOW + 50 * SECOND, NOW + 50 * SECOND, NOW], MOMENT)})


def opened(place):
    return SimpleNamespace(tables=open_tables(DeltaSettings(), place))


def push(services, number, views=(HEATS,)):
    row = ("a" if number % 3 else "b", float(number), number % 40)
    return append_rows(services, PLAIN, rows(row), NOW + number * SECOND, views)


def answers(services, version):
    found = history(services, [HEATS], SPINE, versions={"heats": version}, status=True)
    return content_digest(found.arrow().replace_schema_metadata())


def both(services, now, pins=None, **options):
    return [tidy(services.tables, log, lambda: pins or {}, now_us=now, **options) for log in (PLAIN.log, HEATS.log)]


def test_few_files_are_left_alone_and_many_put_together(tmp_path):
    services = opened(tmp_path)
    for number in range(5):
        push(services, number)
    assert both(services, NOW) == [False, False]
    for number in range(5, 20):
        push(services, number)
    before = newest(services.tables, HEATS.log)
    found = answers(services, None)
    assert both(services, NOW) == [True, True]
    assert len(services.tables.files(HEATS.log)) == 1
    assert newest(services.tables, HEATS.log) == before
    assert answers(services, None) == answers(services, before) == found
    assert both(services, NOW) == [False, False]


def is_gone(services, version):
    try:
        answers(services, version)
    except StoreError as error:
        return error.code == "MS-4131"
    return False


def a_day_passes(place):
    """Make everything that was written, noted and removed so far a day older; tables go by the machine's clock."""
    for path in place.rglob("_delta_log/*.json"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "commitInfo" in line:
                line["commitInfo"]["timestamp"] -= DAY // 1000
            if "remove" in line:
                line["remove"]["deletionTimestamp"] -= DAY // 1000
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    for path in place.rglob("*.parquet"):
        written = path.stat().st_mtime - DAY // 1_000_000
        os.utime(path, (written, written))
    for path in (place / "tables" / "_tidied").rglob("*"):
        if path.is_file():
            notes = json.loads(path.read_bytes())
            path.write_text(json.dumps([[moment - DAY, version] for moment, version in notes]))


def test_files_go_when_nothing_can_ask_for_them(tmp_path):
    """A version that was the newest within the last days stays readable, a pinned one for ever, others go."""
    versions, found, pins = {}, {}, {HEATS.log: set()}
    for day in range(9):
        services = opened(tmp_path)
        for number in range(9):
            versions[day, number] = push(services, day * 9 + number).views["heats"]
            if number in (3, 8):
                found[day, number] = answers(services, versions[day, number])
        if day == 1:
            pins[HEATS.log].add(versions[day, 3].version)
        both(services, time.time_ns() // 1000, pins, keep_days=3)
        assert answers(services, None) == found[day, 8]
        if day >= 1:
            assert answers(services, versions[1, 3]) == found[1, 3]
        for recent in range(max(day - 3, 0), day + 1):
            assert answers(services, versions[recent, 8]) == found[recent, 8]
        a_day_passes(tmp_path)
    some = {at: version for at, version in versions.items() if at[1] in (0, 3, 5, 8)}
    gone = [at for at, version in some.items() if is_gone(services, version)]
    assert (0, 3) in gone
    assert (2, 3) in gone
    assert (1, 3) not in gone
    assert {day for day, _ in gone} == {0, 1, 2, 3, 4}


ACTIONS = st.lists(st.sampled_from(["push", "pin", "compact", "vacuum", "tidy", "reopen"]), max_size=14)


@settings(max_examples=rounds(5, 10), deadline=None, suppress_health_check=list(HealthCheck))
@given(actions=ACTIONS)
@example(actions=["push", "compact", "vacuum", "pin"])
def test_no_answer_changes_whatever_is_done_in_between(tmp_path_factory, actions):
    place = tmp_path_factory.mktemp("tables")
    services, pins, day = opened(place), {}, 0
    first = push(services, 0).views["heats"].version
    pins[first] = answers(services, None)
    for number, action in enumerate(actions, 1):
        log, before = HEATS.log, answers(services, None)
        if action == "push":
            for more in range(4):
                push(services, 10 * number + more)
            continue
        if action == "pin":
            pins[newest(services.tables, log).version] = before
        elif action == "compact":
            services.tables.compact(log)
        elif action == "vacuum":
            # The newest version by content is what the next training set will be made from.
            keep = {*pins, newest(services.tables, log).version}
            services.tables.vacuum(log, keep=keep, retention_hours=0)
        elif action == "tidy":
            day += 1
            tidy(services.tables, log, lambda log=log: {log: set(pins)}, now_us=NOW + day * DAY, keep_days=1)
        else:
            services = opened(place)
        assert answers(services, None) == before
    for version, found in pins.items():
        assert answers(services, version) == found
