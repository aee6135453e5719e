"""What the web page looks like; what it does is in `serving/page/page.py`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pipeline.options import FITS, RESTS
from serving.jobs.setup import ROOT
from serving.page.files import UPLOADS_KEPT_S
from serving.page.page import Page
from serving.page.texts import EXAMPLE_TEXTS, TEXTS

_PREFIX = "lip_sync_"
_LOOK_S = 1.0
_SWEEP_S = 3600  # between two looks of Gradio for uploads that are too old
_HIDDEN = "private"  # no call for programs
_HEIGHT = 300
PORTRAIT, SPEECH = ROOT / "examples" / "portrait.png", ROOT / "examples" / "speech.wav"
# The result may be below the edge of a phone's screen.
_TO_RESULT = "() => setTimeout(() => document.getElementById('result')?.scrollIntoView({behavior: 'smooth'}), 300)"
_SET_LANGUAGE = "() => {document.documentElement.lang = navigator.language.startsWith('zh') ? 'zh' : 'en'}"


class _Translated:
    """Words that the browser puts in its own language."""

    def __init__(self) -> None:
        # Gradio has words of its own, some under the same names.
        named = {lang: {f"{_PREFIX}{name}": text for name, text in texts.items()} for lang, texts in TEXTS.items()}
        self.i18n = gr.I18n(**named)

    def __call__(self, name: str) -> Any:
        return self.i18n(f"{_PREFIX}{name}")


def build_page(page: Page) -> tuple[gr.Blocks, gr.I18n]:
    """Lay out the page; also gives its words, which are needed to serve it."""
    words = _Translated()
    with gr.Blocks(title="Lip Sync", analytics_enabled=False, delete_cache=(_SWEEP_S, int(UPLOADS_KEPT_S))) as blocks:
        history = gr.BrowserState([], storage_key="lip-sync-history", secret="lip-sync")
        gr.Markdown(words("intro"), elem_id="head")
        gr.Markdown(words("consent"), elem_id="consent")
        with gr.Row():
            with gr.Column(elem_classes="card", min_width=300):
                who = _who(words, page)
            with gr.Column(elem_classes="card", min_width=300):
                what, language_choices = _what(words, page)
        options = _more(words, page)
        make = gr.Button(words("make"), variant="primary", size="lg", elem_id="make")
        job, result = _result(words, page, history)
        choices = [*language_choices, *options[2:], who[-1]]
        blocks.load(page.choices, None, choices, api_visibility=_HIDDEN, js=_SET_LANGUAGE)
        inputs = [*who, *what, *options, history]
        made = make.click(page.submit, inputs, [job, history], api_name="submit", concurrency_limit=4)
        made.success(None, None, None, js=_TO_RESULT, api_visibility=_HIDDEN)
        result(made.success)
        result(blocks.load)
        gr.api(page.status, api_name="status")
    return blocks, words.i18n


def _who(words: _Translated, page: Page) -> list[Any]:
    """Which of portrait and video is open, both of them, and the face."""
    gr.Markdown(words("who"))
    who = gr.Textbox("portrait", visible=False, label="who")
    with gr.Tab(words("portrait"), id="portrait") as first:
        portrait = gr.Image(label=words("portrait"), sources=["upload", "webcam"], height=_HEIGHT, elem_id="portrait")
        # The file as it is: Gradio would convert some, and has no sentence for those it cannot read.
        portrait.preprocess = lambda payload: payload and payload.path
        example = gr.Button(words("example_portrait"), size="md")
        example.click(lambda: str(PORTRAIT), None, portrait, api_visibility=_HIDDEN)
    with gr.Tab(words("video"), id="video") as second:
        video = gr.Video(label=words("video"), sources=["upload", "webcam"], elem_id="video")
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
    looked = {"fn": page.faces, "inputs": [who, portrait, video], "outputs": [heading, found, face]}
    for event in (portrait.change, video.change):
        event(**looked, api_visibility=_HIDDEN, show_progress="hidden", concurrency_limit=1, concurrency_id="faces")
    for tab, name in ((first, "portrait"), (second, "video")):
        chosen = tab.select(lambda name=name: name, None, who, api_visibility=_HIDDEN)
        chosen.then(
            **looked, api_visibility=_HIDDEN, show_progress="hidden", concurrency_limit=1, concurrency_id="faces"
        )
    found.select(page.pick, None, face, api_visibility=_HIDDEN)
    return [who, portrait, video, face]


def _what(words: _Translated, page: Page) -> tuple[list[Any], list[Any]]:
    """Which of sound and text is open, both of them, language, voice and speed; and those with choices."""
    gr.Markdown(words("what"))
    what = gr.Textbox("sound", visible=False, label="what")
    with gr.Tab(words("sound"), id="sound") as first:
        sound = gr.Audio(
            label=words("sound"), type="filepath", sources=["upload", "microphone"], elem_id="sound", buttons=[]
        )
        example = gr.Button(words("example_sound"), size="md")
        example.click(lambda: str(SPEECH), None, sound, api_visibility=_HIDDEN)
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
            lang = gr.Dropdown([("auto", "auto")], value="auto", label=words("language"), min_width=120)
            voice = gr.Dropdown([("", "")], value="", label=words("voice"), min_width=120)
        speed = gr.Slider(0.5, 2.0, value=1.0, step=0.05, label=words("speed"), buttons=[])
    examples.click(lambda sample: sample[0], examples, text, api_visibility=_HIDDEN)
    lang.change(page.voices, lang, voice, api_visibility=_HIDDEN)
    for tab, name in ((first, "sound"), (second, "text")):
        tab.select(lambda name=name: name, None, what, api_visibility=_HIDDEN)
    return [what, sound, text, lang, voice, speed], [lang, voice]


def _more(words: _Translated, page: Page) -> list[Any]:
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
    return [adapt, steps, fit, rest, engine]


def _result(words: _Translated, page: Page, history: gr.BrowserState) -> tuple[gr.State, Any]:
    """The section of the result. Gives the id of the job that it shows, and a function that has an event show what
    this browser made last."""
    job, stage = gr.State(None), gr.State([])
    with gr.Column(elem_classes="card", elem_id="result", visible=False) as section:
        gr.Markdown(words("result"))
        status = gr.HTML(elem_id="status")
        pictures = gr.HTML(elem_id="pictures")
        cancel = gr.Button(words("cancel"), variant="stop", visible=False, elem_id="cancel")
    earlier = gr.Dropdown([], label=words("history"), visible=False, elem_id="history", filterable=False)
    clock = gr.Timer(_LOOK_S, active=False)
    look = {
        "fn": page.look,
        "inputs": [job, stage, history],
        "outputs": [section, status, pictures, cancel, clock, earlier, stage],
        "show_progress": "hidden",
        "api_visibility": _HIDDEN,
        "queue": False,
    }
    clock.tick(**look)
    cancel.click(page.cancel, job, api_visibility=_HIDDEN).then(**look)
    earlier.input(lambda chosen: chosen, earlier, job, api_visibility=_HIDDEN).then(**look)

    def show_newest(event: Any) -> None:
        event(page.recall, history, job, api_visibility=_HIDDEN).then(**look)

    return job, show_newest
