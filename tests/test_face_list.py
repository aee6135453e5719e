"""The faces of a video as a numbered sheet and as words that `--face` takes."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data as pictures

import app
from faces.choice import FaceChoice
from pipeline.face_list import face_lines, list_faces
from tests import footage
from utils.config import load_config
from utils.helpers import InputError

CONFIG = load_config(Path(__file__).resolve().parent.parent / "model_config.yaml")
FACE = pictures.astronaut()[0:240, 120:320]


def scene(*faces: tuple[float, int]) -> np.ndarray:
    """A picture with the same face several times: (scale, left edge)."""
    image = np.full((360, 640, 3), 90, np.uint8)
    for scale, left in faces:
        small = cv2.resize(FACE, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image[40 : 40 + small.shape[0], left : left + small.shape[1]] = small
    return image


def make_shots(path: Path, *shots: np.ndarray, frames: int = 25) -> Path:
    """A video of still shots, one second each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for shot in shots:
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_every_face_of_every_shot_is_listed(tmp_path: Path) -> None:
    coffee = cv2.resize(pictures.coffee(), (640, 360))
    video = make_shots(tmp_path / "shots.mp4", scene((0.6, 30), (1.0, 400)), coffee, scene((1.0, 200)))
    sheet = tmp_path / "faces.png"
    faces = list_faces(video, sheet, CONFIG)
    assert [face.shot for face in faces] == [1, 1, 3]
    assert [round(face.start) for face in faces] == [0, 0, 2]
    assert faces[0].size < 0.9 * faces[1].size
    for face, (left, right) in zip(faces, [(30, 150), (400, 600), (200, 400)], strict=True):
        choice = FaceChoice.parse(face.choice)
        assert left < choice.point[0] < right
        assert face.start <= choice.time <= face.end
    assert cv2.imread(str(sheet)).shape[1] > 3 * 192
    lines = face_lines(faces, sheet).splitlines()
    assert len(lines) == 4
    assert f"--face {faces[2].choice}" in lines[2]


def test_the_tiles_show_the_faces(tmp_path: Path) -> None:
    sheet = tmp_path / "faces.png"
    (face,) = list_faces(footage.make_portrait(tmp_path / "portrait.png"), sheet, CONFIG)
    again = list_faces(sheet, tmp_path / "again.png", CONFIG)
    assert face.time == 0.0
    assert len(again) == 1  # what the sheet shows is found as a face once more


def test_the_command_line_lists_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    footage.make_portrait(tmp_path / "anna b.png")
    assert app.main(["--mode", "cli", "--video", "anna b.png", "--list-faces"]) == 0
    assert "--face point:" in capsys.readouterr().out
    assert (tmp_path / "anna b_faces.png").is_file()
    assert app.main(["--mode", "cli", "--video", "anna b.png", "--list-faces", "one.jpg"]) == 0
    assert (tmp_path / "one.jpg").read_bytes().startswith(b"\xff\xd8")


def test_no_face_is_one_sentence_and_no_file(tmp_path: Path) -> None:
    video = make_shots(tmp_path / "grey.mp4", scene())
    with pytest.raises(InputError, match="no face"):
        list_faces(video, tmp_path / "faces.png", CONFIG)
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        list_faces(video, tmp_path / "faces.gif", CONFIG)
    with pytest.raises(InputError, match="also the input"):
        portrait = footage.make_portrait(tmp_path / "portrait.png")
        list_faces(portrait, portrait, CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grey.mp4", "portrait.png"]
