"""What other programs are told of a job: one message when it comes to its end."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone

from serving.jobs.outbox import Delivery
from serving.jobs.store import CANCELLED, DONE, FAILED, Job
from serving.jobs.views import job_view
from serving.outgoing import ascii_url

EVENTS = {state: f"job.{state}" for state in (DONE, FAILED, CANCELLED)}
"""State that a job has reached -> type of the event."""


def told(before: Job, after: Job, base: str | None, keep_h: float) -> Delivery | None:
    """What the receiver that a job names is told when the job comes to its end.

    Args:
        before: the row as it was.
        after: as it is now.
        base: address under which receivers reach this service, such as https://example.org; None: as the client did.
        keep_h: how long results are kept, hours.
    """
    if after.webhook is None or after.state == before.state or after.state not in EVENTS:
        return None
    view = job_view(after, None, keep_h).model_dump(mode="json")
    if view["result_url"] is not None:
        view["result_url"] = (base or after.base_url or "").rstrip("/") + view["result_url"]
    now = after.finished
    happened = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds")
    body = json.dumps({"type": EVENTS[after.state], "timestamp": happened, "data": view}, ensure_ascii=False)
    url = ascii_url(after.webhook)
    return Delivery(f"msg_{uuid.uuid4().hex}", after.id, url, after.secret_of, now, body, due=now)
