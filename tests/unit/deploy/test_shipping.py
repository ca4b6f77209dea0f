"""What is shipped: the app as a target sees it, secrets as files that settings read, times that a cron can say."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.adapters.kubernetes import pods
from mainspring.choose.services import Services
from mainspring.cli.shipping import revision_of
from mainspring.config.settings import load_settings, reveal
from mainspring.deploy.rollout import read_plan
from mainspring.deploy.shipping import app_name, remember
from mainspring.engine.schedule import due_times, every_times
from mainspring.errors import UsageError
from mainspring.server.schedules import cron_of

DIGEST = "sha256:" + "a" * 64
APP = """
from datetime import datetime
from mainspring import App, Record

app = App("Shop of Ours")

class Visit(Record):
    shop: str
    at: datetime

visits = app.source(Visit, time="at", every="10m", called="visits")
odd = app.source(Visit, time="at", called="odd", every="7m")
"""
TOML = """
app = "shipped:app"
values.token = "env:TOKEN"

[profiles.prod]
catalog.url = "postgresql://u:${env:PG_PASSWORD}@db/shop"
online.url = "redis://:${file:secrets/redis}@cache:6379/0"
objects.adapter = "localfs"
tables.adapter = "delta"
server.keys = ["env:KEY_A", "file:keys/b"]
sources.visits.url = "postgresql://u:${env:PG_PASSWORD}@db/visits"
sources.visits.table = "visits"
callers.web.key = "file:other/b"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shipped.py").write_text(APP)
    sys.modules.pop("shipped", None)
    (tmp_path / "mainspring.toml").write_text(TOML)
    return tmp_path


def test_every_setting_reads_its_secret_from_a_file(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the container is told, read there, gives each setting the value that it has here."""
    place = tmp_path / "run"
    place.mkdir()
    monkeypatch.setattr(pods, "SECRETS", str(place))
    for name, text in (("secrets/redis", "r,e}d"), ("keys/b", "kay-b"), ("other/b", "other-b")):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    for name, text in (("TOKEN", "t0ken"), ("PG_PASSWORD", "p$g"), ("KEY_A", "key-a")):
        monkeypatch.setenv(name, text)
    services = Services.of_project(project, profile="prod")
    secrets = revision_of(services, f"reg.example.com/t/shop@{DIGEST}").app.secrets
    here = services.settings
    names = {name for secret in secrets for name in secret.names}
    assert {"TOKEN", "PG_PASSWORD", "KEY_A", "redis", "b"} < names
    assert len(names) == 6  # two files are called b
    originals = {
        reference.value: reveal(reference, project) for one in here.values.values() for reference in one.references()
    }
    by_name = {"TOKEN": "env:TOKEN", "PG_PASSWORD": None, "KEY_A": "env:KEY_A", "redis": None}
    texts = {"TOKEN": "t0ken", "PG_PASSWORD": "p$g", "KEY_A": "key-a", "redis": "r,e}d"}
    assert {name: originals[value] for name, value in by_name.items() if value} == {"TOKEN": "t0ken", "KEY_A": "key-a"}
    rest = sorted(names - set(texts))
    of_caller = next(secret.names[0] for secret in secrets if secret.key == "callers.web.key")
    texts |= {name: "other-b" if name == of_caller else "kay-b" for name in rest}
    for name, text in texts.items():
        (place / name).write_text(text)
    variables = pods.secret_variables(secrets)
    assert not [text for text in variables.values() for secret in texts.values() if secret in text]
    for name in ("TOKEN", "PG_PASSWORD", "KEY_A"):
        monkeypatch.delenv(name)
    there = load_settings(project, profile="prod", environment=variables)
    for secret in secrets:
        before, after = here.setting(secret.key), there.setting(secret.key)
        assert before is not None
        assert after is not None
        if isinstance(before.value, list):
            assert [reveal(one, project) for one in after.references()] == ["key-a", "kay-b"]
        else:
            assert (
                there.secret(secret.key)
                == {
                    "values.token": "t0ken",
                    "catalog.url": "postgresql://u:p$g@db/shop",
                    "online.url": "redis://:r,e}d@cache:6379/0",
                    "sources.visits.url": "postgresql://u:p$g@db/visits",
                    "callers.web.key": "other-b",
                }[secret.key]
            )


def test_an_app_as_a_target_sees_it(project: Path) -> None:
    services = Services.of_project(project, profile="prod")
    found = revision_of(services, f"reg.example.com/t/shop@{DIGEST}")
    assert found.app.name == "shop-of-ours"
    assert [(job.name, job.cron, job.arguments) for job in found.app.jobs] == [
        ("source-visits", "*/10 * * * *", ("run", "source/visits"))
    ]
    assert found.app.kept == ("/source/odd",)
    assert set(found.app.embedded) == {"objects", "tables"}
    assert not found.app.counted_apart, "nothing has a limit"
    assert found.release.variables == {"MAINSPRING_PROFILE": "prod"}
    assert found.id == revision_of(services, f"reg.example.com/t/shop@{DIGEST}").id


def test_replicas_that_count_budgets_each_for_itself_are_known(project: Path) -> None:
    file = project / "mainspring.toml"
    file.write_text(f"{file.read_text()}limits.web.tokens = 1000\n")
    image = f"reg.example.com/t/shop@{DIGEST}"
    assert revision_of(Services.of_project(project, profile="prod"), image).app.counted_apart
    file.write_text(f'{file.read_text()}budgets.url = "redis://cache:6379/0"\n')
    assert not revision_of(Services.of_project(project, profile="prod"), image).app.counted_apart


def test_the_image_is_the_one_that_was_pushed_last_and_never_a_tag(project: Path) -> None:
    services = Services.of_project(project, profile="prod")
    with pytest.raises(UsageError) as none:
        revision_of(services, None)
    assert none.value.code == "MS-2744"
    with pytest.raises(UsageError) as tag:
        revision_of(services, "reg.example.com/t/shop:latest")
    assert tag.value.code == "MS-2745"
    remember(services, f"reg.example.com/t/shop@{DIGEST}", {"late": "d" * 64})
    assert revision_of(services, None).release.models == {"late": "d" * 64}
    assert revision_of(services, f"else.example.com/t/shop@{DIGEST}").release.models == {"late": "d" * 64}
    other = f"reg.example.com/t/shop@sha256:{'b' * 64}"
    assert revision_of(services, other).release.models == {}


@given(st.one_of(st.integers(1, 3 * 1440), st.sampled_from([1, 5, 7, 60, 90, 120, 1440, 2880])))
def test_a_cron_says_the_same_times_or_nothing(minutes: int) -> None:
    every = minutes * 60_000_000
    cron = cron_of(every)
    start = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1e6)
    wanted = every_times(every, start, start + 3 * 86_400_000_000)
    if cron:
        assert due_times(cron, "UTC", start, start + 3 * 86_400_000_000) == wanted
    else:
        assert minutes not in {1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440}
    assert cron_of(every + 1_000_000) == ""


@given(st.text(max_size=90))
def test_names_of_apps_fit_a_cluster(name: str) -> None:
    found = app_name(name)
    assert 1 <= len(found) <= 40
    assert found == found.strip("-")
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert app_name(found) == found


def test_a_file_that_holds_no_plan_is_refused(tmp_path: Path) -> None:
    for text in ("", "{}", '{"format": 2}', "\x00"):
        path = tmp_path / "plan.json"
        path.write_text(text)
        with pytest.raises(UsageError) as refused:
            read_plan(path)
        assert refused.value.code == "MS-2742"
