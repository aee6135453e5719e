"""The form fields of a job: the command line's options, and the text to speak."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from options import Options
from serving.problems import bad_input
from utils.config import InferenceConfig
from utils.helpers import parse_seconds

FILES = {"video_file": "video", "audio_file": "audio"}
"""Fields that take files -> name of the file within a job."""

_FILE_SCHEMAS = {
    "video_file": {"type": "string", "format": "binary", "description": "video with a face, or a portrait picture"},
    "audio_file": {
        "type": "string",
        "format": "binary",
        "description": "sound file, or a video with sound, that is to be spoken; leave it out to have a text spoken",
    },
}


class JobForm(BaseModel):
    """Fields of a job besides its files. What is left out is taken from the server's configuration."""

    model_config = ConfigDict(extra="forbid")

    text_input: str | None = Field(None, description="text to speak, instead of audio_file", examples=["Good morning!"])
    lang: str = Field("auto", max_length=20, description="language of the text, see /languages", examples=["en"])
    voice: str | None = Field(None, max_length=100, description="who speaks the text, see /voices")
    speed: float = Field(1.0, ge=0.5, le=2.0, description="tempo of the spoken text, 1 = as usual")
    steps: int | None = Field(None, ge=1, le=1000, description="denoising steps; more is finer and slower")
    guidance: float | None = Field(None, ge=0, le=20, description="exaggerate the mouth's movement, 1 = not at all")
    seed: int | None = Field(None, ge=0, lt=2**63, description="the same number gives the same result")
    fit: str | None = Field(None, description="if the sound is longer: bounce, loop, freeze or cut")
    rest: str | None = Field(None, description="if the video is longer: keep or cut")
    face: str | None = Field(None, max_length=100, description="largest, left, right, index:N, point:X,Y[@SECONDS]")
    codec: str | None = Field(None, description="h264 (MP4) or ffv1 (lossless, Matroska)")
    crf: int | None = Field(None, ge=0, le=51, description="quality of h264, 0 best to 51 worst")
    adapt: str | None = Field(None, max_length=20, description="first learn from the video for so long, such as 60s")
    webhook_url: str | None = Field(None, max_length=2000, description="called when the job is finished, if allowed")

    def options(self, defaults: InferenceConfig) -> Options:
        """What the pipeline is told; what is left open comes from the configuration.

        Raises:
            InputError: a value cannot be used.
        """
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(Options)):
            given = getattr(self, name, None)
            if given is None:
                given = getattr(defaults, name, None)
            if given is not None:
                values[name] = parse_seconds(given) if name == "adapt" else given
        options = Options(**values)
        options.check()
        return options


def read_form(texts: dict[str, str]) -> JobForm:
    """Check the texts of a form; empty ones count as left out.

    Raises:
        Problem: 422 that names the fields.
    """
    try:
        return JobForm.model_validate({name: value for name, value in texts.items() if value != ""})
    except ValidationError as error:
        faults = [
            {"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]}
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        first = faults[0]
        raise bad_input(f"The field {first['field']!r} cannot be used: {first['message']}.", errors=faults) from error


def openapi_body() -> dict[str, Any]:
    """The form in the terms of OpenAPI."""
    schema = JobForm.model_json_schema()
    schema["properties"] = _FILE_SCHEMAS | schema["properties"]
    schema["required"] = ["video_file"]
    example = {"video_file": "@portrait.png", "audio_file": "@speech.wav", "steps": 2}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema, "example": example}}}
