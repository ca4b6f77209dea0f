"""Where a Feast repository's rows are, as settings of mainspring.toml."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from urllib.parse import quote

from mainspring.protocols.feast.definitions import FeastRepository, FeastSource, Note

__all__ = ["local_path", "online_of", "place_of", "setting_name"]

_OBJECTS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az"}
_FORMATS = {"", "ParquetFormat", "parquet"}
_OF_FILES = {"FileSource", "RaySource", "SparkSource"}


def setting_name(name: str) -> str:
    """A source's name as a key of the settings, in which points and spaces have a meaning."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def local_path(source: FeastSource, folder: str) -> str | None:
    """The absolute path of a file source, or None when it is in no file of this machine."""
    if source.kind not in _OF_FILES or not source.path:
        return None
    scheme, found, rest = source.path.partition("://")
    if found and scheme != "file":
        return None
    return posixpath.normpath(posixpath.join(folder, rest if found else source.path))


def place_of(
    source: FeastSource, repository: FeastRepository, target: str, *, fine: bool
) -> tuple[str, tuple[Note, ...]]:
    """The settings of a source, and what of it the person has to see to.

    Args:
        source: the source.
        repository: its repository.
        target: the project's folder.
        fine: whether its times have digits beyond microseconds.
    """
    lines, left = _place(source, repository, target)
    if fine:
        lines.append('truncate = "us"')
    return "\n".join((f"[sources.{setting_name(source.name)}]", *lines)), tuple(left)


def _place(source: FeastSource, repository: FeastRepository, target: str) -> tuple[list[str], list[Note]]:
    if source.unknown:
        why = "# Its place is known only when the Feast repository runs."
        return [why, f'# path = "data/{setting_name(source.name)}.parquet"'], []
    return _file(source, repository, target) if source.path else _relation(source, repository)


def _file(source: FeastSource, repository: FeastRepository, target: str) -> tuple[list[str], list[Note]]:
    left = []
    if source.format not in _FORMATS:
        left.append(
            Note(
                f"format of source {source.name}",
                f"{source.format} is not read",
                source.where,
                "write its rows as Parquet",
            )
        )
    path = local_path(source, repository.folder)
    if path is not None:
        near = f"{path}/".startswith((f"{repository.folder}/", f"{target}/"))
        return [f"path = {_text(posixpath.relpath(path, target) if near else path)}"], left
    scheme, _, rest = source.path.partition("://")
    if source.kind not in _OF_FILES or scheme not in _OBJECTS:
        return _nowhere(source, f"{source.kind} {source.path}", left)
    lines = [f"url = {_text(f'{_OBJECTS[scheme]}://{rest}')}"]
    if source.endpoint:
        lines.append(f"options.endpoint = {_text(source.endpoint)}")
    return lines, left


def _relation(source: FeastSource, repository: FeastRepository) -> tuple[list[str], list[Note]]:
    url = _postgres(repository.offline) if source.kind == "PostgreSQLSource" else ""
    asked = source.table or source.query.strip()
    if not url or not asked:
        return _nowhere(source, f"{source.kind} {' '.join(asked.split())[:200]}", [])
    left = []
    if repository.offline.get("password"):
        left.append(
            Note(
                f"password of source {source.name}",
                "secrets are not copied",
                "feature_store.yaml",
                f'set [sources.{source.name}] url = "env:NAME", or PGPASSWORD',
            )
        )
    return [f"url = {_text(url)}", f"{'table' if source.table else 'query'} = {_text(asked)}"], left


def _nowhere(source: FeastSource, where: str, left: list[Note]) -> tuple[list[str], list[Note]]:
    """A source whose rows nothing here reads: its settings are left open, so that check asks for them."""
    note = Note(
        f"place of source {source.name}",
        f"its rows are in {where}, which is not read here",
        source.where,
        f"unload them to Parquet and set [sources.{source.name}] path",
    )
    comment = re.sub(r"[^ -~]", " ", where)
    return [f"# Its rows are in {comment}: unload them.", f'# path = "data/{setting_name(source.name)}.parquet"'], [
        *left,
        note,
    ]


def online_of(repository: FeastRepository) -> tuple[str, list[Note], list[Note]]:
    """The settings of the online store, what changes, and what is left; nothing for one on this machine.

    It is set in the profile ``prod``, so that a first `apply` writes into no server that Feast still uses.
    """
    store = repository.online
    kind = str(store.get("type", "sqlite"))
    if kind == "sqlite":
        return "", [], []
    url = {"redis": _redis, "postgres": _postgres}.get(kind, lambda _: "")(store)
    if not url:
        fix = 'set online.url to "redis://..." or "postgresql://...", or leave it out for LMDB on this machine'
        why = "its address holds a variable" if kind in ("redis", "postgres") else "there is nothing like it here"
        return "", [], [Note(f"online store {kind}", why, "feature_store.yaml", fix)]
    left = []
    if store.get("password") or "password=" in str(store.get("connection_string", "")):
        left.append(
            Note(
                "password of the online store",
                "secrets are not copied",
                "feature_store.yaml",
                'set online.url = "env:NAME" in the profile prod',
            )
        )
    changed = Note(
        f"online store {kind}",
        "it is the profile prod's, dev keeps rows in LMDB; rows are written anew under keys of its own beside Feast's",
        "feature_store.yaml",
        "mainspring apply --profile prod fills it",
    )
    return f"[profiles.prod]\nonline.url = {_text(url)}", [changed], left


def _postgres(store: Mapping[str, object]) -> str:
    """The url of a Postgres without its password, or "" where a part of it is not known."""
    parts = {key: str(store.get(key, "")) for key in ("host", "port", "database", "user")}
    if store.get("type") != "postgres":
        return ""
    if not parts["host"] or not parts["database"] or any("$" in part for part in parts.values()):
        return ""
    user = f"{quote(parts['user'], safe='')}@" if parts["user"] else ""
    return f"postgresql://{user}{parts['host']}:{parts['port'] or 5432}/{quote(parts['database'], safe='')}"


def _redis(store: Mapping[str, object]) -> str:
    """The url of a Redis of one node without its password, or "" where it is not known or a cluster."""
    address, *options = str(store.get("connection_string", "localhost:6379")).split(",")
    if not re.fullmatch(r"[A-Za-z0-9._-]+(:\d+)?", address) or "cluster" in str(store.get("redis_type", "")):
        return ""
    given = dict(option.partition("=")[::2] for option in options if "=" in option)
    scheme = "rediss" if given.get("ssl", "").lower() == "true" else "redis"
    return f"{scheme}://{address}/{given.get('db', '0')}"


def _text(value: str) -> str:
    """A value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
