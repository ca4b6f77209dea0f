"""Own metrics: they parse, they never fall over a restart, and labels are bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mainspring.serving.telemetry import BUCKETS, Metrics


def test_both_formats_parse_to_the_same_numbers(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.bin")
    metrics.counter("mainspring_requests_total", app='a"b\\c\nd', code="200")(3)
    observe = metrics.histogram("mainspring_request_seconds", app="x")
    for seconds in (0.0001, 0.0005, 0.003, 100.0):
        observe(seconds)
    kind, text = metrics.render()
    assert kind.startswith(b"text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert families["mainspring_requests"].samples[0].value == 3
    assert families["mainspring_requests"].samples[0].labels["app"] == 'a"b\\c\nd'
    kind, text = metrics.render(b"application/openmetrics-text; version=1.0.0")
    assert kind.startswith(b"application/openmetrics-text")
    modern = {family.name: family for family in openmetrics.text_string_to_metric_families(text.decode())}
    samples = modern["mainspring_request_seconds"].samples
    assert {s.name.rpartition("_")[2]: s.value for s in samples if not s.name.endswith("bucket")} == {
        "sum": 100.0036,
        "count": 4.0,
    }


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_buckets_are_cumulative_and_hold_every_observation(tmp_path_factory: object, seconds: list[float]) -> None:
    metrics = Metrics(tmp_path_factory.mktemp("m") / "m.bin")  # type: ignore[attr-defined]
    observe = metrics.histogram("mainspring_request_seconds", app="x")
    for value in seconds:
        observe(value)
    family = next(
        f
        for f in text_string_to_metric_families(metrics.render()[1].decode())
        if f.name == "mainspring_request_seconds"
    )
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            assert sample.value == sum(value <= float(sample.labels["le"]) for value in seconds)


def test_a_restart_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    first = Metrics(tmp_path / "m.bin")
    first.counter("mainspring_requests_total", code="200")(41)
    with open(tmp_path / "m.names", "a") as names:
        names.write('["torn')
    again = Metrics(tmp_path / "m.bin")
    again.counter("mainspring_requests_total", code="200")(1)
    assert again.read("mainspring_requests_total", code="200") == 42


def test_labels_beyond_a_thousand_become_other(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.bin")
    for n in range(1200):
        metrics.counter("mainspring_requests_total", route=f"r{n}")(1)
    text = metrics.render()[1].decode()
    assert 'route="_other"} 200.0' in text
    assert 'route="r1100"' not in text


@pytest.mark.parametrize("labels", [{}, {"app": "x", "route": "z"}], ids=["no labels", "labels on both sides of le"])
def test_quantiles_are_interpolated_within_their_bucket(tmp_path: Path, labels: dict[str, str]) -> None:
    metrics = Metrics(tmp_path / "m.bin")
    name = "mainspring_request_seconds"
    assert metrics.quantile(name, 0.5, **labels) is None
    metrics.histogram(name, other="series", **labels)(100.0)
    observe = metrics.histogram(name, **labels)
    for _ in range(98):
        observe(0.0015)
    for seconds in (3.0, 1e6):
        observe(seconds)
    assert metrics.quantile(name, 0.49, **labels) == pytest.approx(0.0015)  # half-way through (0.001, 0.002]
    assert metrics.quantile(name, 0.98, **labels) == pytest.approx(0.002)
    assert metrics.quantile(name, 0.99, **labels) == pytest.approx(4.096)
    assert metrics.quantile(name, 1.0, **labels) == BUCKETS[-1]


def test_a_total_is_of_the_series_that_have_the_labels(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.bin")
    for endpoint, code, count in (("a", "200", 3), ("a", "400", 2), ("b", "200", 5)):
        metrics.counter("mainspring_requests_total", endpoint=endpoint, code=code)(count)
    found = metrics.total("mainspring_requests_total", endpoint="a")
    assert sorted(found.values()) == [2.0, 3.0]
    assert metrics.total("mainspring_requests_total", endpoint="c") == {}


def test_a_full_disk_fails_no_count_and_the_names_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, write = Metrics(tmp_path / "m.bin"), os.write
    first.counter("mainspring_requests_total", code="200")(1)
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:9]))
    first.counter("mainspring_requests_total", code="500")(2)
    monkeypatch.setattr(os, "write", write)
    first.counter("mainspring_requests_total", code="503")(3)
    again = Metrics(tmp_path / "m.bin")
    assert [again.read("mainspring_requests_total", code=code) for code in ("200", "500", "503")] == [1, 2, 3]


def test_the_file_has_its_room_from_the_start(tmp_path: Path) -> None:
    """A sparse file would be a SIGBUS for the first count on a full disk."""
    Metrics(tmp_path / "m.bin")
    stat = (tmp_path / "m.bin").stat()
    assert stat.st_blocks * 512 >= stat.st_size > 0
