"""Ports that several workers share: held by their parent, so that they are the same for all, and nobody else's."""

from __future__ import annotations

import socket
import sys

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError
from mainspring.server.http.host import refused
from mainspring.server.http.listening import origin_of_setting

__all__ = ["check_platform", "hold"]


def check_platform(settings: Settings, platform: str = sys.platform) -> None:
    """Refuse several workers where the kernel does not spread connections over their sockets.

    Raises:
        ConfigError: MS-3111.
    """
    if platform != "linux":
        raise ConfigError(
            "several workers need Linux",
            code="MS-3111",
            why=f"this is {platform}, whose kernel does not spread connections over sockets of one port",
            origin=origin_of_setting(settings, "server.workers"),
            fix="server.workers = 1, and as many servers behind a proxy as you like",
        )


def hold(host: str, port: int, origin: str) -> socket.socket:
    """Bind an address for workers, without listening there: connections come to those who listen.

    Another server is refused the address from when the first worker listens there.

    Args:
        host: the address.
        port: of it; 0 takes a free one.
        origin: where the port was set.

    Raises:
        ConfigError: MS-3016, the port is taken, be it by the workers of another server; MS-3017, it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if port:
            with socket.socket(family, socket.SOCK_STREAM) as probe:  # it shares with nobody
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise refused("server", host, port, origin, error) from error
    return held
