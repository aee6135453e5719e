"""What the web page does. What it looks like is in `serving/page/layout.py`, its words in `serving/page/texts.py`."""

from __future__ import annotations

import html
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr

from faces.detector import FaceDetector
from pipeline.options import FITS, RESTS
from serving.http.forms import FILES
from serving.http.intake import Caller, Intake
from serving.http.speech import preferred_language
from serving.http.uploads import Form
from serving.jobs.jobs import INCOMING, LOCAL_OWNER, JobService
from serving.jobs.store import ACTIVE, DONE, EXPIRED, Job
from serving.jobs.views import job_view
from serving.page.face_sheet import face_at, find_faces, write_sheet
from serving.page.files import PageFiles, link_or_copy
from serving.page.marking import MARKS, marked_place, write_first_picture
from serving.page.said import told
from serving.page.showing import Showing, address, panel
from serving.page.texts import EXAMPLE_TEXTS, TEXTS, language_for, name_of, taken_language
from serving.page.wish import Wish
from serving.problems import Problem, disk_full, store_away
from utils.disk import is_disk_full
from utils.helpers import InputError
from video_processor import probe_video

_HISTORY = 20
_REFUSAL_S = 20
_LOG = logging.getLogger("lipsync.page")


class Page:
    """What the page does. Whatever goes wrong, one sentence in the browser's language says so.

    Args:
        service: the jobs.
        intake: checks what comes in.
        detector: shows which faces there are.
        files: what the browser may fetch.
        has_keys: people log in.
    """

    def __init__(
        self,
        service: JobService,
        intake: Intake,
        detector: FaceDetector,
        files: PageFiles,
        has_keys: bool = False,
    ):
        self.service = service
        self.intake = intake
        self._detector = detector
        self.files = files
        self._has_keys = has_keys

    @contextmanager
    def refusals(self, request: gr.Request) -> Iterator[None]:
        """What goes wrong within the block is said on the page: no button stays silent."""
        language, words = _language(request)
        try:
            yield
        except gr.Error:
            raise
        except (Problem, InputError) as refused:
            raise _refused(str(refused), language) from refused
        except Exception as error:
            if is_disk_full(error):
                raise _refused(disk_full().detail, language) from error
            if isinstance(error, self.service.store.faults):
                raise _refused(store_away().detail, language) from error
            _LOG.exception("the page could not do what was asked")
            raise gr.Error(words["broken"], duration=_REFUSAL_S, print_exception=False) from error

    # ---- what goes in ----

    def faces(
        self, who: str, portrait: str | None, video: str | None, chosen: list[str], request: gr.Request
    ) -> tuple[Any, Any, Any, Any]:
        """The faces of the first picture, numbered from the left.

        Args:
            who: see `Wish`, like the next two.
            portrait: a file.
            video: a file.
            chosen: a file, and the face that was chosen in it before.
            request: says in which language.

        Returns:
            Their heading, the faces, the choice between them, and where there is none the picture to mark one in.
        """
        _, words = _language(request)
        path = {"portrait": portrait, "video": video}.get(who) or portrait or video
        with self.refusals(request):
            with _called(path, "video_file"):
                found = [] if path is None else find_faces(path, self._detector)
            sheet = self._sheet_file(found, request) if found else None
            first = None if path is None or found else self._first_picture(path, request)
        if path is not None and not found:
            gr.Warning(words["no_face"])
        choices = [(words["largest"], "largest")]
        choices += [(words["number"].format(number=i + 1), f"index:{i}") for i in range(len(found))]
        choices += [(words["marked"], face) for file, face in [chosen] * (len(chosen) == 2)
                    if file == path and not found and face.startswith(MARKS)]  # fmt: skip
        return (
            gr.Markdown(words["faces" if len(found) > 1 else "one_face"], visible=bool(found)),
            gr.Image(sheet, visible=bool(found)),
            gr.Radio(choices, value=_kept(chosen, path, choices), visible=len(choices) > 1 and len(found) != 1),
            gr.Image(first, visible=first is not None),
        )

    def _first_picture(self, path: str, request: gr.Request) -> str:
        """The first picture as a file that only whoever asked for it may fetch."""
        target = self.files.new_folder(owner_of(request)) / "first.png"
        write_first_picture(path, target)
        return str(target)

    def marked(
        self, text: str, who: str, portrait: str | None, video: str | None, request: gr.Request
    ) -> gr.Radio:
        """The choice between the largest face and the place that was marked, which is chosen."""
        _, words = _language(request)
        path = {"portrait": portrait, "video": video}.get(who) or portrait or video
        if path is None:
            return gr.skip()
        with self.refusals(request), _called(path, "video_file"):
            place = marked_place(text, path)
        return gr.Radio([(words["largest"], "largest"), (words["marked"], place)], value=place, visible=True)

    def _sheet_file(self, found: list[Any], request: gr.Request) -> str:
        """The sheet of faces as a file that only whoever asked for it may fetch."""
        path = self.files.new_folder(owner_of(request)) / "faces.png"
        write_sheet(found, path)
        return str(path)

    def pick(self, event: gr.SelectData) -> Any:
        """The face that was clicked on. It may be none: then there is no such choice, and nothing changes."""
        return f"index:{face_at(*event.index)}"

    def sound_of(self, video: str | None, request: gr.Request) -> str | None:
        """A video as the sound: the file itself, whose sound is what counts, and which the browser can play."""
        _, words = _language(request)
        if video is None:
            return None
        with self.refusals(request), _called(video, "video_file"):
            has_audio = probe_video(video).has_audio
        if not has_audio:
            raise gr.Error(words["no_sound"], duration=_REFUSAL_S, print_exception=False)
        return video

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
        consent: bool,
        history: list[str] | None,
        request: gr.Request,
    ) -> tuple[str, list[str]]:
        """Take in a job (see `Wish`) -> its id, and the history with it: ids of jobs that are known, nothing else."""
        language, words = _language(request)
        wish = Wish(who, portrait, video, face, what, sound, text, lang, voice, speed, adapt, steps, fit, rest, engine)
        missing = _missing(wish, consent)
        if missing is not None:
            raise gr.Error(words[missing], duration=_REFUSAL_S, print_exception=False)
        with self.refusals(request):
            job = self._take_in(wish, request)
            told_language = self._taken_language(wish, language, request)
            known = [job.id, *(known.id for known in self._known(history, request))][:_HISTORY]
        gr.Info(" ".join([*told_language, words["closing"]]))
        return job.id, known

    def _take_in(self, wish: Wish, request: gr.Request) -> Job:
        with tempfile.TemporaryDirectory(dir=self.service.config.data_dir / INCOMING) as folder:
            files = {}
            for name, path in {"video_file": wish.source, "audio_file": wish.speech}.items():
                if path is not None:
                    files[name] = Path(folder) / FILES[name]
                    link_or_copy(Path(path), files[name])
            job = self.intake.submit(Form(wish.fields(), files), owner_of(request), caller_of(request))
        self.files.keep(job.id, wish)
        return job

    def _taken_language(self, wish: Wish, language: str, request: gr.Request) -> list[str]:
        """Which language a text is spoken in, where nobody said it."""
        lang, voice = wish.spoken_by()
        if wish.speech is not None or lang != "auto":
            return []
        choice = self.intake.speaker.check(wish.text, lang, voice or None, wish.speed, _expected(request))
        found = choice.detected
        return [taken_language(found.language, found.by, found.certainty, language)]

    def again(self, job_id: str | None, request: gr.Request) -> Wish | None:
        """What a job was made from, to be put into the form again; None, with a word about it: it is not kept."""
        _, words = _language(request)
        with self.refusals(request):
            job = self._job(job_id, request)
            wish = None if job is None else self.files.again(job.id, job.owner)
        (gr.Warning if wish is None else gr.Info)(words["again_gone" if wish is None else "again_done"])
        return wish

    def cancel(self, job_id: str | None, request: gr.Request) -> None:
        """Cancel a job that is under way, or delete one that has ended, and its files at once."""
        with self.refusals(request):
            job = self._job(job_id, request)
            if job is not None:
                with suppress(Problem):  # it has just come to its end, or is gone
                    (self.service.cancel if job.state in ACTIVE else self.service.delete)(job.id, job.owner)
                self.files.remove(job.id)

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
            The section of the result, its status, its pictures, the buttons that cancel, delete and use the inputs
            again, the clock, the list of earlier jobs, and `stage`.
        """
        _, words = _language(request)
        try:
            return self._look(job_id, stage, history, request)
        except self.service.store.faults:
            waits = panel(words["away"], bad=True)
            return (gr.Column(visible=True), waits, *[gr.skip()] * 4, gr.Timer(active=True), gr.skip(), [])

    def _look(self, job_id: str | None, stage: list[Any], history: Any, request: gr.Request) -> tuple[Any, ...]:
        job, show = self._job(job_id, request), self._showing(request)
        shown, pictures = show.stage(job) if job else (None, "")
        now, active = [job_id, job and job.state, shown], job is not None and job.state in ACTIVE
        return (
            gr.Column(visible=bool(job_id)),
            show.status(job),
            gr.skip() if now == stage else pictures,
            gr.Button(visible=active),
            gr.Button(visible=job is not None and not active),
            gr.Button(visible=job is not None and self.files.input_of(job.id) is not None),
            gr.Timer(active=active),
            gr.skip() if now == stage else self._titles(history, job_id, request),
            now,
        )

    def status(self, job_id: str, request: gr.Request) -> dict[str, Any]:
        """A job as the HTTP API shows it, for programs; with the address of its result on this page."""
        with self.refusals(request):
            job = self._job(job_id, request)
            if job is None:
                return {"state": EXPIRED}
            position = self.service.store.position(job)
            view = job_view(job, position, self.service.config.keep_h).model_dump(mode="json")
            view["result_url"] = address(self.files.fetch(job, job.result)) if job.state == DONE else None
            view["preview_url"] = address(self.files.fetch(job, job.preview)) if view["preview_url"] else None
            return view

    def recall(self, history: list[str] | None, request: gr.Request) -> str | None:
        """The newest job of this browser that is still known."""
        with self.refusals(request):
            return next((job.id for job in self._known(history, request)), None)

    def _titles(self, history: Any, job_id: str | None, request: gr.Request) -> Any:
        """The jobs of this browser, to choose from."""
        show = self._showing(request)
        choices = [(show.title(job), job.id) for job in self._known(history, request)]
        chosen = job_id if job_id in [value for _, value in choices] else None
        return gr.Dropdown(choices, value=chosen, visible=len(choices) > 1)

    def _showing(self, request: gr.Request) -> Showing:
        return Showing(self.service, self.files, _language(request)[0])

    def _known(self, history: Any, request: gr.Request) -> list[Job]:
        """The jobs of a history, which may be anything that a client sends."""
        found = [self._job(one, request) for one in (history[:_HISTORY] if isinstance(history, list) else ())]
        return [job for job in found if job is not None]

    def _job(self, job_id: Any, request: gr.Request) -> Job | None:
        """A job of whoever asks; None for everything else that may come as an id."""
        job = self.service.store.get(job_id) if isinstance(job_id, str) else None
        return job if job is not None and job.owner == owner_of(request) else None

    # ---- languages ----

    def choices(self, request: gr.Request) -> tuple[Any, ...]:
        """The choices of languages, voices, fit, rest and face in the browser's language, and who is logged in."""
        _, words = _language(request)
        return (
            self.languages(request),
            self.voices("auto", request),
            gr.Dropdown([(words[f"fit_{fit}"], fit) for fit in FITS], value="bounce"),
            gr.Dropdown([(words[f"rest_{rest}"], rest) for rest in RESTS], value="still"),
            gr.Radio([(words["largest"], "largest")], value="largest"),
            gr.HTML(self._account(request), visible=self._has_keys),
        )

    def languages(self, request: gr.Request) -> gr.Dropdown:
        """The languages of texts, in the browser's language."""
        language, words = _language(request)
        spoken = [(words["auto"], "auto")]
        for code in self._languages():
            name = name_of(code, language)
            spoken.append((name if code in EXAMPLE_TEXTS else f"{name} ({code})", code))
        return gr.Dropdown(spoken, value="auto")

    def _account(self, request: gr.Request) -> str:
        """Who is logged in, and the way out."""
        _, words = _language(request)
        name, out = (html.escape(word) for word in (words["logged_in"].format(name=owner_of(request)), words["logout"]))
        return f'<form method="post" action="logout"><span>{name}</span> <button>{out}</button></form>'

    def engines(self) -> list[str]:
        """Engines that can draw here, the usual one first."""
        usual = self.intake.defaults.engine
        return [usual, *(view.name for view in self.intake.engines() if view.installed and view.name != usual)]

    def can_speak(self) -> bool:
        """This installation can speak texts."""
        return bool(self._languages())

    def _languages(self) -> list[str]:
        """Codes of the languages of texts, those that are looked after first."""
        try:
            spoken = {voice.language for voice in self.intake.speaker.processor.voices}
        except Problem:
            return []
        return [code for code in [*EXAMPLE_TEXTS, *sorted(spoken - EXAMPLE_TEXTS.keys())] if code in spoken]

    def voices(self, lang: str, request: gr.Request, chosen: str | None = "") -> Any:
        """The voices of a language, or all of them with their languages where it is "auto"; one may be chosen."""
        language, words = _language(request)
        known: dict[str, list[Any]] = {}
        for voice in self.intake.speaker.processor.voices if self.can_speak() else ():
            known.setdefault(voice.language, []).append(voice)
        choices = [(words["usual_voice"], "")]
        for code in self._languages() if lang == "auto" else [lang]:
            where = f" · {name_of(code, language)}" if lang == "auto" else ""
            for voice in known.get(code, ()):
                label = words.get(f"voice_{voice.gender}", "{name}").format(name=voice.name)
                choices.append((f"{label}{where}", f"{code}/{voice.name}"))
        return gr.Dropdown(choices, value=chosen or "")


def _kept(chosen: list[str], path: str | None, choices: list[tuple[str, str]]) -> str:
    """The face that was chosen in this file before, else the largest."""
    is_kept = len(chosen) == 2 and chosen[0] == path and chosen[1] in [value for _, value in choices]
    return chosen[1] if is_kept else "largest"


def _missing(wish: Wish, consent: bool) -> str | None:
    """The word that says what a wish lacks; None: nothing."""
    if wish.source is None:
        return "need_video"
    if wish.speech is None and not (wish.text or "").strip():
        return "need_speech"
    return None if consent else "need_consent"


@contextmanager
def _called(path: str | None, name: str) -> Iterator[None]:
    """Sentences about a file call it by the name of its field instead of our path."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(path or "", name)) from error


def owner_of(request: gr.Request) -> str:
    """Whose jobs somebody's are."""
    return request.username or LOCAL_OWNER


def _language(request: gr.Request) -> tuple[str, dict[str, str]]:
    language = language_for(request.headers.get("accept-language"))
    return language, TEXTS[language]


def _expected(request: gr.Request) -> str | None:
    """The language of a text that does not tell its own: the one that the browser wants most."""
    return preferred_language(request.headers.get("accept-language"))


def caller_of(request: gr.Request) -> Caller:
    """What is known of somebody beside the form."""
    return Caller(_expected(request))


def _refused(sentence: str, language: str) -> gr.Error:
    """A refusal, for long enough to be read."""
    return gr.Error(told(sentence, language), duration=_REFUSAL_S, print_exception=False)
