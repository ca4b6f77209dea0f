"""Models put together by a function: one served model on every wire, its parts' versions in answers and in the log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_rollouts import until
from mainspring import App, Entity, Record, Rows
from mainspring.choose.services import Services
from mainspring.errors import DeclarationError
from mainspring.plan.build import build_plan
from mainspring.serving.predlog.reader import LogReader

EXAMPLE = Path(__file__).parents[2] / "examples" / "rollouts" / "shop.py"
BODY = {"customer": "c01", "amount": 20.0}


@pytest.fixture(scope="module")
def server(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The example, built over the template's visits, at work."""
    project = tmp_path_factory.mktemp("composed") / "shop"
    shutil.copytree(built, project)
    shutil.copy(EXAMPLE, project / "shop.py")
    mainspring("apply", cwd=project)
    served = serve(project)
    try:
        yield served
    finally:
        assert served.stop() == 0, served.log.read_text()


def ask(served: Served, path: str, body: object) -> Any:
    status, answer, _ = call(served.url + path, body)
    assert status == 200, answer
    return json.loads(answer)


def test_it_is_one_model_on_every_wire(server: Served) -> None:
    described = ask(server, "/v2/models/blended", None)
    assert described["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 3]}]
    columns = [column["name"] for column in ask(server, "/endpoint/blended", None)["columns"]]
    assert columns == ["visits_30d", "amount_30d", "amount"]
    rows = [[1.0, 2.5, 3.0], [4.0, 5.0, 900.0], [2.0, 80.25, 0.0]]
    tensor = {"name": "input", "datatype": "FP64", "shape": [3, 3], "data": rows}
    found = ask(server, "/v2/models/blended/infer", {"inputs": [tensor]})["outputs"][0]["data"]
    capped = [[one, other, min(amount, 500.0)] for one, other, amount in rows]
    two = [[visits, amount] for visits, _, amount in capped]
    parts = {
        "returns": ask(server, "/v1/models/returns:predict", {"instances": capped})["predictions"],
        "habitual": ask(server, "/v1/models/habitual:predict", {"instances": two})["predictions"],
    }
    wanted = 0.6 * np.array(parts["returns"]) + 0.4 * np.array(parts["habitual"])
    wanted[2] = 0.0
    assert found == pytest.approx(wanted.tolist(), rel=1e-12)
    assert ask(server, "/v1/models/blended:predict", {"instances": rows})["predictions"] == found
    assert ask(server, "/predictions/blended", rows) == found
    assert ask(server, "/endpoint/blended", {**BODY, "amount": 0.0})["score"] == 0.0


def test_an_answer_and_its_log_have_the_versions_of_its_parts(server: Served) -> None:
    answer = ask(server, "/endpoint/blended?features=true", BODY)
    assert answer["models"] == {"returns": "1", "habitual": "1"}
    assert (answer["version"], answer["model"]) == ("1", "blended")
    scores = [[answer["features"][name] for name in ("visits_30d", "amount_30d", "amount")]]
    assert ask(server, "/v1/models/blended:predict", {"instances": scores})["predictions"] == [answer["score"]]
    assert (
        call(f"{server.url}/labels", {"labels": [{"id": answer["id"], "value": True, "at": "2030-01-01T00:00:00Z"}]})[0]
        == 202
    )
    app = server.project / "shop.py"
    first = app.read_text()
    app.write_text(first.replace("LogisticRegression())", "LogisticRegression(C=0.01))"))
    mainspring("run", "returns", cwd=server.project)
    app.write_text(first)
    mainspring("promote", "returns", "2", "--force", cwd=server.project)
    until(lambda: ask(server, "/endpoint/blended", BODY)["models"] == {"returns": "2", "habitual": "1"})
    services = Services.of_project(server.project)
    try:
        folder = server.project / ".mainspring" / "predictions" / "blended"
        parts = LogReader(folder, "blended", services.tables).parts((), lambda rows: rows)
        logged = {row["prediction_id"]: row for part in parts for row in part.to_pylist()}
    finally:
        services.close()
    assert (logged[answer["id"]]["returns__version"], logged[answer["id"]]["habitual__version"]) == (1, 1)
    assert {(row["returns__version"], row["habitual__version"]) for row in logged.values()} == {(1, 1), (2, 1)}


def test_the_example_says_what_it_does() -> None:
    scope: dict[str, Any] = {"__name__": "shop"}
    exec(compile(EXAMPLE.read_text(), str(EXAMPLE), "exec", dont_inherit=True), scope)
    x = Rows({"amount": np.array([0.0, 100.0, 900.0])})
    half, seen = np.full(3, 0.5), []

    def model(rows: Rows) -> Any:
        seen.append(rows["amount"].tolist())
        return half

    assert scope["blended"](x, model, model).tolist() == [0.0, 0.5, 0.5]
    assert seen == [[0.0, 100.0, 500.0]] * 2
    assert x["amount"].tolist() == [0.0, 100.0, 900.0], "rows are never changed"


def test_rows() -> None:
    x = Rows({"a": np.array([1.0, 2.0])})
    assert (x.columns, len(x), "a" in x, "b" in x) == (["a"], 2, True, False)
    assert x.put(b=3, c=[4, 5]).numpy(["c", "a", "b"]).tolist() == [[4.0, 1.0, 3.0], [5.0, 2.0, 3.0]]
    x["a"][0] = 9
    assert x["a"].tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="shape"):
        x.put(b=[1, 2, 3])
    with pytest.raises(KeyError):
        x.numpy(["b"])


def declared(**more: Any) -> tuple[App, Any, Any]:
    class Row(Record):
        key: str
        n: float
        at: datetime
        y: bool | None

    app = App("a")
    source, other = app.source(Row, time="at", called="one"), app.source(Row, time="at", called="other")
    assert Entity("key")

    def fit(x: Any, y: Any) -> Any:
        return SimpleNamespace(x=x, y=y)

    first = app.model(inputs=[source.n], label=source.y, called="first")(fit)
    second = app.model(inputs=[other.n], label=other.y, called="second")(fit)
    return app, first, second


def test_what_cannot_be_put_together_is_refused() -> None:
    app, first, second = declared()
    for models in ((), (1,)):
        with pytest.raises(DeclarationError):
            app.compose(*models)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError):
        app.compose(first, gives="colour")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError) as caught:
        app.compose(first)(lambda x, a, b: x)
    assert caught.value.code == "MS-1029"
    app.compose(first, second, called="both")(lambda x, a, b: x)
    with pytest.raises(DeclarationError) as caught:
        build_plan(app)
    assert caught.value.code == "MS-2726"
    app, first, _ = declared()
    app.compose(first, called="first")(lambda x, a: x)
    with pytest.raises(DeclarationError) as caught:
        build_plan(app)
    assert caught.value.code == "MS-2727"
