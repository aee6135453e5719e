"""The web page: what its functions do, the page for programs (gradio_client), and in a browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from faces.detector import FaceDetector  # noqa: E402
from serving.http.intake import Intake  # noqa: E402
from serving.http.speech import Speaker  # noqa: E402
from serving.jobs.jobs import JobService, Submission  # noqa: E402
from serving.page.files import PageFiles  # noqa: E402
from serving.page.page import Page  # noqa: E402
from serving.page.texts import EXAMPLE_TEXTS, TEXTS, duration, language_for, refusal  # noqa: E402
from tests import footage  # noqa: E402
from tests.service import REPO, check_alive, free_port, make_service, result_file, service_config, wait_for  # noqa: E402
from tests.tiny_weights import tiny_config  # noqa: E402
from utils.config import load_config  # noqa: E402

ENGLISH = SimpleNamespace(headers={"accept-language": "en-GB,en;q=0.9"}, username=None)
CHINESE = SimpleNamespace(headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.5"}, username=None)
ANNA = SimpleNamespace(headers={}, username="anna")


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def files(service: JobService) -> PageFiles:
    return PageFiles(service)


@pytest.fixture(scope="module")
def loaded() -> tuple[Speaker, FaceDetector]:
    """What takes a moment to load."""
    models = REPO / load_config(REPO / "model_config.yaml").faces.models_dir
    return Speaker(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes"), FaceDetector(models)


@pytest.fixture
def page(service: JobService, files: PageFiles, loaded: tuple[Speaker, FaceDetector]) -> Page:
    speaker, detector = loaded
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, speaker)
    return Page(service, intake, detector, files)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    footage.make_portrait(folder / "portrait.png")
    footage.make_video(folder / "faceless.mp4", 0.4, faceless=(0, 9), sound=False)
    footage.make_sound(folder / "speech.wav", 0.4)
    footage.bad_file("text", folder)
    two = np.concatenate([footage.portrait()] * 2, axis=1)
    Image.fromarray(two).save(folder / "two.png")
    return folder


def submit(page: Page, media: Path, request: Any = ENGLISH, **changes: Any) -> str:
    given: dict[str, Any] = {"who": "portrait", "portrait": str(media / "portrait.png"), "video": None}
    given |= {"face": "largest", "what": "sound", "sound": str(media / "speech.wav"), "text": "", "lang": "auto"}
    given |= {"voice": None, "speed": 1.0, "adapt": False, "steps": 3, "fit": "loop", "rest": "cut", "engine": ""}
    job_id, history = page.submit(**given | {"history": []} | changes, request=request)
    assert history[0] == job_id
    return job_id


def look(page: Page, job_id: str | None, request: Any = ENGLISH, stage: Any = ()) -> SimpleNamespace:
    names = ("section", "status", "pictures", "cancel", "clock", "earlier", "stage")
    return SimpleNamespace(**dict(zip(names, page.look(job_id, list(stage), [job_id], request), strict=True)))


def shown_files(pictures: str) -> list[bytes]:
    """What the browser would get for the pictures of a page."""
    return [Path(path).read_bytes() for path in re.findall(r'src="gradio_api/file=([^"#]*)', pictures)]


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
    assert look(page, job_id, stage=seen.stage).pictures == gr.skip()  # a player is not disturbed
    service.show_preview(taken, result_file(service, b"start"))
    seen = look(page, job_id, stage=seen.stage)
    assert shown_files(seen.pictures) == [portrait, b"start"] and "Preview" in seen.pictures
    service.complete(taken, result_file(service, b"film"), {"frames": 10, "seconds": 2.0})
    seen = look(page, job_id, stage=seen.stage)
    assert "Done: 10 pictures" in seen.status and not seen.clock.active and not seen.cancel.visible
    assert shown_files(seen.pictures) == [portrait, b"film"] and 'download="lip-sync.mp4"' in seen.pictures
    assert [name for name, _ in seen.earlier.choices] == ["a sound · done · just now"]
    assert page.recall(["0" * 32, job_id], ENGLISH) == job_id
    service.delete(job_id, "local")  # forgotten, as when its time is over
    files.sweep()
    assert not list(files.folder.iterdir()) and "no longer known" in look(page, job_id).status


def test_what_is_open_on_the_page_counts(page: Page, service: JobService, media: Path) -> None:
    both = {"video": str(media / "faceless.mp4"), "text": "Good morning!"}
    for who, what, suffix, text in (("portrait", "sound", ".png", None), ("video", "text", ".mp4", "Good morning!")):
        job = service.store.get(submit(page, media, who=who, what=what, **both))
        assert page._files.input_of(job.id).suffix == suffix and job.request.get("text") == text
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
    given |= {"adapt": False, "steps": 1, "fit": "loop", "rest": "cut", "engine": "", "request": ENGLISH}
    assert page.submit(**given, history=told)[1][1:] == [first]
    for told in ("x", {"path": "/etc/passwd"}, None):
        assert len(page.submit(**given, history=told)[1]) == 1
    assert "path" not in page.status({"path": "/etc/passwd"}, ENGLISH)


def test_faces_are_shown_to_choose_from(page: Page, media: Path) -> None:
    heading, sheet, choice = page.faces("portrait", str(media / "two.png"), None, CHINESE)
    assert [value for _, value in choice.choices] == ["largest", "index:0", "index:1"] and choice.visible
    with Image.open(sheet.value["path"]) as shown:
        assert shown.width == 2 * shown.height and heading.visible
    left, right = (page.pick(SimpleNamespace(index=[x, 20])) for x in (20, 160))
    assert (left, right) == ("index:0", "index:1")
    _, sheet, choice = page.faces("portrait", str(media / "portrait.png"), None, ENGLISH)
    assert sheet.visible and not choice.visible  # nothing to choose
    assert not page.faces("video", None, None, ENGLISH)[1].visible
    with pytest.raises(gr.Error, match="The portrait or video is no video"):
        page.faces("video", None, str(media / "text.mp4"), ENGLISH)


def test_every_word_is_there_in_both_languages(page: Page) -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for name, english in TEXTS["en"].items():
        assert set(re.findall(r"\{\w+", english)) == set(re.findall(r"\{\w+", TEXTS["zh"][name])), name
        assert re.search(r"[\u4e00-\u9fff]", TEXTS["zh"][name]) or name == "percent", name
    assert [language_for(header) for header in ("zh-TW", "ZH", "de,zh;q=0.8", "", None)] == ["zh", "zh"] + ["en"] * 3
    assert duration(0.2, TEXTS["en"]) == "about 1 s" and duration(118, TEXTS["en"]) == "about 2 min 0 s"
    assert refusal("Something new.", "zh") == "Something new."
    languages, _, fits, _, _ = page.choices(CHINESE)
    assert [name for name, _ in fits.choices][0] == TEXTS["zh"]["fit_bounce"]
    assert [code for _, code in languages.choices][1:7] == list(EXAMPLE_TEXTS)
    assert page.voices("en", ENGLISH).choices


@pytest.fixture(scope="module")
def address(media: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a page with small networks is served."""
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    options = ["--config", str(tiny_config(folder, tiny_weights)), "--data-dir", str(folder / "data")]
    command = [sys.executable, "app.py", "--mode", "web", "--port", str(port), *options]
    with open(folder / "log", "wb") as stream:
        process = subprocess.Popen(command, cwd=REPO, stderr=stream)
    try:
        log = folder / "log"
        wait_for(lambda: check_alive(process, log) and "Uvicorn running" in log.read_text(encoding="utf-8"), "the page")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_programs_use_the_page_too(address: str, media: Path, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx", reason="httpx is not installed; gradio brings it along")
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, download_files=str(tmp_path))
    portrait, sound = handle_file(media / "portrait.png"), handle_file(media / "speech.wav")
    given = {"video": None, "sound": sound, "text": "", "history": [], "api_name": "/submit"}
    job_id = client.predict(portrait=portrait, **given)[0]
    state = {"state": "queued"}

    def done() -> bool:
        state.update(client.predict(job_id, api_name="/status"))
        return state["state"] not in ("queued", "running")

    wait_for(done, "the job")
    assert state["state"] == "done", state
    answer = httpx.get(address + state["result_url"], headers={"Range": "bytes=4-7"})
    assert answer.status_code == 206 and answer.content == b"ftyp"
    (tmp_path / "result.mp4").write_bytes(httpx.get(address + state["result_url"]).content)
    with av.open(str(tmp_path / "result.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 10
    with pytest.raises(Exception, match="Give a portrait or a video first"):
        client.predict(portrait=None, **given)
    foreign = httpx.post(address + "gradio_api/upload", headers={"Origin": "https://example.org"}, files={"files": b""})
    assert foreign.status_code == 403 and httpx.get(address, headers={"Host": "example.org"}).status_code == 421


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium as wide as a phone, in Chinese."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (requirements-dev.txt)")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", *quiet):
        options.add_argument(f"--{argument}")
    phone = {"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 1.0, "touch": True}}
    options.add_experimental_option("mobileEmulation", phone)
    options.accept_insecure_certs = True
    options.add_experimental_option("prefs", {"intl.accept_languages": "zh-CN"})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        yield driver
        driver.quit()


def asked_by(browser: Any, page: str) -> set[str]:
    """The servers that a page has sent requests to."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    addresses = [one["request"]["url"] for one in sent if one["documentURL"].startswith(page)]
    return {match[0] for address in addresses if (match := re.match("https?://[^/]*/", address))}


def test_a_portrait_and_a_chinese_sentence_become_a_video_in_the_browser(
    address: str, browser: Any, media: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def button(words: str) -> Any:
        def visible() -> Any:
            found = browser.find_elements(By.XPATH, f"//button[normalize-space(.)='{words}']")
            return next((one for one in found if one.is_displayed()), None)

        return wait_for(visible, words)

    browser.get(address)
    make = button("生成视频")
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#portrait input[type=file]"), "the upload")
    browser.find_element(By.CSS_SELECTOR, "#portrait input[type=file]").send_keys(str(media / "two.png"))
    wait_for(lambda: "第 2 张脸" in browser.page_source, "the faces that were found")
    make.send_keys(Keys.ENTER)  # a keyboard is enough
    wait_for(lambda: "请给一段声音，或输入文字" in browser.page_source, "a sentence that says what is missing")
    button("文字").send_keys(Keys.ENTER)
    words = wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#words textarea"), "the text")[0]
    wait_for(words.is_displayed, "the text")
    words.send_keys("你好，很高兴认识你。")
    make.send_keys(Keys.ENTER)
    play = """
        const video = [...document.querySelectorAll('.stage video')].find(v => v.src.includes('result'));
        if (video && video.paused) {video.muted = true; video.play()}
        return video && video.currentTime > 0.1 ? video.duration : 0"""
    assert wait_for(lambda: browser.execute_script(play), "a video that plays") > 0.5
    wide = "return document.documentElement.scrollWidth - window.innerWidth"
    assert browser.execute_script(wide) <= 0  # nothing to scroll sideways
    assert asked_by(browser, address) == {address}  # nothing from elsewhere: the page works offline
    browser.get(address)  # the browser remembers
    assert wait_for(lambda: browser.execute_script(play), "the video again")


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
location / {{ proxy_pass http://127.0.0.1:{inner}; proxy_set_header Host $http_host; proxy_buffering off;
proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https; }} }} }}
"""


def test_the_page_is_logged_in_to_behind_a_tls_proxy(
    browser: Any, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selenium.webdriver.common.by import By

    from serving.http.security import new_key

    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        pytest.skip("no TLS proxy: apt-get install nginx-light openssl")
    port, inner, key = free_port(), free_port(), new_key(tmp_path / "data" / "api_keys", "anna")
    self_signed = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *self_signed.split()], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, inner=inner), encoding="utf-8")
    monkeypatch.setenv("LIPSYNC_TRUSTED_PROXIES", "[127.0.0.1]")
    options = ["--config", str(tiny_config(tmp_path, tiny_weights)), "--data-dir", str(tmp_path / "data")]
    page = [sys.executable, "app.py", "--mode", "web", "--keys", "--no-worker", "--port", str(inner), *options]
    log = tmp_path / "log"
    with open(log, "wb") as stream:
        started = subprocess.Popen(page, cwd=REPO, stderr=stream)
        proxy = subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")])
    try:
        wait_for(lambda: check_alive(started, log) and "Uvicorn running" in log.read_text(encoding="utf-8"), "the page")
        browser.get(f"https://localhost:{port}/")
        for name, value in (("username", "anna"), ("password", "wrong")):
            browser.find_element(By.NAME, name).send_keys(value)
        browser.find_element(By.TAG_NAME, "button").click()
        wait_for(lambda: TEXTS["zh"]["login_refused"] in browser.page_source, "the refusal", 60)
        assert browser.find_element(By.NAME, "username").get_attribute("value") == "anna"
        browser.find_element(By.NAME, "password").send_keys(key)
        browser.find_element(By.TAG_NAME, "button").click()
        wait_for(lambda: TEXTS["zh"]["make"] in browser.page_source, "the page after the login", 60)
        cookie = browser.get_cookie("lip-sync-session")
        assert cookie["secure"] and cookie["httpOnly"]
    finally:
        for process in (proxy, started):
            process.terminate()
            process.wait(timeout=60)
