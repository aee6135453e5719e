"""Faces that are no photographs: found with lowered limits where the usual ones find none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faces.choice import FaceChoice
from faces.detector import FaceDetector, FaceMesh, roi_from_detection
from faces.drawn import DrawnFaceDetector, flatly_drawn
from faces.usable import COVERED, UsableFace
from faces.window import MOUTH_WINDOW
from pipeline import LipSyncPipeline, Options
from pipeline.seeing import Seeing
from tests import footage
from tests.test_planning import write
from tests.test_usable import faces, reasons
from tests.tiny_weights import tiny_config
from tools.draw_faces import FACES
from utils.config import load_config
from utils.helpers import InputError
from utils.pictures import ArrayPicture
from video_processor import VideoReader

MODELS = Path(__file__).resolve().parent.parent / "pretrained" / "faces"
CENTRES = {"cartoon": (256, 285), "anime": (256, 295), "statue": (256, 285)}  # of the faces, px


@pytest.fixture(scope="module")
def usual() -> FaceDetector:
    return FaceDetector(MODELS)


@pytest.fixture(scope="module")
def other() -> DrawnFaceDetector:
    return DrawnFaceDetector(MODELS)


@pytest.fixture(scope="module")
def lip_sync(tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    folder = tmp_path_factory.mktemp("drawn")
    config = load_config(tiny_config(folder, folder), ["inference.engine=tests.one_colour:OneColour"])
    return LipSyncPipeline.load(config, torch.device("cpu"))


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((256, 256), degrees, 0.8)
    return cv2.warpAffine(image, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)


def far_away(image: np.ndarray, side: int, at: tuple[int, int] = (900, 300)) -> np.ndarray:
    """The picture, small in a large one."""
    room = np.full((1080, 1920, 3), (90, 140, 90), np.uint8)
    room[at[1] : at[1] + side, at[0] : at[0] + side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return room


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    scale = min(1.0, side / max(image.shape[:2]))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def finds(detector: FaceDetector, image: np.ndarray) -> bool:
    return bool(detector.detect(reduced(image, detector.side)))


@pytest.mark.parametrize("name", FACES)
def test_drawn_faces_are_found_upright_tilted_and_far_away(
    name: str, usual: FaceDetector, other: DrawnFaceDetector
) -> None:
    image = FACES[name]()
    (face,) = other.detect(image)
    assert np.abs((face.box[:2] + face.box[2:]) / 2 - CENTRES[name]).max() < 40
    assert 220 < face.box[2] - face.box[0] < 360 and face.score > 0.8
    for harder in (turned(image, 25), turned(image, 45), far_away(image, 140)):
        assert finds(other, harder)
    assert not finds(usual, far_away(image, 140))  # else the lowered limits would not be needed


def test_what_is_no_face_is_none_with_lowered_limits_either(other: DrawnFaceDetector) -> None:
    chance = np.random.default_rng(0)
    noise = chance.integers(0, 256, (180, 320, 3), np.uint8)
    clouds = cv2.resize(chance.integers(0, 256, (9, 16, 3), np.uint8), (320, 180), interpolation=cv2.INTER_CUBIC)
    for image in (noise, clouds, footage.faceless_frame(0.3)):
        assert other.detect(image) == []


@pytest.mark.parametrize("quality", [100, 60, 30])
def test_a_flat_drawing_is_told_from_photographs_and_from_a_statue(
    quality: int, usual: FaceDetector, other: DrawnFaceDetector, talking_faces: Path
) -> None:
    def flat(image: np.ndarray, detector: FaceDetector) -> bool:
        stored = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
        roi = roi_from_detection(detector.detect(reduced(stored, detector.side))[0])
        return flatly_drawn(ArrayPicture(stored), FaceMesh(MODELS)(stored, roi)[0])

    assert {name: flat(draw(), other) for name, draw in FACES.items()} == {
        "cartoon": True, "anime": True, "statue": False,
    }  # fmt: skip
    for name in ("filby89_p069_0000", "opentalker_p071_0000"):
        with VideoReader(talking_faces / "test" / "videos" / f"{name}.mp4") as reader:
            photograph = next(iter(reader)).image
        small = reduced(photograph, usual.side)
        assert not any(flat((small * light).astype(np.uint8), usual) for light in (1.0, 0.3))


@pytest.mark.parametrize(("name", "reason"), [("anime", None), ("cartoon", None), ("statue", COVERED)])
def test_what_covers_a_mouth_is_not_asked_of_flat_drawings(
    name: str, reason: str | None, other: DrawnFaceDetector
) -> None:
    image = FACES[name]()
    points, _ = FaceMesh(MODELS)(image, roi_from_detection(other.detect(image)[0]))
    assert set(reasons(faces(image, [points] * 12), UsableFace(cover=lambda window: 1.0))) == {reason}


def test_nor_of_a_face_that_only_lowered_limits_find(
    usual: FaceDetector, other: DrawnFaceDetector, tmp_path: Path
) -> None:
    config = load_config(tiny_config(tmp_path, tmp_path))
    for detector, asked in ((usual, True), (other, False)):
        seeing = Seeing(
            detector, FaceMesh(MODELS), lambda window: 1.0, config, MOUTH_WINDOW, FaceChoice.parse("largest"), 0.5
        )
        assert (seeing.usable().cover is not None) is asked


def test_a_hint_is_tried_first(other: DrawnFaceDetector) -> None:
    image = far_away(FACES["statue"](), 400)
    hinted = DrawnFaceDetector(MODELS, hint=(980 / 1920, 380 / 1080, 1220 / 1920, 640 / 1080))
    assert len(hinted.detect(image)) == 1 and hinted.detect(np.zeros((400, 600, 3), np.uint8)) == []


def test_a_run_looks_again_with_lowered_limits_and_says_so(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    sound = footage.make_sound(tmp_path / "speech.wav", 0.4)
    small = far_away(FACES["cartoon"](), 140)
    cv2.imwrite(str(tmp_path / "small.png"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    video = write(tmp_path / "small.mp4", [far_away(FACES["cartoon"](), 140, (900 + n, 300)) for n in range(10)])
    for given in (tmp_path / "small.png", video):
        summary = lip_sync.run(given, sound, tmp_path / "out.mkv", Options(codec="ffv1"))
        assert summary.generated == 10 and "lowered limits" in summary.notes[-1]
    none = write(tmp_path / "none.mp4", [footage.faceless_frame(0.0)] * 10)
    with pytest.raises(InputError, match=r"No face can be used anywhere.*--face box:X,Y,W,H"):
        lip_sync.run(none, sound, tmp_path / "none.mkv", Options())
