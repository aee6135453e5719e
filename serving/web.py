"""`--mode web`: a page in the browser. It hands its jobs to the same job service as the HTTP API."""

from __future__ import annotations

import html
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from faces.detector import FaceDetector
from options import FITS, RESTS, Options
from serving.forms import FILES
from serving.intake import Intake
from serving.job_store import ACTIVE, DONE, Job
from serving.jobs import INCOMING, LOCAL_OWNER, JobService
from serving.page_texts import TEXTS, texts_for
from serving.problems import Problem
from serving.server import Embedded, build_parser, make_intake, read_access, worker_command
from serving.setup import ROOT, open_service, read_settings, start_logging
from serving.uploads import Form
from serving.views import job_view
from utils.config import load_config
from utils.helpers import InputError
from video_processor import VideoReader

PAGE = "page"
"""Folder in the data folder for what browsers have sent and are shown."""

_HISTORY = 20
_PREFIX = "lip_sync_"
_EXAMPLE = (str(ROOT / "examples" / "portrait.png"), str(ROOT / "examples" / "speech.wav"))
_LOOK_S = 1.0
_CACHE_S = (3600, 86400)  # how often the page's files are looked through, and how old they may get
_BOX = (255, 200, 0)
_CSS = "footer {display: none !important} .status progress {width: 100%; height: 1.2em}"
_DESCRIPTION = """\
Serve a page for the browser. Only with the consent of the people shown.

On this computer only (127.0.0.1) everybody is let in. For any other --host, make API keys with --new-key (the page then
asks for name and key), or say --insecure."""


class Page:
    """What the page does.

    Args:
        service: the jobs.
        intake: checks what comes in.
        detector: shows which faces there are.
    """

    def __init__(self, service: JobService, intake: Intake, detector: FaceDetector):
        self._service = service
        self._intake = intake
        self._detector = detector

    def faces(self, video: str | None, portrait: str | None, request: gr.Request) -> tuple[Any, Any, Any]:
        """The first picture with numbered faces, the choice between them, and the input as it is shown beside the
        result."""
        words = _words(request)
        choices = [(words["largest"], "largest")]
        path = portrait or video
        if path is None:
            return None, gr.Radio(choices, value="largest"), None
        try:
            with VideoReader(path) as reader:
                picture = np.array(next(iter(reader)).image)
        except InputError as error:
            raise gr.Error(_without_folders(str(error), path)) from error
        found = sorted(self._detector.detect(picture), key=lambda face: face.box[0] + face.box[2])
        for number, face in enumerate(found):
            _draw(picture, face.box, number + 1)
            choices.append((words["number"].format(number=number + 1), f"index:{number}"))
        if not found:
            gr.Warning(words["no_face"])
        return picture, gr.Radio(choices, value="largest"), video if portrait is None else None

    def submit(
        self,
        video: str | None,
        portrait: str | None,
        sound: str | None,
        text: str,
        lang: str,
        voice: str | None,
        face: str,
        steps: int,
        fit: str,
        rest: str,
        history: list[str],
        request: gr.Request,
    ) -> tuple[str, list[str], Any]:
        """Take in a job -> its id, the history with it, and the clock that follows it."""
        if video is None and portrait is None:
            raise gr.Error(_words(request)["need_video"])
        fields = {"steps": str(steps), "fit": fit, "rest": rest, "face": face}
        if sound is None:
            fields |= {"text_input": text, "lang": lang, "voice": voice or ""}
        given = {"video_file": portrait or video, "audio_file": sound}
        with tempfile.TemporaryDirectory(dir=self._service.config.data_dir / INCOMING) as folder:
            files = {}
            for name, path in given.items():
                if path is not None:
                    files[name] = Path(shutil.copyfile(path, Path(folder) / FILES[name]))
            try:
                job = self._intake.submit(Form(fields, files), LOCAL_OWNER)
            except (Problem, InputError) as refused:
                raise gr.Error(str(refused)) from refused
        gr.Info(_words(request)["closing"])
        return job.id, [job.id, *history][:_HISTORY], gr.Timer(active=True)

    def look(self, job_id: str | None, request: gr.Request) -> tuple[Any, Any, Any, Any]:
        """What there is to see of a job -> status, result, download, clock."""
        words = _words(request)
        job = self._service.store.get(job_id) if job_id else None
        if job is None:
            return _status(words["gone" if job_id else "idle"], None), None, _download(None), gr.Timer(active=False)
        if job.state in ACTIVE:
            return self._under_way(job, words), None, _download(None), gr.Timer(active=True)
        result = self._result(job) if job.state == DONE else None
        sentence = words[job.state].format(frames=job.frames, error=job.error)
        return _status(sentence, 1.0 if result else None), result, _download(result), gr.Timer(active=False)

    def _under_way(self, job: Job, words: dict[str, str]) -> str:
        view = job_view(job, self._service.store.position(job), self._service.config.keep_h)
        left = "" if view.seconds_left is None else words["left"].format(seconds=round(view.seconds_left))
        sentence = words[view.state].format(
            position=view.queue_position, percent=round(100 * view.progress), fps=view.fps, left=left
        )
        return _status(sentence, view.progress)

    def _result(self, job: Job) -> str | None:
        """A copy of the result that the page may show."""
        folder = Path(tempfile.gettempdir()) / job.id
        path = folder / f"result{Path(job.result).suffix}"
        if not path.exists():
            _remove_old(Path(tempfile.gettempdir()))
            folder.mkdir(exist_ok=True)
            try:
                with self._service.files.open(job.id, job.result) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
            except FileNotFoundError:
                return None
        return str(path)

    def cancel(self, job_id: str | None) -> None:
        """Cancel a job that is under way."""
        job = self._service.store.get(job_id) if job_id else None
        if job is not None and job.state in ACTIVE:
            self._service.cancel(job_id, job.owner)

    def recall(self, history: list[str]) -> tuple[Any, str | None]:
        """On opening the page: the jobs that this browser has made, and the newest of them."""
        known = [job for job_id in history if (job := self._service.store.get(job_id)) is not None]
        choices = [(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.created)), job.id) for job in known]
        newest = known[0].id if known else None
        return gr.Dropdown(choices, value=newest), newest

    def languages(self) -> list[tuple[str, str]]:
        """Languages of texts; none where this installation cannot speak."""
        try:
            spoken = {voice.language for voice in self._intake.speaker.processor.voices}
        except Problem:
            return []
        names = self._intake.speaker.names
        return [(names.get(code, code), code) for code in [*names, *sorted(spoken - names.keys())] if code in spoken]

    def voices(self, lang: str) -> Any:
        """The voices of a language."""
        names = [voice.name for voice in self._intake.speaker.processor.voices if voice.language == lang]
        return gr.Dropdown(["", *names], value="")


def _words(request: gr.Request) -> dict[str, str]:
    return texts_for(request.headers.get("accept-language"))


def _without_folders(sentence: str, path: str) -> str:
    return sentence.replace(path, Path(path).name)


def _status(sentence: str, progress: float | None) -> str:
    bar = "" if progress is None else f'<progress max="1" value="{progress:.3f}"></progress>'
    return f'<div class="status" role="status">{html.escape(sentence)}{bar}</div>'


def _download(path: str | None) -> Any:
    return gr.DownloadButton(value=path, interactive=path is not None)


def _draw(picture: np.ndarray, box: np.ndarray, number: int) -> None:
    thick = max(2, round(max(picture.shape[:2]) / 300))
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(picture, (x0, y0), (x1, y1), _BOX, thick)
    cv2.putText(picture, str(number), (x0, max(y0 - 2 * thick, 24)), cv2.FONT_HERSHEY_SIMPLEX, thick / 2, _BOX, thick)


def _remove_old(folder: Path) -> None:
    """Copies of results that nobody has looked at for a day."""
    for path in folder.iterdir():
        if path.is_dir() and path.stat().st_mtime < time.time() - _CACHE_S[1]:
            shutil.rmtree(path, ignore_errors=True)


class _Translated:
    """Words that the browser puts in its own language."""

    def __init__(self) -> None:
        # Gradio has words of its own, some under the same names.
        named = {lang: {f"{_PREFIX}{name}": text for name, text in texts.items()} for lang, texts in TEXTS.items()}
        self.i18n = gr.I18n(**named)

    def __call__(self, name: str) -> Any:
        return self.i18n(f"{_PREFIX}{name}")


def build_page(page: Page) -> tuple[gr.Blocks, gr.I18n]:
    """Lay out the page; also gives its words, which are needed to launch it."""
    words = _Translated()
    with gr.Blocks(title="Lip Sync", analytics_enabled=False, delete_cache=_CACHE_S) as blocks:
        job, history = gr.State(None), gr.BrowserState([], storage_key="lip-sync-history", secret="lip-sync")
        gr.Markdown(words("intro"))
        with gr.Row():
            with gr.Column():
                video, portrait = _who(words)
                found, face = _which(words)
            with gr.Column():
                spoken = _what(words, page)
                options = _more(words)
                with gr.Row():
                    example = gr.Button(words("examples"))
                    make = gr.Button(words("make"), variant="primary")
                    cancel = gr.Button(words("cancel"), variant="stop")
                status = gr.HTML()
        with gr.Row():
            before = gr.Video(label=words("before"), interactive=False)
            after = gr.Video(label=words("after"), interactive=False)
        with gr.Row():
            download = gr.DownloadButton(words("download"), interactive=False)
            earlier = gr.Dropdown([], label=words("history"))
        clock = gr.Timer(_LOOK_S, active=False)
        seen = [status, after, download, clock]
        for given in (video, portrait):
            given.change(page.faces, [video, portrait], [found, face, before], api_visibility="private")
        example.click(lambda: _EXAMPLE, None, [portrait, spoken[0]], api_visibility="private")
        inputs = [video, portrait, *spoken, face, *options, history]
        make.click(page.submit, inputs, [job, history, clock], api_name="submit").then(
            page.look, job, seen, api_visibility="private"
        ).then(page.recall, history, [earlier, job], api_visibility="private")
        clock.tick(page.look, job, seen, show_progress="hidden", api_visibility="private")
        cancel.click(page.cancel, job, api_visibility="private").then(page.look, job, seen, api_visibility="private")
        earlier.input(lambda chosen: chosen, earlier, job, api_visibility="private").then(
            page.look, job, seen, api_visibility="private"
        )
        blocks.load(page.faces, [video, portrait], [found, face, before], api_visibility="private")
        blocks.load(page.recall, history, [earlier, job], api_visibility="private").then(
            page.look, job, seen, api_visibility="private"
        )
    return blocks, words.i18n


def _who(words: _Translated) -> tuple[gr.Video, gr.Image]:
    gr.Markdown(words("who"))
    with gr.Tab(words("portrait")):
        portrait = gr.Image(label=words("portrait"), type="filepath", sources=["upload", "webcam"], height=300)
    with gr.Tab(words("video")):
        video = gr.Video(label=words("video"), sources=["upload", "webcam"], height=300)
    return video, portrait


def _which(words: _Translated) -> tuple[gr.Image, gr.Radio]:
    with gr.Accordion(words("faces"), open=False):
        found = gr.Image(label=words("faces"), interactive=False, height=300)
    face = gr.Radio([], label=words("face"))
    return found, face


def _what(words: gr.I18n, page: Page) -> list[Any]:
    """Sound, text, language, voice."""
    languages = page.languages()
    gr.Markdown(words("what"))
    with gr.Tab(words("sound")):
        sound = gr.Audio(label=words("sound"), type="filepath", sources=["upload", "microphone"])
    with gr.Tab(words("text"), visible=bool(languages)):
        text = gr.Textbox(label=words("text_label"), lines=4)
        with gr.Row():
            lang = gr.Dropdown([("auto", "auto"), *languages], value="auto", label=words("language"))
            voice = gr.Dropdown([""], value="", label=words("voice"))
        lang.change(page.voices, lang, voice, api_visibility="private")
    return [sound, text, lang, voice]


def _more(words: _Translated) -> list[Any]:
    """Steps, fit, rest."""
    with gr.Accordion(words("more"), open=False):
        steps = gr.Slider(1, 20, value=Options().steps, step=1, label=words("steps"))
        fit = gr.Dropdown(list(FITS), value="bounce", label=words("fit"))
        rest = gr.Dropdown(list(RESTS), value="keep", label=words("rest"))
    return [steps, fit, rest]


def main(argv: Sequence[str]) -> int:
    """Serve the page until interrupted. Returns 0, or 2 if the settings cannot be used."""
    arguments = build_parser("web", _DESCRIPTION, 7860).parse_args(argv)
    try:
        settings = read_settings(arguments)
        access = read_access(arguments, settings)
        service, _ = open_service(settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    start_logging()
    (settings.service.data_dir / PAGE).mkdir(exist_ok=True)
    tempfile.tempdir = str(settings.service.data_dir / PAGE)  # the only folder besides its own that Gradio shows
    faces = load_config(settings.config_path).faces
    page = Page(service, make_intake(service, settings), FaceDetector(ROOT / faces.models_dir))
    blocks, words = build_page(page)
    gr.set_static_paths([ROOT / "examples"])
    print(f"Open http://{arguments.host}:{arguments.port} in a browser.", file=sys.stderr)
    with Embedded(worker_command(arguments, settings) if arguments.worker else None):
        blocks.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            auth=None if access.keys is None else lambda name, key: access.keys.owner(key) == name,
            max_file_size=int(settings.service.media.max_file_gb * 1e9),
            ssr_mode=False,
            quiet=True,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=_CSS,
            i18n=words,
        )
    return 0
