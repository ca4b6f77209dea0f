"""The certificate of the gRPC listener, as grpcio takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mainspring.config.settings import Settings
from mainspring.lazy import lazy
from mainspring.server.tls import certificate_of

if TYPE_CHECKING:
    import grpc
else:
    grpc = lazy("grpc")

__all__ = ["credentials_of"]


def credentials_of(settings: Settings) -> Any:
    """Grpcio's server credentials; None where the settings name no certificate, and the listener speaks plain text.

    Raises:
        ConfigError: as `certificate_of`.
    """
    found = certificate_of(settings, "grpc")
    if found is None:
        return None
    clients = None if found.clients is None else found.clients.read_bytes()
    pair = (found.key.read_bytes(), found.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], clients, require_client_auth=clients is not None)
