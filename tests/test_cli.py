"""The command line as a user meets it: help, bad input in one sentence, exit codes, progress, nothing left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import app
from pipeline import Summary
from pipeline.options import Options
from serving.cli import command as cli
from serving.cli import making
from tests import footage
from tests.tiny_weights import tiny_config
from video_processor import probe_video

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad inputs. The video has no face: nothing here gets as far as looking for one."""
    folder = tmp_path_factory.mktemp("inputs")
    footage.make_video(folder / "video.mp4", 0.4, size=(64, 64))
    footage.make_video(folder / "faceless.mp4", 0.6, size=(96, 96), faceless=(0, 9))
    footage.make_sound(folder / "speech.wav", 0.4)
    for kind in ("empty", "text", "no sound", "zero length", "no index", "broken off"):
        footage.bad_file(kind, folder)
    (folder / "file").write_text("no folder")
    return folder


def run(folder: Path, *more: str, video: str = "video.mp4", audio: str = "speech.wav", output: str = "out.mp4") -> int:
    files = [f"--{name}={folder / value}" for name, value in (("video", video), ("audio", audio), ("output", output))]
    return app.main(["--mode", "cli", *files, *more])


BAD = {
    "missing video": ({"video": "nothing.mp4"}, "no file"),
    "text as video": ({"video": "text.mp4"}, "no video or sound"),
    "truncated video": ({"video": "no_index.mp4"}, "cut off"),
    "truncated video with its index first": ({"video": "broken.mp4"}, "cut off"),
    "empty video": ({"video": "empty.mp4"}, "empty"),
    "sound as video": ({"video": "speech.wav"}, "no video stream"),
    "folder as video": ({"video": "."}, "folder"),
    "missing audio": ({"audio": "nothing.wav"}, "no file"),
    "text as audio": ({"audio": "text.mp4"}, "no video or sound"),
    "audio without a sound stream": ({"audio": "mute.mp4"}, "no sound stream"),
    "audio of zero length": ({"audio": "zero.wav"}, "zero length"),
    "output below a file": ({"output": "file/out.mp4"}, "Cannot write"),
    "output is the video": ({"output": "video.mp4"}, "also an input"),
    "output is a folder": ({"output": "."}, "is a folder"),
    "output of unknown kind": ({"output": "out.txt"}, "Cannot write '.txt'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(case: str, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, expected = BAD[case]
    before = {path: path.stat().st_mtime_ns for path in inputs.iterdir()}

    assert run(inputs, **options) == 2

    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and re.search(expected, lines[0])
    assert "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in inputs.iterdir()} == before


def test_an_existing_output_is_replaced_only_when_asked_for(
    inputs: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, old, link = tiny_config(tmp_path, tiny_weights), tmp_path / "old.mp4", tmp_path / "link.mp4"
    old.write_text("old")
    link.symlink_to(old)

    assert run(inputs, f"--config={config}", output=str(old)) == 2
    assert capsys.readouterr().err.strip() == (
        f"error: The file {old} exists; give another output, or --overwrite to replace it."
    )
    assert run(inputs, f"--config={config}", output=str(link)) == 2
    assert old.read_text() == "old"

    portrait = str(REPO / "examples" / "smile.png")
    assert run(inputs, f"--config={config}", "--overwrite", "--steps=1", video=portrait, output=str(link)) == 0
    assert link.is_symlink() and probe_video(old).width > 0


@pytest.mark.parametrize(("answer", "code", "sentence"), [("y", 2, "No face"), ("", 2, "exists")])
def test_a_terminal_is_asked_before_a_file_is_replaced(
    answer: str, code: int, sentence: str, inputs: Path, tiny_weights: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "old.mp4").write_text("old")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)

    config = tiny_config(tmp_path, tiny_weights)
    assert run(inputs, f"--config={config}", video="faceless.mp4", output=str(tmp_path / "old.mp4")) == code
    assert sentence in capsys.readouterr().err and (tmp_path / "old.mp4").read_text() == "old"


@pytest.mark.parametrize("piped", ["video", "audio"])
def test_standard_input_and_names_that_begin_with_a_dash(
    piped: str, inputs: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, tiny_weights)
    given = {"video": REPO / "examples" / "smile.png", "audio": inputs / "speech.wav"}
    other = "audio" if piped == "video" else "video"
    (tmp_path / "-other").write_bytes(given[other].read_bytes())
    command = [sys.executable, str(REPO / "app.py"), f"--{piped}", "-", f"--{other}", "-other", "--output", "-out.mp4"]
    with given[piped].open("rb") as stream:
        done = subprocess.run(
            [*command, "--config", str(config), "--steps=1"], cwd=tmp_path, stdin=stream, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert probe_video(tmp_path / "-out.mp4").width > 0


def test_standard_input_cannot_be_both(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--video", "-", "--audio", "-", "--output", str(inputs / "out.mp4")]) == 2
    assert "not both" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--video", "--audio"])
def test_an_address_is_answered_with_a_sentence(option: str, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(inputs, option, "https://example.com/a.mp4") == 2
    err = capsys.readouterr().err.strip()
    assert "https://example.com/a.mp4 is an address, not a file; download it" in err and "\n" not in err


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--face=nose", "largest, left, right"),
        ("--steps=0", "steps must be 1"),
        ("--crf=99", "crf must be 0 to 51"),
        ("--seed=-1", "seed must be 0 to"),
        ("--guidance=-1", "guidance must be 0"),
        ("--codec=ffv1", "name the output .mkv"),
        ("--config=nothing.yaml", "nothing.yaml"),
        ("--device=abacus", "abacus"),
        ("--weights=nowhere", "nowhere"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(
    option: str, expected: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(inputs, option) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ") and expected in err and "\n" not in err


def test_a_video_without_a_face_anywhere_is_bad_input(
    inputs: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path, tiny_weights)
    before = sorted(inputs.iterdir())
    assert run(inputs, f"--config={config}", video="faceless.mp4") == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert err.startswith("error: No face can be used") and "without a face" in err
    assert sorted(inputs.iterdir()) == before


@pytest.mark.parametrize("arguments", [[], ["--video", "a.mp4"], ["--fit", "stretch"], ["--nonsense"]])
def test_wrong_usage_ends_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["--mode", "cli", *arguments])
    assert ended.value.code == 2
    assert "usage: python app.py" in capsys.readouterr().err


def test_help_shows_every_option_its_default_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for option in ("video", "audio", "output", "steps", "guidance", "seed", "device", "fit", "face", "codec", "crf"):
        assert f"--{option}" in text
    assert text.count("(default:") >= 10
    assert "examples:" in text and "portrait.png" in text


def test_an_unexpected_error_is_a_sentence_with_a_hint(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the moon fell down")

    monkeypatch.setattr(making, "check_inputs", broken)
    assert run(inputs) == 1
    err = capsys.readouterr().err
    assert "the moon fell down" in err and "--debug" in err and "Traceback" not in err
    assert run(inputs, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_progress_lines_tell_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with cli.Progress(clock=lambda: now[0]) as progress:
        for done in range(1, 201):
            now[0] += 0.125
            progress(done, 200)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # one every ten seconds, and the last
    assert lines[0] == "frame 80 of 200, 8.0 frames/s, 15 s left"


def test_the_summary_names_what_was_left_unchanged() -> None:
    left = {"turned_away": 7, "covered": 3}
    notes = ("The video is interlaced: it was deinterlaced.",)
    text = cli.describe(Summary(Path("out.mp4"), 100, 90, left, 20.0, {"decode": 1.5, "generate": 12.0}, notes=notes))
    assert notes[0] in text
    assert "out.mp4" in text and "90 with a new mouth" in text
    assert "10 of 100 frames left as they were: 7 turned away, 3 covered." in text
    assert "5.0 frames per second" in text and "generate 12.0" in text


def test_unset_options_come_from_the_configuration(tmp_path: Path) -> None:
    arguments = ["--video=a", "--audio=b", "--output=c", "--crf=20"]
    config = cli.load_config(cli.CONFIG)
    options = cli._options(cli.build_parser(config.inference).parse_args(arguments), config)
    # Steps and guidance are the engine's to choose.
    assert options == Options(engine="lite", seed=config.inference.seed, crf=20)


def test_help_and_refusals_do_not_load_the_large_libraries(tmp_path: Path) -> None:
    script = (
        "import sys, app\n"
        "try:\n    app.main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers')))"
    )
    for arguments in (["--help"], ["--video", "none.mp4", "--audio", "none.wav", "--output", str(tmp_path / "o.mp4")]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=REPO, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_subtitles_do_not_overwrite_the_text(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "said.srt"
    text.write_text("Hello.")
    files = [f"--video={inputs / 'video.mp4'}", f"--text-file={text}", f"--output={tmp_path / 'said.mp4'}"]
    assert app.main(["--mode", "cli", *files, "--srt"]) == 2
    assert "overwrite the text file" in capsys.readouterr().err and text.read_text() == "Hello."
