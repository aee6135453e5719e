"""What the web page looks like; what it does is in `serving/page/page.py`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import gradio as gr

from pipeline.options import FITS, RESTS
from serving.jobs.setup import ROOT
from serving.page.files import UPLOADS_KEPT_S
from serving.page.movement import add_movement
from serving.page.page import Page
from serving.page.texts import EXAMPLE_TEXTS, TEXTS
from serving.page.wish import SPEEDS, Wish

_PREFIX = "lip_sync_"
_LOOK_S = 1.0
_SWEEP_S = 3600  # between two looks of Gradio for uploads that are too old
_HIDDEN = "private"  # no call for programs
_HEIGHT = 300
PORTRAIT, SPEECH = ROOT / "examples" / "portrait.jpg", ROOT / "examples" / "speech.wav"
# The result, and the form, may be beyond the edge of the screen, and not there yet.
_SHOW = """() => {{
  let tries = 40
  const show = () => {{
    const part = document.getElementById('{}')
    if (part?.offsetParent) part.scrollIntoView({{behavior: 'smooth'}})
    else if (tries--) setTimeout(show, 250)
  }}
  setTimeout(show, 250)
}}"""


class _Translated:
    """Words that the browser puts in its own language."""

    def __init__(self) -> None:
        # Gradio has words of its own, some under the same names. It calls Chinese by its countries.
        named = {lang: {f"{_PREFIX}{name}": text for name, text in texts.items()} for lang, texts in TEXTS.items()}
        self.i18n = gr.I18n(**{"en": named["en"], "zh-CN": named["zh"]})

    def __call__(self, name: str) -> Any:
        return self.i18n(f"{_PREFIX}{name}")


@dataclass
class _Form:
    """The parts of the page that a job is made from.

    Attributes:
        inputs: in the order of `Wish`.
        tabs: of the picture and of the speech.
        translated: those whose choices come in the browser's language.
        chosen: a file and the face that was chosen in it before; see `Page.faces`.
    """

    inputs: list[Any] = field(default_factory=list)
    tabs: list[Any] = field(default_factory=list)
    translated: list[Any] = field(default_factory=list)
    chosen: Any = None


def build_page(page: Page) -> tuple[gr.Blocks, gr.I18n]:
    """Lay out the page; also gives its words, which are needed to serve it."""
    words, form = _Translated(), _Form()
    with gr.Blocks(title="Lip Sync", analytics_enabled=False, delete_cache=(_SWEEP_S, int(UPLOADS_KEPT_S))) as blocks:
        history = gr.BrowserState([], storage_key="lip-sync-history", secret="lip-sync")
        agreed = gr.BrowserState(False, storage_key="lip-sync-agreed", secret="lip-sync")
        with gr.Row(elem_id="top"):
            gr.Markdown(words("intro"), elem_id="head")
            account = gr.HTML(visible=False, elem_id="account")
        result = _Result(words, page, history)
        gr.Markdown(words("consent"), elem_id="consent")
        with gr.Row(elem_id="form", equal_height=False):
            with gr.Column(elem_classes="card", min_width=300):
                _who(words, page, form)
            with gr.Column(elem_classes="card", min_width=300):
                _what(words, page, form)
        _more(words, page, form)
        consent = gr.Checkbox(False, label=words("agree"), elem_id="agree")
        make = gr.Button(words("make"), variant="primary", size="lg", elem_id="make")
        blocks.load(page.choices, None, [*form.translated, account], api_visibility=_HIDDEN)
        # A tick that is set before this answers stays.
        blocks.load(lambda agreed: agreed is True or gr.skip(), agreed, consent, api_visibility=_HIDDEN)
        made = make.click(
            page.submit, [*form.inputs, consent, history], [result.job, history], api_name="submit", concurrency_limit=4
        )
        made.success(lambda: True, None, agreed, api_visibility=_HIDDEN)
        made.success(None, None, None, js=_SHOW.format("result"), api_visibility=_HIDDEN)
        add_movement(page, words, blocks, _HIDDEN)
        result.show_newest(made.success)
        result.show_newest(blocks.load)
        _again(page, form, result)
        gr.api(page.status, api_name="status")
    return blocks, words.i18n


def _again(page: Page, form: _Form, result: _Result) -> None:
    """The button that puts the inputs of a job into the form."""
    outputs = [*form.tabs, form.chosen, *form.inputs]

    def filled(job_id: str | None, request: gr.Request) -> list[Any]:
        wish: Wish | None = page.again(job_id, request)
        if wish is None:
            return [gr.skip()] * len(outputs)
        values = asdict(wish) | {"voice": page.voices(wish.lang, request, wish.voice)}
        return [gr.Tabs(selected=wish.who), gr.Tabs(selected=wish.what), [wish.source, wish.face], *values.values()]

    event = result.again.click(filled, result.job, outputs, api_visibility=_HIDDEN)
    event.success(None, None, None, js=_SHOW.format("form"), api_visibility=_HIDDEN)


def _who(words: _Translated, page: Page, form: _Form) -> None:
    """Which of portrait and video is open, both of them, and the face."""
    gr.Markdown(words("who"))
    who = gr.Textbox("portrait", visible=False, label="who")
    with gr.Tabs() as tabs:
        with gr.Tab(words("portrait"), id="portrait") as first:
            portrait = gr.Image(
                label=words("portrait"), sources=["upload", "webcam"], height=_HEIGHT, elem_id="portrait", buttons=[]
            )
            # The file as it is: Gradio would convert some, and has no sentence for those it cannot read.
            portrait.preprocess = lambda payload: payload and payload.path
            example = gr.Button(words("example_portrait"), size="md")
            example.click(lambda: str(PORTRAIT), None, portrait, api_visibility=_HIDDEN)
        with gr.Tab(words("video"), id="video") as second:
            video = gr.Video(
                label=words("video"), sources=["upload", "webcam"], height=_HEIGHT, elem_id="video", buttons=[]
            )
    form.tabs.append(tabs)
    form.chosen = gr.State([])
    form.inputs += [who, portrait, video, _face(words, page, (first, second), [who, portrait, video, form.chosen])]
    form.translated.append(form.inputs[-1])


def _face(words: _Translated, page: Page, tabs: tuple[Any, Any], given: list[Any]) -> gr.Radio:
    """The faces that were found, and the choice between them."""
    heading = gr.Markdown(visible=False)
    found = gr.Image(
        label=words("faces"),
        show_label=False,
        container=False,
        interactive=False,
        visible=False,
        elem_id="faces",
        buttons=[],
        format="png",
    )
    face = gr.Radio([("largest", "largest")], value="largest", label=words("face"), visible=False, elem_id="face")
    mark = gr.Image(
        label=words("mark"), container=False, interactive=False, visible=False, elem_id="mark", buttons=[], format="png"
    )
    marked = gr.Textbox(label=words("marked"), elem_id="marked", elem_classes="unseen")
    marked.change(page.marked, [marked, *given[:3]], face, api_visibility=_HIDDEN, show_progress="hidden")
    looked = {"fn": page.faces, "inputs": given, "outputs": [heading, found, face, mark], "show_progress": "hidden"}
    looked |= {"api_visibility": _HIDDEN, "concurrency_limit": 1, "concurrency_id": "faces"}
    who, portrait, video, _ = given
    for event in (portrait.change, video.change):
        event(**looked)
    for tab, name in zip(tabs, ("portrait", "video"), strict=True):
        tab.select(lambda name=name: name, None, who, api_visibility=_HIDDEN).then(**looked)
    found.select(page.pick, None, face, api_visibility=_HIDDEN)
    return face


def _what(words: _Translated, page: Page, form: _Form) -> None:
    """Which of sound and text is open, both of them, language, voice and speed."""
    gr.Markdown(words("what"))
    what = gr.Textbox("sound", visible=False, label="what")
    with gr.Tabs() as tabs:
        with gr.Tab(words("sound"), id="sound") as first:
            sound = _sound(words, page)
        with gr.Tab(words("text"), id="text", visible=page.can_speak()) as second:
            text = gr.Textbox(label=words("text_label"), placeholder=words("text_hint"), lines=4, elem_id="words")
            examples = gr.Dataset(
                components=[text],
                samples=[[sample] for sample in EXAMPLE_TEXTS.values()],
                sample_labels=["English", "中文", "日本語", "Français", "Deutsch", "Español"],
                label=words("example_texts"),
                elem_classes="chips",
            )
            with gr.Row():
                lang = gr.Dropdown([("auto", "auto")], value="auto", label=words("language"), min_width=180)
                voice = gr.Dropdown([("", "")], value="", label=words("voice"), min_width=180, elem_id="voice")
            speed = gr.Slider(*SPEEDS, value=1.0, step=0.05, label=words("speed"), buttons=[])
    examples.click(lambda sample: sample[0], examples, text, api_visibility=_HIDDEN)
    lang.input(page.voices, lang, voice, api_visibility=_HIDDEN)
    for tab, name in ((first, "sound"), (second, "text")):
        tab.select(lambda name=name: name, None, what, api_visibility=_HIDDEN)
    form.tabs.append(tabs)
    form.inputs += [what, sound, text, lang, voice, speed]
    form.translated[:0] = [lang, voice]


def _sound(words: _Translated, page: Page) -> gr.Audio:
    """A sound, or the sound of a video."""
    sound = gr.Audio(
        label=words("sound"), type="filepath", sources=["upload", "microphone"], elem_id="sound", buttons=[]
    )
    with gr.Row():
        example = gr.Button(words("example_sound"), size="md")
        video = gr.UploadButton(words("sound_of_video"), file_types=["video"], size="md", elem_id="sound_of_video")
    video.preprocess = lambda payload: payload and payload.path
    example.click(lambda: str(SPEECH), None, sound, api_visibility=_HIDDEN)
    video.upload(page.sound_of, video, sound, api_visibility=_HIDDEN)
    return sound


def _more(words: _Translated, page: Page, form: _Form) -> None:
    """Adapt, steps, fit, rest, engine."""
    engines = page.engines()
    with gr.Accordion(words("more"), open=False):
        adapt = gr.Checkbox(False, label=words("adapt"))
        with gr.Row():
            fit = gr.Dropdown([(fit, fit) for fit in FITS], value="bounce", label=words("fit"), min_width=200)
            rest = gr.Dropdown([(rest, rest) for rest in RESTS], value="still", label=words("rest"), min_width=200)
        steps = gr.Slider(0, 20, value=0, step=1, label=words("steps"), buttons=[])
        engine = gr.Dropdown(
            [(words("usual_engine"), ""), *((name, name) for name in engines)],
            value="",
            label=words("engine"),
            visible=len(engines) > 1,
        )
    form.inputs += [adapt, steps, fit, rest, engine]
    form.translated[2:2] = [fit, rest]


class _Result:
    """The section of the result, with the job that it shows.

    Attributes:
        job: a state with the id of that job.
        again: the button that uses its inputs again.
    """

    def __init__(self, words: _Translated, page: Page, history: gr.BrowserState):
        self.job, self._page, self._history = gr.State(None), page, history
        stage = gr.State([])
        with gr.Column(elem_classes="card", elem_id="result", visible=False) as section:
            gr.Markdown(words("result"))
            status = gr.HTML(elem_id="status")
            pictures = gr.HTML(elem_id="pictures")
            with gr.Row(elem_id="actions"):
                cancel = gr.Button(words("cancel"), variant="stop", visible=False, elem_id="cancel")
                self.again = gr.Button(words("again"), visible=False, elem_id="again")
                delete = gr.Button(words("delete"), visible=False, elem_id="delete")
            earlier = gr.Dropdown([], label=words("history"), visible=False, elem_id="history", filterable=False)
        clock = gr.Timer(_LOOK_S, active=False)
        self._look = {
            "fn": page.look,
            "inputs": [self.job, stage, history],
            "outputs": [section, status, pictures, cancel, delete, self.again, clock, earlier, stage],
            "show_progress": "hidden",
            "api_visibility": _HIDDEN,
            "queue": False,
        }
        clock.tick(**self._look)
        for button in (cancel, delete):
            button.click(page.cancel, self.job, api_visibility=_HIDDEN).then(**self._look)
        earlier.input(lambda chosen: chosen, earlier, self.job, api_visibility=_HIDDEN).then(**self._look)

    def show_newest(self, event: Any) -> None:
        """Have an event show what this browser made last."""
        event(self._page.recall, self._history, self.job, api_visibility=_HIDDEN).then(**self._look)
