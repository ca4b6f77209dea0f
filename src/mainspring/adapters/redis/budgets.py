"""Budgets of several servers in Redis: a script a counter, and one an account whose places are held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import redis

from mainspring.adapters.redis.connecting import client_of, place_of
from mainspring.adapters.redis.problems import turned
from mainspring.adapters.redis.settings import RedisSettings
from mainspring.ports.budgets import Drawn, Hold, Rest, Want

__all__ = ["RedisBudgets", "open_budgets"]

T = TypeVar("T")
_DRAW = """
local used, limit = tonumber(redis.call('GET', KEYS[1]) or ARGV[4]), tonumber(ARGV[1])
local left, got = limit - used, 0
if left >= tonumber(ARGV[2]) then got = math.min(tonumber(ARGV[3]), left) end
redis.call('SET', KEYS[1], string.format('%.0f', used + got), 'PX', ARGV[5])
return {string.format('%.0f', got), string.format('%.0f', math.max(left - got, 0))}
"""
_GIVE_BACK = """
local used = redis.call('GET', KEYS[1])
if used then
    redis.call('SET', KEYS[1], string.format('%.0f', math.max(tonumber(used) - tonumber(ARGV[1]), 0)), 'KEEPTTL')
end
"""
_HOLD = """
local time, others = redis.call('TIME'), 0
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
    local places, ends = string.match(all[at + 1], '(%d+):(%d+)')
    if tonumber(ends) <= now then
        redis.call('HDEL', KEYS[1], all[at])
    elseif all[at] ~= ARGV[1] then
        others = others + tonumber(places)
    end
end
local free = math.max(tonumber(ARGV[2]) - others, 0)
local got = math.min(tonumber(ARGV[3]), free)
if got > 0 then
    redis.call('HSET', KEYS[1], ARGV[1], got .. ':' .. string.format('%.0f', now + tonumber(ARGV[4])))
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
else
    redis.call('HDEL', KEYS[1], ARGV[1])
end
return {got, free - got}
"""


def open_budgets(settings: RedisSettings, place: Path) -> RedisBudgets:
    """The budgets on the server that ``budgets.url`` names; nothing is asked before the first use."""
    return RedisBudgets(settings)


class RedisBudgets:
    """Implements `mainspring.ports.budgets.BudgetStore`: each call is one round trip.

    Numbers are exact up to 2**53, as Lua's are. Without persistence a server that starts anew has forgotten what was
    used: of money, what the servers' own records say counts again.

    Args:
        settings: where the server is.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._place = place_of(settings)
        self._prefix = f"{settings.prefix}budget:"
        self._client = client_of(settings)
        self._draw = self._client.register_script(_DRAW)
        self._give_back = self._client.register_script(_GIVE_BACK)
        self._hold = self._client.register_script(_HOLD)

    def draw(self, wants: Sequence[Want]) -> list[Drawn]:
        """As `BudgetStore.draw`."""
        pipeline = self._client.pipeline(transaction=False)
        for want in wants:
            lasts_ms = max(int(want.lasts_s * 1000), 1)
            values = [want.limit, want.least, want.wish, want.before, lasts_ms]
            self._draw([self._prefix + want.counter], values, client=pipeline)
        return [Drawn(int(got), int(left)) for got, left in self._sent(pipeline)]

    def give_back(self, rests: Sequence[Rest]) -> None:
        """As `BudgetStore.give_back`."""
        pipeline = self._client.pipeline(transaction=False)
        for rest in rests:
            self._give_back([self._prefix + rest.counter], [rest.amount], client=pipeline)
        self._sent(pipeline)

    def hold(self, member: str, holds: Sequence[Hold], lasts_s: float) -> list[Drawn]:
        """As `BudgetStore.hold`; time is the server's own."""
        pipeline = self._client.pipeline(transaction=False)
        for hold in holds:
            values: list[str | int] = [member, hold.most, hold.places, int(lasts_s * 1000)]
            self._hold([f"{self._prefix}places:{hold.account}"], values, client=pipeline)
        return [Drawn(int(got), int(left)) for got, left in self._sent(pipeline)]

    def answers(self) -> bool:
        """Whether the server answers; raises as a draw does when it cannot."""
        return bool(self._asked(self._client.ping))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _sent(self, pipeline: redis.client.Pipeline) -> list[list[bytes]]:
        return self._asked(pipeline.execute)

    def _asked(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except redis.RedisError as error:
            raise turned(error, self._place, "budgets") from error
