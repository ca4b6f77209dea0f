"""A real Prometheus scrapes a real server: native histograms where it asks for them, classic ones where it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from e2e.conftest import Served, call, free_port, serve
from e2e.test_server import copy

TOKEN = "a-token-of-thirty-two-characters-or-more"
BINARY = shutil.which("prometheus")
CONFIG = """
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: shop
    metrics_path: /actuator/prometheus
    authorization: {credentials: TOKEN}
    static_configs: [{targets: ["TARGET"]}]
"""


@pytest.fixture(scope="module")
def served(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = copy(built, tmp_path_factory.mktemp("scraped"))
    with open(project / "mainspring.toml", "a") as file:
        file.write(f'[management]\ntoken = "{TOKEN}"\n')
    found = serve(project)
    yield found
    assert found.stop() == 0, found.log.read_text()


def asked(port: int, query: str) -> list[Any]:
    status, body, _ = call(f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}")
    found: list[Any] = json.loads(body)["data"]["result"] if status == 200 else []
    return found


@pytest.mark.skipif(BINARY is None, reason="prometheus is not installed: apt-get install prometheus")
@pytest.mark.parametrize("native", [True, False])
def test_what_prometheus_reads_is_what_was_asked(served: Served, tmp_path: Path, native: bool) -> None:
    config, port = tmp_path / "prometheus.yml", free_port()
    config.write_text(CONFIG.replace("TOKEN", TOKEN).replace("TARGET", urlsplit(served.console).netloc))
    words = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path}", f"--web.listen-address=127.0.0.1:{port}"]
    words += ["--enable-feature=native-histograms"] if native else []
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([str(BINARY), *words], stdout=output, stderr=output)
    try:
        for number in range(60):
            body = {"customer": "c01", "amount": float(number)}
            assert call(f"{served.url}/endpoint/returns", body)[0] == 200
        series = '{endpoint="returns",route="endpoint"}'
        name = f"mainspring_request_seconds{series}"
        count = f"histogram_count({name})" if native else f"mainspring_request_seconds_count{series}"
        buckets = name if native else f"mainspring_request_seconds_bucket{series}"
        end, found = time.monotonic() + 120, []
        while not found or float(found[0]["value"][1]) < 60:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
            try:
                found = asked(port, count)
            except OSError:  # it is not up yet
                continue
        (quantile,) = asked(port, f"histogram_quantile(0.5, {buckets})")
        assert 0.0 < float(quantile["value"][1]) < 30
        (answers,) = asked(port, 'sum(mainspring_calls_total{model="returns",protocol="native",code="200"})')
        assert float(answers["value"][1]) >= 60
        (total,) = asked(port, f"histogram_sum({name})" if native else f"mainspring_request_seconds_sum{series}")
        assert float(total["value"][1]) > 0
        (up,) = asked(port, "up")
        assert up["value"][1] == "1", "the page was read whole"
    finally:
        process.terminate()
        process.wait(60)
    assert "error" not in log.read_text().lower().replace("errors", ""), log.read_text()
