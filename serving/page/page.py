"""What the web page does. What it looks like is in `serving/page/layout.py`, its words in `serving/page/texts.py`."""

from __future__ import annotations

import html
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import gradio as gr
import numpy as np

from faces.detector import FaceDetector
from pipeline.options import FITS, RESTS
from serving.http.forms import FILES
from serving.http.intake import Caller, Intake
from serving.http.speech import preferred_language
from serving.http.uploads import Form
from serving.jobs.jobs import INCOMING, LOCAL_OWNER, JobService
from serving.jobs.store import ACTIVE, DONE, EXPIRED, QUEUED, RUNNING, Job
from serving.jobs.views import job_view
from serving.page.files import PageFiles, link_or_copy
from serving.page.texts import (
    EXAMPLE_TEXTS,
    TEXTS,
    ago,
    duration,
    language_for,
    name_of,
    refusal,
    taken_language,
)
from serving.page.wish import Wish
from serving.problems import Problem, disk_full
from utils.disk import is_disk_full
from utils.helpers import InputError
from video_processor import VideoReader

_HISTORY = 20
_TITLE_LENGTH = 24
_REFUSAL_S = 20
_THUMBNAIL_PX, _GAP_PX, _PER_ROW = 140, 6, 4  # of a face on the sheet of faces, its rim, and how many stand in a row
_LABEL = (79, 70, 229)
_AROUND = 1.8  # a thumbnail's side, in sizes of the face
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


class Page:
    """What the page does.

    Args:
        service: the jobs.
        intake: checks what comes in.
        detector: shows which faces there are.
        files: what the browser may fetch.
    """

    def __init__(self, service: JobService, intake: Intake, detector: FaceDetector, files: PageFiles):
        self._service = service
        self._intake = intake
        self._detector = detector
        self._files = files

    # ---- what goes in ----

    def faces(self, who: str, portrait: str | None, video: str | None, request: gr.Request) -> tuple[Any, Any, Any]:
        """The faces of the first picture, numbered from the left: their heading, the faces, the choice between them."""
        language, words = _language(request)
        path = {"portrait": portrait, "video": video}.get(who) or portrait or video
        found = [] if path is None else self._find(path, language)
        if path is not None and not found:
            gr.Warning(words["no_face"])
        choices = [(words["largest"], "largest")]
        choices += [(words["number"].format(number=i + 1), f"index:{i}") for i in range(len(found))]
        return (
            gr.Markdown(words["faces" if len(found) > 1 else "one_face"], visible=bool(found)),
            gr.Image(self._sheet_file(found, request) if found else None, visible=bool(found)),
            gr.Radio(choices, value="largest", visible=len(found) > 1),
        )

    def _find(self, path: str, language: str) -> list[np.ndarray]:
        try:
            with VideoReader(path) as reader:
                picture = next(iter(reader)).image
        except InputError as error:
            raise _refused(str(error).replace(path, "video_file"), language) from error
        found = sorted(self._detector.detect(picture), key=lambda face: face.box[0] + face.box[2])
        return [_thumbnail(picture, face.box) for face in found]

    def _sheet_file(self, found: list[np.ndarray], request: gr.Request) -> str:
        """The sheet of faces as a file that only whoever asked for it may fetch."""
        path = self._files.new_folder(request.username or LOCAL_OWNER) / "faces.png"
        cv2.imwrite(str(path), cv2.cvtColor(_sheet(found), cv2.COLOR_RGB2BGR))
        return str(path)

    def pick(self, event: gr.SelectData) -> Any:
        """The face that was clicked on. It may be none: then there is no such choice, and nothing changes."""
        x, y = event.index
        return f"index:{y // _THUMBNAIL_PX * _PER_ROW + x // _THUMBNAIL_PX}"

    def submit(
        self,
        who: str,
        portrait: str | None,
        video: str | None,
        face: str,
        what: str,
        sound: str | None,
        text: str,
        lang: str,
        voice: str | None,
        speed: float,
        adapt: bool,
        steps: int,
        fit: str,
        rest: str,
        engine: str | None,
        history: list[str] | None,
        request: gr.Request,
    ) -> tuple[str, list[str]]:
        """Take in a job (see `Wish`) -> its id, and the history with it: ids of jobs that are known, nothing else."""
        language, words = _language(request)
        wish = Wish(who, portrait, video, face, what, sound, text, lang, voice, speed, adapt, steps, fit, rest, engine)
        if wish.source is None:
            raise _refused(words["need_video"], language)
        if wish.speech is None and not (wish.text or "").strip():
            raise _refused(words["need_speech"], language)
        with tempfile.TemporaryDirectory(dir=self._service.config.data_dir / INCOMING) as folder:
            files = {}
            for name, path in {"video_file": wish.source, "audio_file": wish.speech}.items():
                if path is not None:
                    files[name] = Path(folder) / FILES[name]
                    link_or_copy(Path(path), files[name])
            with _refusals(language):
                form = Form(wish.fields(), files)
                job = self._intake.submit(form, request.username or LOCAL_OWNER, Caller(_expected(request)))
                self._files.keep_input(job.id, Path(wish.source))
        gr.Info(" ".join([*self._taken_language(wish, language, request), words["closing"]]))
        return job.id, [job.id, *(known.id for known in self._known(history, request))][:_HISTORY]

    def _taken_language(self, wish: Wish, language: str, request: gr.Request) -> list[str]:
        """Which language a text is spoken in, where nobody said it."""
        if wish.speech is not None or wish.lang != "auto":
            return []
        choice = self._intake.speaker.check(wish.text, wish.lang, wish.voice or None, wish.speed, _expected(request))
        found = choice.detected
        return [taken_language(found.language, found.by, found.certainty, language)]

    def cancel(self, job_id: str | None, request: gr.Request) -> None:
        """Cancel a job that is under way."""
        job = self._job(job_id, request)
        if job is not None and job.state in ACTIVE:
            with suppress(Problem):  # it has just come to its end
                self._service.cancel(job.id, job.owner)
            self._files.remove(job.id)

    # ---- what comes out ----

    def look(
        self, job_id: str | None, stage: list[Any], history: list[str] | None, request: gr.Request
    ) -> tuple[Any, ...]:
        """What there is to see of a job.

        Args:
            job_id: None: none yet.
            stage: what is shown already, as this returned it the last time; a player must not be disturbed.
            history: ids of this browser's jobs.
            request: says in which language.

        Returns:
            The section of the result, its status, its pictures, the button that cancels, the clock, the list of
            earlier jobs, and `stage`.
        """
        _, words = _language(request)
        job = self._job(job_id, request)
        shown, pictures = self._stage(job, words) if job else (None, "")
        now, active = [job_id, job and job.state, shown], job is not None and job.state in ACTIVE
        return (
            gr.Column(visible=bool(job_id)),
            self._status(job, words),
            gr.skip() if now == stage else pictures,
            gr.Button(visible=active),
            gr.Timer(active=active),
            gr.skip() if now == stage else self._titles(history, job_id, request),
            now,
        )

    def status(self, job_id: str, request: gr.Request) -> dict[str, Any]:
        """A job as the HTTP API shows it, for programs; with the address of its result on this page."""
        job = self._job(job_id, request)
        if job is None:
            return {"state": EXPIRED}
        view = job_view(job, self._service.store.position(job), self._service.config.keep_h).model_dump(mode="json")
        view["result_url"] = _address(self._files.fetch(job, job.result)) if job.state == DONE else None
        view["preview_url"] = _address(self._files.fetch(job, job.preview)) if view["preview_url"] else None
        return view

    def recall(self, history: list[str] | None, request: gr.Request) -> str | None:
        """The newest job of this browser that is still known."""
        return next((job.id for job in self._known(history, request)), None)

    def _titles(self, history: list[str] | None, job_id: str | None, request: gr.Request) -> Any:
        """The jobs of this browser, to choose from."""
        _, words = _language(request)
        choices = [(_title(job, words), job.id) for job in self._known(history, request)]
        chosen = job_id if job_id in [value for _, value in choices] else None
        return gr.Dropdown(choices, value=chosen, visible=bool(choices))

    def _known(self, history: Any, request: gr.Request) -> list[Job]:
        """The jobs of a history, which may be anything that a client sends."""
        found = [self._job(one, request) for one in (history[:_HISTORY] if isinstance(history, list) else ())]
        return [job for job in found if job is not None]

    def _job(self, job_id: Any, request: gr.Request) -> Job | None:
        """A job of whoever asks; None for everything else that may come as an id."""
        job = self._service.store.get(job_id) if isinstance(job_id, str) else None
        return job if job is not None and job.owner == (request.username or LOCAL_OWNER) else None

    def _status(self, job: Job | None, words: dict[str, str]) -> str:
        if job is None:
            return _panel(words["gone"])
        if job.state == QUEUED:
            position = self._service.store.position(job)
            sentence = words["queued"].format(position=position) if position else words["next"]
            if not any(self._service.store.workers().values()):
                sentence = words["starting"]
            return _panel(sentence, busy=True)
        if job.state == RUNNING:
            return self._running(job, words)
        language = "zh" if words is TEXTS["zh"] else "en"
        error = refusal(job.error or "", language)
        sentence = words[job.state].format(frames=job.frames, error=error)
        return _panel(sentence, bad=bool(error))

    def _running(self, job: Job, words: dict[str, str]) -> str:
        view = job_view(job, None, self._service.config.keep_h)
        if not job.frames:
            learning = job.request["options"].get("adapt")
            return _panel(words["learning" if learning else "listening"], busy=True)
        numbers = [words["percent"].format(percent=round(100 * view.progress))] if job.frames_expected else []
        numbers += [words["fps"].format(fps=view.fps)] if view.fps else []
        if view.seconds_left is not None:
            numbers.append(words["left"].format(time=duration(view.seconds_left, words)))
        return _panel(words["running"], " · ".join(numbers), view.progress if job.frames_expected else None, busy=True)

    def _stage(self, job: Job, words: dict[str, str]) -> tuple[str, str]:
        """What is shown of a job (as a word, to notice a change), and its pictures side by side."""
        name = {DONE: job.result, RUNNING: job.preview}.get(job.state)
        path = self._files.fetch(job, name) if name else None
        before = _figure(words["before"], self._files.input_of(job.id))
        if path is None:
            soon = f'<div class="soon">{html.escape(words["soon"])}</div>' if job.state in ACTIVE else ""
            return job.state, _side_by_side(before, soon and _figure(words["after"], None, soon))
        if job.state == RUNNING:
            return job.preview, _side_by_side(before, _figure(words["preview"], path))
        link = f'<a class="download" href="{_address(path)}" download="lip-sync.mp4">{words["download"]}</a>'
        return DONE, _side_by_side(before, _figure(words["after"], path, link, _TOGETHER))

    # ---- languages ----

    def choices(self, request: gr.Request) -> tuple[Any, ...]:
        """The choices of languages, voices, fit and rest, in the browser's language."""
        language, words = _language(request)
        spoken = [(words["auto"], "auto")]
        for code in self._languages():
            name = name_of(code, language)
            spoken.append((name if code in EXAMPLE_TEXTS else f"{name} ({code})", code))
        return (
            gr.Dropdown(spoken, value="auto"),
            gr.Dropdown([(words["usual_voice"], "")], value=""),
            gr.Dropdown([(words[f"fit_{fit}"], fit) for fit in FITS], value="bounce"),
            gr.Dropdown([(words[f"rest_{rest}"], rest) for rest in RESTS], value="still"),
            gr.Radio([(words["largest"], "largest")], value="largest"),
        )

    def engines(self) -> list[str]:
        """Engines that can draw here, the usual one first."""
        usual = self._intake.defaults.engine
        return [usual, *(view.name for view in self._intake.engines() if view.installed and view.name != usual)]

    def can_speak(self) -> bool:
        """This installation can speak texts."""
        return bool(self._languages())

    def _languages(self) -> list[str]:
        """Codes of the languages of texts, those that are looked after first."""
        try:
            spoken = {voice.language for voice in self._intake.speaker.processor.voices}
        except Problem:
            return []
        return [code for code in [*EXAMPLE_TEXTS, *sorted(spoken - EXAMPLE_TEXTS.keys())] if code in spoken]

    def voices(self, lang: str, request: gr.Request) -> Any:
        """The voices of a language."""
        _, words = _language(request)
        names = [voice.name for voice in self._intake.speaker.processor.voices if voice.language == lang]
        return gr.Dropdown([(words["usual_voice"], ""), *((name, name) for name in names)], value="")


# In step with the result: the picture before it, without its sound.
_TOGETHER = (
    "onplay=\"this.b=document.querySelector('.stage figure:first-child video');if(this.b){this.b.muted=true;"
    'this.b.currentTime=this.currentTime%(this.b.duration||1);this.b.play()}" onpause="this.b&&this.b.pause()"'
)


def _language(request: gr.Request) -> tuple[str, dict[str, str]]:
    language = language_for(request.headers.get("accept-language"))
    return language, TEXTS[language]


def _expected(request: gr.Request) -> str | None:
    """The language of a text that does not tell its own: the one that the browser wants most."""
    return preferred_language(request.headers.get("accept-language"))


@contextmanager
def _refusals(language: str) -> Iterator[None]:
    """What goes wrong because of what somebody sent, or for want of space, is said on the page."""
    try:
        yield
    except (Problem, InputError) as refused:
        raise _refused(str(refused), language) from refused
    except Exception as error:
        if is_disk_full(error):
            raise _refused(disk_full().detail, language) from error
        raise


def _refused(sentence: str, language: str) -> gr.Error:
    """A refusal, for long enough to be read."""
    return gr.Error(refusal(sentence, language), duration=_REFUSAL_S, print_exception=False)


def _panel(sentence: str, numbers: str = "", bar: float | None = None, busy: bool = False, bad: bool = False) -> str:
    """Status of a job; what changes every second is not read out by screen readers."""
    value = "" if bar is None else f' value="{bar:.3f}"'
    progress = f'<progress max="1"{value} aria-label="{html.escape(sentence)}"></progress>' if busy else ""
    return (
        f'<div class="status{" bad" if bad else ""}"><p role="status">{html.escape(sentence)}</p>{progress}'
        f'<p class="numbers">{html.escape(numbers)}</p></div>'
    )


def _side_by_side(*figures: str) -> str:
    return f'<div class="stage">{"".join(figures)}</div>' if any(figures) else ""


def _figure(caption: str, path: Path | None, more: str = "", play: str = "") -> str:
    """One of the two pictures; nothing where there is neither a file nor anything else to show."""
    if path is None:
        picture = ""
    elif path.suffix in _PICTURES:
        picture = f'<img src="{_address(path)}" alt="{html.escape(caption)}">'
    else:
        how = f'controls playsinline preload="metadata" aria-label="{html.escape(caption)}" {play}'
        picture = f'<video src="{_address(path)}#t=0.001" {how}></video>'  # phones show nothing before 0.001 s
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{picture}{more}</figure>" if picture or more else ""


def _address(path: Path | None) -> str | None:
    """Where the browser gets a file, relative to the page."""
    return None if path is None else f"gradio_api/file={quote(str(path))}"


def _title(job: Job, words: dict[str, str]) -> str:
    """A line of the history."""
    text = " ".join((job.request.get("text") or "").split()) or words["spoken_sound"]
    short = text if len(text) <= _TITLE_LENGTH else f"{text[:_TITLE_LENGTH]}…"
    return f"{short} · {words[f'state_{job.state}']} · {ago(time.time() - job.created, words)}"


def _thumbnail(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A face with what is around it, as a square on the sheet, uint8 RGB; `box` is x0, y0, x1, y1 in px."""
    centre, half = (box[:2] + box[2:]) / 2, _AROUND * float(max(box[2:] - box[:2])) / 2
    side = _THUMBNAIL_PX - 2 * _GAP_PX
    scale = side / (2 * half)
    matrix = np.array([[scale, 0, scale * (half - centre[0])], [0, scale, scale * (half - centre[1])]])
    face = cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return cv2.copyMakeBorder(face, _GAP_PX, _GAP_PX, _GAP_PX, _GAP_PX, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _sheet(faces: list[np.ndarray]) -> np.ndarray:
    """Faces with their numbers side by side, a few to a row; uint8 RGB."""
    rows = -(-len(faces) // _PER_ROW)
    sheet = np.full((rows * _THUMBNAIL_PX, min(len(faces), _PER_ROW) * _THUMBNAIL_PX, 3), 255, np.uint8)
    for i, face in enumerate(faces):
        y, x = (_THUMBNAIL_PX * k for k in divmod(i, _PER_ROW))
        sheet[y : y + _THUMBNAIL_PX, x : x + _THUMBNAIL_PX] = face
        corner = (x + _GAP_PX, y + _GAP_PX)
        cv2.rectangle(sheet, corner, (corner[0] + 14 + 14 * len(str(i + 1)), corner[1] + 34), _LABEL, cv2.FILLED)
        place = (corner[0] + 7, corner[1] + 26)
        cv2.putText(sheet, str(i + 1), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    return sheet
