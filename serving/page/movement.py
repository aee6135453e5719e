"""The page's section for animators: the movement of a mouth from a sound or a text, looked at and downloaded."""

from __future__ import annotations

import html
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.text_file import ENDINGS, read_text
from pipeline.tracks.formats import FORMATS, write_track
from pipeline.tracks.inputs import check_said
from pipeline.tracks.options import RANGES, TrackOptions
from pipeline.tracks.tables import preview_page, read_track
from serving.http.track_routes import FILES, TrackIntake
from serving.http.uploads import Form
from serving.jobs.jobs import INCOMING
from serving.jobs.store import ACTIVE, DONE, Job
from serving.page.files import link_or_copy
from serving.page.page import Page, caller_of, owner_of
from serving.page.said import told
from serving.page.texts import language_for
from serving.page.wish import SPEEDS, spoken_by
from utils.helpers import InputError

_LOOK_S = 0.5


class Movement:
    """Makes tracks as jobs, so that they wait their turn like videos.

    Args:
        page: whose jobs, files and refusals these are.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._intake = TrackIntake(page.service, page.intake.defaults, page.intake.speaker)

    def make(
        self,
        sound: str | None,
        text: str | None,
        lang: str,
        voice: str | None,
        speed: float,
        name: str,
        fps: float,
        smooth: float,
        strength: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, Any]]:
        """Make a track and wait for it -> what is shown of it, and the file in the format of that name."""
        page = self._page
        lang, voice = spoken_by(lang, voice)
        fields = {"text_input": text or "", "lang": lang, "voice": voice, "speed": speed}
        fields |= {"fps": fps, "smooth": smooth, "strength": strength}
        with page.refusals(request):
            check_said(FORMATS[name], bool(text))
            job = self._submit(sound, {field: str(value) for field, value in fields.items()}, request)
            yield gr.HTML("…"), gr.File(None, visible=False)
            while job.state in ACTIVE:
                time.sleep(_LOOK_S)
                job = page.service.get(job.id, job.owner)
            if job.state != DONE:
                raise InputError(job.error or "The job was cancelled.")
            yield self._shown(job, name, request)

    def _submit(self, sound: str | None, fields: dict[str, str], request: gr.Request) -> Job:
        with tempfile.TemporaryDirectory(dir=self._page.service.config.data_dir / INCOMING) as folder:
            files = {}
            if sound is not None:
                files["audio_file"] = Path(folder) / FILES["audio_file"]
                link_or_copy(Path(sound), files["audio_file"])
            return self._intake.submit(Form(fields, files), owner_of(request), caller_of(request))

    def _shown(self, job: Job, name: str, request: gr.Request) -> tuple[Any, Any]:
        """What is to be known of a track, and how it moves; and its file."""
        made = self._page.files.fetch(job, job.result)
        if made is None:
            raise InputError("The file has been deleted.")
        track = read_track(made)
        target = self._page.files.new_folder(owner_of(request)) / f"mouth{FORMATS[name].endings[0]}"
        write_track(replace(track, options=replace(track.options, format=name)), target)
        shown = html.escape(preview_page(track))
        frame = f'<iframe sandbox="allow-scripts" style="width:100%;height:430px;border:0" srcdoc="{shown}"></iframe>'
        return gr.HTML(_notes(job, request) + frame), gr.File(str(target), visible=True)

    def text_of(self, path: str | None, request: gr.Request) -> Any:
        """The text of a file, for the field where it can be changed."""
        if path is None:
            return gr.skip()
        with self._page.refusals(request):
            try:
                return read_text(Path(path))
            except InputError as error:
                raise InputError(str(error).replace(f" {path}", "")) from error

    def choices(self, request: gr.Request) -> tuple[gr.Dropdown, gr.Dropdown]:
        """The languages and voices of texts, in the browser's language."""
        return self._page.languages(request), self._page.voices("auto", request)


def _notes(job: Job, request: gr.Request) -> str:
    """Which language a text was taken for, lines that were not done at their time, and the like; a list, or nothing."""
    language = language_for(request.headers.get("accept-language"))
    notes = [html.escape(told(note, language)) for note in (job.summary or {}).get("notes", ())]
    return f'<ul class="told">{"".join(f"<li>{note}</li>" for note in notes)}</ul>' if notes else ""


def add_movement(page: Page, words: Any, blocks: gr.Blocks, hidden: str) -> None:
    """The section, closed at first.

    Args:
        page: what it belongs to.
        words: a word -> its text in the browser's language.
        blocks: the whole page.
        hidden: how Gradio is told that a call is not for programs.
    """
    movement = Movement(page)
    with gr.Accordion(words("movement"), open=False, elem_id="movement"):
        gr.Markdown(words("movement_about"))
        with gr.Row():
            sound = gr.Audio(label=words("sound"), type="filepath", sources=["upload", "microphone"], buttons=[])
            with gr.Column():
                spoken = _text(page, movement, words, hidden)
        numbers = _numbers(words)
        button = gr.Button(words("movement_make"), elem_id="movement_make")
        preview = gr.HTML(elem_id="movement_preview")
        file = gr.File(label=words("download"), visible=False, elem_id="movement_file")
    inputs = [sound, *spoken, *numbers]
    button.click(movement.make, inputs, [preview, file], api_visibility=hidden, concurrency_limit=4)
    blocks.load(movement.choices, None, spoken[1:3], api_visibility=hidden)


def _text(page: Page, movement: Movement, words: Any, hidden: str) -> list[Any]:
    """A text or subtitles, typed or from a file; language, voice and speed."""
    text = gr.Textbox(label=words("movement_text"), lines=4, elem_id="movement_text")
    file = gr.UploadButton(words("text_file"), file_types=list(ENDINGS), size="md", elem_id="movement_text_file")
    with gr.Row():
        lang = gr.Dropdown([("auto", "auto")], value="auto", label=words("language"), min_width=150)
        voice = gr.Dropdown([("", "")], value="", label=words("voice"), min_width=150)
    speed = gr.Slider(*SPEEDS, value=1, step=0.05, label=words("speed"), buttons=[])
    file.preprocess = lambda payload: payload and payload.path
    file.upload(movement.text_of, file, text, api_visibility=hidden)
    lang.input(page.voices, lang, voice, api_visibility=hidden)
    return [text, lang, voice, speed]


def _numbers(words: Any) -> list[Any]:
    """The format, and what shapes the movement."""
    usual = TrackOptions()
    with gr.Row():
        name = gr.Dropdown([(name, name) for name in FORMATS], value="live-link", label=words("movement_format"))
        fps = gr.Slider(*RANGES["fps"], value=usual.fps, step=1, label=words("movement_fps"), buttons=[])
    with gr.Row():
        smooth = gr.Slider(*RANGES["smooth"], value=usual.smooth, step=0.01, label=words("movement_smooth"), buttons=[])
        strength = gr.Slider(
            *RANGES["strength"], value=usual.strength, step=0.1, label=words("movement_strength"), buttons=[]
        )
    return [name, fps, smooth, strength]
