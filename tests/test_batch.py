"""A list of videos to make: what the table may look like, what is refused before any work, and what is made again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import app
from serving.cli.batch import Columns, read_rows
from tests import footage
from tests.tiny_weights import tiny_config
from utils.helpers import InputError

REPO = Path(__file__).resolve().parent.parent
COLUMNS = Columns(frozenset({"video", "audio", "text", "text_file", "lang", "output", "face"}), frozenset({"srt"}))


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "jobs.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_as_programs_write_them(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = ["# made by hand", "", "Video;text-file;OUTPUT;text", "# not now;b;c;d", ";;;"]
    lines += ['ä.png;;o.mp4;"one;\r\ntwo"', "b.mp4;t.txt"]
    path = table(tmp_path, "\r\n".join(lines).replace(";", separator), encoding)
    first, second = read_rows(path, COLUMNS)
    assert first.line == 6
    assert first.cells["video"] == "ä.png" and first.cells["text"] == f"one{separator}\r\ntwo"
    assert second.line == 8 and second.cells == {"video": "b.mp4", "text_file": "t.txt"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing to do"),
        ("video,output\n", "nothing to do"),
        ("video,colour\na,b\n", "line 1: the column 'colour' is not known"),
        ("video,,output\na,b,c\n", "line 1: the column '' is not known"),
        ("video,video\na,b\n", "'video' is there twice"),
        ("video,output\na,b\na,b,c\n", "line 3: there are 3 cells but only 2 columns"),
        ('video,output\n"a,b\n', "line 2: this is no table"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_rows(table(tmp_path, text), COLUMNS)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    footage.make_portrait(tmp_path / "portrait.png")
    footage.make_sound(tmp_path / "speech.wav", 0.4)
    return tmp_path


def batch(path: Path, config: Path, *more: str) -> int:
    return app.main(["--mode", "cli", f"--batch={path}", f"--config={config}", *more])


def test_rows_are_made_once_and_failures_do_not_stop_the_rest(
    folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(folder, tiny_weights)
    path = table(
        folder,
        "video,audio,text,lang,output,srt,voice\n"
        "none.png,speech.wav,,,failed.mp4,,\n"
        "portrait.png,speech.wav,,,out/one.mp4,no,\n"
        'portrait.png,,"Pam, hello.",en,two.mov,yes,espeak-male\n',
    )
    assert batch(path, config) == 1
    out = capsys.readouterr().out
    assert "3 rows: 2 done, 0 finished before, 1 failed" in out
    assert f"line 2, {folder / 'failed.mp4'}: There is no file" in out
    results = [folder / "out" / "one.mp4", folder / "two.mov"]
    made = [result.stat().st_mtime_ns for result in results]
    assert (folder / "two.srt").is_file() and not (folder / "failed.mp4").exists()

    shutil.copy(folder / "portrait.png", folder / "none.png")
    assert batch(path, config) == 0
    assert "1 done, 2 finished before, 0 failed" in capsys.readouterr().out
    assert [result.stat().st_mtime_ns for result in results] == made

    footage.make_sound(folder / "speech.wav", 0.6)  # two rows hear it
    assert batch(path, config) == 0
    assert "2 done, 1 finished before" in capsys.readouterr().out
    assert batch(path, config, "--crf=30") == 0  # an option that holds for all rows
    assert "3 done" in capsys.readouterr().out
    results[0].unlink()
    assert batch(path, config, "--crf=30") == 0
    assert "1 done, 2 finished before" in capsys.readouterr().out
    assert batch(path, config, "--crf=30", "--overwrite") == 0
    assert "3 done, 0 finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["portrait.png,speech.wav,,a.mp4,", "portrait.png,speech.wav,,./a.mp4,"], "Lines 2 and 3 both write"),
        (["portrait.png,speech.wav,,a.mp4,", "a.mp4,speech.wav,,b.mp4,"], "Line 2 would write"),
        (["portrait.png,,,a.mp4,"], "line 2: Nothing to speak"),
        (["portrait.png,speech.wav,,,"], "line 2: there is nothing in the column output"),
        (["portrait.png,speech.wav,,a.mp4,first"], "line 2: The face 'first' is not known"),
    ],
)
def test_what_the_rows_have_wrong_is_said_before_any_work(
    folder: Path, tiny_weights: Path, rows: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(folder, "\n".join(["video,audio,text,output,face", *rows]))
    config = tiny_config(folder, tiny_weights)
    before = sorted(folder.iterdir())
    assert batch(path, config) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_files_of_one_job_do_not_go_with_a_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(folder, "video,audio,output\nportrait.png,speech.wav,a.mp4\n")
    assert app.main(["--mode", "cli", f"--batch={path}", "--output=b.mp4"]) == 2
    assert "leave --output out" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_stopped_list_goes_on(folder: Path, tiny_weights: Path) -> None:
    config = tiny_config(folder, tiny_weights)
    footage.make_sound(folder / "long.wav", 60.0)
    path = table(
        folder, "video,audio,output\nportrait.png,speech.wav,first.mp4\nportrait.png,long.wav,results/second.mp4\n"
    )
    command = [sys.executable, "app.py", f"--batch={path}", f"--config={config}"]
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not any(folder.glob("results/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "the same command goes on" in err and "Traceback" not in err
    assert (folder / "first.mp4").is_file() and not any((folder / "results").iterdir())
    footage.make_sound(folder / "long.wav", 0.4)
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    assert "1 done, 1 finished before, 0 failed" in done.stdout


def test_a_list_replaces_only_what_it_has_made(
    folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(folder, tiny_weights)
    rows = "video,audio,output\nportrait.png,speech.wav,a.mp4\n"
    (folder / "a.mp4").write_text("somebody's")
    assert batch(table(folder, rows), config) == 2
    err = capsys.readouterr().err
    assert "Line 2" in err and "a.mp4 exists" in err and "--overwrite" in err and err.count("\n") == 1
    assert (folder / "a.mp4").read_text() == "somebody's"

    assert batch(table(folder, rows), config, "--overwrite") == 0
    assert batch(table(folder, rows), config, "--crf=30") == 0, "its own results are made anew"
    assert "1 done" in capsys.readouterr().out
    (folder / "a.mp4").write_text("edited since")
    assert batch(table(folder, rows), config, "--crf=31") == 2
    assert (folder / "a.mp4").read_text() == "edited since"
