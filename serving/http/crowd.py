"""Counts who holds how many connections."""

from __future__ import annotations

import ipaddress
from collections import Counter

from serving.problems import RETRY_S, Problem

_MOST_REQUESTS = 500  # answered at once
_MOST_OF_ONE = 60  # of them for one key, or one address without a key


class Crowd:
    """Everybody who asks something of this process."""

    def __init__(self) -> None:
        self._active: Counter[str] = Counter()

    def problem(self, who: str) -> Problem | None:
        """Why a request must wait; None: it may come in.

        Args:
            who: see `name_of_address`, or any name of a person.
        """
        if self._active[who] >= _MOST_OF_ONE:
            return _crowded(f"{_MOST_OF_ONE} of your requests are being answered already; end some of them.")
        if self._active.total() >= _MOST_REQUESTS:
            return _crowded(f"{_MOST_REQUESTS} requests are being answered already; try again later.")
        return None

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
