"""Signed links to results: they work without a key, for one result, for a while; and in a browser's player."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.links import SECRET
from serving.http.security import LOOPBACK_NAMES, ApiKeys, new_key
from serving.http.speech import Speaker
from tests import footage
from tests.browser import browser
from tests.service import REPO, make_service, result_file, service_config, submit
from tests.test_intruder import listening
from utils.config import load_config

FILM = bytes(range(256)) * 40
SUMMARY = {"frames": 10, "seconds": 2.0}


class House:
    """A service with keys, and a finished job of Anna's."""

    def __init__(self, folder: Path, content: bytes = FILM) -> None:
        self.service = make_service(service_config(folder))
        self.keys_file = folder / "api_keys"
        self.keys = {name: {"Authorization": f"Bearer {new_key(self.keys_file, name)}"} for name in ("anna", "bob")}
        self.job = self.done(content)

    def done(self, content: bytes = FILM) -> str:
        job = submit(self.service, owner="anna")
        self.service.complete(self.service.take(), result_file(self.service, content), SUMMARY)
        return f"/v1/jobs/{job.id}"

    def app(self) -> object:
        intake = Intake(self.service, load_config(REPO / "model_config.yaml").inference, Speaker(REPO, REPO))
        return create_app(self.service, intake, Access(ApiKeys(self.keys_file), (*LOOPBACK_NAMES, "testserver")))

    def client(self) -> TestClient:
        return TestClient(self.app())


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def link_of(client: TestClient, house: House, **asked: int) -> str:
    answer = client.post(f"{house.job}/link", params=asked, headers=house.keys["anna"])
    assert answer.status_code == 200, answer.text
    return answer.json()["url"]


def test_a_link_opens_one_result_without_a_key(house: House) -> None:
    client = house.client()
    link = link_of(client, house)
    assert link.startswith("http://testserver/v1/jobs/")
    whole = client.get(link)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, FILM, "video/mp4")
    assert whole.headers["cross-origin-resource-policy"] == "cross-origin"
    part = client.get(link, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, FILM[5:10])
    head = client.head(link)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(FILM)))
    query = urlsplit(link).query
    for other in (house.job, f"{house.done()}/result", f"{house.job}/events", f"{house.job}/preview", "/v1/jobs"):
        assert client.get(f"{other}?{query}").status_code in (401, 403), other
    assert client.delete(f"{house.job}?{query}").status_code == 401


def test_a_link_that_was_changed_or_is_over_opens_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    client = house.client()
    link = link_of(client, house, seconds=60)
    given = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    assert 50 < int(given["expires"]) - time.time() < 70
    path = urlsplit(link).path
    for change in ({"expires": str(int(given["expires"]) + 1)}, {"signature": "0" * 64}, {"signature": "é"}):
        refused = client.get(path, params=given | change)
        assert refused.status_code == 403 and "ask for a new one" in refused.json()["detail"]
    assert client.get(f"/v1/jobs/{'0' * 32}/result", params=given).status_code == 403
    assert client.get(path, params={"expires": given["expires"]}).status_code == 401
    soon = time.time() + 61
    monkeypatch.setattr("serving.http.links.time.time", lambda: soon)
    assert client.get(link).status_code == 403


def test_a_link_ends_with_its_key_and_with_its_job(house: House) -> None:
    client = house.client()
    links = [link_of(client, house)]
    lines = house.keys_file.read_text().splitlines(keepends=True)
    house.keys_file.write_text("".join(line for line in lines if not line.startswith("anna")))
    assert client.get(links[0]).status_code == 403
    new_key(house.keys_file, "anna")  # the same name with another key
    assert client.get(links[0]).status_code == 403
    house.keys_file.write_text("".join(lines))
    assert client.get(links[0]).status_code == 200
    client.delete(house.job, headers=house.keys["anna"])
    assert client.get(links[0]).status_code == 403


def test_who_may_ask_for_a_link_and_of_what(house: House) -> None:
    client = house.client()
    assert client.post(f"{house.job}/link").status_code == 401
    assert client.post(f"{house.job}/link", headers=house.keys["bob"]).status_code == 404
    for seconds in (0, 8 * 86400):
        asked = client.post(f"{house.job}/link", params={"seconds": seconds}, headers=house.keys["anna"])
        assert asked.status_code == 422
    waiting = submit(house.service, owner="anna")
    assert client.post(f"/v1/jobs/{waiting.id}/link", headers=house.keys["anna"]).status_code == 409


def test_the_secret_is_kept_for_our_own_eyes_and_shared_by_processes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = link_of(house.client(), house)
    (kept,) = house.service.config.data_dir.glob("link_secret*")
    assert kept.stat().st_mode & 0o077 == 0 and len(kept.read_bytes()) == 64
    assert house.client().get(link).status_code == 200  # another process
    monkeypatch.setenv(SECRET, "of several machines")
    assert house.client().get(link).status_code == 403


def test_what_the_client_has_is_not_sent_again(house: House) -> None:
    client, mine = house.client(), house.keys["anna"]
    first = client.get(f"{house.job}/result", headers=mine)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        for ask in (client.get, client.head):
            answer = ask(f"{house.job}/result", headers={**mine, "If-None-Match": known, "Range": "bytes=0-3"})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert client.get(f"{house.job}/result", headers={**mine, "If-None-Match": '"other"'}).content == FILM
    house.service.files.remove(house.job.rpartition("/")[2])
    for ask in (client.get, client.head):
        assert ask(f"{house.job}/result", headers=mine).status_code == 410


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder that another web site shows; its address is in the file `address`."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        (folder / "address").write_text(f"http://localhost:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield folder
        server.shutdown()


_PLAYED = """
    const done = arguments[0], video = document.querySelector('video');
    const tell = () => done([video.videoWidth, video.duration, video.error && video.error.message]);
    if (!video) done(['no video']);
    else if (video.readyState >= 1 || video.error) tell();
    else { video.onloadedmetadata = tell; video.onerror = tell; }
"""


def test_a_browser_plays_a_link_on_a_page_of_another_site_and_by_itself(tmp_path: Path, site: Path) -> None:
    footage.make_video(tmp_path / "film.mp4", 1.0, size=(64, 64))
    house = House(tmp_path / "data", (tmp_path / "film.mp4").read_bytes())
    link = link_of(house.client(), house)
    with listening(house.app()) as address, browser() as driver:
        link = link.replace("http://testserver", address)
        (site / "index.html").write_text(f'<video src="{link.replace("&", "&amp;")}"></video>')
        for page in ((site / "address").read_text(), link):
            driver.get(page)
            width, duration, error = driver.execute_async_script(_PLAYED)
            assert (width, error) == (64, None) and duration == pytest.approx(1.0, abs=0.1), page
