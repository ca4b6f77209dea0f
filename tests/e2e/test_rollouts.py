"""Versions side by side on every wire, labels, canaries and shadows on a real server; rollouts that survive kill -9."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_protocols import raw
from grpc_kit import address, called, stub
from mainspring.catalog.ids import now_us
from mainspring.catalog.rollouts import current
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.declare.rollout import RolloutStep
from mainspring.protocols.oip import messages
from mainspring.protocols.tfserving import messages as tf
from mainspring.protocols.tfserving.reload import ModelConfig, reload_config
from mainspring.protocols.torchserve import messages as torch
from mainspring.server.planning import plan_of
from mainspring.server.rollouts.deciding import promote_whole, try_version
from mainspring.server.rollouts.drive import Rollouts
from mainspring.server.state import WorkerState
from mainspring.serving.calls import Reason, Rejected
from mainspring.serving.inference import ServedModels
from mainspring.serving.versions import Policy, State

ROW = [[1.0, 2.5, 3.0]]
KEYS = {"customer": "c01", "amount": 20.0}
FLIPPED = "LogisticRegression())\n    return Model(pipeline.fit(x.numpy(), 1 - y.numpy()))"


@pytest.fixture(scope="module")
def three(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with three versions of its model: 1 the champion, 2 another fit, 3 one that has it all wrong."""
    project = tmp_path_factory.mktemp("versions") / "shop"
    shutil.copytree(built, project)
    app = project / "shop.py"
    first = app.read_text()
    app.write_text(first.replace("LogisticRegression())", "LogisticRegression(C=0.01))"))
    mainspring("run", "returns", cwd=project)
    flipped = first.replace("LogisticRegression())\n    return Model(pipeline.fit(x.numpy(), y.numpy()))", FLIPPED)
    assert flipped != first
    app.write_text(flipped)
    mainspring("run", "returns", cwd=project)
    app.write_text(first.replace("app.endpoint(returns)", 'app.endpoint(returns, versions="all")'))
    mainspring("promote", "returns", "1", "--force", cwd=project)
    return project


@pytest.fixture
def project(three: Path, tmp_path: Path) -> Path:
    shutil.copytree(three, tmp_path / "shop")
    return tmp_path / "shop"


@pytest.fixture(scope="module")
def server(three: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server over all three; its tests leave version 1 the champion, and no rollout."""
    project = tmp_path_factory.mktemp("server") / "shop"
    shutil.copytree(three, project)
    served = serve(project)
    try:
        yield served
    finally:
        assert served.stop() == 0, served.log.read_text()


def until(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError("it never came")


def oip(url: str, path: str = "", headers: dict[str, str] | None = None) -> tuple[int, Any]:
    tensor = {"name": "input", "datatype": "FP64", "shape": [1, 3], "data": ROW}
    status, body, _ = call(f"{url}/v2/models/returns{path}/infer", {"inputs": [tensor]}, headers)
    return status, json.loads(body)


def over_grpc(served: Served, keys: list[str]) -> list[str]:
    """Which version answers each key over gRPC."""
    tensor = {"name": "input", "datatype": "FP64", "shape": [1, 3]}
    asked = {"model_name": "returns", "inputs": [tensor], "raw_input_contents": [np.array(ROW, "<f8").tobytes()]}
    with grpc.insecure_channel(address(served)) as channel:
        ask = called(channel, messages.schema(), messages.INFERENCE)
        return [ask("ModelInfer", (("x-mainspring-key", key),), **asked).model_version for key in keys]


def over_other_grpc(served: Served, keys: list[str]) -> list[tuple[str, float]]:
    """Which version answers each key by TensorFlow Serving's calls; and the score by TorchServe's, which name none."""
    proto = {"dtype": 2, "tensor_shape": {"dim": [{"size": 1}, {"size": 3}]}, "tensor_content": np.array(ROW).tobytes()}
    found = []
    with grpc.insecure_channel(address(served)) as channel:
        predict = called(channel, tf.schema(), tf.PREDICTION)
        predictions, kind = stub(channel, torch.schema(), torch.INFERENCE, "Predictions")
        message = kind(model_name="returns", input={"data": json.dumps(ROW).encode()})
        for key in keys:
            metadata = (("x-mainspring-key", key),)
            answer = predict("Predict", metadata, model_spec={"name": "returns"}, inputs={"input": proto})
            score = json.loads(predictions(message, timeout=60, metadata=metadata).prediction)[0]
            found.append((str(answer.model_spec.version.value), score))
    return found


def native(url: str, path: str = "", body: object = None, headers: dict[str, str] | None = None) -> Any:
    status, answer, _ = call(f"{url}/endpoint/returns{path}", body or KEYS, headers)
    return json.loads(answer) | {"code": status}


def show(project: Path, what: str) -> Any:
    return json.loads(mainspring("show", what, "--json", cwd=project).stdout)


def rollout(served: Served) -> Any:
    """The rollout as the control API has it."""
    return json.loads(call(f"{served.console}/actuator/rollouts")[1])["rollouts"].get("returns")


def decide(served: Served, act: str, **form: str) -> tuple[int, Any]:
    """Decide something at the control API."""
    body = "&".join(f"{name}={value}" for name, value in form.items()).encode()
    headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
    status, answer, _ = call(f"{served.console}/serving/returns/versions/{act}", body or b" ", headers)
    return status, json.loads(answer)


def test_every_version_is_there_on_every_wire(server: Served) -> None:
    scores = {}
    for version in ("1", "2", "3"):
        status, answer = oip(server.url, f"/versions/{version}")
        assert (status, answer["model_version"]) == (200, version)
        scores[version] = answer["outputs"][0]["data"][0]
        status, body, _ = call(f"{server.url}/v1/models/returns/versions/{version}:predict", {"instances": ROW})
        assert (status, json.loads(body)["predictions"]) == (200, [scores[version]])
        status, body, _ = call(f"{server.url}/predictions/returns/{version}", ROW, {"content-type": "application/json"})
        assert (status, json.loads(body)) == (200, [scores[version]])
        assert native(server.url, f"/versions/{version}")["version"] == version
    assert len(set(scores.values())) == 3
    assert oip(server.url)[1]["model_version"] == oip(server.url, "/versions/stable")[1]["model_version"] == "1"
    assert json.loads(call(f"{server.url}/v2/models/returns")[1])["versions"] == ["1", "2", "3"]
    status = json.loads(call(f"{server.url}/v1/models/returns")[1])["model_version_status"]
    assert [(one["version"], one["state"]) for one in status] == [(v, "AVAILABLE") for v in ("3", "2", "1")]
    index = json.loads(call(f"{server.url}/v2/repository/index", {})[1])
    assert [(one["version"], one["state"]) for one in index] == [("3", "READY"), ("2", "READY"), ("1", "READY")]
    described = json.loads(call(f"{server.url}/models/returns/all")[1])
    assert [one["modelVersion"] for one in described] == ["3", "2", "1"]
    for path in ("/versions/9", "/versions/none"):
        assert oip(server.url, path)[0] == 404
        assert native(server.url, path)["code"] == 404
    assert native(server.url, "/labels/none")["code"] == 404


def test_labels_move_at_once_and_to_ready_versions_alone(server: Served) -> None:
    mainspring("promote", "returns", "2", "--as", "tuned", cwd=server.project)
    until(lambda: oip(server.url, "/versions/tuned")[0] == 200)
    status, body, _ = call(f"{server.url}/v1/models/returns/labels/tuned:predict", {"instances": ROW})
    assert (status, json.loads(body)["predictions"]) == (200, oip(server.url, "/versions/2")[1]["outputs"][0]["data"])
    assert native(server.url, "/labels/tuned")["version"] == "2"
    mainspring("promote", "returns", "3", "--as", "tuned", cwd=server.project)
    until(lambda: native(server.url, "/labels/tuned")["version"] == "3")
    told = mainspring("promote", "returns", "3", "--as", "canary", cwd=server.project, status=5).stderr
    assert "MS-4364" in told
    assert "MS-5040" in mainspring("promote", "returns", "9", "--as", "tuned", cwd=server.project, status=5).stderr
    assert raw(server.console, "PUT", "/models/returns/2/set-default")[0] == 403, "the gate has refused it"
    assert raw(server.console, "PUT", "/models/returns/7/set-default")[0] == 404
    mainspring("promote", "returns", "2", "--force", cwd=server.project)
    until(lambda: oip(server.url)[1]["model_version"] == "2")
    assert raw(server.console, "PUT", "/models/returns/1/set-default")[0] == 200
    assert oip(server.url)[1]["model_version"] == "1", "no later than the answer"


def test_loading_takes_names_and_versions_and_nothing_else(server: Served) -> None:
    load = f"{server.console}/v2/repository/models/returns"
    assert call(f"{load}/unload", {"parameters": {"version": "1"}})[0] == 409, "it answers"
    assert call(f"{load}/unload", {"parameters": {"version": "2"}})[0] == 200
    assert oip(server.url, "/versions/2")[0] == 404
    assert raw(server.console, "PUT", "/models/returns/2/set-default")[0] == 409, "a version that is not loaded"
    assert call(f"{load}/load", {"parameters": {"version": "2"}})[0] == 200
    assert oip(server.url, "/versions/2")[0] == 200
    for parameters in ({"version": "../2"}, {"version": "https://models/2"}, {"version": "8"}):
        assert call(f"{load}/load", {"parameters": parameters})[0] == 404, parameters
    for parameters in ({"version": []}, {"config": "{}"}, {"file:1/model.onnx": "AAAA"}, {"uri": "s3://models"}):
        assert call(f"{load}/load", {"parameters": parameters})[0] == 400, parameters
    register = f"{server.console}/models?url="
    for url in ("https://models/late.mar", "/opt/returns", "returns@../1", "file:returns", "returns.mar"):
        assert raw(server.console, "POST", f"/models?url={url}")[0] in (400, 404), (register, url)
    assert raw(server.console, "DELETE", "/models/returns/2")[0] == 200
    assert raw(server.console, "POST", "/models?url=returns@2")[0] == 200
    assert raw(server.console, "POST", "/models?url=returns@2")[0] == 409
    assert oip(server.url, "/versions/2")[0] == 200


def test_a_canary_is_sticky_and_ends_by_a_rollback(server: Served) -> None:
    told = mainspring("promote", "returns", "2", "--force", "--canary", "30%", cwd=server.project).stdout
    assert "version 2 beside version 1: 30% until told" in told
    until(lambda: oip(server.url, "/versions/canary")[0] == 200)
    rows = {"rows": [{"customer": f"k{n}", "amount": 20.0} for n in range(400)]}
    answers = native(server.url, "", rows)["predictions"]
    versions = [one["version"] for one in answers]
    assert 60 < versions.count("2") < 180
    assert versions == [one["version"] for one in native(server.url, "", rows)["predictions"]]
    assert versions[7] == native(server.url, "", {"customer": "k7", "amount": 1.0})["version"], "by its entity alone"
    keyed = {f"u{n}": oip(server.url, "", {"x-mainspring-key": f"u{n}"})[1]["model_version"] for n in range(40)}
    assert set(keyed.values()) == {"1", "2"}
    assert all(oip(server.url, "", {"x-mainspring-key": key})[1]["model_version"] == v for key, v in keyed.items())
    assert over_grpc(server, list(keyed)) == list(keyed.values()), "and the same keys over gRPC"
    scores = {number: oip(server.url, f"/versions/{number}")[1]["outputs"][0]["data"][0] for number in ("1", "2")}
    assert scores["1"] != scores["2"]
    assert over_other_grpc(server, list(keyed)[:12]) == [(v, scores[v]) for v in list(keyed.values())[:12]]
    assert len({oip(server.url)[1]["model_version"] for _ in range(5)}) == 1, "the same question goes the same way"
    assert oip(server.url, "/versions/1", {"x-mainspring-key": "u1"})[1]["model_version"] == "1"
    mine = next(one for one in answers if one["version"] == "2")["id"]
    assert show(server.project, f"prediction/{mine}")["role"] == "canary"
    assert "as a canary" in mainspring("show", f"prediction/{mine}", cwd=server.project).stdout
    page = call(f"{server.url}/monitoring/prometheus/metrics")[1] + call(f"{server.console}/actuator/prometheus")[1]
    assert b'role="canary"' in page
    assert b'mainspring_rollout_share{app="shop",model="returns"} 0.3' in page
    again = mainspring("promote", "returns", "2", "--force", "--canary", "5%", cwd=server.project, status=5).stderr
    assert "MS-4360" in again
    until(lambda: rollout(server)["calls"]["2"] > 0)
    shown = mainspring("show", "endpoint/returns", cwd=server.project).stdout
    assert "rollout: version 2 beside version 1: 30% until told" in shown
    assert "errors:" in shown
    assert "stopped" in mainspring("rollback", "returns", cwd=server.project).stdout
    until(lambda: oip(server.url, "/versions/canary")[0] == 404)
    assert {one["version"] for one in native(server.url, "", rows)["predictions"]} == {"1"}


def test_a_shadow_answers_nobody_and_is_compared(server: Served) -> None:
    assert decide(server, "shadow", version="3")[0] == 409, "the gate has refused it"
    assert decide(server, "shadow", version="3", force="true")[1]["rollout"]["state"] == "running"
    until(lambda: oip(server.url, "/versions/canary")[0] == 200)
    rows = {"rows": [{"customer": f"s{n}", "amount": 20.0} for n in range(100)]}
    answers = native(server.url, "", rows)["predictions"]
    assert {one["version"] for one in answers} == {"1"}
    assert oip(server.url)[1]["model_version"] == "1"
    assert over_grpc(server, ["a", "b"]) == ["1", "1"]
    found = until(
        lambda: (s := show(server.project, "endpoint/returns")["rollout"]["shadow"]) and s["rows"] >= 103 and s
    )
    assert found["failed"] == found["dropped"] == 0
    assert found["greatest"] > 0
    logged = server.project / ".mainspring" / "predictions"
    assert list((logged / "returns.shadow").glob("wal-*"))
    mine = answers[0]["id"]
    traced = show(server.project, f"prediction/{mine}")
    assert (traced["version"], traced["role"]) == (1, "stable"), "the answer that was given, not its shadow's"
    assert decide(server, "rollback")[1]["rollout"]["state"] == "stopped"
    until(lambda: oip(server.url, "/versions/canary")[0] == 404)


def test_a_canary_whose_answers_are_wrong_is_stopped_by_itself(server: Served) -> None:
    assert decide(server, "canary", version="3", share="150%25", force="true")[0] == 400
    assert decide(server, "canary", version="3", share="50%25", force="true")[0] == 200
    until(lambda: oip(server.url, "/versions/canary")[0] == 200)
    stop = threading.Event()
    try:

        def ended() -> bool:
            rows = {"rows": [{"customer": f"w{time.monotonic_ns()}-{n}", "amount": float(n)} for n in range(900)]}
            answers = native(server.url, "", rows)["predictions"]
            truth = {n: one["score"] >= 0.5 for n, one in enumerate(answers) if one["version"] == "1"}
            one = [(one["id"], one["prediction"]) for n, one in enumerate(answers) if n in truth]
            other = [(one["id"], not one["prediction"]) for n, one in enumerate(answers) if n not in truth]
            at = "2030-01-01T00:00:00Z"
            labels = {"labels": [{"id": id, "value": value, "at": at} for id, value in one + other]}
            assert call(f"{server.url}/labels", labels)[0] == 202
            return bool(rollout(server)["state"] == "stopped")

        until(ended, 120)
    finally:
        stop.set()
    found = show(server.project, "endpoint/returns")["rollout"]
    assert found["why"].startswith("quality:")
    until(lambda: oip(server.url, "/versions/canary")[0] == 404)
    page = call(f"{server.console}/serving", headers={"accept": "text/html"})[1].decode()
    assert "Stopped above" in page
    assert 'action="/serving/returns/versions/canary"' in page
    assert decide(server, "nothing")[0] == 404
    assert decide(server, "promote", version="x")[0] == 400


def test_a_declared_rollout_goes_its_steps_over_kill_9(project: Path) -> None:
    app = project / "shop.py"
    text = app.read_text().replace(
        "app.promote(returns, margin=0.01)",
        'app.promote(returns, margin=1.0, rollout=["20% for 2s", "60% for 2s"])',
    )
    app.write_text(text)
    served = serve(project)
    try:
        told = mainspring("promote", "returns", "2", "--force", "--rollout", cwd=project).stdout
        assert "20% for 2s, step 1 of 2" in told
        until(lambda: oip(served.url, "/versions/canary")[0] == 200)
        rows = {"rows": [{"customer": f"d{n}", "amount": 20.0} for n in range(300)]}
        for _ in range(3):
            native(served.url, "", rows)
        served.process.kill()
        served.process.wait(timeout=60)
        served = serve(project)
        seen: set[float] = set()

        def promoted() -> bool:
            for n in range(30):
                native(served.url, "", {"customer": f"p{time.monotonic_ns()}", "amount": float(n)})
            found = rollout(served)
            seen.add(found["step"])
            return bool(found["state"] == "promoted")

        until(promoted, 120)
        assert seen == {0, 1} or 1 in seen
        until(lambda: oip(served.url)[1]["model_version"] == "2")
        aliases = {one["alias"]: one["entity_id"] for one in show(project, "model/returns")["aliases"]}
        versions = {one["id"]: one["version"] for one in show(project, "model/returns")["versions"]}
        assert versions[aliases["champion"]] == 2
        mainspring("rollback", "returns", cwd=project)
        until(lambda: oip(served.url)[1]["model_version"] == "1")
    finally:
        served.stop()


def test_reloads_under_load_fail_no_request_and_leave_nothing_behind(server: Served) -> None:
    failed: list[object] = []
    seen: set[str] = set()
    stop = threading.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            try:
                if number:
                    status, answer = oip(server.url)
                    seen.add(answer["model_version"])
                else:
                    answer = native(server.url)
                    status = answer["code"]
                    seen.add(answer["version"])
            except OSError as error:
                failed.append(error)
                continue
            if status != 200:
                failed.append(answer)

    services = Services.of_project(server.project)
    threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        for n in range(12):
            version = str(3 - n % 3)
            promote_whole(services.catalog, "returns", int(version), "test", force=True)
            until(lambda version=version: oip(server.url)[1]["model_version"] == version)  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        services.close()
    assert failed == []
    assert seen == {"1", "2", "3"}
    index = json.loads(call(f"{server.url}/v2/repository/index", {})[1])
    assert {(one["version"], one["state"]) for one in index} == {("1", "READY"), ("2", "READY"), ("3", "READY")}
    assert oip(server.url)[1]["model_version"] == "1"


@pytest.fixture
def inside(project: Path) -> Iterator[tuple[Services, WorkerState, ServedModels]]:
    """The state of a server in this process, so that a version's loading can be held up."""
    services = Services.of_project(project)
    state = WorkerState(services, plan_of(load_app(services.settings)))
    state.open()
    models = ServedModels(state.models, lambda: state.endpoints, state.loading, None, "shop", 100, now_us)
    try:
        yield services, state, models
    finally:
        state.close()


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(Rejected) as caught:
        act()
    return caught.value.reason


def test_a_label_to_a_version_that_is_loading_is_refused(
    inside: tuple[Services, WorkerState, ServedModels], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, state, models = inside
    state.loading.unload("returns", "3")
    load, begun, go = services.predictor, threading.Event(), threading.Event()

    def slow(folder: Path, *form: Any, **more: str) -> Any:
        begun.set()
        assert go.wait(60)
        return load(folder, *form, **more)

    monkeypatch.setattr(services, "predictor", slow)
    loading = threading.Thread(target=state.loading.load, args=("returns", "3"))
    loading.start()
    try:
        assert begun.wait(60)
        states = {state.version: state.state for state in models.states("returns")}
        assert states == {"1": State.READY, "2": State.READY, "3": State.LOADING}
        assert refused(lambda: models.find("returns", "3")) is Reason.NOT_READY
        assert refused(lambda: state.loading.label("returns", "mine", "3")) is Reason.CONFLICT
        assert refused(lambda: state.loading.label("returns", "stable", "3")) is Reason.CONFLICT
        assert services.catalog.alias("model", "returns", "mine") is None
        assert models.find("returns").version == "1", "who answers goes on answering"
    finally:
        go.set()
        loading.join(60)
    state.loading.label("returns", "mine", "3")
    assert models.find("returns", label="mine").version == "3"


def test_tensorflow_servings_reload_takes_names_versions_and_labels(
    inside: tuple[Services, WorkerState, ServedModels],
) -> None:
    _, _, models = inside

    def versions() -> list[str]:
        return [served.version for served in models.ready("returns")]

    reload_config(models, [ModelConfig("returns", "returns", specific=(2,), labels={"mine": 2})])
    assert versions() == ["2", "1"], "and the one that answers"
    assert models.find("returns", label="mine").version == "2"
    reload_config(models, [ModelConfig("returns", latest=2)])
    assert versions() == ["3", "2", "1"], "a label holds its version"
    for config, reason in (
        (ModelConfig("returns", labels={"mine": 9}), Reason.NO_VERSION),
        (ModelConfig("returns", specific=(9,)), Reason.NO_VERSION),
        (ModelConfig("returns", specific=(-1,)), Reason.INVALID),
        (ModelConfig("returns", "/models/returns"), Reason.INVALID),
        (ModelConfig("returns", "gs://models/returns"), Reason.INVALID),
        (ModelConfig("returns", "file:returns"), Reason.INVALID),
        (ModelConfig("returns", platform="caffe"), Reason.INVALID),
        (ModelConfig("nothing"), Reason.NO_MODEL),
    ):
        assert refused(lambda config=config: reload_config(models, [config])) is reason, config  # type: ignore[misc]
        assert versions() == ["3", "2", "1"]
    assert refused(lambda: reload_config(models, [ModelConfig("returns"), ModelConfig("returns")])) is Reason.INVALID
    reload_config(models, [ModelConfig("returns", labels={"mine": 1})])
    assert refused(lambda: reload_config(models, [ModelConfig("returns", labels={"mine": 3})])) is Reason.CONFLICT
    assert models.find("returns", label="mine").version == "1"
    reload_config(models, [])
    assert versions() == []
    assert refused(lambda: models.find("returns")) is Reason.NOT_READY
    reload_config(models, [ModelConfig("returns", every=True)])
    assert versions() == ["3", "2", "1"]


def test_a_version_that_cannot_be_loaded_ends_its_rollout_and_harms_nobody(
    inside: tuple[Services, WorkerState, ServedModels], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, state, models = inside
    state.loading.keep("returns", Policy())
    load = services.predictor
    damaged = state.services.catalog.entity("model", "returns", 2)
    assert damaged is not None

    def broken(folder: Path, *form: Any, **more: str) -> Any:
        if folder.name == damaged.spec["artifact"]:
            raise ValueError("not a model")
        return load(folder, *form, **more)

    monkeypatch.setattr(services, "predictor", broken)
    try_version(services.catalog, "returns", 2, (RolloutStep(0.5),), "test", force=True)
    state.refresh()
    assert models.find("returns").version == "1"
    assert next((one.version, one.state) for one in models.states("returns")) == ("2", State.UNAVAILABLE)
    rollouts = Rollouts(
        services, state.plan, state.loading, state.models, state.metrics, lambda line: None, now_us, state.ledgers
    )
    rollouts.once()
    found, _ = current(services.catalog, "returns")
    assert found is not None
    assert (found.state, found.why) == ("stopped", "it cannot be loaded: ValueError")
