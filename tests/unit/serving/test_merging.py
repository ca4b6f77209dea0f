"""The page of all workers, held to a sum that is made by hand from what each was told."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mainspring.serving.merging import MOMENTARY, WorkerMetrics, numbers_in
from mainspring.serving.telemetry import Metrics, page

COUNTED, TIMED = "mainspring_requests_total", "mainspring_request_seconds"
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["200", "503"]), st.floats(0.0, 64.0).map(lambda seconds: round(seconds, 3))
    ),
    max_size=60,
)


@given(events=EVENTS, restarts=st.sets(st.integers(0, 60)), shown=st.integers(0, 1))
def test_counts_of_all_workers_add_up_over_restarts(
    events: list[tuple[int, str, float]], restarts: set[int], shown: int
) -> None:
    """Workers 2 and 3 are of a time when the server had more: what they counted counts."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"worker-{number}.bin" for number in range(4)]
        metrics = [Metrics(path) for path in paths]
        Metrics(Path(folder) / "worker-0-late.bin").counter(COUNTED, code="200")(1000.0)  # of another server
        for moment, (worker, code, seconds) in enumerate(events):
            if moment in restarts:
                metrics[worker] = Metrics(paths[worker])
            metrics[worker].counter(COUNTED, code=code)(1.0)
            metrics[worker].histogram(TIMED)(seconds)
        merged = WorkerMetrics(metrics[shown], paths[shown], 2).merged()
        samples = {
            (sample.name, sample.labels.get("code") or sample.labels.get("le")): sample.value
            for family in text_string_to_metric_families(page(merged)[1].decode())
            for sample in family.samples
        }
    for code in ("200", "503"):
        assert samples.get((COUNTED, code), 0.0) == sum(told == code for _, told, _ in events)
    if events:
        assert samples[f"{TIMED}_count", None] == len(events)
        for (name, bound), value in samples.items():
            if name == f"{TIMED}_bucket" and bound is not None:
                assert value == sum(seconds <= float(bound) for _, _, seconds in events)


def test_gauges_add_up_are_the_greatest_or_have_the_worker(tmp_path: Path) -> None:
    paths = [tmp_path / f"worker-{number}.bin" for number in range(3)]
    own, other, gone = (Metrics(path) for path in paths)
    own.gauge_from("mainspring_inflight_requests", lambda: {(("app", "shop"),): 3.0})
    other.gauge_from("mainspring_inflight_requests", lambda: {(("app", "shop"),): 4.0})
    gone.set("mainspring_inflight_requests", 100.0, app="shop")
    for metrics, lag, version in ((own, 5.0, 2.0), (other, 7.0, 1.0), (gone, 99.0, 9.0)):
        metrics.set("mainspring_feature_lag_rows", lag, source="visits")
        metrics.set("mainspring_model_version", version, app="shop", model="late")
    other.publish()
    together = WorkerMetrics(own, paths[0], 2)
    merged = together.merged()
    assert merged["mainspring_inflight_requests", (("app", "shop"),)] == 7.0
    assert merged["mainspring_feature_lag_rows", (("source", "visits"),)] == 7.0
    versions = {dict(labels)["worker"]: value for (name, labels), value in merged.items() if name.endswith("version")}
    assert versions == {"0": 2.0, "1": 1.0}
    assert not together.everywhere("late", "2")
    other.set("mainspring_model_version", 2.0, app="shop", model="late")
    assert together.everywhere("late", "2")
    Metrics(paths[1]).clear(MOMENTARY)  # as the parent does when the worker has ended
    assert not together.everywhere("late", "2")
    assert together.merged()["mainspring_inflight_requests", (("app", "shop"),)] == 3.0


def test_a_name_that_is_half_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.bin"
    assert numbers_in(path) == {}
    Metrics(path).counter(COUNTED, code="200")(2.0)
    with open(path.with_suffix(".names"), "ab") as names:
        names.write(b'["mainspring_requ')
    assert numbers_in(path) == {(COUNTED, (("code", "200"),)): 2.0}
