"""What clients see of a job."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import BaseModel, Field

from serving.jobs.store import DONE, QUEUED, RUNNING, Job

VERSION = "/v1"
"""What all addresses of the HTTP API about jobs begin with."""
SUBTITLES_TYPE = "application/x-subrip"
TRACK_TYPES = {
    ".tsv": "text/tab-separated-values", ".xml": "application/xml", ".json": "application/json", ".dat": "text/plain",
    ".csv": "text/csv", ".glb": "model/gltf-binary", ".gltf": "model/gltf+json", ".srt": SUBTITLES_TYPE,
    ".vtt": "text/vtt", ".html": "text/html",
}  # fmt: skip
"""Of movement tracks, see `pipeline.tracks.formats`."""
MEDIA_TYPES = {
    ".mp4": "video/mp4", ".mkv": "video/x-matroska", ".webm": "video/webm", ".mov": "video/quicktime",
    ".zip": "application/zip",
}  # fmt: skip
ERROR_CODES = {
    "bad-input": "a field or a file cannot be used",
    "no-face": "no face can be used anywhere",
    "no-such-face": "the chosen face is not there",
    "no-engine": "the chosen engine is not there",
    "no-voices": "the server cannot speak texts",
    "too-long": "it took too long",
    "disk-full": "the server's disk is full",
    "worker-lost": "its worker died too often",
    "files-gone": "its files are gone",
    "internal": "a fault of the server",
}
"""Why a job failed: for programs -> in words. Names are never changed; new ones may come."""


class AdaptationView(BaseModel):
    """What learning from the video (`adapt`) did."""

    sentence: str = Field(description="what it did, or why it was skipped")
    skipped: str | None = Field(description="why nothing was learnt; null if something was")
    seconds: float = Field(description="how long it took")


class SummaryView(BaseModel):
    """What was done to the frames of a finished job."""

    frames: int = Field(ge=0, description="frames in the result", examples=[150])
    new_mouths: int | None = Field(description="frames with a new mouth; null if unknown", examples=[138])
    left_as_they_were: dict[str, int] = Field(
        description="why frames got no new mouth -> how many: no_face, too_small, turned_away, covered, "
        "outside_picture, blurred, unclear, after_speech, mixed",
        examples=[{"turned_away": 12}],
    )
    sentence: str | None = Field(
        description="the same for people, null if all got one",
        examples=["12 of 150 frames left as they were: 12 turned away."],
    )
    adaptation: AdaptationView | None = Field(description="null if it was not asked for")
    seconds: float = Field(ge=0, description="how long the work took", examples=[11.2])


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
    summary: SummaryView | None = Field(description="what was done; null unless done")
    error: str | None = Field(description="why it failed, one sentence", examples=[None])
    error_code: str | None = Field(
        description="the same for programs: " + ", ".join(f"{code} ({why})" for code, why in ERROR_CODES.items()),
        examples=[None],
    )
    retryable: bool = Field(description="it has failed, and trying again may help; see POST /v1/jobs/{id}/retry")
    reference: str | None = Field(description="the client's own name for the job", examples=["order-4711"])
    request: dict[str, Any] = Field(
        description="what was asked for, by the names of the form's fields, with what the server took where they were "
        "left out; null: as the engine is used to",
        examples=[{"steps": 2, "face": "largest"}],
    )
    created: datetime
    started: datetime | None
    finished: datetime | None
    expires: datetime | None = Field(description="when the result is deleted")
    result_url: str | None = Field(examples=["/v1/jobs/0f8fad5bd9cb469fa16570867728950e/result"])
    result_bytes: int | None = Field(examples=[None])
    subtitles_url: str | None = Field(description="the words with their times (.srt), if asked for", examples=[None])
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
        summary=_summary(job.summary) if is_done else None,
        error=job.error,
        error_code=job.error_code,
        retryable=job.is_retryable,
        reference=job.reference,
        request=_request(job),
        created=_time(job.created),
        started=_time(job.started),
        finished=_time(job.finished),
        expires=_time(keep) if is_done else None,
        result_url=f"{VERSION}/jobs/{job.id}/result" if is_done else None,
        result_bytes=job.result_size if is_done else None,
        subtitles_url=f"{VERSION}/jobs/{job.id}/subtitles" if is_done and job.subtitles else None,
        preview_url=f"{VERSION}/jobs/{job.id}/preview" if job.state == RUNNING and job.preview else None,
    )


def _summary(row: dict[str, Any]) -> SummaryView:
    """What a run did; rows of earlier versions say less."""
    adaptation = row.get("adaptation")
    return SummaryView(
        frames=row["frames"],
        new_mouths=row.get("generated"),
        left_as_they_were=row.get("passed_through", {}),
        sentence=row.get("left_as_they_were") or None,
        adaptation=AdaptationView(**adaptation) if adaptation and "sentence" in adaptation else None,
        seconds=round(row["seconds"], 2),
    )


def _request(job: Job) -> dict[str, Any]:
    """The fields that made the job, as `serving/http/forms.py` calls them."""
    chosen = job.request.get("options", job.request.get("track", {}))
    told = chosen | job.request.get("addresses", {})
    if (text := job.request.get("text")) is not None:
        told |= {"text_input": text} | {name: job.request.get(name) for name in ("lang", "voice", "speed", "srt")}
    return told | ({"webhook_url": job.webhook} if job.webhook else {})


def _progress(job: Job) -> float:
    return min(job.frames / job.frames_expected, 1.0) if job.frames_expected else 0.0


def _seconds_left(job: Job) -> float | None:
    if job.state != RUNNING or not job.frames_expected or not job.fps:
        return None
    return round(max(job.frames_expected - job.frames, 0) / job.fps, 1)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
