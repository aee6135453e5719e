"""An attacker's walk: every address of the page and of the HTTP API, with files, jobs and keys of other people.

The addresses are not written down here but taken from what is served, so that a new one, of ours or of a newer Gradio,
is walked through as well.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2 as httpx
import pytest
import uvicorn
from starlette.routing import Mount, Route

pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from serving.http.api import create_app  # noqa: E402
from serving.http.context import Access  # noqa: E402
from serving.http.security import LOOPBACK_NAMES, ApiKeys, new_key  # noqa: E402
from serving.http.server import make_intake  # noqa: E402
from serving.jobs.jobs import JobService  # noqa: E402
from serving.jobs.setup import Settings  # noqa: E402
from serving.page import uploads  # noqa: E402
from serving.page.web import create_page  # noqa: E402
from tests import footage  # noqa: E402
from tests.service import REPO, free_port, make_service, result_file, service_config, submit, wait_for  # noqa: E402

SECRET = b"nobody-but-anna-may-read-this"
OPEN_PAGE = {"/login", "/login/"}  # and /health, which is no route
OPEN_API = {"/health", "/ready", "/openapi.json"}


@dataclass
class House:
    """A page and an API with the same jobs, and things that an attacker wants.

    Attributes:
        page: address of the page.
        api: address of the API.
        routes: methods and path templates of the page, of Gradio's own too.
        api_routes: the same of the API.
        wanted: files that hold `SECRET`.
        job: Anna's job, which is done.
        keys: name -> key.
        data: the data folder.
    """

    page: str
    api: str
    routes: list[tuple[str, str]]
    api_routes: list[tuple[str, str]]
    wanted: list[Path]
    job: str
    keys: dict[str, str]
    data: Path


@contextmanager
def listening(app: Any) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the server")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=20)


def routes_of(app: Any) -> list[tuple[str, str]]:
    found = []
    for route in app.routes:
        if isinstance(route, Mount):
            found += [(method, route.path + path) for method, path in routes_of(route.app)]
        elif isinstance(route, Route):
            found += [(method, route.path) for method in sorted(route.methods or {"GET"})]
        elif hasattr(route, "original_router"):  # a router that FastAPI keeps whole
            found += routes_of(route.original_router)
    return found


def finished_job(service: JobService, owner: str) -> str:
    job = submit(service, SECRET, owner=owner)
    service.complete(service.take(), result_file(service, SECRET), {"frames": 1, "seconds": 1.0})
    return job.id


@pytest.fixture(scope="module", params=["keys", "no keys"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    outside, data = tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("data")
    service = make_service(service_config(data))
    settings = Settings(REPO / "model_config.yaml", service.config, "cpu", REPO / "pretrained", None, None)
    keys = {name: new_key(settings.keys_file, name) for name in ("anna", "bert")}
    owned = ApiKeys(settings.keys_file) if request.param == "keys" else None
    access = Access(owned, LOOPBACK_NAMES)
    job = finished_job(service, "anna")
    wanted = hide_secrets(outside, data, job)
    app, files = create_page(service, settings, access)
    mine = files.new_folder("anna") / "upload.png"  # Anna's upload
    shown = files.fetch(service.store.get(job), service.store.get(job).result)
    footage.make_portrait(mine)
    mine.write_bytes(mine.read_bytes() + SECRET)
    api = create_app(service, make_intake(service, settings), access)
    with pytest.MonkeyPatch.context() as patched, listening(app) as page, listening(api) as http:
        patched.setattr(uploads, "_PATIENCE_S", 0.25)  # for uploads that somebody asks about and that never come
        yield House(page, http, routes_of(app), routes_of(api), [*wanted, mine, shown], job, keys, data)


def hide_secrets(outside: Path, data: Path, job: str) -> list[Path]:
    """Files that no client may read: of the machine, of the service, and a link to one of them."""
    picture, sound, note = outside / "portrait.png", outside / "speech.wav", outside / "note.txt"
    footage.make_portrait(picture)
    footage.make_sound(sound, 0.4)
    for path in (picture, sound):
        path.write_bytes(path.read_bytes() + SECRET)
    note.write_bytes(SECRET)
    link = data / "link.png"
    link.symlink_to(picture)
    return [picture, sound, note, link, data / "api_keys", data / "jobs.db", *(data / "jobs" / job).iterdir()]


def guises(path: Path) -> list[str]:
    """A path as somebody may write it who hopes that nobody looks closely."""
    plain = str(path)
    return [
        plain,
        f"file://{plain}",
        f"//{plain}",
        f"{path.parent}/./{path.name}",
        f"{path.parent}/../{path.parent.name}/{path.name}",
        f"../../../../../../../../../..{plain}",
        f"{REPO}/examples/../../../../../../../../../..{plain}",
        f"/proc/self/root{plain}",
        quote(plain, safe=""),
        f"/gradio_api/file={plain}",
    ]


ELSEWHERE = [
    "http://127.0.0.1:1/x.png",
    "https://example.org/x.png",
    "ftp://example.org/x",
    "data:image/png;base64,AA==",
]


def references(path: str, page: str) -> list[Any]:
    """What a client may send for a file."""
    meta = {"_type": "gradio.FileData"}
    return [
        {"path": path, "meta": meta},
        {"path": path},
        {"url": path, "meta": meta},
        {"path": path, "url": f"{page}/gradio_api/file={path}", "is_stream": True, "meta": meta},
        {"video": {"path": path, "meta": meta}, "subtitles": None},
        [{"image": {"path": path, "meta": meta}, "caption": None}],
        {"value": {"path": path, "meta": meta}, "__type__": "update"},
    ]


def bert(house: House) -> httpx.Client:
    """Somebody with a key of his own, or anybody where there are no keys."""
    client = httpx.Client(base_url=house.page, timeout=60)
    client.post("/login", data={"username": "bert", "password": house.keys["bert"]})
    return client


def has_keys(house: House) -> bool:
    return httpx.get(house.page, follow_redirects=False).status_code == 303


def answers(client: httpx.Client, answer: httpx.Response, session: str) -> bytes:
    """All that comes back for one call, also what the queue says later."""
    body = answer.content
    if answer.status_code == 200 and b"event_id" in body:
        with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as events:
            for line in events.iter_lines():
                body += line.encode()
                if "process_completed" in line or "unexpected_error" in line:
                    break
    return body


def copies(house: House) -> set[Path]:
    """Every file under the data folder that holds the secret."""
    files = (path for path in house.data.rglob("*") if path.is_file())
    return {path for path in files if SECRET in path.read_bytes()}


def given_away(client: httpx.Client, body: bytes) -> bool:
    """The secret is in an answer, or in a file that the answer names."""
    named = re.findall(rb'(?:file=|"path": ?")(/[^"\\ #?]+)', body)
    fetched = (client.get(f"/gradio_api/file={path.decode()}").content for path in named)
    return SECRET in body or any(SECRET in content for content in fetched)


def test_no_event_of_the_page_takes_a_foreign_file(house: House) -> None:
    client, before, posted = bert(house), copies(house), 0
    config = client.get("/config").json()
    assert len(config["dependencies"]) > 10
    first = str(house.wanted[0])
    disguised = [guise for path in house.wanted for guise in guises(path)]  # each is tried on one event or another
    for number, event in enumerate(config["dependencies"]):
        places = len(event["inputs"])
        tries = [[one] * max(1, places) for path in (first, *ELSEWHERE) for one in references(path, house.page)]
        tries += [[{"path": guise}] * max(1, places) for guise in guises(house.wanted[0])]
        tries += [[{"path": guise}] * max(1, places) for guise in disguised[number :: len(config["dependencies"])]]
        for place in range(places):
            alone: list[Any] = [None] * places
            alone[place] = references(first, house.page)[0]
            tries.append(alone)
        tries.append([references(first, house.page)])  # as a history
        for data in tries:
            session = f"s{number}x{posted}"
            body = {"data": data, "fn_index": event["id"], "session_hash": session, "event_data": data[0]}
            answer = client.post("/gradio_api/queue/join", json=body)
            assert not given_away(client, answers(client, answer, session)), (event["api_name"], data[0])
            assert answer.status_code == 422, (event["api_name"], data[0])
            posted += 1
    assert copies(house) == before and posted > 500


def test_no_call_for_programs_takes_a_foreign_file(house: House) -> None:
    client, before = bert(house), copies(house)
    named = client.get("/gradio_api/info").json()["named_endpoints"]
    assert {"/submit", "/status"} <= named.keys()
    events = {event["api_name"] for event in client.get("/config").json()["dependencies"] if event["api_name"]}
    for name in {*(name.strip("/") for name in named), *events}:
        for reference in (*references(str(house.wanted[0]), house.page), {"path": str(house.wanted[-1])}):
            for call in (f"run/{name}", f"api/{name}", f"call/{name}", f"call/v2/{name}"):
                for body in ({"data": [reference] * 20, "session_hash": "s"}, {"portrait": reference, "data": {}}):
                    answer = client.post(f"/gradio_api/{call}", json=body)
                    assert answer.status_code in (404, 422) and not given_away(client, answer.content), call
    assert copies(house) == before


def test_a_history_holds_only_jobs_that_are_ones_own(house: House) -> None:
    client = bert(house)
    event = next(one for one in client.get("/config").json()["dependencies"] if one["api_name"] == "recall")
    for history in (["/etc/passwd"], [house.job], "x", {"a": 1}, [["a"], None, 7]):
        answer = client.post("/gradio_api/run/recall", json={"data": [history], "fn_index": event["id"]})
        assert answer.json().get("data", [None]) == [None], answer.text


def test_no_address_of_the_page_gives_a_foreign_file_away(house: House) -> None:
    client, walked, has = bert(house), 0, has_keys(house)
    hostile = [guise for path in (house.wanted[0], house.wanted[-1]) for guise in guises(path)] + ELSEWHERE
    hostile += [house.job, "..%2f..%2fetc%2fpasswd", "..\\..\\x"]
    for method, template in house.routes:
        fill = hostile if "{" in template else [""]
        queries = "?deep_link={0}&path={0}&file={0}&url={0}&session_hash={0}" if "{" not in template else ""
        targets = {re.sub(r"\{[^}]*\}", value.replace("\\", "\\\\"), template) for value in fill}
        targets |= {template + queries.format(quote(value, safe="")) for value in hostile[:4] if queries}
        for target in targets:
            if any(word in target for word in ("heartbeat", "queue/data", "logout")):  # never end, or end the session
                continue
            answer = client.request(method, target, follow_redirects=False)
            assert SECRET not in answer.content and house.keys["anna"].encode() not in answer.content, target
            assert not has or client.cookies, (method, target, answer.headers)
            walked += 1
    assert walked > 300
    wanted = [guise for path in house.wanted for guise in guises(path)]
    for address in (f"/gradio_api/file={path}" for path in (*wanted, *ELSEWHERE)):
        for method in ("GET", "HEAD"):
            assert client.request(method, address).status_code in (404, 421), address
    for name in ("portrait.jpg", "speech.wav"):  # these are for everybody
        assert client.get(f"/gradio_api/file={REPO}/examples/{name}").status_code == 200


def test_an_upload_is_for_whoever_sent_it(house: House, example_portrait: Path) -> None:
    client = bert(house)
    sent = client.post("/gradio_api/upload", files={"files": ("../../x.PNG", example_portrait.read_bytes())})
    path = Path(sent.json()[0])
    assert path.name == "upload.png" and path.is_relative_to(house.data / "page" / "uploads")
    assert client.get(f"/gradio_api/file={path}").content == example_portrait.read_bytes()
    if not has_keys(house):
        return
    anna = httpx.Client(base_url=house.page)
    anna.post("/login", data={"username": "anna", "password": house.keys["anna"]})
    assert anna.get(f"/gradio_api/file={path}").status_code == 404
    for own in house.wanted[-2:]:
        assert SECRET in anna.get(f"/gradio_api/file={own}").content


def test_without_a_key_or_with_a_wrong_one_nothing_of_the_page_opens(house: House) -> None:
    if not has_keys(house):
        pytest.skip("everybody is let in")
    strange = {"session": "anna|9999999999|" + "0" * 64, "empty": "||", "broken": "anna|nan|é", "old": "anna|0|"}
    for name, cookie in {"none": "", **strange}.items():
        client = httpx.Client(
            base_url=house.page, headers={"Cookie": f"lip-sync-session={cookie}".encode()}, timeout=60
        )
        for method, template in house.routes:
            target = re.sub(r"\{[^}]*\}", "x", template)
            if template not in OPEN_PAGE:
                answer = client.request(method, target, follow_redirects=False)
                assert answer.status_code in (401, 303), (name, method, target)
                assert answer.status_code == 401 or answer.headers["location"] == "login"
    for name, key in (("anna", house.keys["bert"]), ("anna", ""), ("", ""), ("..", "x"), ("anna", "é" * 100)):
        answer = httpx.post(f"{house.page}/login", data={"username": name, "password": key})
        assert answer.status_code == 401 and "set-cookie" not in answer.headers
    assert httpx.post(f"{house.page}/login", content=b"x" * 10_000).status_code == 413


def test_no_link_logs_anybody_out(house: House) -> None:
    if not has_keys(house):
        pytest.skip("everybody is let in")
    client = bert(house)
    for method in ("GET", "HEAD"):
        assert client.request(method, "/logout").status_code == 404
    assert client.post("/logout", headers={"Origin": "https://example.org"}).status_code == 403
    assert client.get("/config").status_code == 200
    event = next(one for one in client.get("/config").json()["dependencies"] if one["api_name"] == "choices")
    told = client.post("/gradio_api/run/choices", json={"data": [], "fn_index": event["id"]}).text
    assert "Logged in as bert" in told and "Logged in as anna" not in told
    other, thief = bert(house), httpx.Client(base_url=house.page, timeout=60, cookies=dict(client.cookies))
    assert thief.get("/config").status_code == 200
    answer = client.post("/logout", headers={"Origin": house.page}, follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "login"
    assert client.get("/config").status_code == thief.get("/config").status_code == 401  # the copied cookie as well
    assert other.get("/config").status_code == 200  # on another computer


def test_a_deleted_key_ends_its_session(house: House) -> None:
    if not has_keys(house):
        pytest.skip("everybody is let in")
    path = house.data / "api_keys"
    key = new_key(path, "carl")
    client = httpx.Client(base_url=house.page, timeout=60)
    assert client.post("/login", data={"username": "carl", "password": key}).status_code == 200
    assert client.get("/config").status_code == 200
    lines = path.read_text().splitlines(True)
    path.write_text("".join(line for line in lines if not line.startswith("carl")))
    assert client.get("/config").status_code == 401
    new_key(path, "carl")  # the same name with another key is somebody else
    assert client.get("/config").status_code == 401


def test_no_address_of_the_api_opens(house: House) -> None:
    if not has_keys(house):
        pytest.skip("everybody is let in")
    walked = 0
    for method, template in house.api_routes:
        target = template.replace("{job_id}", house.job)
        for key in (None, "x", house.keys["anna"][:-1], "é"):
            headers = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
            answer = httpx.request(method, house.api + target, headers=headers, timeout=60)
            assert template in OPEN_API or answer.status_code == 401, (method, target, key)
            assert SECRET not in answer.content
        if "{job_id}" in template:
            answer = httpx.request(method, house.api + target, headers=bearer(house, "bert"), timeout=60)
            assert answer.status_code == 404, (method, target)
            walked += 1
    assert walked >= 5
    assert httpx.get(f"{house.api}/v1/jobs/{house.job}/result", headers=bearer(house, "anna")).content == SECRET
    assert house.job not in httpx.get(f"{house.api}/v1/jobs", headers=bearer(house, "bert")).text


def bearer(house: House, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {house.keys[name]}"}


def test_no_field_of_the_api_reads_a_file(house: House, example_portrait: Path, example_speech: Path) -> None:
    document = httpx.get(f"{house.api}/openapi.json", headers=bearer(house, "bert")).json()
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]
    before = copies(house)
    others = (f"file://{house.wanted[0]}", "http://127.0.0.1:1/x.png")
    for number, name in enumerate(content["schema"]["properties"]):
        for value in (str(house.wanted[0]), *(others if name.endswith("_url") else others[number % 2 :][:1])):
            whole = {"video_file": example_portrait.read_bytes(), "audio_file": example_speech.read_bytes()}
            files = {key: content for key, content in whole.items() if key != name}
            answer = httpx.post(
                f"{house.api}/v1/jobs", files=files, data={name: value}, headers=bearer(house, "bert"), timeout=60
            )
            assert SECRET not in answer.content and str(house.data) not in answer.text
            words = ("text_input", "lang", "voice", "reference")  # which are spoken, ignored or told back
            taken = 202 if name in words else 422
            assert answer.status_code in (422, taken), (name, value, answer.text)
    for path in guises(house.wanted[0]):
        for part in ("", "/result", "/preview", "/events"):
            answer = httpx.get(f"{house.api}/v1/jobs/{quote(path, safe='')}{part}", headers=bearer(house, "bert"))
            assert answer.status_code == 404 and SECRET not in answer.content
    assert copies(house) == before
