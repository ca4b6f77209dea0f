"""The gate, its report, cooldowns and canaries, by the real command line."""

from __future__ import annotations

import json
import math
import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from e2e.conftest import call, mainspring
from github_api import TOKEN, github_api
from mainspring.deploy.ci.canary import counts_of
from mainspring.serving.counts import CallCounts
from mainspring.serving.telemetry import Metrics


@pytest.fixture(scope="module")
def judged(built, tmp_path_factory) -> Path:
    """A copy of the built project with slices, and a second version that is no worse."""
    project = tmp_path_factory.mktemp("gate") / "shop"
    shutil.copytree(built, project)
    return project


def change(project: Path, old: str, new: str) -> None:
    text = (project / "shop.py").read_text()
    assert old in text
    (project / "shop.py").write_text(text.replace(old, new))


def gate(project: Path, status: int, *words: str) -> dict[str, dict]:
    done = mainspring("gate", "returns", "--json", *words, cwd=project, status=status)
    found = json.loads(done.stdout)
    assert found["passed"] is (status == 0)
    return {"all": found} | {check["name"]: check for check in found["checks"]}


def test_the_first_version_is_compared_with_nothing(judged) -> None:
    found = gate(judged, 0, "--out", str(judged / "verdicts" / "returns.json"))
    assert found["all"]["champion"] is None
    assert found["champion"]["state"] == "skipped"
    assert "latency" not in found
    assert found["snapshot"]["why"].startswith("training set")


def test_a_version_like_the_champion_passes_every_check(judged) -> None:
    change(judged, "LogisticRegression()", "LogisticRegression(C=0.7)")
    found = gate(judged, 0, "--out", str(judged / "verdicts" / "returns.json"))
    assert (found["all"]["version"], found["all"]["champion"]) == (2, 1)
    names = ["data contract", "leakage", "snapshot", "champion", "calibration", "scores", "latency", "memory"]
    assert [found[name]["state"] for name in names] == ["passed"] * len(names)
    metrics = {row["name"]: row for row in found["all"]["rows"]}
    assert (
        metrics["roc_auc"]["low"]
        <= metrics["roc_auc"]["new"] - metrics["roc_auc"]["live"]
        <= metrics["roc_auc"]["high"]
    )
    again = gate(judged, 0)
    assert again["all"]["champion"] == 1, "it is still measured against the one that it replaced"


def test_limits_are_settings(judged) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAINSPRING_GATE_LEAKAGE", "0.1")
        patch.setenv("MAINSPRING_GATE_SLOWER", "0")
        found = gate(judged, 5)
    assert found["leakage"]["state"] == "failed"
    assert "amount_30d" in found["leakage"]["why"] or "visits_30d" in found["leakage"]["why"]


def test_a_worse_and_slower_version_is_refused(built, tmp_path) -> None:
    project = Path(shutil.copytree(built, tmp_path / "shop"))
    change(project, "sklearn.linear_model import LogisticRegression", "sklearn.ensemble import ExtraTreesClassifier")
    change(project, "LogisticRegression()", "ExtraTreesClassifier(50, max_depth=6, random_state=0)")
    change(project, "pipeline.fit(x.numpy(), y.numpy())", "pipeline.fit(x.numpy(), y.numpy()[::-1])")
    found = gate(project, 5)
    assert found["latency"]["state"] == "failed"
    assert found["champion"]["state"] == "failed"
    assert found["all"]["champion"] == 1


def test_an_input_that_tells_the_label_is_found(built, tmp_path) -> None:
    """What is known only afterwards looks like a wonderful input."""
    project = Path(shutil.copytree(built, tmp_path / "shop"))
    change(
        project,
        "    returned: bool | None  # known a month later",
        "    returned: bool | None\n    card: float | None = None",
    )
    change(project, "inputs=[habits, visits.amount]", "inputs=[habits, visits.amount, visits.card]")
    for path in (project / "data").iterdir():
        leak(path)
    found = gate(project, 5)
    assert found["leakage"]["state"] == "failed"
    assert found["leakage"]["why"].startswith("card alone")


def leak(path: Path) -> None:
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    frame = frame.with_columns(card=pl.col("returned").cast(pl.String).eq("true").cast(pl.Float64))
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)


def test_what_is_no_model_is_refused(judged) -> None:
    assert "MS-2602" in mainspring("gate", "nobody", cwd=judged, status=2).stderr
    assert "MS-2781" in mainspring("gate", "source/visits", cwd=judged, status=2).stderr


# -- the report -------------------------------------------------------------------------------------------------------


def report(project: Path, api, *words: str, status: int = 0, token: str = TOKEN):
    env = {"GITHUB_API_URL": api.url, "GITHUB_REPOSITORY": "team/shop", "GITHUB_TOKEN": token}
    return mainspring("report", "verdicts", *words, cwd=project, env=env, status=status)


def test_the_comment_is_written_once_and_then_changed(judged, tmp_path) -> None:
    gate(judged, 0, "--out", str(judged / "verdicts" / "returns.json"))
    with github_api() as api:
        api.add("nice work <!-- mainspring report -->")  # a person who quotes it
        for _ in range(150):
            api.add("chatter")
        report(judged, api, "--head", "someone:topic")
        assert len(api.comments) == 152
        first = api.comments[152]["body"]
        assert "shop / returns: may be promoted" in first
        text = (judged / "verdicts" / "returns.json").read_text()
        (judged / "verdicts" / "returns.json").write_text(text.replace('"passed"', '"failed"'))
        report(judged, api, "--pull-request", "12")
        assert len(api.comments) == 152
        assert "shop / returns: refused" in api.comments[152]["body"]
        assert api.comments[1]["body"].startswith("nice work")


def test_without_a_pull_request_nothing_is_written(judged) -> None:
    with github_api() as api:
        assert "no open pull request" in report(judged, api, "--head", "someone:else").stderr
        assert api.comments == {}


def test_a_token_that_may_not_is_said(judged) -> None:
    with github_api() as api:
        assert "MS-2783" in report(judged, api, "--pull-request", "12", status=4, token="other").stderr
    env = {"GITHUB_REPOSITORY": "", "GITHUB_TOKEN": ""}
    assert "MS-2782" in mainspring("report", "verdicts", "--pull-request", "1", cwd=judged, env=env, status=2).stderr


@pytest.mark.parametrize("text", ["", "{}", '{"format": 3}', "[" * 100_000])
def test_a_file_that_is_no_verdict_is_refused(tmp_path, text) -> None:
    (tmp_path / "v.json").write_text(text)
    assert "MS-2785" in mainspring("report", "v.json", cwd=tmp_path, status=1).stderr
    (tmp_path / "empty").mkdir()
    assert "MS-2784" in mainspring("report", "empty", cwd=tmp_path, status=2).stderr


# -- cooldown, canary -------------------------------------------------------------------------------------------------


def test_drift_waits_for_the_cooldown_and_the_week(judged) -> None:
    assert mainspring("ci", "due", "returns", cwd=judged).stdout == "due=false\n"
    assert mainspring("ci", "due", "returns", "--strict", cwd=judged, status=5).stdout == "due=false\n"
    short = {"MAINSPRING_CI_COOLDOWN": "1us", "MAINSPRING_CI_WEEKLY": "50"}
    assert mainspring("ci", "due", "returns", cwd=judged, env=short).stdout == "due=true\n"
    full = {"MAINSPRING_CI_COOLDOWN": "1us", "MAINSPRING_CI_WEEKLY": "1"}
    assert "at most 1" in mainspring("ci", "due", "returns", cwd=judged, env=full).stderr


class _Page(ThreadingHTTPServer):
    """A process that answers, as its Prometheus page shows it."""

    def __init__(self, failing: float, scores: Callable[[], float] = random.random) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.failing, self.answered, self.scores = failing, 0, scores
        self.place = tempfile.TemporaryDirectory()
        self.metrics = Metrics(Path(self.place.name) / "w0.metrics")
        self.counts = CallCounts(self.metrics, {"app": "shop", "model": "returns", "version": "2", "role": "stable"})
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_close(self) -> None:
        super().server_close()
        self.place.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/actuator/prometheus"


class _Handler(BaseHTTPRequestHandler):
    server: _Page

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.answered += 500
        failed = int(self.server.answered * self.server.failing)
        text = (
            f'mainspring_requests_total{{route="endpoint",code="200"}} {self.server.answered - failed}\n'
            f'mainspring_requests_total{{route="endpoint",code="500"}} {failed}\n'
        ).encode()
        for _ in range(2000):
            self.server.counts.scored([self.server.scores()])
        text += self.server.metrics.render()[1]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text)


@pytest.mark.parametrize(("failing", "status"), [(0.01, 0), (0.2, 5)])
def test_a_canary_is_held_against_the_champion(tmp_path, failing, status) -> None:
    champion, canary = _Page(0.01), _Page(failing)
    try:
        words = ["ci", "canary", champion.url, canary.url, "--watch", "1s", "--every", "200ms"]
        done = mainspring(*words, cwd=tmp_path, status=status)
        assert done.stdout.startswith("the canary is worse in errors" if status else "the canary is no worse: errors")
        quiet = mainspring(*words, "--least", "1000000", cwd=tmp_path, status=5)
        assert "needed to judge it" in quiet.stdout or status == 5
    finally:
        for page in (champion, canary):
            page.shutdown()
            page.server_close()


@pytest.mark.parametrize(("drift", "status"), [("0.3", 5), ("0.6", 0)])
def test_a_canary_that_scores_otherwise_is_stopped_without_a_label(tmp_path, drift, status) -> None:
    """Half of all scores are other ones; neither errors nor times are."""
    champion, canary = _Page(0.01), _Page(0.01, lambda: random.random() / 2)
    try:
        words = ["ci", "canary", champion.url, canary.url, "--watch", "2s", "--every", "100ms", "--drift", drift]
        done = mainspring(*words, cwd=tmp_path, status=status)
        worse = "the canary's scores of returns are 0."
        assert done.stdout.startswith(worse if status else "the canary is no worse: errors")
        assert status or "returns" in done.stdout
    finally:
        for page in (champion, canary):
            page.shutdown()
            page.server_close()


def test_a_real_server_s_page_is_understood(served, tmp_path) -> None:
    page = f"{served.console}/actuator/prometheus"
    assert call(f"{served.url}/endpoint/returns", {"customer": "c01", "amount": 20.0})[0] == 200
    text = call(page)[1].decode()
    assert "mainspring_requests_total" in text
    rows = counts_of(text).scores["returns"]
    assert rows[math.inf] >= 1
    assert rows[1.0] == rows[math.inf]  # a chance
    assert rows[-1.0] == 0
    done = mainspring(
        "ci", "canary", page, page, "--watch", "1s", "--every", "300ms", "--least", "1", cwd=tmp_path, status=None
    )
    assert done.stdout.startswith("the canary"), done.stderr


def test_a_page_that_does_not_answer_is_said(tmp_path) -> None:
    for address, code, status in (("http://127.0.0.1:1/x", "MS-5102", 4), ("ftp://x", "MS-5101", 2)):
        assert code in mainspring("ci", "canary", address, address, cwd=tmp_path, status=status).stderr
