"""Messages that wait to be sent, in Redis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serving.jobs.outbox import Delivery

_PREFIX = "lip-sync:outbox"
_RECEIVERS = f"{_PREFIX}:receivers"


class RedisOutbox:
    """Messages in Redis. See `Outbox`.

    A message is a string under its id; a sorted set by due time holds the ids of each receiver's, and a set the
    receivers.

    Args:
        redis: the connection.
    """

    def __init__(self, redis: Any):
        self._redis = redis

    @staticmethod
    def _row(delivery_id: str) -> str:
        return f"{_PREFIX}:{delivery_id}"

    @staticmethod
    def _of(receiver: str) -> str:
        return f"{_PREFIX}:of:{receiver}"

    def put(self, pipe: Any, delivery: Delivery) -> None:
        """Store a message within a transaction."""
        pipe.set(self._row(delivery.id), delivery.to_json())
        pipe.zadd(self._of(delivery.receiver), {delivery.id: delivery.due})
        pipe.sadd(_RECEIVERS, delivery.receiver)

    def receivers(self, now: float) -> list[str]:
        known = sorted(self._redis.smembers(_RECEIVERS))
        return [name for name in known if self._redis.zcount(self._of(name), "-inf", repr(now))]

    def claim(self, receiver: str, now: float, until: float) -> Delivery | None:
        name = self._of(receiver)

        def attempt(pipe: Any) -> Delivery | None:
            first = pipe.zrangebyscore(name, "-inf", repr(now), 0, 1)
            row = pipe.get(self._row(first[0])) if first else None
            pipe.multi()
            if row is None:
                return None
            delivery = Delivery.from_json(row)
            delivery = replace(delivery, due=until, tries=delivery.tries + 1)
            self.put(pipe, delivery)
            return delivery

        # Repeats the attempt when someone else has taken one of this receiver's in between.
        return self._redis.transaction(attempt, name, value_from_callable=True)

    def put_off(self, delivery: Delivery, due: float) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            self.put(pipe, replace(delivery, due=due))
            pipe.execute()

    def remove(self, delivery: Delivery) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(self._row(delivery.id))
            pipe.zrem(self._of(delivery.receiver), delivery.id)
            pipe.execute()

    def count(self) -> int:
        return sum(int(self._redis.zcard(self._of(name))) for name in self._redis.smembers(_RECEIVERS))
