"""The public engines through the whole pipeline, with small random networks in the published layouts and real files."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import app
import engines
from engines.base import Style
from engines.boxes import box_matrix, matrix_box
from engines.catalogue import ENTRIES
from engines.landmarks import brows_and_nose, sixty_eight
from faces.detector import FaceDetector, FaceMesh, roi_from_detection
from faces.usable import NO_FACE
from language_processor import SpokenText, Utterance
from pipeline import LipSyncPipeline, Options
from pipeline.engine_choice import check_offered, list_engines
from pipeline.speed import _frame, known_pace, measure_pace
from serving.cli.making import Maker, VideoJob
from tests import footage
from tests.conftest import REPO
from tests.public_weights import write_public_weights
from tests.test_planning import write
from tests.tiny_weights import tiny_config
from utils.config import Config, load_config
from utils.helpers import InputError, available_cores
from video_processor import VideoReader

CPU = torch.device("cpu")
PUBLIC = [name for name in ENTRIES if ENTRIES[name].files]
QUICK = Options(steps=1, guidance=1.0, codec="ffv1")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_public_weights(tmp_path_factory.mktemp("engine_weights"))


@pytest.fixture(scope="module")
def config(shelf: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tiny_config(tmp_path_factory.mktemp("config"), tiny_weights)
    return load_config(path, [f"inference.engine_weights={shelf}"])


@pytest.fixture(scope="module")
def lip_sync(config: Config) -> LipSyncPipeline:
    return LipSyncPipeline.load(config, CPU, engine="wav2lip")


def changed(before: Path, after: Path) -> list[np.ndarray]:
    """Of each frame where it differs by more than encoding explains."""
    with VideoReader(before) as a, VideoReader(after) as b:
        return [np.abs(x.image.astype(int) - y.image).max(-1) > 6 for x, y in zip(a, b, strict=False)]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_portrait_speaks_by_every_engine(name: str, lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    portrait, sound = footage.make_portrait(tmp_path / "p.png"), footage.make_sound(tmp_path / "s.wav", 0.08)
    summary = lip_sync.run(portrait, sound, tmp_path / "out.mkv", replace(QUICK, engine=name))
    assert summary.frames == summary.generated == 2
    with VideoReader(portrait) as before, VideoReader(summary.output) as after:
        old, new = next(iter(before)).image, next(iter(after)).image
    touched = np.abs(old.astype(int) - new).max(-1) > 25
    rows, columns = np.nonzero(touched)
    # The lower half of the face, and nothing else.
    assert 0.01 < touched.mean() < 0.15
    top, bottom, left, right = *np.percentile(rows, (5, 95)), *np.percentile(columns, (5, 95))
    assert 105 < top < 160 < bottom < 210 and 105 < left < 135 and 185 < right < 215


@pytest.mark.parametrize("name", ["latentsync-1.5", "musetalk-1.5", "wav2lip"])
def test_cut_no_face_and_odd_frame_rate(name: str, lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    face = [footage.face_frame(index / 25) for index in range(6)]
    none = [footage.faceless_frame(0.0)] * 6
    video = write(tmp_path / "video.mp4", [*face, *none, *[np.ascontiguousarray(image[:, ::-1]) for image in face]])
    sound = footage.make_sound(tmp_path / "s.wav", 1.0)
    summary = lip_sync.run(video, sound, tmp_path / "out.mkv", replace(QUICK, engine=name, fit="cut"))
    assert summary.passed_through == {NO_FACE: 6} and summary.generated == 12
    parts = [part.mean() for part in changed(video, summary.output)]
    assert min(parts[2:4]) > 0.003 and max(parts[6:12]) == 0 and min(parts[14:17]) > 0.003
    ntsc = footage.make_video(tmp_path / "ntsc.mp4", 0.2, fps=Fraction(30000, 1001))
    summary = lip_sync.run(ntsc, sound, tmp_path / "ntsc.mkv", replace(QUICK, engine=name, fit="cut"))
    with VideoReader(ntsc) as before, VideoReader(summary.output) as after:
        assert [frame.time for frame in after] == pytest.approx([frame.time for frame in before])
    assert summary.frames == summary.generated


def test_the_sound_moves_the_mouth_and_the_seed_decides(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    portrait = footage.make_portrait(tmp_path / "p.png")
    spoken, silent = footage.make_sound(tmp_path / "a.wav", 0.08), tmp_path / "b.wav"
    soundfile.write(silent, np.zeros(1280), 16000)

    def picture(sound: Path, name: str, **more: int) -> np.ndarray:
        options = replace(QUICK, engine=name, **more)
        with VideoReader(lip_sync.run(portrait, sound, tmp_path / "out.mkv", options).output) as reader:
            return np.stack([frame.image for frame in reader])

    for name in ("latentsync-1.5", "musetalk-1.5", "wav2lip"):
        first = picture(spoken, name)
        assert np.array_equal(first, picture(spoken, name))
        assert not np.array_equal(first, picture(silent, name))
    assert not np.array_equal(picture(spoken, "latentsync-1.5"), picture(spoken, "latentsync-1.5", seed=2))


@pytest.mark.parametrize("name", ["latentsync-1.5", "musetalk-1.5", "wav2lip"])
def test_a_frame_hears_the_sound_of_its_own_time(name: str, lip_sync: LipSyncPipeline) -> None:
    """The second frame of a window is drawn differently before a noise and in it, and alike when asked again."""
    lip_sync._choose(name)
    engine, noise = lip_sync.engine, np.random.default_rng(0).normal(0, 0.2, 16000)
    speech = engine.hear(np.concatenate([np.zeros(16000), noise]).astype(np.float32))

    def drawn(*seconds: float) -> np.ndarray:
        return engine.painter("anybody", speech, Style())([_frame(engine, time) for time in seconds])

    silent, heard, again = drawn(0.2, 0.2)[1], drawn(0.2, 1.5)[1], drawn(0.2, 1.5)[1]
    assert np.array_equal(heard, again) and np.abs(heard - silent).max() > 1e-3


@pytest.mark.parametrize("name", ["latentsync-1.5", "musetalk-1.5", "wav2lip"])
def test_it_can_be_stopped_within_a_second(name: str, lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    portrait, sound = footage.make_portrait(tmp_path / "p.png"), footage.make_sound(tmp_path / "s.wav", 20.0)
    options, asked = replace(QUICK, engine=name, steps=20), []

    def progress(done: int, total: int | None) -> None:
        if not asked and time.monotonic() > started + 2.0:
            asked.append(time.monotonic())
            raise Enough

    lip_sync._choose(name)
    started = time.monotonic()
    with pytest.raises(Enough):
        lip_sync.run(portrait, sound, tmp_path / "out.mkv", options, progress)
    assert time.monotonic() - asked[0] < 1.5  # a second, and what a busy machine adds
    assert not (tmp_path / "out.mkv").exists()


def test_missing_or_unaccepted_engines_say_how_to_get_them(
    lip_sync: LipSyncPipeline, shelf: Path, tmp_path: Path
) -> None:
    portrait, sound = footage.make_portrait(tmp_path / "p.png"), footage.make_sound(tmp_path / "s.wav", 0.2)
    with pytest.raises(InputError, match="There is no engine 'wav3lip'"):
        lip_sync.run(portrait, sound, tmp_path / "out.mkv", replace(QUICK, engine="wav3lip"))
    lip_sync._choose("wav2lip")  # one that is loaded already is not looked for again
    moved = (shelf / "wav2lip-256" / "wav2lip256.pth").rename(shelf / "aside")
    try:
        with pytest.raises(InputError, match="wav2lip-256 is not installed"):
            lip_sync.run(portrait, sound, tmp_path / "out.mkv", replace(QUICK, engine="wav2lip-256"))
        views = {view.name: view for view in list_engines(lip_sync._config.inference)}
        assert not views["wav2lip-256"].installed and views["wav2lip-384"].installed
    finally:
        moved.rename(shelf / "wav2lip-256" / "wav2lip256.pth")
    assert lip_sync.run(portrait, sound, tmp_path / "out.mkv", QUICK).generated == 5  # what was loaded still works


def test_from_python_with_the_name_and_the_folder_alone(shelf: Path, tmp_path: Path) -> None:
    portrait, sound = footage.make_portrait(tmp_path / "p.png"), footage.make_sound(tmp_path / "s.wav", 0.2)
    pipeline = LipSyncPipeline.load(engine="musetalk-1.5", weights=shelf)
    assert pipeline.run(portrait, sound, tmp_path / "out.mkv", QUICK).generated == 5
    with pytest.raises(InputError, match="wav2lip is not installed.*--get-engine wav2lip"):
        LipSyncPipeline.load(engine="wav2lip", weights=tmp_path)


def test_weights_of_another_size_are_told_apart(shelf: Path, config: Config, tmp_path: Path) -> None:
    (tmp_path / "wav2lip256.pth").write_bytes((shelf / "wav2lip" / "wav2lip.pth").read_bytes())
    from engines.catalogue import Shelf

    Shelf(tmp_path).accept("wav2lip-256")
    with pytest.raises(InputError, match="for 96 px, not for 256"):
        engines.load("wav2lip-256", config, CPU, tmp_path)


def test_command_line(
    config: Config, shelf: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = [f"--config={tiny_config(tmp_path, tiny_weights)}", f"--engine-weights={shelf}", "--device=cpu"]
    footage.make_portrait(tmp_path / "p.png")
    footage.make_sound(tmp_path / "s.wav", 0.2)
    table = tmp_path / "list.csv"
    table.write_text("video,audio,output,engine\np.png,s.wav,a.mp4,wav2lip\np.png,s.wav,b.mp4,musetalk-1.5\n")
    assert app.main(["--mode=cli", f"--batch={table}", *settings]) == 0
    assert (tmp_path / "a.mp4").is_file() and (tmp_path / "b.mp4").is_file()
    capsys.readouterr()
    assert app.main(["--mode=cli", "--get-engine=wav2lip", *settings]) == 0
    assert "no commercial use" in capsys.readouterr().out
    assert app.main(["--mode=cli", "--engine=latentsync-9", "--video=x", "--audio=y", "--output=z.mp4", *settings]) == 2
    assert "There is no engine 'latentsync-9'; use one of lite, " in capsys.readouterr().err


def test_list_of_engines(
    config: Config, shelf: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    only = tmp_path / "some"
    (only / "wav2lip").mkdir(parents=True)
    (only / "wav2lip" / "wav2lip.pth").write_bytes((shelf / "wav2lip" / "wav2lip.pth").read_bytes())
    settings = [f"--config={tiny_config(tmp_path, tiny_weights)}", f"--engine-weights={only}", "--device=cpu"]
    assert app.main(["--mode=cli", "--get-engine=wav2lip", "--accept-licence", *settings]) == 0
    capsys.readouterr()
    assert app.main(["--mode=cli", "--list-engines", *settings]) == 0
    listed, said = capsys.readouterr()
    assert "Measuring lite." in said and "Measuring wav2lip." in said
    assert "wav2lip: installed\n" in listed and "frames per second on this computer" in listed
    assert "latentsync-1.6: not installed (5.48 GB to download)" in listed
    assert "--get-engine latentsync-1.6" in listed and "18 GB of GPU memory" in listed
    assert app.main(["--mode=cli", "--list-engines", *settings]) == 0
    assert "Measuring" not in capsys.readouterr().err  # kept


def test_boxes_go_through_their_matrix() -> None:
    """As `cv2.resize` of the crop: the box's corner is the window's, pixels are areas."""
    box = (33.0, 22.0, 84.0, 107.0)
    matrix = box_matrix(box, 96)
    assert matrix_box(matrix, 96) == pytest.approx(box, abs=1e-3)
    assert matrix @ (32.5, 21.5, 1) == pytest.approx((-0.5, -0.5), abs=1e-4)
    assert matrix @ (83.5, 106.5, 1) == pytest.approx((95.5, 95.5), abs=1e-4)


def test_points_that_other_detectors_mark() -> None:
    """They move and turn with the face, and left is left."""
    folder = REPO / "pretrained" / "faces"
    image = footage.portrait()
    face = FaceDetector(folder).detect(image)[0]
    mesh, _ = FaceMesh(folder)(image, roi_from_detection(face))
    left, right, nose = brows_and_nose(mesh)
    eyes = mesh[[33, 263], :2]
    assert left[0] < nose[0] < right[0] and max(left[1], right[1]) < eyes[:, 1].min() < nose[1]
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    turned = mesh.copy()
    turned[:, :2] = 2 * mesh[:, :2] @ turn.T + (1000, 7)
    assert np.allclose(sixty_eight(turned), 2 * sixty_eight(mesh) @ turn.T + (1000, 7), atol=0.05)


def test_the_template_in_the_documents(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/engines.md shows an engine of some sixty lines; it draws, and its weights are read strictly."""
    source = (REPO / "docs" / "engines.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert 50 <= source.count("\n") <= 70
    (tmp_path / "my_engine.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import my_engine

    (tmp_path / "my_engine").mkdir()
    weights = tmp_path / "my_engine" / "network.pth"
    torch.save({"state_dict": my_engine.make_network().state_dict()}, weights)
    pipeline = LipSyncPipeline.load(config, CPU, engine="my_engine:MyEngine", weights=tmp_path)
    portrait, sound = footage.make_portrait(tmp_path / "p.png"), footage.make_sound(tmp_path / "s.wav", 0.4)
    assert pipeline.run(portrait, sound, tmp_path / "out.mkv", Options()).generated == 10
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict()}, weights)
    with pytest.raises(InputError, match="does not hold 0.bias"):
        LipSyncPipeline.load(config, CPU, engine="my_engine:MyEngine", weights=tmp_path)


def test_an_announced_engine_has_a_name(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("one-colour", "tests.one_colour:OneColour", engines.GROUP)
    monkeypatch.setattr(engines, "entry_points", lambda group: [point] if group == engines.GROUP else [])
    assert "one-colour" in engines.names()
    assert engines.load("one-colour", config, CPU, REPO).facts.name == "one-colour"
    check_offered("one-colour", config.inference)
    with pytest.raises(InputError, match="There is no engine 'tests.one_colour:OneColour'"):
        check_offered("tests.one_colour:OneColour", config.inference)  # a client's word loads no module


def test_the_time_is_said_before_the_work(
    config: Config, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """By the speed that was measured on this device; with the configured engine and with a text too."""
    portrait, sound = footage.make_portrait(tmp_path / "p.png"), footage.make_sound(tmp_path / "s.wav", 0.4)
    monkeypatch.setattr(LipSyncPipeline, "_say", lambda *_: Utterance(sound, ()))
    inference = config.inference.model_copy(update={"engine": "latentsync-1.5", "engine_weights": tmp_path / "shelf"})
    (tmp_path / "shelf").mkdir()
    for name in ("latentsync-1.5", "shared", "accepted_licences.json"):
        (tmp_path / "shelf" / name).symlink_to(shelf / name)
    slow = {"rest_s": 0.0, "pass_s": 60.0, "steps": 20, "guidance": 1.5}
    other = f"latentsync-1.5, {platform.node()}, {platform.machine()}, {available_cores()} cores, "
    (tmp_path / "shelf" / "measured_speed.json").write_text(json.dumps({f"{other}cpu": slow, f"{other}cuda": "?"}))
    maker, said = Maker(config.model_copy(update={"inference": inference}), "cpu", REPO / "pretrained"), []
    text = SpokenText("Yes.", "en", None, 1.0)
    job = VideoJob(portrait, None, tmp_path / "out.mkv", replace(QUICK, guidance=None), text, None)

    def progress(done: int, total: int | None) -> None:
        if done:
            said.append(capsys.readouterr().err)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maker.make(job, progress)
    assert "about 20 minutes on this computer" in said[0]  # 10 frames, a step of two passes each


def test_the_speed_is_measured_in_about_two_seconds_and_kept(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    lip_sync._choose("latentsync-1.5")
    started = time.process_time()
    pace = measure_pace(lip_sync.engine, tmp_path)
    assert time.process_time() - started < 12.0 and pace.rest_s > 0 and pace.pass_s > 0
    assert pace.seconds(40, 1.0) == pytest.approx(pace.seconds(20)) == pytest.approx(1 / pace.fps)
    assert known_pace("latentsync-1.5", tmp_path, "cpu") == known_pace("latentsync-1.5", tmp_path) == pace
    assert known_pace("latentsync-1.5", tmp_path, "cuda") is None and known_pace("wav2lip", tmp_path) is None
