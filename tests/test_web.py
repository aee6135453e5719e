"""The web page: what its functions do, and the page itself in a browser where there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from faces.detector import FaceDetector  # noqa: E402
from serving.intake import Intake  # noqa: E402
from serving.jobs import JobService  # noqa: E402
from serving.page_texts import TEXTS, texts_for  # noqa: E402
from serving.speech import Speaker  # noqa: E402
from serving.web import Page, build_page  # noqa: E402
from tests import footage  # noqa: E402
from tests.service import REPO, check_alive, free_port, make_service, result_file, service_config, wait_for  # noqa: E402
from tests.tiny_weights import tiny_config  # noqa: E402
from utils.config import load_config  # noqa: E402

ENGLISH = SimpleNamespace(headers={"accept-language": "en-GB,en;q=0.9"})
CHINESE = SimpleNamespace(headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.5"})


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def page(service: JobService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    (tmp_path / "page").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "page"))
    config = load_config(REPO / "model_config.yaml")
    intake = Intake(service, config.inference, Speaker(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes"))
    return Page(service, intake, FaceDetector(REPO / config.faces.models_dir))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    footage.make_portrait(folder / "portrait.png")
    footage.make_video(folder / "faceless.mp4", 0.4, faceless=(0, 9))
    footage.make_sound(folder / "speech.wav", 0.4)
    footage.bad_file("text", folder)
    return folder


def submit(page: Page, media: Path, history: list[str], **changes: Any) -> tuple[str, list[str], Any]:
    given = {"video": None, "portrait": str(media / "portrait.png"), "sound": str(media / "speech.wav"), "text": ""}
    given |= {"lang": "auto", "voice": None, "face": "largest", "steps": 3, "fit": "loop", "rest": "cut"} | changes
    return page.submit(**given, history=history, request=ENGLISH)


def test_a_job_from_the_page_to_the_page(page: Page, service: JobService, media: Path) -> None:
    job_id, history, clock = submit(page, media, ["older"])
    assert history == [job_id, "older"] and clock.active
    assert (media / "portrait.png").exists()  # the browser's own copy stays
    status, result, _, clock = page.look(job_id, ENGLISH)
    assert "Waiting; 0 jobs" in status and result is None and clock.active
    taken = service.take()
    assert taken.request["options"]["steps"] == 3 and taken.request["options"]["fit"] == "loop"
    service.progress(taken, 5, 10, 2.5)
    assert "50 %" in page.look(job_id, ENGLISH)[0] and "还要 2 秒" in page.look(job_id, CHINESE)[0]
    service.complete(taken, result_file(service, b"film"), {"frames": 10, "seconds": 2.0})
    status, result, _, clock = page.look(job_id, ENGLISH)
    assert "Done: 10 pictures" in status and Path(result).read_bytes() == b"film" and not clock.active
    dropdown, newest = page.recall(history)
    assert newest == job_id and [choice[1] for choice in dropdown.choices] == [job_id]


def test_what_cannot_be_used_is_said_on_the_page(page: Page, service: JobService, media: Path) -> None:
    for changes, sentence in (
        ({"portrait": None}, "video or a portrait"),
        ({"sound": None}, "text_input"),
        ({"portrait": str(media / "text.mp4")}, "no video or sound"),
        ({"sound": str(media / "text.mp4")}, "no video or sound"),
    ):
        with pytest.raises(gr.Error, match=sentence) as refused:
            submit(page, media, [], **changes)
        assert str(media) not in str(refused.value) and str(service.config.data_dir) not in str(refused.value)
    assert service.take() is None


def test_a_job_can_be_cancelled_and_failures_are_told(page: Page, service: JobService, media: Path) -> None:
    cancelled, _, _ = submit(page, media, [])
    page.cancel(cancelled)
    assert "Cancelled" in page.look(cancelled, ENGLISH)[0]
    failed, _, _ = submit(page, media, [])
    service.fail(service.take(), "No face <b> anywhere.", refused=True)
    assert "No face &lt;b&gt; anywhere." in page.look(failed, ENGLISH)[0]
    assert "no longer known" in page.look("0" * 32, ENGLISH)[0]
    assert "Nothing to do" in page.look(None, ENGLISH)[0]
    page.cancel(None)


def test_faces_are_shown_and_numbered(page: Page, media: Path) -> None:
    picture, radio, before = page.faces(None, str(media / "portrait.png"), ENGLISH)
    assert [value for _, value in radio.choices] == ["largest", "index:0"] and before is None
    assert (picture != footage.face_frame(0.0)).any()
    video = str(media / "faceless.mp4")
    _, radio, before = page.faces(video, None, CHINESE)
    assert radio.choices == [("最大的", "largest")] and before == video
    with pytest.raises(gr.Error, match="text.mp4"):
        page.faces(str(media / "text.mp4"), None, ENGLISH)


def test_both_languages_have_the_same_words() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for name, text in TEXTS["en"].items():
        assert text.count("{") == TEXTS["zh"][name].count("{"), name
    assert texts_for("zh-TW") is TEXTS["zh"]
    assert texts_for("fr") is texts_for(None) is texts_for("en-US,zh;q=0.5") is TEXTS["en"]


def test_the_page_can_be_laid_out(page: Page) -> None:
    blocks, words = build_page(page)
    assert {"en", "zh"} <= set(words.translations)
    assert any(function.api_name == "submit" for function in blocks.fns.values())


@pytest.fixture(scope="module")
def address(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running page with small networks."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("chromium and chromedriver are not installed")
    pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium==4.51.0")
    folder, port = tmp_path_factory.mktemp("web"), free_port()
    options = ["--config", str(tiny_config(folder, tiny_weights)), "--data-dir", str(folder / "data")]
    command = [sys.executable, "app.py", "--mode", "web", "--port", str(port), *options]
    with open(folder / "log", "wb") as stream:
        process = subprocess.Popen(command, cwd=REPO, stderr=stream)
    try:
        log = folder / "log"
        wait_for(lambda: check_alive(process, log) and "Open http" in log.read_text(encoding="utf-8"), "the page")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium as wide as a phone, in Chinese."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=420,1400"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": "zh-CN"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def test_a_portrait_and_a_sound_become_a_video_in_the_browser(address: str, browser: Any, media: Path) -> None:
    from selenium.webdriver.common.by import By

    browser.get(address)
    make = wait_for(lambda: browser.find_elements(By.XPATH, "//button[contains(., '生成视频')]"), "the button")[0]

    def upload(kind: str, path: Path) -> None:
        inputs = browser.find_elements(By.CSS_SELECTOR, "input[type=file]")
        next(i for i in inputs if kind in (i.get_attribute("accept") or "")).send_keys(str(path))

    wait_for(lambda: len(browser.find_elements(By.CSS_SELECTOR, "input[type=file]")) >= 2, "the uploads")
    upload("image", media / "portrait.png")
    upload("audio", media / "speech.wav")
    wait_for(lambda: "第 1 张" in browser.page_source, "the face that was found")
    make.click()
    durations = "return [...document.querySelectorAll('video')].map(v => v.duration).filter(d => d > 0)"
    assert wait_for(lambda: browser.execute_script(durations), "a video that plays")[0] == pytest.approx(0.4, abs=0.1)
    browser.get(address)  # the browser remembers
    assert wait_for(lambda: browser.execute_script(durations), "the video again")
