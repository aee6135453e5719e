"""Drawn mouths: sets of them, where they are laid, what is shown when, and transparent layers."""

from __future__ import annotations

import functools
import io
import math
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

import app
from engines.sprites import Shown
from faces.choice import FaceChoice
from faces.placed import Anchor, placed_windows
from faces.sprites import BUNDLED, MouthSet
from faces.usable import NO_FACE
from faces.window import MOUTH_WINDOW
from models.phonemes import SYMBOLS, Phoneme
from pipeline import LipSyncPipeline, Options
from pipeline.tracks.assembling import shown
from tests import footage
from tests.service import make_service, service_config
from tests.test_api import client_of
from tests.tiny_weights import tiny_config
from tools import draw_mouths
from tools.draw_faces import cartoon
from utils.config import load_config
from utils.helpers import InputError
from utils.pictures import ArrayPicture
from video_processor import VideoReader

INSIDE = (112, 26, 38)  # colour of the inside of an open mouth
mouths = functools.cache(draw_mouths.mouths)
SAID = (("m", 0.2, 0.44), ("a", 0.44, 0.8))  # lips closed, then wide open
LOSSLESS = Options(codec="ffv1", engine="sprites")
CARTOON_MOUTH = (194, 338, 124, 28)


@pytest.fixture(scope="module")
def lip_sync(tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    folder = tmp_path_factory.mktemp("sprites")
    config = load_config(tiny_config(folder, folder), ["inference.engine=sprites"])
    return LipSyncPipeline.load(config, torch.device("cpu"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cartoon, a robot that no network takes for a face, and a second of sound."""
    folder = tmp_path_factory.mktemp("drawn")
    save(folder / "cartoon.png", cartoon())
    save(folder / "robot.png", robot())
    footage.make_sound(folder / "speech.wav", 1.0)
    return folder


def save(path: Path, image: np.ndarray) -> None:
    code = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    assert cv2.imwrite(str(path), cv2.cvtColor(image, code))


def robot() -> np.ndarray:
    image = np.full((400, 480, 3), (200, 210, 230), np.uint8)
    cv2.rectangle(image, (100, 60), (372, 360), (150, 160, 175), -1)
    cv2.rectangle(image, (130, 110), (342, 190), (30, 40, 60), -1)
    for x in (180, 292):
        cv2.circle(image, (x, 150), 18, (90, 240, 255), -1)
    cv2.rectangle(image, (180, 280), (292, 290), (40, 40, 50), -1)
    return image


def phonemes() -> list[Phoneme]:
    return [Phoneme(symbol, SYMBOLS.index(symbol), start, end) for symbol, start, end in SAID]


def opened(image: np.ndarray) -> int:
    """Pixels of the inside of a mouth."""
    return int((np.abs(image[..., :3].astype(int) - INSIDE).max(-1) < 14).sum())


def frames_of(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.image.copy() for frame in reader]


def test_the_bundled_mouths_are_what_the_tool_draws() -> None:
    bundled, made = MouthSet.read(BUNDLED), mouths()
    assert sorted(bundled.pictures) == sorted(made) and bundled.missing == ""
    assert all(np.array_equal(bundled.pictures[shape], made[shape]) for shape in made)
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 40_000


def test_shapes_that_nobody_drew_are_those_that_rhubarb_takes(tmp_path: Path) -> None:
    for shape in "ABCDEF":
        save(tmp_path / f"hero-mouth_{shape.lower()}.png", mouths()[shape])
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    given = MouthSet.read(tmp_path)
    assert given.missing == "GHX"
    for shape, other in {"G": "A", "H": "C", "X": "A", "D": "D"}.items():
        assert given.picture(shape) is given.pictures[other]
    packed = tmp_path / "mouths.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in tmp_path.glob("*.png"):
            archive.write(path, f"set/{path.name}")
    assert sorted(MouthSet.read(packed).pictures) == list("ABCDEF")


def spoiled(folder: Path, kind: str) -> Path:
    for shape, picture in mouths().items():
        save(folder / f"{shape}.png", picture)
    if kind == "missing":
        (folder / "B.png").unlink()
        (folder / "E.png").unlink()
    elif kind == "opaque":
        save(folder / "C.png", mouths()["C"][..., :3])
    elif kind == "clear":
        save(folder / "C.png", np.zeros((256, 320, 4), np.uint8))
    elif kind == "size":
        save(folder / "H.png", mouths()["H"][:100])
    elif kind == "twice":
        save(folder / "old_A.png", mouths()["A"])
    elif kind == "broken":
        (folder / "D.png").write_bytes((folder / "D.png").read_bytes()[:700])
    return folder if kind != "file" else folder / "A.png"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "The mouths B, E are missing"),
        ("opaque", "C.png has no transparent parts"),
        ("clear", "Nothing can be seen in the mouth C.png"),
        ("size", r"The mouths H have another size than A \(320x256 px\)"),
        ("twice", "two pictures of the mouth A"),
        ("broken", "D.png cannot be read"),
        ("file", "no folder and no .zip"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(
    kind: str, sentence: str, tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = spoiled(tmp_path, kind)
    with pytest.raises(InputError, match=sentence) as refused:
        MouthSet.read(given)
    assert str(refused.value).count(". ") == 0  # one sentence
    if kind == "missing":  # and before anything is loaded
        arguments = ["--video", str(drawn / "cartoon.png"), "--audio", str(drawn / "speech.wav")]
        code = app.main(["--mode", "cli", *arguments, "--sprites", str(given), "--output", str(tmp_path / "x.mp4")])
        assert code == 2 and "The mouths B, E are missing" in capsys.readouterr().err
        assert not (tmp_path / "x.mp4").exists()


def test_the_mouth_that_is_said_is_shown_and_the_old_one_is_gone(
    lip_sync: LipSyncPipeline, drawn: Path, tmp_path: Path
) -> None:
    summary = lip_sync.run(
        drawn / "cartoon.png", drawn / "speech.wav", tmp_path / "out.mkv", LOSSLESS, phonemes=phonemes()
    )
    frames, before = frames_of(summary.output), cartoon()
    assert summary.frames == summary.generated == len(frames) == 25
    inside = [opened(frame) for frame in frames]
    assert max(inside[3], inside[8], inside[22]) < 20 and min(inside[13:18]) > 1000  # at rest, m, at rest; a
    assert all(100 < count < 0.8 * min(inside[13:18]) for count in inside[20:22])  # half open before the rest
    x, y, width, height = CARTOON_MOUTH
    smile = before[y : y + height, x : x + width].astype(int)
    dark = smile.sum(-1) < 200
    # Where the smile was, skin is seen at m, but for the new line of the lips.
    assert (frames[8][y : y + height, x : x + width].astype(int)[dark].sum(-1) > 450).mean() > 0.7
    rows, columns = np.nonzero((frames[15] != frames[3]).any(-1))
    assert 170 < columns.min() and columns.max() < 342 and 300 < rows.min() and rows.max() < 440


@pytest.mark.parametrize("fps", [12, 15, 24, 25, 30])
def test_every_closing_is_seen_at_any_frame_rate_and_no_mouth_jumps_from_wide_open_to_closed(fps: float) -> None:
    places = [(symbol, 0.1 + 0.18 * n + (0.14 if symbol == "m" else 0)) for n in range(12) for symbol in "am"]
    said = [Phoneme(s, SYMBOLS.index(s), at, at + (0.04 if s == "m" else 0.14)) for s, at in places]
    mouths = Shown(shown(2.5, said, fps))
    shapes = "".join(mouths.shape_at(frame / fps) for frame in range(int(2.5 * fps)))
    assert len(re.findall("A+", shapes)) == 12
    if fps >= 24:
        assert "DA" not in shapes and shapes.count("CA") == 12


def test_a_face_that_nobody_sees_asks_for_a_box_and_gets_its_mouth(
    lip_sync: LipSyncPipeline, drawn: Path, tmp_path: Path
) -> None:
    robot_png, sound, out = drawn / "robot.png", drawn / "speech.wav", tmp_path / "out.mkv"
    with pytest.raises(InputError, match=r"No face can be used in the picture.*--face box:X,Y,W,H.*--sprites"):
        lip_sync.run(robot_png, sound, out, LOSSLESS)
    with pytest.raises(InputError, match=r"outside of the picture \(480x400 px\)"):
        lip_sync.run(robot_png, sound, out, replace(LOSSLESS, face="box:500,20,50,50"))
    with pytest.raises(InputError, match="too small"):
        lip_sync.run(robot_png, sound, out, replace(LOSSLESS, face="mouth:10,20,5,50"))
    for face in ("box:100,60,272,300", "mouth:180,270,112,30"):
        summary = lip_sync.run(robot_png, sound, out, replace(LOSSLESS, face=face), phonemes=phonemes())
        assert summary.generated == 25 and "marked place" in summary.notes[-1]
        frames = frames_of(out)
        rows, columns = np.nonzero(np.abs(frames[15].astype(int) - INSIDE).max(-1) < 14)
        assert abs(columns.mean() - 236) < 4 and 270 < rows.mean() < 330 and opened(frames[8]) < 20


def test_an_engine_that_draws_needs_a_face_in_the_box(drawn: Path, tmp_path: Path) -> None:
    config = load_config(tiny_config(tmp_path, tmp_path), ["inference.engine=tests.one_colour:OneColour"])
    plain = LipSyncPipeline.load(config, torch.device("cpu"))
    with pytest.raises(InputError, match=r"No face is seen in the box.*--sprites"):
        plain.run(drawn / "robot.png", drawn / "speech.wav", tmp_path / "o.mp4", Options(face="box:100,60,272,300"))
    with pytest.raises(InputError, match="draws its own mouths"):
        plain.run(drawn / "cartoon.png", drawn / "speech.wav", tmp_path / "o.mp4", Options(), mouths=BUNDLED)


@dataclass
class Moment:
    picture: ArrayPicture
    time: float

    @property
    def image(self) -> np.ndarray:
        return self.picture.whole()


def test_a_marked_place_is_followed_turned_sized_and_found_again_after_a_cut() -> None:
    noise = np.random.default_rng(1).integers(60, 200, (9, 12, 3), np.uint8)
    room = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    moves, moments = [], []
    for number in range(40):
        turn, scale = math.radians(12 * math.sin(number / 7)), 0.6 + 0.15 * math.sin(number / 9)
        turned = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        middle = np.array([310 + 120 * math.sin(number / 12), 240 + 30 * math.sin(number / 5)])
        move = np.hstack([turned, (middle - turned @ (236, 210))[:, None]])
        image = room.copy()
        cv2.warpAffine(robot(), move, (640, 480), dst=image, borderMode=cv2.BORDER_TRANSPARENT)
        gone = 18 <= number < 24
        moments.append(Moment(ArrayPicture(255 - room[:, ::-1] if gone else image), number / 25))
        moves.append(None if gone else move)
    corners = np.array([[180, 270], [292, 300]]) @ moves[0][:, :2].T + moves[0][:, 2]
    box = (*corners.min(0), *np.ptp(corners, axis=0))
    anchor = Anchor.of(moments[0].picture, FaceChoice("mouth", box=box))
    seen = list(placed_windows(moments, anchor, MOUTH_WINDOW, 0.35))
    assert [frame.reason for frame in seen] == [NO_FACE if move is None else None for move in moves]
    assert seen[17].shot < seen[18].shot < seen[24].shot
    first = seen[0].matrix
    for frame, move in zip(seen, moves, strict=True):
        if move is not None:
            told = cv2.invertAffineTransform(frame.matrix) @ (*(first @ (*corners.mean(0), 1)), 1)
            there = move @ (*cv2.invertAffineTransform(moves[0]) @ (*corners.mean(0), 1), 1)
            assert np.linalg.norm(told - there) < 2.5


def test_a_layer_is_the_mouth_alone(lip_sync: LipSyncPipeline, drawn: Path, tmp_path: Path) -> None:
    given = drawn / "cartoon.png", drawn / "speech.wav"
    lip_sync.run(*given, tmp_path / "l.zip", replace(LOSSLESS, codec="auto", layer="png"), phonemes=phonemes())
    with zipfile.ZipFile(tmp_path / "l.zip") as archive:
        assert archive.namelist() == [f"{number:05d}.png" for number in range(25)]
        layer = cv2.imdecode(np.frombuffer(archive.read("00015.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    rgba = cv2.cvtColor(layer, cv2.COLOR_BGRA2RGBA)
    assert rgba.shape == (512, 512, 4) and opened(rgba) > 1000
    assert rgba[0, 0, 3] == 0 and 0.01 < (rgba[..., 3] == 255).mean() < 0.06 and rgba[rgba[..., 3] == 0].max() == 0
    lip_sync.run(
        *given, tmp_path / "l.mov", replace(LOSSLESS, codec="auto", layer="mov", erase="yes"), phonemes=phonemes()
    )
    with av.open(str(tmp_path / "l.mov")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        frame = next(container.decode(video=0))
        assert frame.format.name.startswith("yuva444")
        assert (frame.to_ndarray(format="rgba")[..., 3] > 250).mean() > 0.01  # the skin over the old mouth, too
    with pytest.raises(InputError, match=r"written as \.mov, not as l\.mp4|does not fit into '\.mp4'"):
        lip_sync.run(*given, tmp_path / "l.mp4", replace(LOSSLESS, codec="auto", layer="mov"))


def test_the_api_takes_mouths_and_gives_layers(tmp_path: Path, drawn: Path) -> None:
    service = make_service(service_config(tmp_path))
    client = client_of(service)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in BUNDLED.glob("[A-F].png"):
            archive.write(path, path.name)
    files = {
        "video_file": ("x.png", (drawn / "robot.png").read_bytes()),
        "audio_file": ("a.wav", (drawn / "speech.wav").read_bytes()),
        "sprites_file": ("../m.zip", packed.getvalue()),
    }
    asked = {"face": "mouth:180,270,112,30", "layer": "png"}
    answer = client.post("/v1/jobs", files=files, data=asked)
    assert answer.status_code == 202, answer.text
    job = service.take()
    assert job.request["options"]["engine"] == "sprites" and job.request["options"]["layer"] == "png"
    assert sorted(job.inputs) == ["audio", "sprites", "video"]
    files["sprites_file"] = ("m.zip", packed.getvalue()[:900])
    answer = client.post("/v1/jobs", files=files, data=asked)
    assert answer.status_code == 422 and "no folder and no .zip" in answer.json()["detail"]
    del files["sprites_file"]
    answer = client.post("/v1/jobs", files=files, data=asked | {"face": "box:1,2,3"})
    assert answer.status_code == 422 and "box:X,Y,W,H" in answer.json()["detail"]
