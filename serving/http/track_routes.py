"""The call of the HTTP API that makes movement tracks: `POST /v1/tracks`, a job like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from pipeline.tracks.formats import FORMATS
from pipeline.tracks.inputs import check_track_inputs
from pipeline.tracks.options import RANGES, TrackOptions
from serving.http.context import Context, Owner
from serving.http.forms import JobForm, form_body
from serving.http.intake import Intake
from serving.http.job_routes import ACCEPTED, UPLOAD, IdempotencyKey
from serving.http.refusals import problems
from serving.http.uploads import Form
from serving.jobs.views import VERSION, JobView
from serving.jobs.webhooks import check_webhook

TRACKS = APIRouter(prefix=VERSION)
FILES = {"audio_file": "audio", "video_file": "video", "avatar_file": "avatar"}
"""Fields that take files -> name of the file within a job."""

_FILE = {"type": "string", "format": "binary"}
_FILE_SCHEMAS = {
    "audio_file": _FILE | {"description": "sound file, or a video with sound; leave it out to have a text spoken"},
    "video_file": _FILE | {"description": "video whose mouth is captured; without a sound and a text"},
    "avatar_file": _FILE | {"description": "a .glb or .vrm with blend shapes that is to move, for format glb or gltf"},
}
_USUAL = TrackOptions()
_LEAST = {name: limits[0] for name, limits in RANGES.items()}
_MOST = {name: limits[1] for name, limits in RANGES.items()}


def _number(name: str, about: str) -> Any:
    return Field(getattr(_USUAL, name), ge=_LEAST[name], le=_MOST[name], description=about)


def _shared(*names: str) -> dict[str, Any]:
    """Fields that jobs have as well."""
    return {name: (JobForm.model_fields[name].annotation, JobForm.model_fields[name]) for name in names}


_SHARED = ("audio_url", "video_url", "text_input", "lang", "voice", "speed", "reference", "webhook_url")


class TrackForm(create_model("SpeechFields", **_shared(*_SHARED))):
    """Fields of a track besides its files."""

    model_config = ConfigDict(extra="forbid")
    srt: ClassVar[bool] = False  # words with their times are a format

    format: Literal[tuple(FORMATS)] = Field(
        "track", description="; ".join(f"{name}: {entry.about}" for name, entry in FORMATS.items())
    )
    fps: float = _number("fps", "frames per second of what is written frame by frame")
    smooth: float = _number("smooth", "seconds over which a mouth flows into the next one, to each side")
    strength: float = _number("strength", "how far the mouth moves, 1 = as people do")
    extended: str = Field(
        _USUAL.extended, pattern="^[GHX]*$", max_length=3, description="which of Rhubarb's extended shapes are used"
    )
    seed: int = Field(_USUAL.seed, ge=0, le=2**63 - 1, description="the same number gives the same movement")
    face: str = Field("largest", max_length=200, description="of a video: which face")

    def track_options(self) -> TrackOptions:
        """What the maker of tracks is told."""
        return TrackOptions(self.fps, self.smooth, self.strength, self.extended, self.format, self.seed)


class TrackIntake(Intake):
    """Takes tracks in, as `Intake` takes videos."""

    files: ClassVar[Mapping[str, str]] = FILES
    kind: ClassVar[type[BaseModel]] = TrackForm

    def _wanted(self, fields: TrackForm, form: Form, expected: str | None) -> dict[str, Any]:
        options, chosen = fields.track_options(), FORMATS[fields.format]
        files, media = tuple(form.files.get(name) for name in FILES), self._service.config.media
        check_track_inputs(files, fields.text_input is not None, fields.face, chosen, media)
        if fields.webhook_url is not None:
            check_webhook(fields.webhook_url, self._service.config.webhook_origins)
        return {"track": asdict(options), "face": fields.face, **self._speech(fields, expected)}


_UPLOADED = {"audio_file": "@speech.wav", "format": "live-link"}
_NAMED = {"text_input": "Good morning!", "lang": "en", "format": "rhubarb-json"}
_BODY = {"requestBody": form_body(TrackForm, _FILE_SCHEMAS, None, (_UPLOADED, _NAMED))}


@TRACKS.post("/tracks", status_code=202, responses=ACCEPTED | UPLOAD | problems(409), openapi_extra=_BODY)
async def create_track(
    request: Request, response: Response, owner: Owner, context: Context, idempotency_key: IdempotencyKey = None
) -> JobView:
    """Take in a movement track, a job whose result is no video but a file for rigs, and answer at once."""
    intake = TrackIntake(context.service, context.intake.defaults, context.intake.speaker)
    job, again = await intake.take_in(request, owner, idempotency_key)
    response.headers["Location"] = f"{VERSION}/jobs/{job.id}"
    if again:
        response.headers["Idempotent-Replayed"] = "true"
    return context.view(job)
