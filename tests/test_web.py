"""What the functions of the web page do; in a browser it is tried in `tests/test_browser.py`."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from faces.detector import FaceDetector  # noqa: E402
from serving.http.speech import Speaker  # noqa: E402
from serving.jobs.jobs import JobService, Submission  # noqa: E402
from serving.page.files import PageFiles  # noqa: E402
from serving.page.page import Page  # noqa: E402
from serving.page.said import told  # noqa: E402
from serving.page.texts import EXAMPLE_TEXTS, TEXTS, duration, language_for  # noqa: E402
from tests.pages import ANNA, CHINESE, ENGLISH, load, look, make_inputs, make_page, shown_files, submit  # noqa: E402
from tests.service import make_service, result_file, service_config  # noqa: E402


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def files(service: JobService) -> PageFiles:
    return PageFiles(service)


@pytest.fixture(scope="module")
def loaded() -> tuple[Speaker, FaceDetector]:
    return load()


@pytest.fixture
def page(service: JobService, files: PageFiles, loaded: tuple[Speaker, FaceDetector]) -> Page:
    return make_page(service, files, loaded)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("media"))


def test_a_job_from_the_page_to_the_page(page: Page, service: JobService, files: PageFiles, media: Path) -> None:
    portrait = (media / "portrait.png").read_bytes()
    job_id = submit(page, media)
    assert (media / "portrait.png").exists()  # the browser's own copy stays
    seen = look(page, job_id)
    assert "is starting" in seen.status and seen.clock.active and seen.cancel.visible
    service.store.beat("somebody", True)
    assert "comes next" in look(page, job_id).status
    taken = service.take()
    assert taken.request["options"]["steps"] == 3 and taken.request["options"]["fit"] == "loop"
    assert "looking for the face" in look(page, job_id).status
    service.progress(taken, 5, 10, 2.5)
    assert "50 % · 2.5 pictures per second · about 2 s left" in look(page, job_id).status
    seen = look(page, job_id, CHINESE)
    assert "还要大约 2 秒" in seen.status and shown_files(seen.pictures) == [portrait] and "很快" in seen.pictures
    assert not seen.delete.visible and seen.again.visible
    assert look(page, job_id, stage=seen.stage).pictures == gr.skip()  # a player is not disturbed
    service.show_preview(taken, result_file(service, b"start"))
    seen = look(page, job_id, stage=seen.stage)
    assert shown_files(seen.pictures) == [b"start", portrait] and "Preview" in seen.pictures
    service.complete(taken, result_file(service, b"film"), {"frames": 10, "seconds": 2.0})
    seen = look(page, job_id, stage=seen.stage)
    assert "Done: 10 pictures" in seen.status and not seen.clock.active and not seen.cancel.visible
    assert shown_files(seen.pictures) == [b"film", portrait] and 'download="lip-sync.mp4"' in seen.pictures
    assert seen.delete.visible and not seen.cancel.visible
    assert [name for name, _ in seen.earlier.choices] == ["a recorded sound · the camera · done · just now"]
    assert page.recall(["0" * 32, job_id], ENGLISH) == job_id
    service.delete(job_id, "local")  # forgotten, as when its time is over
    files.sweep()
    assert not list(files.folder.iterdir()) and "no longer known" in look(page, job_id).status


def test_what_is_open_on_the_page_counts(page: Page, service: JobService, media: Path) -> None:
    both = {"video": str(media / "faceless.mp4"), "text": "Good morning!"}
    for who, what, suffix, text in (("portrait", "sound", ".png", None), ("video", "text", ".mp4", "Good morning!")):
        job = service.store.get(submit(page, media, who=who, what=what, **both))
        assert page.files.input_of(job.id).suffix == suffix and job.request.get("text") == text
    job = service.store.get(submit(page, media, who="video", what="text", adapt=True))  # neither is there
    assert "audio" in job.inputs and job.request["options"]["adapt"] == 60


@pytest.mark.parametrize(
    ("text", "request_", "said"),
    [
        ("Grazie mille a tutti voi", ENGLISH, "spoken as Italian ("),
        ("வணக்கம்", CHINESE, "用泰米尔语朗读"),
        ("Ciao", ENGLISH, "does not tell its language: it is spoken as English"),
    ],
)
def test_the_language_that_a_text_is_spoken_in_is_said(
    page: Page, media: Path, text: str, request_: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Info", told.append)
    submit(page, media, request_, what="text", text=text)
    submit(page, media, request_, what="text", text=text, lang="en" if text.isascii() else "ta")
    assert said in told[0] and said not in told[1]


@pytest.mark.parametrize(
    ("changes", "english", "chinese"),
    [
        ({"portrait": None}, "Give a portrait or a video first", "请先给一张照片"),
        ({"sound": None, "text": " "}, "Give a sound, or type a text", "请给一段声音"),
        ({"portrait": "text.mp4"}, "The portrait or video is no video or sound", "照片或视频不是能读的文件"),
        ({"sound": "text.mp4"}, "The sound is no video or sound", "声音不是能读的文件"),
        ({"sound": "faceless.mp4"}, "The sound has no sound stream", "声音里没有声音"),
        ({"what": "text", "text": "…"}, "holds nothing that can be spoken", "没有可以说的内容"),
        ({"what": "text", "text": "a" * 6000}, "longer than 5000 characters", "超过 5000 个字符"),
        ({"what": "text", "text": "a", "lang": "tlh"}, "language 'tlh' is not supported", "不支持语言“tlh”"),
    ],
)
def test_what_cannot_be_used_is_said_in_the_language_of_the_page(
    page: Page, service: JobService, media: Path, changes: dict[str, Any], english: str, chinese: str
) -> None:
    changes = {name: str(media / value) if "." in str(value) else value for name, value in changes.items()}
    for request, sentence in ((ENGLISH, english), (CHINESE, chinese)):
        with pytest.raises(gr.Error) as refused:
            submit(page, media, request, **changes)
        told = refused.value.message
        assert sentence in told and str(media) not in told and str(service.config.data_dir) not in told
    assert service.take() is None and not list((service.config.data_dir / "incoming").iterdir())


def test_a_job_can_be_cancelled_and_failures_are_told(
    page: Page, service: JobService, files: PageFiles, media: Path
) -> None:
    cancelled = submit(page, media)
    page.cancel(cancelled, ANNA)  # who has nothing to do with it
    assert service.store.get(cancelled).state == "queued" and "no longer known" in look(page, cancelled, ANNA).status
    page.cancel(cancelled, ENGLISH)
    assert "Cancelled" in look(page, cancelled).status and not list(files.folder.iterdir())
    failed = submit(page, media)
    service.fail(service.take(), "No face <b> anywhere.", refused=True)
    assert "No face &lt;b&gt; anywhere." in look(page, failed).status
    service.submit(Submission({"options": {}, "text": "Hi"}))
    service.fail(service.take(), "The file video has no video stream; give a video or a portrait image.", refused=True)
    newest = service.page("local")[0].id
    assert "照片或视频里没有画面" in look(page, newest, CHINESE).status


def test_jobs_belong_to_the_key_that_logged_in(page: Page, service: JobService, media: Path) -> None:
    job_id = submit(page, media, ANNA)
    assert service.store.get(job_id).owner == "anna" and page.recall([job_id], ENGLISH) is None


def test_of_a_history_only_ids_of_own_jobs_come_back(page: Page, media: Path) -> None:
    annas, first = submit(page, media, ANNA), submit(page, media)
    told = ["older", {"path": "/etc/passwd"}, annas, first, None, ["x"]]
    given = {"who": "portrait", "portrait": str(media / "portrait.png"), "video": None, "face": "", "what": "sound"}
    given |= {"sound": str(media / "speech.wav"), "text": "", "lang": "auto", "voice": None, "speed": 1.0}
    given |= {"adapt": False, "steps": 1, "fit": "loop", "rest": "cut", "engine": ""}
    given |= {"consent": True, "request": ENGLISH}
    assert page.submit(**given, history=told)[1][1:] == [first]
    for told in ("x", {"path": "/etc/passwd"}, None):
        assert len(page.submit(**given, history=told)[1]) == 1
    assert "path" not in page.status({"path": "/etc/passwd"}, ENGLISH)


def test_faces_are_shown_to_choose_from(page: Page, media: Path) -> None:
    heading, sheet, choice, _ = page.faces("portrait", str(media / "two.png"), None, [], CHINESE)
    assert [value for _, value in choice.choices] == ["largest", "index:0", "index:1"] and choice.visible
    with Image.open(sheet.value["path"]) as shown:
        assert shown.width == 2 * shown.height and heading.visible
    left, right = (page.pick(SimpleNamespace(index=[x, 20])) for x in (20, 160))
    assert (left, right) == ("index:0", "index:1")
    _, sheet, choice, _ = page.faces("portrait", str(media / "portrait.png"), None, [], ENGLISH)
    assert sheet.visible and not choice.visible  # nothing to choose
    assert not page.faces("video", None, None, [], ENGLISH)[1].visible
    with pytest.raises(gr.Error, match="The portrait or video is no video"):
        page.faces("video", None, str(media / "text.mp4"), [], ENGLISH)


def test_every_word_is_there_in_both_languages(page: Page) -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for name, english in TEXTS["en"].items():
        assert set(re.findall(r"\{\w+", english)) == set(re.findall(r"\{\w+", TEXTS["zh"][name])), name
        assert re.search(r"[\u4e00-\u9fff]", TEXTS["zh"][name]) or name in ("percent", "comma"), name
    assert [language_for(header) for header in ("zh-TW", "ZH", "de,zh;q=0.8", "", None)] == ["zh", "zh"] + ["en"] * 3
    assert duration(0.2, TEXTS["en"]) == "about 1 s" and duration(118, TEXTS["en"]) == "about 2 min 0 s"
    assert told("Something new.", "zh") == "程序的说明（英文）：Something new."
    assert told("Something new.", "en") == "Something new."
    languages, _, fits, _, _, _ = page.choices(CHINESE)
    assert [name for name, _ in fits.choices][0] == TEXTS["zh"]["fit_bounce"]
    assert [code for _, code in languages.choices][1:7] == list(EXAMPLE_TEXTS)
    assert page.voices("en", ENGLISH).choices
