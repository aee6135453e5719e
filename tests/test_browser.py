"""The web page as it is served: for programs (gradio_client), and in a browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from serving.page.texts import TEXTS  # noqa: E402
from tests.browser import browser as chromium  # noqa: E402
from tests.pages import make_inputs  # noqa: E402
from tests.service import REPO, check_alive, free_port, wait_for  # noqa: E402
from tests.test_sprites import robot, save  # noqa: E402
from tests.tiny_weights import tiny_config  # noqa: E402


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("media"))


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
    given = {"video": None, "sound": sound, "text": "", "consent": True, "history": [], "api_name": "/submit"}
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
    with chromium(_chinese_phone) as driver:
        yield driver


def _chinese_phone(options: Any) -> None:
    phone = {"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 1.0, "touch": True}}
    options.add_experimental_option("mobileEmulation", phone)
    options.accept_insecure_certs = True
    options.add_experimental_option("prefs", {"intl.accept_languages": "zh-CN"})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})


def asked_by(browser: Any, page: str) -> set[str]:
    """The servers that a page has sent requests to."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    addresses = [one["request"]["url"] for one in sent if one["documentURL"].startswith(page)]
    return {match[0] for address in addresses if (match := re.match("https?://[^/]*/", address))}


SAID = "你好，很高兴认识你。"
WIDTHS = "return [...document.querySelectorAll('#form > .column, #make')].map((one) => one.offsetWidth)"
# How far the end of the result's player, as tall as a picture of 9:16 may become, is below a phone's screen.
BELOW_THE_FOLD = """
    const video = document.querySelector('.stage .after video'), tallest = parseFloat(getComputedStyle(video).maxHeight)
    return video.getBoundingClientRect().top + tallest - window.innerHeight"""
# Every word in Latin letters that is shown, or read out by a screen reader.
LATIN = r"""
    const found = new Set(), add = (text) => /[A-Za-z]{2}/.test(text ?? '') && found.add(text.trim())
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) if (!texts.currentNode.parentElement.closest('script, style')) add(texts.currentNode.data)
    for (const one of document.body.querySelectorAll('*'))
        for (const name of ['aria-label', 'title', 'placeholder', 'alt']) add(one.getAttribute(name))
    add(document.title)
    return [...found]"""


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
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#agree input"), "the consent")
    browser.execute_script("document.querySelector('#agree input').click()")
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#portrait input[type=file]"), "the upload")
    browser.find_element(By.CSS_SELECTOR, "#portrait input[type=file]").send_keys(str(media / "two.png"))
    wait_for(lambda: "第 2 张脸" in browser.page_source, "the faces that were found")
    widths = browser.execute_script(WIDTHS)
    make.send_keys(Keys.ENTER)  # a keyboard is enough
    wait_for(lambda: "请给一段声音，或输入文字" in browser.page_source, "a sentence that says what is missing")
    title = "return document.querySelector('.toast-title-row')?.offsetHeight ?? 0"
    assert browser.execute_script(title) == 0  # no row for the word "Error"
    browser.find_element(By.CSS_SELECTOR, "#sound input[type=file]").send_keys(str(media / "text.mp4"))
    wait_for(lambda: "这里只能放声音，不能放 text.mp4" in browser.page_source, "Gradio's own refusal in Chinese")
    button("文字").send_keys(Keys.ENTER)
    words = wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#words textarea"), "the text")[0]
    wait_for(words.is_displayed, "the text")
    words.send_keys(SAID)
    make.send_keys(Keys.ENTER)
    play = """
        const video = [...document.querySelectorAll('.stage video')].find(v => v.src.includes('result'));
        if (video && video.paused) {video.muted = true; video.play()}
        return video && video.currentTime > 0.1 ? video.duration : 0"""
    assert wait_for(lambda: browser.execute_script(play), "a video that plays") > 0.5
    wide = "return document.documentElement.scrollWidth - window.innerWidth"
    assert browser.execute_script(wide) <= 0  # nothing to scroll sideways
    assert browser.execute_script(WIDTHS) == widths
    wait_for(lambda: not browser.find_elements(By.CSS_SELECTOR, ".toast-body"), "the refusal to go", 60)
    assert set(browser.execute_script(LATIN)) <= {"English", "Français", "Deutsch", "Español"}
    assert asked_by(browser, address) == {address}  # nothing from elsewhere: the page works offline
    browser.get(address)  # the browser remembers, and shows the result first
    assert wait_for(lambda: browser.execute_script(play), "the video again")
    browser.execute_script("window.scrollTo(0, 0)")
    wait_for(lambda: browser.execute_script(BELOW_THE_FOLD) <= 0, "the result above the fold", 60)
    wait_for(lambda: browser.execute_script("return document.querySelector('#agree input').checked"), "the tick", 60)
    button("再次使用这些素材").send_keys(Keys.ENTER)
    filled = "return document.querySelector('#words textarea')?.value"
    wait_for(lambda: browser.execute_script(filled) == SAID, "the text", 60)
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#portrait img"), "the picture", 60)


def test_a_mouth_is_marked_in_the_browser(address: str, browser: Any, tmp_path: Path) -> None:
    """On a phone, where no face is found: a box is drawn with a finger, and the choice says so."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    save(tmp_path / "robot.png", robot())
    browser.get(address)
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#portrait input[type=file]"), "the upload")
    browser.find_element(By.CSS_SELECTOR, "#portrait input[type=file]").send_keys(str(tmp_path / "robot.png"))
    wide = "return document.querySelector('#mark img')?.clientWidth ?? 0"
    wait_for(lambda: browser.execute_script(wide) > 100, "the picture to mark")
    picture = browser.find_element(By.CSS_SELECTOR, "#mark img")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    size = picture.size
    fingers = ActionChains(browser).move_to_element_with_offset(picture, -size["width"] // 8, size["height"] // 6)
    fingers.click_and_hold().move_by_offset(size["width"] // 4, size["height"] // 10).release().perform()
    told = "return document.querySelector('#face')?.innerText ?? ''"
    wait_for(lambda: "框里的嘴" in browser.execute_script(told), "the choice", 60)
    chosen = browser.execute_script("return document.querySelector('#face input:checked').value")
    x, y, width, height = (int(part) for part in chosen.removeprefix("mouth:").split(","))
    assert abs(x - 180) < 8 and abs(y - 267) < 8 and abs(width - 120) < 8 and abs(height - 40) < 8
    assert browser.execute_script("return document.querySelector('.marked-box').offsetWidth") > 40


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
        field = browser.find_element(By.NAME, "password")
        assert field.get_attribute("value") == "wrong"  # what was typed stays, to be mended
        field.clear()
        field.send_keys(key)
        browser.find_element(By.TAG_NAME, "button").click()
        wait_for(lambda: TEXTS["zh"]["make"] in browser.page_source, "the page after the login", 60)
        cookie = browser.get_cookie("lip-sync-session")
        assert cookie["secure"] and cookie["httpOnly"]
        wait_for(lambda: "已登录：anna" in browser.page_source, "who is logged in", 60)
        browser.find_element(By.CSS_SELECTOR, "#account button").click()
        wait_for(lambda: browser.find_elements(By.NAME, "password"), "the login after the logout", 60)
        assert browser.get_cookie("lip-sync-session") is None
    finally:
        for process in (proxy, started):
            process.terminate()
            process.wait(timeout=60)
