"""``server.workers``: the server as several processes of the same command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mainspring.choose.services import Services
from mainspring.errors import ConfigError
from mainspring.server.http.listening import origin_of_setting
from mainspring.server.management.levels import levels_file
from mainspring.server.rollouts.asked import asked_file
from mainspring.server.state import ending_of, metrics_file
from mainspring.server.workers.board import Board, board_file
from mainspring.server.workers.budgets import budgets_file, leave
from mainspring.server.workers.ports import check_platform, hold
from mainspring.server.workers.rates import SharedRates, rates_file
from mainspring.server.workers.supervisor import Supervisor
from mainspring.serving.merging import MOMENTARY
from mainspring.serving.telemetry import Metrics

__all__ = ["serve_workers"]

_GRPC = "grpc.port"


def serve_workers(services: Services, only: Sequence[str], told: Callable[[str], None]) -> int:
    """Serve with as many workers as the settings say, until SIGTERM.

    Args:
        services: the project's, whose settings count.
        only: the names of the endpoints to serve; empty is all of them.
        told: told what a person should know, a line at a time.

    Returns:
        The exit status.

    Raises:
        ConfigError: MS-3111, this is no Linux; MS-3016, MS-3017, a port cannot be had; MS-3104, nor gRPC's.
        ServiceError: as `Supervisor.run` raises.
    """
    settings = services.settings
    check_platform(settings)
    host = settings.text("server.host") or "127.0.0.1"
    trial = settings.text("serving.trial")
    kept = Path(trial) if trial else services.state
    environment = dict(os.environ)
    held = [hold(host, settings.whole("server.port"), origin_of_setting(settings, "server.port"))]
    if settings.flag("grpc.enabled"):
        try:
            held.append(hold(host, settings.whole(_GRPC), origin_of_setting(settings, _GRPC)))
        except ConfigError as error:
            if settings.values[_GRPC].origin != "default" or settings.profile != "dev":
                raise ConfigError(
                    f"grpc.port {settings.whole(_GRPC)} is taken",
                    code="MS-3104",
                    why=error.why,
                    origin=error.origin,
                    fix="stop the process that listens there, or set grpc.port to another port",
                ) from error
            environment["MAINSPRING_GRPC_ENABLED"] = "false"
            told(f"grpc        not served: grpc.port {settings.whole(_GRPC)} is taken")
        else:
            environment["MAINSPRING_GRPC_PORT"] = str(held[-1].getsockname()[1])
    command = [sys.executable, "-m", "mainspring.cli", "serve", *only, "--project", str(services.project)]
    command += ["--profile", settings.profile, "--host", host, "--port", str(held[0].getsockname()[1])]

    def start(number: int, link: socket.socket) -> subprocess.Popen[bytes]:
        # In a session of its own, so that a terminal's Ctrl-C reaches it by its parent alone.
        whole = [*command, "--worker", str(number)]
        return subprocess.Popen(whole, stdin=link.fileno(), env=environment, start_new_session=True)

    board = Board(board_file(kept, ending_of(only)), fresh=True)
    asked_file(kept, ending_of(only)).unlink(missing_ok=True)
    levels_file(kept, ending_of(only)).unlink(missing_ok=True)
    SharedRates.begin(rates_file(kept, ending_of(only)))
    budgets = budgets_file(kept, ending_of(only))
    budgets.unlink(missing_ok=True)

    def ended(number: int) -> None:
        board.leave(number)
        leave(budgets, number)
        Metrics(metrics_file(kept, number, only)).clear(MOMENTARY)

    try:
        return Supervisor(settings.whole("server.workers"), start, ended, told, settings.number("server.drain")).run()
    finally:
        board.close()
        for each in held:
            each.close()
