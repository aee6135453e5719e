"""The form fields of a job: the command line's options, and the text to speak."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pipeline.options import CHOICES, COLOUR_PATTERN, RANGES, WORDS, Options
from serving.problems import bad_input
from utils.config import InferenceConfig
from utils.helpers import parse_seconds

FILES = {"video_file": "video", "audio_file": "audio", "sprites_file": "sprites"}
"""Fields that take files -> name of the file within a job."""

_FILE_SCHEMAS = {
    "video_file": {"type": "string", "format": "binary", "description": "video with a face, or a portrait picture"},
    "audio_file": {
        "type": "string",
        "format": "binary",
        "description": "sound file, or a video with sound, that is to be spoken; leave it out to have a text spoken",
    },
    "sprites_file": {
        "type": "string",
        "format": "binary",
        "description": "drawn mouths to lay over the face instead of the bundled ones: a .zip with PNG or WebP "
        "pictures named A to F, and G, H, X where they are drawn; goes with engine sprites",
    },
}


_TIMES = ("adapt",)
"""Options that may also be written as 60s or 1.5m."""
_NUMBERS_TOO = ("adapt", "size")
"""Options that are words, of which some are numbers, and may be numbers in JSON."""
_OF_THE_ENGINE = ("steps", "guidance")
"""Options that are the engine's to choose where they are left out."""
_LONGEST = 200  # characters of an option that is a word


def _descriptions() -> dict[str, str]:
    """What each option means, as the class itself says."""
    lines = re.split(r"^    (\w+): ", inspect.getdoc(Options).partition("Attributes:\n")[2], flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(lines[1::2], lines[2::2], strict=True)}


def _option_fields() -> dict[str, Any]:
    """A form field for each option of the pipeline, so that new ones appear by themselves."""
    kinds, descriptions = get_type_hints(Options), _descriptions()
    found: dict[str, Any] = {}
    for name in (option.name for option in fields(Options)):
        kind, limits = kinds[name], {}
        if name in CHOICES:
            kind = Literal[CHOICES[name]]
        elif name in WORDS:
            least, greatest = RANGES[name]
            kind = Literal[WORDS[name]] | Annotated[int, Field(ge=least, le=greatest)]
        elif name in RANGES:
            limits = dict(zip(("ge", "le"), RANGES[name], strict=True))
        elif name == "background":  # never a file: its name would be one of ours
            kind, limits = str, {"pattern": COLOUR_PATTERN}
        elif name in _TIMES or kind in (str, str | None):
            kind, limits = str, {"max_length": _LONGEST}
        found[name] = kind | None, Field(None, description=descriptions[name], **limits)
    return found


class JobForm(create_model("OptionFields", **_option_fields())):
    """Fields of a job besides its files. Options that are left out are taken from the server's configuration."""

    model_config = ConfigDict(extra="forbid")

    video_url: str | None = Field(
        None, max_length=2000, description="address of the video or picture, instead of video_file, if allowed"
    )
    audio_url: str | None = Field(
        None, max_length=2000, description="address of the sound, instead of audio_file, if allowed"
    )
    sprites_url: str | None = Field(
        None, max_length=2000, description="address of drawn mouths, instead of sprites_file, if allowed"
    )
    text_input: str | None = Field(
        None, description="text to speak; with audio_file: what that sound says", examples=["Good morning!"]
    )
    lang: str = Field("auto", max_length=20, description="language of the text, see /v1/languages", examples=["en"])
    voice: str | None = Field(None, max_length=100, description="who speaks the text, see /v1/voices")
    speed: float = Field(1.0, ge=0.5, le=2.0, description="tempo of the spoken text, 1 = as usual")
    srt: bool = Field(False, description="make subtitles (.srt) of the text as well, see subtitles_url of the job")
    reference: str | None = Field(
        None, max_length=200, description="your own name for the job, told back with it", examples=["order-4711"]
    )
    webhook_url: str | None = Field(None, max_length=2000, description="called when the job has ended, if allowed")

    def options(self, defaults: InferenceConfig) -> Options:
        """What the pipeline is told; what is left open comes from the configuration.

        Raises:
            InputError: a value cannot be used.
        """
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(Options)):
            given = getattr(self, name, None)
            if given is None and name not in _OF_THE_ENGINE:
                given = getattr(defaults, name, None)
            if given is not None:
                values[name] = parse_seconds(given) if isinstance(given, str) and name in _TIMES else given
        options = Options(**values)
        options.check()
        return options


Fields = TypeVar("Fields", bound=BaseModel)


def read_form(texts: dict[str, str], kind: type[Fields] = JobForm) -> Fields:
    """Check the texts of a form of some kind; empty ones that it knows count as left out.

    Raises:
        Problem: 422 that names the fields.
    """
    try:
        given = {name: value for name, value in texts.items() if value != "" or name not in kind.model_fields}
        return kind.model_validate(given)
    except ValidationError as error:
        faults = [
            {"field": str(fault["loc"][0]), "message": fault["msg"]}
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        first = faults[0]
        raise bad_input(f"The field {first['field']!r} cannot be used: {first['message']}.", errors=faults) from error


def check_json(told: Mapping[str, Any], kind: type[BaseModel]) -> None:
    """Check that values of JSON have the types that the document names; null counts as left out.

    Args:
        told: a JSON object.
        kind: the form whose fields it should have; others are left to `read_form`.

    Raises:
        Problem: 422 that names the field.
    """
    fields = kind.model_json_schema()["properties"]
    for name, value in told.items():
        wanted = _types(fields.get(name, {})) | ({"number"} if name in _NUMBERS_TOO else set())
        if name in fields and value is not None and not wanted & _types_of(value):
            takes = " or ".join(_SAID[one] for one in _SAID if one in wanted)
            raise bad_input(f"The field {name!r} takes {takes}.")


_SAID = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}


def _types(field: Mapping[str, Any]) -> set[str]:
    """Names of the types that a schema allows."""
    return {field["type"]} if "type" in field else {one for part in field.get("anyOf", ()) for one in _types(part)}


def _types_of(value: Any) -> set[str]:
    """Names of the types that a value of JSON has; a whole number is a number, too."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return {"integer", "number"}
    return {"number"} if isinstance(value, float) else {"string"} if isinstance(value, str) else set()


def openapi_body() -> dict[str, Any]:
    """The form in the terms of OpenAPI, and the same as JSON."""
    uploaded = {"video_file": "@portrait.png", "audio_file": "@speech.wav", "steps": 2}
    named = {"video_url": "https://example.org/portrait.png", "text_input": "Good morning!", "steps": 2}
    return form_body(JobForm, _FILE_SCHEMAS, "video", (uploaded, named))


def form_body(
    kind: type[BaseModel], files: dict[str, Any], needed: str | None, examples: tuple[dict[str, Any], dict[str, Any]]
) -> dict[str, Any]:
    """A form in the terms of OpenAPI, and the same as JSON.

    Args:
        kind: its fields.
        files: schemas of those that take files.
        needed: what must be there, as "video" for video_file or video_url; None: nothing.
        examples: of the form and of the JSON.
    """
    schema = kind.model_json_schema()
    fields = {name: _given(field) for name, field in schema["properties"].items()}
    named = {name: field if name == f"{needed}_url" else _in_json(name, field) for name, field in fields.items()}
    by_address = schema | {"properties": named} | ({"required": [f"{needed}_url"]} if needed else {})
    either = {"anyOf": [{"required": [f"{needed}_file"]}, {"required": [f"{needed}_url"]}]} if needed else {}
    whole = schema | {"properties": files | fields} | either
    kinds = {"multipart/form-data": (whole, examples[0]), "application/json": (by_address, examples[1])}
    content = {name: {"schema": schema, "example": example} for name, (schema, example) in kinds.items()}
    return {"required": True, "content": content}


def _given(field: dict[str, Any]) -> dict[str, Any]:
    """A field as it is when it is there: in a form, nothing is null but left out."""
    kinds = [kind for kind in field.pop("anyOf", []) if kind != {"type": "null"}]
    if kinds:
        del field["default"]
        field |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return field


def _in_json(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A field as it is in JSON, where null counts as left out."""
    told = {word: field[word] for word in ("title", "description", "default", "examples") if word in field}
    kind = {word: value for word, value in field.items() if word not in told}
    kinds = kind["anyOf"] if kind.keys() == {"anyOf"} else [kind]
    more = [{"type": "number", "minimum": 0}] if name in _NUMBERS_TOO else []
    return told | {"anyOf": [*kinds, *more, {"type": "null"}]}
