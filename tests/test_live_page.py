"""The live page as it is started and used: a real server, a real WebRTC connection, a browser without a window."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import httpx2 as httpx
import numpy as np
import pytest

from tests.conftest import REPO
from tests.live_host import make_small_host
from tests.server import process
from tests.service import check_alive, free_port, wait_for

PATIENCE_S = 90.0
KEEPING = """
window.levels = []; window.pictures = [];
const video = document.getElementById("video") || document.getElementById("host");
const canvas = document.createElement("canvas"); canvas.width = canvas.height = 24;
const sight = canvas.getContext("2d", { willReadFrequently: true });
const ear = new AudioContext(), analyser = ear.createAnalyser();
ear.createMediaStreamSource(video.srcObject).connect(analyser);
const wave = new Float32Array(analyser.fftSize);
setInterval(() => {
  analyser.getFloatTimeDomainData(wave);
  window.levels.push(Math.max(...wave.map(Math.abs)));
  const [width, height] = [video.videoWidth, video.videoHeight];
  sight.drawImage(video, width * 0.3, height * 0.3, width * 0.4, height * 0.4, 0, 0, 24, 24);
  window.pictures.push([...sight.getImageData(0, 0, 24, 24).data].filter((_, index) => index % 4 === 1));
}, 60);
"""


@pytest.fixture(scope="module")
def address(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    make_small_host(folder, tiny_weights, moves=False)
    port, log = free_port(), folder / "log"
    pushed = folder / "air.ts"
    options = ("--mode", "live", "--port", str(port), "--data-dir", str(folder / "data"), "--device", "cpu")
    with process(folder, log, *options, "--weights", str(tiny_weights), "--push", str(pushed)) as started:

        def is_up() -> bool:
            try:
                return check_alive(started, log) and httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(is_up, "the live server")
        yield f"http://127.0.0.1:{port}/"
    with av.open(str(pushed)) as container:  # what was on air meanwhile, complete although the server was interrupted
        assert next(container.decode(video=0)).width == 320


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (requirements-dev.txt)")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
    fake = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
    heard = "autoplay-policy=no-user-gesture-required"
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", heard, *quiet, *fake):
        options.add_argument(f"--{argument}")
    width, height = getattr(request, "param", (1200, 760))
    metrics = {"width": width, "height": height, "pixelRatio": 1.0, "touch": width < 600}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        driver.implicitly_wait(5)
        yield driver
        driver.quit()


def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError(f"never: {look}")


def text_of(browser: Any, name: str) -> str:
    return browser.execute_script(f"return document.getElementById('{name}').textContent")


def asked(browser: Any) -> set[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {match[0] for url in sent if (match := re.match("https?://[^/]*/", url))}


@pytest.mark.parametrize("browser", [(1200, 760), (390, 844)], indirect=True, ids=["desktop", "phone"])
def test_a_host_is_heard_and_seen_in_two_languages(address: str, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(address + "?lang=zh")
    until(lambda: "anna" in text_of(browser, "host"))
    assert text_of(browser, "start") == "开始"
    browser.find_element(By.ID, "start").click()
    clock = "return document.getElementById('video').currentTime"
    until(lambda: browser.execute_script(clock) > 0.3)
    browser.execute_script(KEEPING)
    time.sleep(1.0)
    quiet, still = browser.execute_script("return [Math.max(...window.levels.slice(3)), window.pictures]")
    box = browser.find_element(By.ID, "text")
    for text, words in (("你好，我是主播。", "你好，"), ("Hello, I am your host.", "Hello,")):
        browser.execute_script("window.levels = []; window.pictures = []")
        box.send_keys(text + Keys.ENTER)
        until(lambda words=words: words in text_of(browser, "caption"))
        before = browser.execute_script(clock)
        until(lambda text=text: text_of(browser, "caption") == text)
        until(lambda: text_of(browser, "state") == "正在听")
        assert browser.execute_script(clock) > before
        levels, pictures = browser.execute_script("return [window.levels, window.pictures]")
        assert max(levels) > 0.02 > quiet
        # The host stands still but for the mouth; the encoder needs a moment until nothing changes.
        assert np.ptp(pictures, axis=0).max() > 2 * np.ptp(still[len(still) // 2 :], axis=0).max()
    assert re.search(r"首次出声 \d+\.\d\d s", text_of(browser, "latency"))
    box.send_keys("One two three four five six seven eight nine ten eleven twelve thirteen." + Keys.ENTER)
    until(lambda: "three" in text_of(browser, "caption"))
    box.send_keys(Keys.ESCAPE)
    until(lambda: text_of(browser, "caption") == "")
    browser.find_element(By.ID, "language").click()
    assert text_of(browser, "stop") == "Stop" and text_of(browser, "error") == ""
    wide, view = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= view
    assert asked(browser) == {address}


def test_the_microphone_speaks_and_a_lost_connection_comes_back(address: str, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(address + "?lang=en")
    until(lambda: "anna" in text_of(browser, "host"))
    browser.find_element(By.ID, "start").click()
    until(lambda: text_of(browser, "state") == "listening")
    session = browser.execute_script("return session")
    browser.execute_script("document.activeElement.blur()")
    press = "document.body.dispatchEvent(new KeyboardEvent('key{}', {{key: ' ', bubbles: true}}))"
    browser.execute_script(press.format("down"))  # the browser's made-up microphone beeps
    until(lambda: text_of(browser, "state") == "speaking")
    browser.execute_script(press.format("up"))
    until(lambda: text_of(browser, "state") == "listening")
    browser.execute_script("connection.close(); lost()")
    until(lambda: browser.execute_script("return channel && channel.readyState === 'open'"))
    assert browser.execute_script("return session") == session
    browser.find_element(By.ID, "text").send_keys("Back again." + Keys.ENTER)
    until(lambda: "again." in text_of(browser, "caption"))


NO_ROOM = """
const reached = window.fetch;
window.refused = 0;
window.fetch = (path, ...more) => path === "live/offer" && window.refused < 6
  ? (window.refused += 1, Promise.resolve(new Response('{"detail": "no room"}', { status: 503 })))
  : reached(path, ...more);
"""


def test_the_bare_page_has_one_colour_and_no_controls_and_waits_for_room(address: str, browser: Any) -> None:
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NO_ROOM})
    browser.get(address + "?bare=1&background=00ff00&host=anna&lang=en")
    until(lambda: browser.execute_script("return document.getElementById('video').currentTime") > 0.2)
    assert browser.execute_script("return window.refused") == 6
    colour, shown = browser.execute_script(
        "return [getComputedStyle(document.body).backgroundColor, document.getElementById('controls').offsetHeight]"
    )
    assert colour == "rgb(0, 255, 0)" and shown == 0


def test_the_browser_client_in_the_documentation_works(address: str, browser: Any) -> None:
    from selenium.webdriver.common.by import By

    text = (REPO / "docs" / "live.md").read_text(encoding="utf-8")
    html = re.search(r"```html\n(.*?)```", text, re.DOTALL)[1]
    assert html.count("\n") <= 24
    browser.get(address + "health")
    # The page's own rules let only files of it run scripts; a client's page has rules of its own.
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.get(address + "health")
    markup, script = html.split("<script>")
    browser.execute_script("document.body.innerHTML = arguments[0]", markup)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = arguments[0]; document.body.append(s)",
        script.replace("</script>", ""),
    )
    until(lambda: browser.execute_script("return document.getElementById('host').currentTime") > 0.3)
    browser.execute_script(KEEPING)
    browser.find_element(By.ID, "hello").click()
    until(lambda: browser.execute_script("return Math.max(0, ...window.levels)") > 0.02)
