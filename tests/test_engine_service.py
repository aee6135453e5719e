"""The public engines at the doors of the service: listed, asked for, shown on the page, refused, stopped; memory."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import psutil
import pytest
import torch

from engines.catalogue import ENTRIES
from pipeline import LipSyncPipeline, Options
from serving.http.server import make_intake
from serving.jobs.setup import open_service, read_settings, worker_parser
from tests import footage
from tests.public_weights import write_public_weights
from tests.server import Server, ended, running
from tests.service import REPO, wait_for
from utils.config import load_config
from video_processor import VideoReader

PUBLIC = {name for name, entry in ENTRIES.items() if entry.files}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All public engines but one, with small random networks."""
    folder = write_public_weights(tmp_path_factory.mktemp("engine_weights"))
    shutil.rmtree(folder / "wav2lip-384")
    return folder


@pytest.fixture(scope="module")
def server(service_media: Path, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("service") / "data"
    with running(service_media, data, "--engine-weights", str(shelf), "--device", "cpu") as server:
        yield server


def post(server: Server, media: Path, sound: str, **fields: str) -> httpx.Response:
    with open(media / "portrait.png", "rb") as video, open(media / sound, "rb") as audio:
        files = {"video_file": video, "audio_file": audio}
        return httpx.post(f"{server.url}/jobs", files=files, data=fields, timeout=60)


def drawn(media: Path, server: Server, job_id: str) -> tuple[np.ndarray, int]:
    """Rows and columns of the first frame that differ from the portrait, as (N, 2); and how many frames there are."""
    (result,) = (server.data / "jobs" / job_id).rglob("result*.mp4")
    with VideoReader(media / "portrait.png") as before, VideoReader(result) as after:
        old, new = next(iter(before)).image, [frame.image for frame in after]
    return np.argwhere(np.abs(old.astype(int) - new[0]).max(-1) > 40), len(new)


def test_a_job_names_an_engine_and_the_next_one_gets_the_usual_one(server: Server, service_media: Path) -> None:
    listed = {engine["name"]: engine for engine in server.get("/engines")}
    assert listed["wav2lip"]["installed"] and not listed["wav2lip-384"]["installed"] and listed["lite"]["default"]
    job = ended(server, post(server, service_media, "speech.wav", engine="wav2lip").json()["id"])
    assert job["state"] == "done", job
    touched, frames = drawn(service_media, server, job["id"])
    # All of the lower half of the face, which `lite` never touches.
    assert frames == 10 and len(touched) > 1500 and np.ptp(touched[:, 1]) > 60
    usual = ended(server, post(server, service_media, "speech.wav", steps="1").json()["id"])
    assert usual["state"] == "done" and len(drawn(service_media, server, usual["id"])[0]) < len(touched) / 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wav2lip-384", r"wav2lip-384 is not installed \(wav2lip384.pth not found\); whoever runs .* can add it"),
        ("latentsync-9", "There is no engine 'latentsync-9'; use one of lite, .*latentsync-1.5"),
        ("tests.one_colour:OneColour", "There is no engine 'tests.one_colour:OneColour'"),
    ],
)
def test_what_is_not_there_is_refused_with_the_way_to_get_it(
    name: str, said: str, server: Server, service_media: Path, shelf: Path
) -> None:
    answer = post(server, service_media, "speech.wav", engine=name)
    assert answer.status_code == 422 and re.search(said, answer.json()["detail"]), answer.text
    assert str(shelf) not in answer.text


def test_a_slow_engine_is_cancelled_within_a_second(server: Server, service_media: Path) -> None:
    """While the network is at its many steps; and the same worker takes the next job."""
    job_id = post(server, service_media, "long.wav", engine="latentsync-1.5", steps="50").json()["id"]
    wait_for(lambda: server.get(f"/jobs/{job_id}")["state"] == "running", "the start")
    time.sleep(2.0)  # by now it loads or draws; either is to end
    started = time.monotonic()
    assert httpx.post(f"{server.url}/v1/jobs/{job_id}/cancel", timeout=60).json()["state"] == "cancelled"
    assert time.monotonic() - started < 1.0
    assert server.get(f"/jobs/{job_id}")["state"] == "cancelled" and not (server.data / "jobs" / job_id).exists()
    job = ended(server, post(server, service_media, "speech.wav", engine="wav2lip").json()["id"])
    assert job["state"] == "done", job


def test_the_environment_names_engine_and_weights(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As compose.yaml does it; without the two, neither."""
    plain = read_settings(worker_parser().parse_args(["--data-dir", str(tmp_path)]))
    service, _ = open_service(plain)
    assert not {view.name for view in make_intake(service, plain).engines() if view.installed} & PUBLIC
    monkeypatch.setenv("LIPSYNC_ENGINE_WEIGHTS", str(shelf))
    monkeypatch.setenv("LIPSYNC_ENGINE", "wav2lip")
    intake = make_intake(service, read_settings(worker_parser().parse_args(["--data-dir", str(tmp_path)])))
    assert intake.defaults.engine == "wav2lip" and "latentsync-1.6" in {v.name for v in intake.engines() if v.installed}


def test_the_page_offers_what_is_installed(shelf: Path, service_media: Path, tmp_path: Path) -> None:
    """In the list of the page, and from there into the job; what is not installed is refused in a sentence."""
    gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")
    from faces.detector import FaceDetector
    from serving.page.files import PageFiles
    from serving.page.layout import build_page
    from serving.page.page import Page
    from tests.test_web import ENGLISH, submit

    settings = read_settings(worker_parser().parse_args(["--data-dir", str(tmp_path), "--engine-weights", str(shelf)]))
    service, _ = open_service(settings)
    detector = FaceDetector(REPO / "pretrained" / "faces")
    page = Page(service, make_intake(service, settings), detector, PageFiles(service))
    (shown,) = [
        block for block in build_page(page)[0].blocks.values()
        if isinstance(block, gr.Dropdown) and ("wav2lip", "wav2lip") in block.choices
    ]  # fmt: skip
    names = [value for _, value in shown.choices]
    assert shown.visible and names[:2] == ["", "lite"] and "musetalk-1.5" in names and "wav2lip-384" not in names
    job = service.store.get(submit(page, service_media, ENGLISH, engine="wav2lip"))
    assert job.request["options"]["engine"] == "wav2lip"
    with pytest.raises(gr.Error, match="wav2lip-384 is not installed"):
        submit(page, service_media, ENGLISH, engine="wav2lip-384")


def test_memory_does_not_grow_with_the_video(shelf: Path, service_media: Path, tmp_path: Path) -> None:
    config = load_config(service_media / "tiny_config.yaml", [f"inference.engine_weights={shelf}"])
    pipeline = LipSyncPipeline.load(config, torch.device("cpu"), engine="wav2lip")
    video = footage.make_video(tmp_path / "video.mp4", 7.0, size=(640, 360))  # all frames together: 121 MB
    sound, process, sizes = footage.make_sound(tmp_path / "speech.wav", 7.0), psutil.Process(), {}

    def progress(done: int, total: int | None) -> None:
        sizes[done] = process.memory_info().rss / 2**20

    summary = pipeline.run(video, sound, tmp_path / "out.mp4", Options(), progress)
    assert summary.generated == 175
    early = max(size for done, size in sizes.items() if done <= 90)
    assert max(sizes.values()) - early < 40, sizes
