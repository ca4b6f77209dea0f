"""The certificates of listeners, from the files that the settings name."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError
from mainspring.server.http.listening import origin_of_setting

__all__ = ["Certificate", "certificate_of", "context_of"]


class Certificate(msgspec.Struct, frozen=True):
    """The files of a listener's TLS, in PEM.

    Attributes:
        certificate: the certificate, then those that sign it.
        key: its private key, without a passphrase.
        clients: what signs the certificates that clients must have; None asks them for none.
    """

    certificate: Path
    key: Path
    clients: Path | None = None


def certificate_of(settings: Settings, listener: str) -> Certificate | None:
    """The certificate of a listener: ``LISTENER.certificate``, ``private_key`` and ``client_ca``; None is plain text.

    Raises:
        ConfigError: MS-4330, a file is not there or cannot be read; MS-4331, a certificate without its key or a key
            without one; MS-4332, the files are no certificate and its key.
    """
    certificate, key, clients = (f"{listener}.{name}" for name in ("certificate", "private_key", "client_ca"))
    named = [one for one in (certificate, key, clients) if settings.text(one)]
    if not named:
        return None
    if missing := next((one for one in (certificate, key) if one not in named), None):
        raise ConfigError(
            f"{named[0]} is set, and {missing} is not",
            code="MS-4331",
            why="TLS needs a certificate and its private key",
            origin=origin_of_setting(settings, named[0]),
            fix=f'{missing} = "PATH of a file in PEM"',
        )
    paths = {one: _readable(one, settings) for one in named}
    found = Certificate(paths[certificate], paths[key], paths.get(clients))
    _check(found, settings, certificate, clients)
    return found


def context_of(settings: Settings, listener: str) -> ssl.SSLContext | None:
    """How a listener proves who it is, TLS 1.2 at least; None is plain text.

    Raises:
        ConfigError: as `certificate_of`.
    """
    found = certificate_of(settings, listener)
    if found is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(found.certificate, found.key)
    if found.clients is not None:
        context.load_verify_locations(found.clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _readable(key: str, settings: Settings) -> Path:
    path = settings.project / str(settings.text(key))
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{key} cannot be read",
            code="MS-4330",
            why=f"{path}: {error.strerror}",
            origin=origin_of_setting(settings, key),
            fix="name a file in PEM, relative to the project, that this user may read",
        ) from error
    return path


def _check(files: Certificate, settings: Settings, certificate: str, clients: str) -> None:
    """Let OpenSSL look at the files now, not when the first client comes."""
    context, looked_at = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate
    try:
        context.load_cert_chain(files.certificate, files.key, lambda: b"")
        if files.clients is not None:
            looked_at = clients
            context.load_verify_locations(files.clients)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"the files of {certificate} and its key are no certificate and its key",
            code="MS-4332",
            why=str(getattr(error, "reason", None) or error),
            origin=origin_of_setting(settings, looked_at),
            fix="write both in PEM, the key without a passphrase: the certificate first, then those that sign it",
        ) from error
