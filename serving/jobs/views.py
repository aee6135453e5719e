"""What clients see of a job."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

from pydantic import BaseModel, Field

from serving.jobs.store import DONE, QUEUED, RUNNING, Job

MEDIA_TYPES = {".mp4": "video/mp4", ".mkv": "video/x-matroska"}


class JobView(BaseModel):
    """A job, as every answer shows it."""

    id: str = Field(examples=["0f8fad5bd9cb469fa16570867728950e"])
    state: Literal["queued", "running", "done", "failed", "cancelled", "expired"]
    progress: float = Field(ge=0, le=1, description="part of the frames that are written", examples=[0.42])
    queue_position: int | None = Field(description="jobs that come first; null unless queued", examples=[None])
    frames: int = Field(ge=0, description="frames written", examples=[63])
    frames_expected: int | None = Field(description="frames in the result, null if unknown", examples=[150])
    fps: float = Field(ge=0, description="frames written per second of work", examples=[13.6])
    seconds_left: float | None = Field(description="estimate, null if unknown", examples=[6.4])
    language: str | None = Field(description="of the text, where there is one; found or given", examples=["en"])
    notes: list[str] = Field(description="what to know about the result, sentences", examples=[[]])
    error: str | None = Field(description="why it failed, one sentence", examples=[None])
    created: datetime
    started: datetime | None
    finished: datetime | None
    expires: datetime | None = Field(description="when the result is deleted")
    result_url: str | None = Field(examples=["/jobs/0f8fad5bd9cb469fa16570867728950e/result"])
    result_bytes: int | None = Field(examples=[None])
    preview_url: str | None = Field(
        description="the first seconds, while the job runs; null until they are made", examples=[None]
    )


def job_view(job: Job, position: int | None, keep_h: float) -> JobView:
    """What a client may know of a job.

    Args:
        job: its row.
        position: jobs before it in the queue.
        keep_h: how long results are kept, hours.
    """
    is_done = job.state == DONE
    keep = None if job.finished is None else job.finished + keep_h * 3600
    return JobView(
        id=job.id,
        state=job.state,
        progress=1.0 if is_done else _progress(job),
        queue_position=position if job.state == QUEUED else None,
        frames=job.frames,
        frames_expected=job.frames_expected,
        fps=round(job.fps, 2),
        seconds_left=_seconds_left(job),
        language=job.request.get("language"),
        notes=list((job.summary or job.request).get("notes", ())),
        error=job.error,
        created=_time(job.created),
        started=_time(job.started),
        finished=_time(job.finished),
        expires=_time(keep) if is_done else None,
        result_url=f"/jobs/{job.id}/result" if is_done else None,
        result_bytes=job.result_size if is_done else None,
        preview_url=f"/jobs/{job.id}/preview" if job.state == RUNNING and job.preview else None,
    )


def _progress(job: Job) -> float:
    return min(job.frames / job.frames_expected, 1.0) if job.frames_expected else 0.0


def _seconds_left(job: Job) -> float | None:
    if job.state != RUNNING or not job.frames_expected or not job.fps:
        return None
    return round(max(job.frames_expected - job.frames, 0) / job.fps, 1)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
