"""Counts who holds how many connections, and sends how many requests a minute."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from serving.problems import RETRY_S, Problem, busy

_MOST_REQUESTS = 500  # answered at once
_MOST_OF_ONE = 60  # of them for one key, or one address without a key


class Crowd:
    """Everybody who asks something of this process.

    Args:
        per_minute: most requests of one in any 60 s; None: as many as somebody likes.
    """

    def __init__(self, per_minute: int | None = None):
        self._active: Counter[str] = Counter()
        self._per_minute = None if per_minute is None else RateLimitItemPerMinute(per_minute)
        self._rates = MovingWindowRateLimiter(MemoryStorage())

    def problem(self, who: str, is_counted: bool) -> Problem | None:
        """Why a request must wait; None: it may come in.

        Args:
            who: see `name_of_address`, or any name of a person.
            is_counted: it counts among the requests of this minute.
        """
        if self._active[who] >= _MOST_OF_ONE:
            return _crowded(f"{_MOST_OF_ONE} of your requests are being answered already; end some of them.")
        if self._active.total() >= _MOST_REQUESTS:
            return _crowded(f"{_MOST_REQUESTS} requests are being answered already; try again later.")
        if not is_counted or self._per_minute is None or self._rates.hit(self._per_minute, who):
            return None
        wait = max(1, round(self._rates.get_window_stats(self._per_minute, who).reset_time - time.time()))
        detail = f"More than {self._per_minute.amount} requests have come from you in a minute; wait {wait} s."
        return busy("too-fast", detail, wait)

    def enter(self, who: str) -> None:
        """A request begins to be answered."""
        self._active[who] += 1

    def leave(self, who: str) -> None:
        """It has been answered."""
        self._active[who] -= 1
        if not self._active[who]:
            del self._active[who]


def _crowded(detail: str) -> Problem:
    return Problem(503, "too-many-requests", detail, {"Retry-After": str(RETRY_S)})


def name_of_address(address: str) -> str:
    """Under which name an address is counted: itself, and of IPv6 the network of one household, that is its /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address
