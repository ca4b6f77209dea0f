"""Which services the gRPC listener has, and what it does when it cannot listen."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from mainspring.config.settings import load_settings
from mainspring.errors import ConfigError
from mainspring.protocols.http import Fault, Request
from mainspring.server.grpc import listening as module
from mainspring.server.grpc.listening import GrpcListening
from mainspring.server.http.callers import Callers
from mainspring.serving.telemetry import Metrics


class Models:
    """Of the models only their names."""

    max_rows = 100

    def __init__(self, *names: str) -> None:
        self._names = names

    def known(self) -> tuple[str, ...]:
        return self._names

    def states(self, name: str) -> tuple[object, ...]:
        return ()


class Wires:
    """Nobody may manage."""

    def has_token(self, request: Request) -> bool:
        return False

    def with_token(self, request: Request) -> None:
        raise Fault(403, "no")


def made(folder: Path, told: list[str], models: Any, profile: str = "dev", **values: Any) -> GrpcListening:
    (folder / "mainspring.toml").write_text('app = "shop:app"\n[profiles.prod]\n')
    settings = load_settings(folder, profile=profile, flags={name.replace("__", "."): v for name, v in values.items()})
    wires: Any = Wires()
    metrics = Metrics(folder / "metrics")
    server = ("mainspring", "1")
    return GrpcListening(
        settings, models, None, wires, lambda: True, server, Callers(), metrics, "shop", told.append, told.append
    )


def answers(folder: Path, ask: Callable[[grpc.aio.Channel], Any], models: Any, **values: Any) -> Any:
    """What a listener answers; None where there is none."""
    told: list[str] = []

    async def main() -> Any:
        listening = made(folder, told, models, grpc__port=0, **values)
        await listening.start()
        if not told:
            return None
        try:
            async with grpc.aio.insecure_channel(told[0].split()[1]) as channel:
                return await ask(channel)
        finally:
            await listening.stop()

    return uvloop.run(main())


async def codes(channel: grpc.aio.Channel) -> list[str]:
    found = []
    for path in (
        "inference.GRPCInferenceService/ServerLive",
        "tensorflow.serving.ModelService/GetModelStatus",
        "org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping",
        "feast.serving.ServingService/GetFeastServingInfo",
        "grpc.health.v1.Health/Check",
    ):
        try:
            await channel.unary_unary(f"/{path}")(b"", timeout=30)
            found.append("OK")
        except grpc.aio.AioRpcError as error:
            found.append(error.code().name)
    return found


def test_the_services_are_those_of_the_protocols(tmp_path: Path) -> None:
    models = Models("late")
    none, bad = "UNIMPLEMENTED", "INVALID_ARGUMENT"
    assert answers(tmp_path, codes, models) == ["OK", bad, "OK", none, "OK"]
    assert answers(tmp_path, codes, models, serving__protocols=["kserve"]) == ["OK", none, none, none, "OK"]
    assert answers(tmp_path, codes, models, serving__protocols=["tfserving"]) == [none, bad, none, none, "OK"]
    assert answers(tmp_path, codes, models, serving__protocols=["azureml"]) is None
    assert answers(tmp_path, codes, models, grpc__enabled=False) is None
    assert answers(tmp_path, codes, Models()) is None


def test_a_port_that_another_project_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In dev it is told, when nobody has chosen the port; else it is an error."""

    async def started(told: list[str], **values: Any) -> None:
        listening = made(tmp_path, told, Models("late"), **values)
        try:
            await listening.start()
        finally:
            await listening.stop()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="is taken"):
            uvloop.run(started([], grpc__port=port))
        monkeypatch.setattr(module.GrpcListening, "_chosen", lambda self: False)
        told: list[str] = []
        uvloop.run(started(told, grpc__port=port))
        (line,) = told
        assert line.startswith(f"grpc        not served: grpc.port {port} is taken")
        with pytest.raises(ConfigError, match="is taken"):
            uvloop.run(started([], profile="prod", grpc__port=port))


def test_without_grpcio_there_is_no_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="cannot be served"):
        made(tmp_path, [], Models("late"), grpc__port=0)
    told: list[str] = []
    uvloop.run(made(tmp_path, told, Models("late")).start())
    assert told == ["grpc        not served: grpcio is not installed"]
