"""The page where no face is found: a picture to mark the mouth in, and what becomes of the box."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from serving.jobs.jobs import JobService  # noqa: E402
from serving.page.files import PageFiles  # noqa: E402
from serving.page.marking import marked_place  # noqa: E402
from serving.page.page import Page  # noqa: E402
from tests.pages import CHINESE, ENGLISH, load, make_inputs, make_page, submit  # noqa: E402
from tests.service import make_service, service_config  # noqa: E402
from tests.test_sprites import robot, save  # noqa: E402
from utils.helpers import InputError  # noqa: E402


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("media"))
    save(folder / "robot.png", cv2.resize(robot(), (1440, 1200), interpolation=cv2.INTER_AREA))
    return folder


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def page(service: JobService, media: Path) -> Page:
    names = ("robot.png", "portrait.png", "speech.wav")
    return make_page(service, PageFiles(service, [media / name for name in names]), load())


def test_a_mouth_is_marked_where_no_face_is_found(page: Page, service: JobService, media: Path) -> None:
    source = str(media / "robot.png")
    _, sheet, choice, picture = page.faces("portrait", source, None, [], ENGLISH)
    assert not sheet.visible and not choice.visible and picture.visible
    assert cv2.imread(picture.value["path"]).shape == (600, 720, 3)  # reduced
    assert not page.faces("portrait", str(media / "portrait.png"), None, [], ENGLISH)[3].visible
    choice = page.marked("0.375,0.675,0.2333,0.075", "portrait", source, None, CHINESE)
    assert choice.value == "mouth:540,810,336,90" and choice.visible and len(choice.choices) == 2
    submit(page, media, portrait=source, face=choice.value)
    job = service.take()
    assert job.request["options"]["face"] == choice.value and job.request["options"]["engine"] == "sprites"
    again = page.faces("portrait", source, None, [source, choice.value], ENGLISH)[2]
    assert again.value == choice.value and again.visible


def test_a_box_that_is_none_is_refused(media: Path) -> None:
    source = str(media / "robot.png")
    for text in ("", "a,b,c,d", "0.1,0.2,0.3"):
        with pytest.raises(InputError, match="draw it anew"):
            marked_place(text, source)
    x, y, width, height = (int(part) for part in marked_place("-3,0.5,9,0", source)[6:].split(","))
    assert np.array_equal((x, y, width, height), (0, 600, 1440, 8))
