"""The page's section for animators: languages, subtitles in and out, and what it says in both languages."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pysubs2
import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from pipeline.tracks.formats import FORMATS  # noqa: E402
from serving.jobs.jobs import JobService  # noqa: E402
from serving.jobs.track_runs import TrackRuns  # noqa: E402
from serving.page.files import PageFiles  # noqa: E402
from serving.page.layout import build_page  # noqa: E402
from serving.page.movement import Movement  # noqa: E402
from serving.page.page import Page  # noqa: E402
from tests.pages import CHINESE, ENGLISH, load, make_page  # noqa: E402
from tests.service import REPO, make_service, service_config  # noqa: E402
from tests.test_track_api import work  # noqa: E402
from utils.config import load_config  # noqa: E402

CHINESE_SCRIPT = "1\n00:00:00,500 --> 00:00:02,000\n早上好。\n\n2\n00:00:02,500 --> 00:00:04,000\n我们走吧。\n"


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path / "data"))


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load()


@pytest.fixture
def page(service: JobService, loaded: tuple[Any, Any]) -> Page:
    return make_page(service, PageFiles(service), loaded)


@pytest.fixture(scope="module")
def runs(lite_weights: Path) -> TrackRuns:
    config = load_config(REPO / "model_config.yaml")
    inference = config.inference.model_copy(update={"weights_dir": lite_weights.parent})
    return TrackRuns(config.model_copy(update={"inference": inference}), "cpu")


def make(page: Page, request: Any = ENGLISH, **changes: Any) -> Any:
    """What the button starts, up to where the job waits."""
    given = {"sound": None, "text": "", "lang": "auto", "voice": "", "speed": 1, "name": "live-link"}
    given |= {"fps": 30, "smooth": 0.06, "strength": 1}
    steps = Movement(page).make(**given | changes, request=request)
    next(steps)
    return steps


def made(page: Page, runs: TrackRuns, request: Any = ENGLISH, **changes: Any) -> SimpleNamespace:
    steps = make(page, request, **changes)
    work(page.service, runs)
    shown, file = next(steps)
    return SimpleNamespace(shown=shown.value, file=Path(file.value["path"]))


def test_chinese_subtitles_become_subtitles_with_the_time_of_each_word(page: Page, runs: TrackRuns) -> None:
    done = made(page, runs, CHINESE, text=CHINESE_SCRIPT, name="vtt")
    assert "文字用中文朗读" in done.shown and "<iframe" in done.shown and done.file.name == "mouth.vtt"
    text = done.file.read_text(encoding="utf-8")
    cues = re.findall(r"00:00:(\d\d\.\d{3}) --> .*\n(.+)", text)
    assert [re.sub(r"<[\d:.]+>", "", said) for _, said in cues] == ["早上好。", "我们走吧。"]  # no space between words
    assert [abs(float(start) - at) < 0.3 for (start, _), at in zip(cues, (0.5, 2.5), strict=True)] == [True, True]
    assert re.match(r"早<00:00:0[\d.]+>上<", cues[0][1])


def test_a_track_is_spoken_in_the_language_that_was_chosen(page: Page, runs: TrackRuns, service: JobService) -> None:
    make(page, text="Taxi", lang="de", voice="de/espeak-male", speed=1.5)
    asked = service.take().request
    assert (asked["lang"], asked["language"], asked["voice"], asked["speed"]) == ("de", "de", "espeak-male", 1.5)
    make(page, text="Taxi", voice="fr/espeak-female")
    assert service.take().request["language"] == "fr"
    done = made(page, runs, text="Taxi", lang="fr", name="srt")
    assert "spoken as" not in done.shown  # where it was chosen nobody needs to be told
    assert [cue.plaintext for cue in pysubs2.load(str(done.file))] == ["Taxi"]


def test_languages_and_voices_are_those_of_the_form(page: Page) -> None:
    for request in (ENGLISH, CHINESE):
        languages, voices = Movement(page).choices(request)
        assert languages.choices == page.choices(request)[0].choices and len(languages.choices) > 6
        assert voices.choices == page.voices("auto", request).choices


def test_the_text_of_a_file_is_taken_or_refused_in_one_sentence(page: Page, tmp_path: Path) -> None:
    text_of = Movement(page).text_of
    script, odd, plain = (tmp_path / name for name in ("film.srt", "film.vtt", "words.txt"))
    script.write_text(CHINESE_SCRIPT, encoding="utf-16")
    assert text_of(str(script), ENGLISH) == CHINESE_SCRIPT and text_of(None, ENGLISH) == gr.skip()
    odd.write_text("Good morning!", encoding="utf-8")
    plain.write_bytes("Käse".encode("latin-1"))
    for path, request, said in (
        (odd, ENGLISH, "The file holds no subtitles that can be read"),
        (odd, CHINESE, "文件里没有能读的字幕"),
        (plain, ENGLISH, "The text file is not UTF-8 text"),
        (plain, CHINESE, "文字文件不是 UTF-8"),
        (tmp_path / "gone.txt", CHINESE, "文字文件无法读取"),
    ):
        with pytest.raises(gr.Error, match=said) as refused:
            text_of(str(path), request)
        assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize(("request_", "said"), [(ENGLISH, r"give what is said\.'$"), (CHINESE, "请写出说的话")])
def test_words_need_a_text(page: Page, service: JobService, request_: Any, said: str) -> None:
    with pytest.raises(gr.Error, match=said):
        make(page, request_, sound=str(REPO / "examples" / "speech.wav"), name="srt")
    assert service.take() is None


def test_every_format_of_the_command_line_can_be_chosen(page: Page) -> None:
    blocks, _ = build_page(page)
    menus = [one for one in blocks.blocks.values() if isinstance(one, gr.Dropdown)]
    assert list(FORMATS) in [[value for _, value in menu.choices] for menu in menus]
