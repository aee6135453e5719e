"""Calls of the HTTP API about what this installation can do, and how it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from serving.http.context import Context, Owner
from serving.http.refusals import problems
from serving.jobs.views import VERSION
from serving.problems import Problem

ABOUT = APIRouter(prefix=VERSION)
STATE = APIRouter()
"""For whoever runs the service: without a version."""


class Language(BaseModel):
    """A language in which texts can be spoken."""

    code: str = Field(examples=["zh"])
    name: str = Field(examples=["Chinese (Mandarin)"])
    default_voice: str


class VoiceView(BaseModel):
    """Somebody who speaks texts."""

    name: str
    language: str = Field(examples=["en"])
    gender: str = Field(examples=["female"])
    engine: str
    natural: bool = Field(description="learnt from a person, not robotic")
    licence: str


class EngineInfo(BaseModel):
    """A network that draws mouths."""

    name: str = Field(examples=["lite"])
    installed: bool = Field(description="jobs can name it")
    default: bool
    good_at: str
    licence: str = Field(description="of its weights")
    memory: str
    download_bytes: int = Field(description="of the weights that are missing")
    speed: float | None = Field(description="pictures drawn in a second on the server, where that was measured")


class Health(BaseModel):
    """The service is there."""

    status: Literal["ok"]


@ABOUT.get("/languages", responses=problems(501))
def list_languages(_: Owner, context: Context) -> list[Language]:
    """Languages in which a text can be spoken (`lang`); the first six are looked after."""
    speaker, first = context.intake.speaker, {}
    for voice in speaker.processor.voices:
        first.setdefault(voice.language, voice.name)
    names = speaker.names
    codes = [code for code in names if code in first] + sorted(first.keys() - names.keys())
    return [Language(code=code, name=names.get(code, code), default_voice=first[code]) for code in codes]


@ABOUT.get("/voices", responses=problems(422, 501))
def list_voices(
    _: Owner, context: Context, lang: Annotated[str | None, Query(max_length=20, description="only these")] = None
) -> list[VoiceView]:
    """Voices that can speak a text (`voice`); the first one of a language is its default."""
    voices = context.intake.speaker.processor.voices
    return [VoiceView(**asdict(voice)) for voice in voices if lang is None or voice.language == lang.lower()]


@ABOUT.get("/engines", responses=problems())
def list_engines(_: Owner, context: Context) -> list[EngineInfo]:
    """What can draw the mouths (`engine`), and what else there is; a job that names none gets the default one."""
    usual, views = context.intake.defaults.engine, context.intake.engines()
    return [EngineInfo(**asdict(view), default=view.name == usual) for view in views]


@STATE.get("/health", responses=problems())
async def health() -> Health:
    """The server answers."""
    return Health(status="ok")


@STATE.get("/ready", responses=problems(503))
def ready(context: Context) -> Health:
    """Jobs can be taken in and will be run: a worker has its networks loaded, and the disk has room."""
    missing = [] if any(context.service.store.workers().values()) else ["no worker is ready"]
    missing += [] if context.service.has_disk() else ["the disk is nearly full"]
    if missing:
        raise Problem(503, "not-ready", f"Not ready: {', '.join(missing)}.", {"Retry-After": "5"})
    return Health(status="ok")


@STATE.get("/metrics", response_class=PlainTextResponse, responses=problems())
def metrics(_: Owner, context: Context) -> PlainTextResponse:
    """Numbers for Prometheus."""
    return PlainTextResponse(generate_latest(context.registry), media_type=CONTENT_TYPE_LATEST)
