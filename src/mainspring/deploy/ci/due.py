"""Whether an alarm of drift may start a training: a cooldown, and so many in a week."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["Due", "due"]

_WEEK_US = 7 * 86_400 * 1_000_000


class Due(msgspec.Struct, frozen=True):
    """Whether a model may be trained now, and why, or why not."""

    model: str
    due: bool
    why: str


def due(model: str, trained: Sequence[int], now_us: int, cooldown_us: int, weekly: int) -> Due:
    """Hold the times at which versions were registered against the limits.

    Args:
        model: its name.
        trained: when its versions were registered, UTC microseconds, in any order.
        now_us: the clock.
        cooldown_us: the least time since the last one.
        weekly: the most of them in seven days.
    """
    lately = [at for at in trained if now_us - at < _WEEK_US]
    if lately and now_us - max(lately) < cooldown_us:
        hours = (now_us - max(lately)) / 3.6e9
        return Due(model, False, f"it was trained {hours:.1f} h ago; the cooldown is {cooldown_us / 3.6e9:g} h")
    if len(lately) >= weekly:
        return Due(model, False, f"it was trained {len(lately)} times in seven days; at most {weekly}")
    return Due(model, True, f"{len(lately)} trainings in seven days")
