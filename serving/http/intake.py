"""From a request to a job: upload, checks, and only then the queue."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from anyio import to_thread
from pydantic import BaseModel
from starlette.requests import Request

from pipeline.engine_choice import EngineView, check_offered, list_engines
from pipeline.options import SPRITES, Options, check_inputs
from serving.http.fetching import FIELDS, Fetching
from serving.http.forms import FILES, JobForm, check_json, read_form
from serving.http.speech import Speaker, preferred_language
from serving.http.uploads import Form, fingerprint_of, receive_form, receive_json
from serving.jobs.jobs import INCOMING, JobService, Submission
from serving.jobs.store import Job
from serving.jobs.webhooks import check_webhook
from serving.problems import bad_input, in_api_terms
from utils.config import InferenceConfig
from utils.helpers import InputError


class Taken(NamedTuple):
    """A job that a request has made.

    Attributes:
        job: its row.
        again: the same request had made it before.
    """

    job: Job
    again: bool


class Caller(NamedTuple):
    """What is known of a client besides its form and whose jobs it makes.

    Attributes:
        expected: the language of a text that does not tell its own.
        base_url: address under which it reached this service.
        secret_of: whose secret signs what is told about its job, see `serving.jobs.webhooks.secrets_of`.
    """

    expected: str | None = None
    base_url: str | None = None
    secret_of: str | None = None


class Intake:
    """Takes jobs in.

    Args:
        service: where they go.
        defaults: for options that a client leaves out.
        speaker: speaks texts.

    Attributes:
        files: fields that take files -> name of the file within a job.
        kind: the other fields.
    """

    files: ClassVar[Mapping[str, str]] = FILES
    kind: ClassVar[type[BaseModel]] = JobForm

    def __init__(self, service: JobService, defaults: InferenceConfig, speaker: Speaker):
        self.speaker = speaker
        self.defaults = defaults
        self._service = service
        self._fetching = Fetching(service.config, service.check_space)

    def engines(self) -> list[EngineView]:
        """What can draw the mouths here, and what else there is."""
        return list_engines(self.defaults)

    async def take_in(self, request: Request, owner: str, key: str | None = None) -> Taken:
        """Read a request's form and submit the job. Whatever goes wrong, nothing of it stays on the disk.

        Args:
            request: with a multipart form, or a JSON object.
            owner: whose job it will be.
            key: for idempotency; if the owner has a job by the same request with it already, that one is returned.

        Raises:
            Problem: the request is refused.
        """
        store = self._service.store
        if key is None or await to_thread.run_sync(store.find_key, owner, key) is None:
            length = request.headers.get("content-length", "")
            await to_thread.run_sync(self._service.check_room, owner, int(length) if length.isdecimal() else 0)
        with tempfile.TemporaryDirectory(
            dir=self._service.config.data_dir / INCOMING, ignore_cleanup_errors=True
        ) as folder:
            form = await self._receive(request, Path(folder), owner)
            idempotency = None
            if key is not None:
                idempotency = key, await to_thread.run_sync(fingerprint_of, form)
                known = await to_thread.run_sync(self._service.known, owner, *idempotency)
                if known is not None:
                    return Taken(known, again=True)
            form = await self._fetching.completed(form, Path(folder), owner)
            job = await to_thread.run_sync(self.submit, form, owner, _caller(request), idempotency)
            return Taken(job, again=False)

    async def _receive(self, request: Request, folder: Path, owner: str) -> Form:
        """The form of a request, whose files are in `folder`, or its fields as JSON."""
        config = self._service.config
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            return await receive_json(request, config, partial(check_json, kind=self.kind))
        return await receive_form(request, folder, self.files, config, partial(self._service.check_space, owner))

    def submit(self, form: Form, owner: str, caller: Caller, idempotency: tuple[str, str] | None = None) -> Job:
        """Check a form and submit the job. The files are moved away.

        Args:
            form: fields and files.
            owner: whose job it is.
            caller: what else is known of the client.
            idempotency: key and fingerprint of the request; a second job with both the same is the first one.

        Raises:
            Problem: the form cannot be used, or there is no room.
        """
        fields = read_form(form.fields, self.kind)
        try:
            wanted = self._wanted(fields, form, caller.expected)
        except InputError as error:
            raise bad_input(in_api_terms(_without_paths(str(error), form)), error.code) from error
        return self._service.submit(
            Submission(
                request=wanted | {"addresses": _addresses(form)},
                files={self.files[name]: path for name, path in form.files.items()},
                owner=owner,
                idempotency_key=idempotency and idempotency[0],
                fingerprint=idempotency and idempotency[1],
                webhook=fields.webhook_url,
                base_url=caller.base_url,
                secret_of=caller.secret_of,
                reference=fields.reference,
            )
        )

    def _wanted(self, fields: JobForm, form: Form, expected: str | None) -> dict[str, Any]:
        """What the job is told, once all of the form was checked; raises InputError."""
        options = fields.options(self.defaults)
        if "sprites_file" in form.files and fields.engine is None:
            options = replace(options, engine=SPRITES)
        self._check(fields, form.files, options)
        return {"options": asdict(options), **self._speech(fields, expected)}

    def _check(self, fields: JobForm, files: Mapping[str, Path], options: Options) -> None:
        video, audio, mouths = (files.get(name) for name in FILES)
        if video is None:
            raise InputError("Give a video with a face, or a portrait picture (video_file or video_url).")
        check_offered(options.engine, self.defaults)
        if audio is None and fields.text_input is None:
            raise InputError("Give a sound file (audio_file or audio_url), a text (text_input), or both.")
        if fields.webhook_url is not None:
            check_webhook(fields.webhook_url, self._service.config.webhook_origins)
        self._check_limits(options)
        output = video.with_name(f"output{options.suffix}")
        if mouths is not None and options.engine != SPRITES:
            raise InputError(f"The mouths of sprites_file are laid by the engine {SPRITES}; leave one of the two out.")
        check_inputs(video, audio, output, options, self._service.config.media, mouths)

    def _check_limits(self, options: Options) -> None:
        """What a client may ask for is less than what a machine's owner may."""
        config = self._service.config
        if options.steps is not None and options.steps > config.max_steps:
            raise InputError(f"This server takes at most {config.max_steps} steps; ask for fewer.")
        if options.adapt and options.adapt > config.max_adapt_s:
            raise InputError(f"This server learns for at most {config.max_adapt_s:g} s (adapt); ask for less.")

    def _speech(self, fields: JobForm, expected: str | None) -> dict[str, Any]:
        """What the job's request says about its text, and in which language it is spoken."""
        if fields.text_input is None:
            if fields.srt:
                raise InputError("Subtitles (srt) need the words: give the text (text_input) that the sound says.")
            return {}
        if len(fields.text_input) > self._service.config.max_text:
            raise InputError(f"The text is longer than {self._service.config.max_text} characters; give less.")
        asked = {"lang": fields.lang, "voice": fields.voice, "speed": fields.speed, "expected": expected}
        choice = self.speaker.check(fields.text_input, **asked)
        found = {"language": choice.voice.language, "notes": choice.notes}
        return {"text": fields.text_input, "srt": fields.srt, **asked, **found}


def _caller(request: Request) -> Caller:
    return Caller(
        preferred_language(request.headers.get("accept-language")),
        f"{request.url.scheme}://{request.url.netloc}",
        request.state.secret_of,
    )


def _without_paths(sentence: str, form: Form) -> str:
    """Name files as the client does."""
    addresses = {FIELDS[name][0]: name for name in _addresses(form)}
    for name, path in form.files.items():
        sentence = sentence.replace(str(path), addresses.get(name, name))
    return sentence


def _addresses(form: Form) -> dict[str, str]:
    """The inputs that were given by address."""
    return {name: url for name in FIELDS if (url := form.fields.get(name))}
