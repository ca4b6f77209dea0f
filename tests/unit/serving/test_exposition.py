"""The metrics in Prometheus's protobuf, read by messages that are described here, against a count of every value."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mainspring.protocols.grpc.schema import ProtoFile, Schema
from mainspring.serving.exposition import PROTOBUF, protobuf_page, wants_protobuf
from mainspring.serving.merging import WorkerMetrics
from mainspring.serving.telemetry import Metrics

TEXT = """
    message LabelPair { string name = 1; string value = 2; }
    message Gauge { double value = 1; }
    message Counter { double value = 1; }
    message Untyped { double value = 1; }
    message Bucket { uint64 cumulative_count = 1; double upper_bound = 2; }
    message BucketSpan { int32 offset = 1; uint32 length = 2; }
    message Histogram { uint64 sample_count = 1; double sample_sum = 2; repeated Bucket bucket = 3; int32 schema = 5;
        double zero_threshold = 6; uint64 zero_count = 7; repeated BucketSpan positive_span = 12;
        repeated int64 positive_delta = 13; }
    message Metric { repeated LabelPair label = 1; Gauge gauge = 2; Counter counter = 3; Untyped untyped = 5;
        Histogram histogram = 7; }
    message MetricFamily { string name = 1; string help = 2; int32 type = 3; repeated Metric metric = 4; }
"""
FAMILY = Schema(ProtoFile("metrics.proto", "io.prometheus.client", TEXT)).message("io.prometheus.client.MetricFamily")
SECONDS = "mainspring_request_seconds"
PROMETHEUS = (
    b"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    b"application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""What Prometheus 2.42 says with its native histograms turned on."""


def read(page: bytes) -> dict[str, Any]:
    found, place = {}, 0
    while place < len(page):
        length = shift = 0
        while True:
            byte = page[place]
            place += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        family = FAMILY.FromString(page[place : place + length])
        found[family.name] = family
        place += length
    return found


def signed(value: int) -> int:
    """A number of kind sint, as protobuf writes it: zigzag."""
    return value >> 1 if not value & 1 else -((value + 1) >> 1)


def fine(histogram: Any) -> dict[int, int]:
    """The counts of the buckets by their index."""
    found, index, count, deltas = {}, 0, 0, map(signed, histogram.positive_delta)
    for span in histogram.positive_span:
        index += signed(span.offset)
        for _ in range(span.length):
            count += next(deltas)
            found[index] = count
            index += 1
    return found


def counted(folder: Path, name: str = "worker-0") -> Metrics:
    return Metrics(folder / f"{name}.bin", Metrics(folder / f"{name}.fine.bin"))


def paged(metrics: Metrics) -> dict[str, Any]:
    assert metrics.fine is not None
    kind, page = protobuf_page(metrics.numbers(), metrics.fine.numbers())
    assert kind == PROTOBUF
    return read(page)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e4, allow_subnormal=False), max_size=60))
def test_every_value_is_in_its_bucket(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    metrics = counted(tmp_path_factory.mktemp("fine"))
    observe = metrics.histogram(SECONDS, app="a", route="b")
    for value in values:
        observe(value)
    (metric,) = paged(metrics)[SECONDS].metric
    histogram = metric.histogram
    assert {pair.name: pair.value for pair in metric.label} == {"app": "a", "route": "b"}
    assert histogram.sample_count == len(values)
    assert histogram.sample_sum == pytest.approx(sum(values))
    assert [bucket.cumulative_count for bucket in histogram.bucket] == [
        sum(value <= bucket.upper_bound for value in values) for bucket in histogram.bucket
    ]
    assert histogram.bucket[-1].upper_bound == math.inf
    assert histogram.zero_count == values.count(0.0)
    for index in fine(histogram):
        low, high = 2 ** ((index - 1) / 8), 2 ** (index / 8)
        assert any(low * (1 - 1e-12) <= value <= high * (1 + 1e-12) for value in values)
    wanted = Counter(math.ceil(math.log2(value) * 8) for value in values if value)
    assert fine(histogram) == wanted
    if values:
        assert signed(histogram.schema) == 3


def test_counters_gauges_and_the_rest_are_the_same_as_in_the_text(tmp_path: Path) -> None:
    metrics = counted(tmp_path)
    metrics.counter("mainspring_requests_total", app="a", code="200")(3)
    metrics.set("mainspring_queue_rows", 7, app="a")
    metrics.row_histogram("mainspring_batch_rows", app="a")(32)
    told = paged(metrics)
    text = {family.name: family for family in text_string_to_metric_families(metrics.render()[1].decode())}
    for name, family in told.items():
        parsed = text[name.removesuffix("_total")]
        assert ("counter", "gauge", "", "", "histogram")[family.type] == parsed.type
        assert family.help == parsed.documentation
    assert told["mainspring_requests_total"].metric[0].counter.value == 3
    assert told["mainspring_queue_rows"].metric[0].gauge.value == 7
    assert fine(told["mainspring_batch_rows"].metric[0].histogram) == {40: 1}


def test_a_restart_goes_on_and_what_is_of_older_times_has_no_fine_buckets(tmp_path: Path) -> None:
    for _ in range(2):
        observe = counted(tmp_path).histogram(SECONDS, app="a")
        for _ in range(50):
            observe(1.0)
    (metric,) = paged(counted(tmp_path))[SECONDS].metric
    assert fine(metric.histogram) == {0: 100}
    older = Metrics(tmp_path / "old.bin")
    observe = older.histogram(SECONDS, app="a")
    for _ in range(50):
        observe(1.0)
    newer = counted(tmp_path, "old")
    newer.histogram(SECONDS, app="a")(1.0)
    (metric,) = paged(newer)[SECONDS].metric
    assert (metric.histogram.sample_count, fine(metric.histogram), metric.histogram.schema) == (51, {}, 0)


def test_workers_are_added_up(tmp_path: Path) -> None:
    first, second = counted(tmp_path, "worker-0"), counted(tmp_path, "worker-1")
    for metrics, value in ((first, 1.0), (second, 1.0), (second, 2.0)):
        metrics.histogram(SECONDS, app="a")(value)
    numbers = WorkerMetrics(first, tmp_path / "worker-0.bin", 2).merged()
    assert first.fine is not None
    finely = WorkerMetrics(first.fine, tmp_path / "worker-0.fine.bin", 2).merged()
    (metric,) = read(protobuf_page(numbers, finely)[1])[SECONDS].metric
    assert metric.histogram.sample_count == 3
    assert fine(metric.histogram) == {0: 2, 8: 1}


def test_only_who_prefers_protobuf_is_given_it() -> None:
    assert wants_protobuf(PROMETHEUS)
    protobuf = b"application/vnd.google.protobuf"
    for accept in (
        b"",
        b"*/*",
        b"text/plain",
        b"application/openmetrics-text",
        protobuf,
        protobuf + b";encoding=text",
        b"text/plain, " + protobuf + b";encoding=delimited;q=0.5",
        protobuf + b";encoding=delimited;q=0",
        protobuf + b";encoding=delimited;q=x",
    ):
        assert not wants_protobuf(accept)
