"""The page's functions for tests, without a server: requests, inputs, and calls in the order of the form."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from faces.detector import FaceDetector
from serving.http.intake import Intake
from serving.http.speech import Speaker
from serving.jobs.jobs import JobService
from serving.page.files import PageFiles
from serving.page.page import Page
from tests import footage
from tests.service import REPO
from utils.config import load_config

ENGLISH = SimpleNamespace(headers={"accept-language": "en-GB,en;q=0.9"}, username=None)
CHINESE = SimpleNamespace(headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.5"}, username=None)
ANNA = SimpleNamespace(headers={}, username="anna")


def load() -> tuple[Speaker, FaceDetector]:
    """What takes a moment to load."""
    models = REPO / load_config(REPO / "model_config.yaml").faces.models_dir
    return Speaker(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes"), FaceDetector(models)


def make_page(service: JobService, files: PageFiles, loaded: tuple[Speaker, FaceDetector]) -> Page:
    """The page with these jobs and files; see `load`."""
    speaker, detector = loaded
    return Page(service, Intake(service, load_config(REPO / "model_config.yaml").inference, speaker), detector, files)


def make_inputs(folder: Path) -> Path:
    """Fill a folder with what people give the page; returns it."""
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
    given |= {"consent": True}
    job_id, history = page.submit(**given | {"history": []} | changes, request=request)
    assert history[0] == job_id
    return job_id


def look(page: Page, job_id: str | None, request: Any = ENGLISH, stage: Any = ()) -> SimpleNamespace:
    names = ("section", "status", "pictures", "cancel", "delete", "again", "clock", "earlier", "stage")
    return SimpleNamespace(**dict(zip(names, page.look(job_id, list(stage), [job_id], request), strict=True)))


def shown_files(pictures: str) -> list[bytes]:
    """What the browser would get for the pictures of a page."""
    return [Path(path).read_bytes() for path in re.findall(r'src="gradio_api/file=([^"#]*)', pictures)]
