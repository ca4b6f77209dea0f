"""The rows that an endpoint declares: a version answers them before it takes traffic, or does not come to take it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_server import copy
from mainspring import App
from mainspring.errors import DeclarationError
from unit.declare.test_options import Flight

APP = '''
from datetime import datetime
from pathlib import Path

from mainspring import App, Entity, Frame, Model, Record

app = App("shop")
Entity("customer")


class Visit(Record):
    customer: str
    amount: float | None
    at: datetime
    returned: bool | None


visits = app.source(Visit, time="at")


class Watched:
    """Writes down what it is asked, and fails on an amount that nobody spends."""

    def __init__(self, limit):
        self.limit = limit

    def predict(self, x):
        with Path("asked.txt").open("a") as file:
            file.write(f"{self.limit} {x[:, 0].tolist()}\\n")
        if (x[:, 0] > self.limit).any():
            raise ValueError("too much")
        return x[:, 0] * 0 + 0.5


@app.model(inputs=[visits.amount], label=visits.returned)
def spending(x: Frame, y: Frame) -> Model:
    return Model(Watched(LIMIT))


app.promote(spending, margin=1)
app.endpoint(spending, warm=[{"amount": 12.5}, {"amount": 700.25}])
'''


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    found = copy(built, tmp_path)
    shutil.rmtree(found / ".mainspring")
    (found / "shop.py").write_text(APP.replace("LIMIT", "1000"))
    mainspring("apply", cwd=found)
    (found / "asked.txt").unlink(missing_ok=True)
    return found


def answered(served: Served) -> tuple[int, str]:
    tensor = {"name": "amount", "datatype": "FP64", "shape": [1], "data": [5.0]}
    status, body, _ = call(f"{served.url}/v2/models/spending/infer", {"inputs": [tensor]})
    return status, json.loads(body).get("model_version", "")


def test_a_version_answers_the_declared_rows_before_it_is_ready(project: Path) -> None:
    served = serve(project)
    try:
        asked = (project / "asked.txt").read_text().splitlines()
        for rows in ("[12.5]", "[700.25]", "[12.5, 700.25]"):
            assert f"1000 {rows}" in asked
        assert answered(served) == (200, "1")

        (project / "shop.py").write_text(APP.replace("LIMIT", "600"))  # it will fail on a row of them
        mainspring("run", "spending", cwd=project)
        mainspring("promote", "spending", "2", "--force", cwd=project)
        until(lambda: "MS-4254" in served.log.read_text())
        assert answered(served) == (200, "1"), "the version before goes on"
        shown = mainspring("show", "model/spending", cwd=project).stdout
        assert "does not answer the rows that it is warmed with" in shown
        status, body, _ = call(f"{served.console}/v2/repository/models/spending/load", {"parameters": {"version": "2"}})
        assert status == 503, body

        (project / "shop.py").write_text(APP.replace("LIMIT", "800"))
        mainspring("run", "spending", cwd=project)
        mainspring("promote", "spending", "3", "--force", cwd=project)
        until(lambda: answered(served) == (200, "3"))
        assert "800 [12.5, 700.25]" in (project / "asked.txt").read_text().splitlines()
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_a_column_that_the_model_does_not_read_is_told_at_the_start(project: Path) -> None:
    (project / "shop.py").write_text(APP.replace("LIMIT", "1000").replace('{"amount": 12.5}', '{"amuont": 12.5}'))
    done = mainspring("serve", "--port", "0", cwd=project, status=3, env={"MAINSPRING_GRPC_PORT": "0"})
    assert "MS-4253" in done.stderr
    assert "amount" in done.stderr


@pytest.mark.parametrize("warm", [{"distance": 1.0}, [[1.0]], [{}], [{"distance": "far"}], [{1: 2}], "rows", 7])
def test_what_is_no_row_is_refused(warm: object) -> None:
    app = App("test")
    flights = app.source(Flight, time="departed", called="flights")

    @app.model(inputs=[flights.distance], label=flights.late)
    def late(x: object, y: object) -> object:
        """Never called."""

    with pytest.raises(DeclarationError) as caught:
        app.endpoint(late, warm=warm)  # type: ignore[call-overload]
    assert caught.value.code == "MS-4252"
