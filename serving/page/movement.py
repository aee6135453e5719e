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

from pipeline.tracks.formats import FORMATS, write_track
from pipeline.tracks.tables import preview_page, read_track
from serving.http.track_routes import FILES, TrackIntake
from serving.http.uploads import Form
from serving.jobs.jobs import INCOMING
from serving.jobs.store import ACTIVE, DONE, Job
from serving.page.files import link_or_copy
from serving.page.page import Page, caller_of, owner_of
from utils.helpers import InputError

_LOOK_S = 0.5
_SHOWN = [name for name, entry in FORMATS.items() if not entry.words]


class Movement:
    """Makes tracks as jobs, so that they wait their turn like videos.

    Args:
        page: whose jobs, files and refusals these are.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._intake = TrackIntake(page.service, page.intake.defaults, page.intake.speaker)

    def make(
        self, sound: str | None, text: str, name: str, fps: float, smooth: float, strength: float, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Make a track and wait for it -> the preview, and the file in the chosen format."""
        page = self._page
        with page.refusals(request):
            numbers = {"fps": str(fps), "smooth": str(smooth), "strength": str(strength)}
            job = self._submit(sound, {"text_input": text or "", **numbers}, request)
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
        made = self._page.files.fetch(job, job.result)
        if made is None:
            raise InputError("The file has been deleted.")
        track = read_track(made)
        target = self._page.files.new_folder(owner_of(request)) / f"mouth{FORMATS[name].endings[0]}"
        write_track(replace(track, options=replace(track.options, format=name)), target)
        shown = html.escape(preview_page(track))
        frame = f'<iframe sandbox="allow-scripts" style="width:100%;height:430px;border:0" srcdoc="{shown}"></iframe>'
        return gr.HTML(frame), gr.File(str(target), visible=True)


def add_movement(page: Page, words: Any, hidden: str) -> None:
    """The section, closed at first.

    Args:
        page: what it belongs to.
        words: a word -> its text in the browser's language.
        hidden: how Gradio is told that a call is not for programs.
    """
    movement = Movement(page)
    with gr.Accordion(words("movement"), open=False, elem_id="movement"):
        gr.Markdown(words("movement_about"))
        with gr.Row():
            sound = gr.Audio(label=words("sound"), type="filepath", sources=["upload", "microphone"], buttons=[])
            text = gr.Textbox(label=words("text_label"), lines=4, elem_id="movement_text")
        with gr.Row():
            name = gr.Dropdown([(name, name) for name in _SHOWN], value="live-link", label=words("movement_format"))
            fps = gr.Slider(12, 120, value=30, step=1, label=words("movement_fps"), buttons=[])
        with gr.Row():
            smooth = gr.Slider(0, 0.3, value=0.06, step=0.01, label=words("movement_smooth"), buttons=[])
            strength = gr.Slider(0, 2, value=1, step=0.1, label=words("movement_strength"), buttons=[])
        button = gr.Button(words("movement_make"), elem_id="movement_make")
        preview = gr.HTML(elem_id="movement_preview")
        file = gr.File(label=words("download"), visible=False, elem_id="movement_file")
    inputs = [sound, text, name, fps, smooth, strength]
    button.click(movement.make, inputs, [preview, file], api_visibility=hidden, concurrency_limit=4)
