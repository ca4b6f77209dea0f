"""The caches of answers of an app's language models: which there are, and how often they had what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mainspring.llm.alike import AlikeCache
from mainspring.llm.cache import ExactCache
from mainspring.llm.gateway import Gateway
from mainspring.server.answering.language import Language
from mainspring.serving.telemetry import Labels, Metrics

__all__ = ["AnswerCaches"]

_INNER, _OUTER = "", "gateway/"


class AnswerCaches:
    """The caches of the gateways of one process.

    Args:
        app: the app's name.
        language: its language models.
        outer: called for the gateway that clients are answered by, once there is one.
    """

    def __init__(self, app: str, language: Language, outer: Callable[[], Gateway | None]) -> None:
        self._app = app
        self._language = language
        self._outer = outer

    def named(self) -> Mapping[str, ExactCache | AlikeCache]:
        """Every cache by its name; ``chat:alike`` is beside ``chat``, and clients' begin with ``gateway/``."""
        gateways = {_INNER: self._language.inner, _OUTER: self._outer()}
        return {
            f"{prefix}{name}{kind}": cache
            for prefix, gateway in gateways.items()
            for name, lane in (gateway.lanes.items() if gateway is not None else ())
            for kind, cache in (("", lane.cache), (":alike", lane.alike))
            if cache is not None
        }

    def count(self, metrics: Metrics) -> None:
        """Show on the page of metrics how often they had an answer."""
        metrics.gauge_from("mainspring_llm_cache_total", self._counts)
        metrics.gauge_from(
            "mainspring_llm_uncompared_total", lambda: {(("app", self._app),): float(self._language.alike.failed)}
        )

    def _counts(self) -> Mapping[Labels, float]:
        found: dict[Labels, float] = {}
        for name, cache in self.named().items():
            route, _, alike = name.removeprefix(_OUTER).partition(":")
            kind = "semantic" if alike else "exact"
            for result, count in (("hit", cache.hits), ("miss", cache.misses)):
                labels = (("app", self._app), ("cache", kind), ("model", route), ("result", result))
                found[labels] = found.get(labels, 0.0) + count
        return found
