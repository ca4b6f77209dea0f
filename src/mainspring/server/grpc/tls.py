"""The certificate of the gRPC listener, from the files that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError
from mainspring.lazy import lazy
from mainspring.server.http.listening import origin_of_setting

if TYPE_CHECKING:
    import ssl

    import grpc
else:
    grpc, ssl = lazy("grpc"), lazy("ssl")

__all__ = ["credentials_of"]

_CERTIFICATE, _KEY, _CLIENTS = "grpc.certificate", "grpc.private_key", "grpc.client_ca"


def credentials_of(settings: Settings) -> Any:
    """Grpcio's server credentials; None where the settings name no certificate, and the listener speaks plain text.

    Raises:
        ConfigError: MS-4330, a file is not there or cannot be read; MS-4331, a certificate without its key or a key
            without one; MS-4332, the files are no certificate and its key.
    """
    named = [key for key in (_CERTIFICATE, _KEY, _CLIENTS) if settings.text(key)]
    if not named:
        return None
    if missing := next((key for key in (_CERTIFICATE, _KEY) if key not in named), None):
        there = named[0]
        raise ConfigError(
            f"{there} is set, and {missing} is not",
            code="MS-4331",
            why="TLS needs a certificate and its private key",
            origin=origin_of_setting(settings, there),
            fix=f'{missing} = "PATH of a file in PEM"',
        )
    data = {key: _read(key, settings) for key in named}
    _check(settings, clients=_CLIENTS in named)
    clients = data.get(_CLIENTS)
    return grpc.ssl_server_credentials(
        [(data[_KEY], data[_CERTIFICATE])], clients, require_client_auth=clients is not None
    )


def _path(key: str, settings: Settings) -> Path:
    return settings.project / str(settings.text(key))


def _read(key: str, settings: Settings) -> bytes:
    path = _path(key, settings)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{key} cannot be read",
            code="MS-4330",
            why=f"{path}: {error.strerror}",
            origin=origin_of_setting(settings, key),
            fix="name a file in PEM, relative to the project, that this user may read",
        ) from error


def _check(settings: Settings, *, clients: bool) -> None:
    """Let OpenSSL look at the files: grpcio takes anything, and then answers nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = _KEY
    try:
        context.load_cert_chain(_path(_CERTIFICATE, settings), _path(_KEY, settings), lambda: b"")
        if clients:
            key = _CLIENTS
            context.load_verify_locations(_path(_CLIENTS, settings))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            "the files of gRPC's TLS are no certificate and its key",
            code="MS-4332",
            why=str(getattr(error, "reason", None) or error),
            origin=origin_of_setting(settings, key),
            fix="write both in PEM, the key without a passphrase: the certificate first, then those that sign it",
        ) from error
