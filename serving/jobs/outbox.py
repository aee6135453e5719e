"""Messages to other programs that wait to be sent. They are stored in the same step as the change that they tell of, so
none is lost and none is made up, and they outlive the job."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from serving.outgoing import origin_of


@dataclass(frozen=True)
class Delivery:
    """A message that is to be sent, until it has arrived. Times are seconds since 1970.

    Attributes:
        id: stays the same however often it is sent.
        job: id of the job that it is about.
        url: where to send it.
        secret_of: whose secret signs it, see `serving.jobs.webhooks.secrets_of`.
        created: when it happened.
        body: what is sent, JSON.
        due: when to send it (again).
        tries: how often that was tried.
    """

    id: str
    job: str
    url: str
    secret_of: str | None
    created: float
    body: str
    due: float
    tries: int = 0

    @property
    def receiver(self) -> str:
        """Its origin: those of one receiver are sent in the same lines."""
        return origin_of(self.url)

    def to_json(self) -> str:
        """The whole message as text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str | bytes) -> Delivery:
        """Undo `to_json`."""
        return Delivery(**json.loads(text))


class Outbox(Protocol):
    """Where messages wait. Every method may be called from any thread; `JobStore.change` puts them in."""

    def receivers(self, now: float) -> list[str]:
        """Receivers for whom a message is due."""

    def claim(self, receiver: str, now: float, until: float) -> Delivery | None:
        """The oldest message that is due for a receiver, which nobody else gets before `until`, and its next try
        counted; None if there is none."""

    def put_off(self, delivery: Delivery, due: float) -> None:
        """Send it again later."""

    def remove(self, delivery: Delivery) -> None:
        """It has arrived, or is given up."""

    def count(self) -> int:
        """How many messages wait."""


class SqliteOutbox:
    """Messages in the file of the job rows. See `Outbox`.

    Args:
        transaction: opens one.
        rows: asks something.
    """

    SCHEMA = """
create table if not exists outbox (id text primary key, receiver text not null, due real not null, row text not null);
create index if not exists outbox_due on outbox (receiver, due);
"""

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[sqlite3.Connection]],
        rows: Callable[..., list[tuple[Any, ...]]],
    ):
        self._transaction = transaction
        self._rows = rows

    @staticmethod
    def put(connection: sqlite3.Connection, delivery: Delivery) -> None:
        """Store a message within a transaction."""
        values = (delivery.id, delivery.receiver, delivery.due, delivery.to_json())
        connection.execute("insert or replace into outbox values (?, ?, ?, ?)", values)

    def receivers(self, now: float) -> list[str]:
        return [row[0] for row in self._rows("select distinct receiver from outbox where due <= ?", now)]

    def claim(self, receiver: str, now: float, until: float) -> Delivery | None:
        with self._transaction() as connection:
            sql = "select row from outbox where receiver = ? and due <= ? order by due limit 1"
            row = connection.execute(sql, (receiver, now)).fetchone()
            if row is None:
                return None
            delivery = Delivery.from_json(row[0])
            delivery = replace(delivery, due=until, tries=delivery.tries + 1)
            self.put(connection, delivery)
        return delivery

    def put_off(self, delivery: Delivery, due: float) -> None:
        with self._transaction() as connection:
            self.put(connection, replace(delivery, due=due))

    def remove(self, delivery: Delivery) -> None:
        with self._transaction() as connection:
            connection.execute("delete from outbox where id = ?", (delivery.id,))

    def count(self) -> int:
        return int(self._rows("select count(*) from outbox")[0][0])
