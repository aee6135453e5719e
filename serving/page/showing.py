"""What there is to see of a job on the page, as HTML: its status, what was done, its pictures, its line in the history.

Everything that comes from a job or its files is escaped.
"""

from __future__ import annotations

import html
import time
from pathlib import Path
from urllib.parse import quote

from serving.jobs.jobs import JobService
from serving.jobs.store import ACTIVE, DONE, FAILED, QUEUED, RUNNING, Job
from serving.jobs.views import job_view
from serving.page.files import PageFiles
from serving.page.said import told
from serving.page.texts import TEXTS, ago, duration

_TITLE_LENGTH, _NAME_LENGTH = 24, 18
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
# In step with the result: the picture before it, without its sound.
_TOGETHER = (
    "onplay=\"this.b=document.querySelector('.stage .before video');if(this.b){this.b.muted=true;"
    'this.b.currentTime=this.currentTime%(this.b.duration||1);this.b.play()}" onpause="this.b&&this.b.pause()"'
)


class Showing:
    """See above.

    Args:
        service: the jobs.
        files: what the browser may fetch.
        language: of the page.
    """

    def __init__(self, service: JobService, files: PageFiles, language: str):
        self._service = service
        self._files = files
        self._language = language
        self._words = TEXTS[language]

    # ---- status ----

    def status(self, job: Job | None) -> str:
        """How far a job is, and how it ended."""
        words = self._words
        if job is None:
            return panel(words["gone"])
        if job.state == QUEUED:
            position = self._service.store.position(job)
            sentence = words["queued"].format(position=position) if position else words["next"]
            if not any(self._service.store.workers().values()):
                sentence = words["starting"]
            return panel(sentence, busy=True)
        if job.state == RUNNING:
            return self._running(job)
        error = told(job.error or "", self._language)
        sentence = words[job.state].format(frames=job.frames, error=error)
        return panel(sentence, bad=job.state == FAILED)

    def _running(self, job: Job) -> str:
        words, view = self._words, job_view(job, None, self._service.config.keep_h)
        if not job.frames:
            learning = job.request.get("options", {}).get("adapt")
            return panel(words["learning" if learning else "listening"], busy=True)
        numbers = [words["percent"].format(percent=round(100 * view.progress))] if job.frames_expected else []
        numbers += [words["fps"].format(fps=view.fps)] if view.fps else []
        if view.seconds_left is not None:
            numbers.append(words["left"].format(time=duration(view.seconds_left, words)))
        return panel(words["running"], " · ".join(numbers), view.progress if job.frames_expected else None, busy=True)

    def _summary(self, job: Job) -> str:
        """What was done, and what is to be known about it, as a list."""
        words, view = self._words, job_view(job, None, self._service.config.keep_h)
        done = view.summary
        left = {reason: count for reason, count in done.left_as_they_were.items() if count}
        sentences = []
        if left:
            reasons = words["comma"].join(words[f"left_{reason}"].format(count=count) for reason, count in left.items())
            counted = {"left": sum(left.values()), "frames": done.frames, "reasons": reasons}
            sentences.append(words["left_as_they_were"].format(**counted))
        elif done.new_mouths is not None:
            sentences.append(words["all_new"])
        if done.adaptation is not None:
            sentences.append(told(done.adaptation.sentence, self._language))
        sentences += [told(note, self._language) for note in view.notes]
        sentences.append(words["took"].format(time=duration(done.seconds, words)))
        return f'<ul class="told">{"".join(f"<li>{html.escape(one)}</li>" for one in sentences)}</ul>'

    # ---- pictures ----

    def stage(self, job: Job) -> tuple[str, str]:
        """What is shown of a job (as a word, to notice a change), and its pictures side by side, the result first."""
        words = self._words
        name = {DONE: job.result, RUNNING: job.preview}.get(job.state)
        path = self._files.fetch(job, name) if name else None
        before = _figure("before", words["before"], self._files.input_of(job.id))
        if path is None:
            soon = f'<div class="soon">{html.escape(words["soon"])}</div>' if job.state in ACTIVE else ""
            return job.state, _side_by_side(soon and _figure("after", words["after"], None, soon), before)
        if job.state == RUNNING:
            return job.preview, _side_by_side(_figure("after", words["preview"], path), before)
        link = f'<a class="download" href="{address(path)}" download="lip-sync{path.suffix}">{words["download"]}</a>'
        after = _figure("after", words["after"], path, link, _TOGETHER)
        return DONE, _side_by_side(after, before) + self._summary(job)

    # ---- history ----

    def title(self, job: Job) -> str:
        """A line of the history that tells the job from others: what is said, by whom, what became of it, and when."""
        words, names = self._words, self._files.names_of(job.id)
        text = " ".join((job.request.get("text") or "").split())
        said = f"“{_short(text, _TITLE_LENGTH)}”" if text else _short(names.get("speech", ""), _NAME_LENGTH)
        who = _short(names.get("before", ""), _NAME_LENGTH)
        state, when = words[f"state_{job.state}"], ago(time.time() - job.created, words)
        return " · ".join([said or words["spoken_sound"], who or words["shown_picture"], state, when])


def panel(sentence: str, numbers: str = "", bar: float | None = None, busy: bool = False, bad: bool = False) -> str:
    """Status of a job; what changes every second is not read out by screen readers.

    Args:
        sentence: the status.
        numbers: about it.
        bar: how far it is, 0 to 1; None: unknown.
        busy: there is a bar.
        bad: it is bad news.
    """
    value = "" if bar is None else f' value="{bar:.3f}"'
    progress = f'<progress max="1"{value} aria-label="{html.escape(sentence)}"></progress>' if busy else ""
    return (
        f'<div class="status{" bad" if bad else ""}"><p role="status">{html.escape(sentence)}</p>{progress}'
        f'<p class="numbers">{html.escape(numbers)}</p></div>'
    )


def address(path: Path | None) -> str | None:
    """Where the browser gets a file, relative to the page."""
    return None if path is None else f"gradio_api/file={quote(str(path))}"


def _side_by_side(*figures: str) -> str:
    return f'<div class="stage">{"".join(figures)}</div>' if any(figures) else ""


def _figure(kind: str, caption: str, path: Path | None, more: str = "", play: str = "") -> str:
    """One of the two pictures; nothing where there is neither a file nor anything else to show."""
    if path is None:
        picture = ""
    elif path.suffix in _PICTURES:
        picture = f'<img src="{address(path)}" alt="{html.escape(caption)}">'
    else:
        how = f'controls playsinline preload="metadata" aria-label="{html.escape(caption)}" {play}'
        picture = f'<video src="{address(path)}#t=0.001" {how}></video>'  # phones show nothing before 0.001 s
    if not picture and not more:
        return ""
    return f'<figure class="{kind}"><figcaption>{html.escape(caption)}</figcaption>{picture}{more}</figure>'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
