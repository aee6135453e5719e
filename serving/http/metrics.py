"""What Prometheus is told."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.jobs.jobs import JobService
from serving.jobs.store import STATES

_LOG = logging.getLogger("lipsync.http")


class _Jobs:
    """Numbers that are read from the rows when they are asked for."""

    def __init__(self, service: JobService):
        self._service = service

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("lipsync_jobs", "jobs by state", labels=["state"])
        for state in STATES:
            jobs.add_metric([state], self._service.store.count(state))
        workers = GaugeMetricFamily("lipsync_workers", "workers that live, by readiness", labels=["ready"])
        ready = list(self._service.store.workers().values())
        for label, value in (("true", True), ("false", False)):
            workers.add_metric([label], ready.count(value))
        waiting = self._service.store.outbox.count()
        webhooks = GaugeMetricFamily("lipsync_webhooks_waiting", "webhooks that have not arrived yet", waiting)
        free = shutil.disk_usage(self._service.config.data_dir).free
        yield from (jobs, workers, webhooks)
        yield GaugeMetricFamily("lipsync_disk_free_bytes", "free space of the data folder", free)


class Metrics:
    """Counts and measures requests, and writes a line to the log for each.

    Args:
        app: the application inside.
        service: the jobs.
        registry: of this application.
    """

    def __init__(self, app: ASGIApp, service: JobService, registry: CollectorRegistry):
        self._app = app
        registry.register(_Jobs(service))
        labels = ("method", "route", "status")
        self._requests = Counter("lipsync_http_requests", "requests", labels, registry=registry)
        what = "seconds until the answer ended"
        self._seconds = Histogram("lipsync_http_request_seconds", what, ("route",), registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            # The route, not the path: paths hold ids, and there may be any number of those.
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - started
            self._requests.labels(scope["method"], route, status).inc()
            self._seconds.labels(route).observe(seconds)
            extra = {"method": scope["method"], "path": route, "status": status, "seconds": round(seconds, 4)}
            _LOG.info("request", extra=extra)
