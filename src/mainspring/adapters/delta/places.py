"""The object stores that tables can be in: what each is called by obstore, and by delta-rs, for one set of options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

from mainspring.adapters.delta.problems import no_bucket, unreachable
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from obstore import exceptions as obstore_errors
    from obstore import store as obstore_stores
else:
    obstore_errors, obstore_stores = lazy("obstore.exceptions"), lazy("obstore.store")

__all__ = ["Place", "place_of"]


class Place(msgspec.Struct, frozen=True):
    """A path of a bucket, for both libraries that go there.

    Attributes:
        store: obstore's, whose paths begin below that path.
        options: delta-rs's, for the URL.
    """

    store: Any
    options: Mapping[str, str]


class _Kind(msgspec.Struct, frozen=True):
    """How one scheme is spoken to.

    Attributes:
        opened: makes obstore's store.
        prefix: what clouds' tools put before an option's name, which may be left out.
        driver: what delta-rs calls an option.
    """

    opened: Callable[[], Any]
    prefix: str
    driver: Callable[[str], str]


def _s3(name: str) -> str:
    return "AWS_ENDPOINT_URL" if name == "endpoint" else f"AWS_{name.upper()}"


def _same(name: str) -> str:
    return name


_S3 = _Kind(lambda: obstore_stores.S3Store, "aws_", _s3)
_KINDS: Mapping[str, _Kind] = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _Kind(lambda: obstore_stores.GCSStore, "google_", _same),
    "az": _Kind(lambda: obstore_stores.AzureStore, "azure_storage_", _same),
}


def place_of(url: str, options: Mapping[str, str]) -> Place:
    """Where a URL leads.

    Args:
        url: ``scheme://bucket/path``, without a slash at its end.
        options: the driver's, such as ``region``; with or without the cloud's prefix, in any case.

    Raises:
        ConfigError: MS-4313, the URL names no bucket.
        ServiceError: MS-4312, an option is none.
    """
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc:
        raise no_bucket(url)
    kind = _KINDS[parts.scheme]
    given: Any = {name.lower().removeprefix(kind.prefix): value for name, value in options.items()}
    plain = given.pop("allow_http", "").lower() == "true" or given.get("endpoint", "").startswith("http://")
    try:
        store = kind.opened()(
            parts.netloc,
            prefix=unquote(url.partition("://")[2].partition("/")[2]) or None,
            config=given,
            client_options={"allow_http": plain},
        )
    except (obstore_errors.BaseError, ValueError) as error:
        raise unreachable(url, error) from error
    named = {kind.driver(name): value for name, value in given.items()}
    return Place(store, {**named, **({kind.driver("allow_http"): "true"} if plain else {})})
