"""The web page: consent, names in the history, the same inputs again, voices, what was done, and what goes wrong."""

from __future__ import annotations

import ast
import errno
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")

from faces.detector import FaceDetector  # noqa: E402
from faces.usable import REASONS  # noqa: E402
from pipeline.adaptation import AdaptationReport  # noqa: E402
from pipeline.job import Summary  # noqa: E402
from serving.http.speech import Speaker  # noqa: E402
from serving.jobs.jobs import JobService  # noqa: E402
from serving.jobs.limits import kept_bytes  # noqa: E402
from serving.jobs.runner import _told  # noqa: E402
from serving.page.files import PageFiles  # noqa: E402
from serving.page.page import Page  # noqa: E402
from serving.page.said import told  # noqa: E402
from tests import footage  # noqa: E402
from tests.pages import ANNA, CHINESE, ENGLISH, load, look, make_inputs, make_page, shown_files, submit  # noqa: E402
from tests.service import REPO, make_service, result_file, service_config  # noqa: E402


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def files(service: JobService) -> PageFiles:
    return PageFiles(service, [REPO / "examples" / "portrait.jpg"])


@pytest.fixture(scope="module")
def loaded() -> tuple[Speaker, FaceDetector]:
    return load()


@pytest.fixture
def page(service: JobService, files: PageFiles, loaded: tuple[Speaker, FaceDetector]) -> Page:
    return make_page(service, files, loaded)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("media"))


def upload(files: PageFiles, path: Path, name: str, owner: str = "local") -> str:
    """As `serving/page/uploads.py` leaves it."""
    target = files.new_folder(owner) / f"upload{path.suffix}"
    target.write_bytes(path.read_bytes())
    files.note_name(target, name)
    return str(target)


def test_without_consent_nothing_is_made(page: Page, service: JobService, media: Path) -> None:
    for request, said in ((ENGLISH, "Tick first"), (CHINESE, "请先勾选")):
        with pytest.raises(gr.Error, match=said):
            submit(page, media, request, consent=False)
    assert service.take() is None


def test_the_history_tells_jobs_apart(page: Page, files: PageFiles, media: Path) -> None:
    anna = upload(files, media / "portrait.png", "C:\\pictures\\anna\n at the sea in summer.png")
    said = upload(files, media / "speech.wav", "greeting.wav")
    first = submit(page, media, portrait=anna, sound=said)
    second = submit(page, media, portrait=str(REPO / "examples" / "portrait.jpg"), what="text", text="Good  morning!")
    history = page.look(second, [], [second, first], ENGLISH)[7]
    assert [name for name, _ in history.choices] == [
        "“Good morning!” · portrait.jpg · waiting · just now",
        "greeting.wav · anna at the sea in… · waiting · just now",
    ]


def test_the_same_inputs_can_be_used_again_after_coming_back(
    page: Page, service: JobService, files: PageFiles, media: Path
) -> None:
    given = {"portrait": upload(files, media / "two.png", "two.png", "anna"), "face": "index:1", "speed": 1.5}
    given |= {"sound": upload(files, media / "speech.wav", "hello.wav", "anna"), "steps": 7}
    job_id = submit(page, media, ANNA, **given)
    for path in (given["portrait"], given["sound"]):
        Path(path).unlink()  # after a day
    wish = page.again(job_id, ANNA)
    assert (wish.who, wish.what, wish.face, wish.steps, wish.speed) == ("portrait", "sound", "index:1", 7, 1.5)
    assert Path(wish.portrait).read_bytes() == (media / "two.png").read_bytes()
    assert Path(wish.sound).read_bytes() == (media / "speech.wav").read_bytes()
    assert files.usable(wish.portrait, "anna") is not None and files.usable(wish.portrait, "local") is None
    _, _, choice, _ = page.faces("portrait", wish.portrait, None, [wish.portrait, wish.face], ANNA)
    assert choice.value == "index:1"  # who was chosen speaks again
    assert page.faces("portrait", str(media / "two.png"), None, [wish.portrait, wish.face], ANNA)[2].value == "largest"
    second = submit(page, media, ANNA, portrait=wish.portrait, sound=wish.sound)
    assert "hello.wav · two.png" in page.look(second, [], [second], ANNA)[7].choices[0][0]
    for other in (ENGLISH, CHINESE):
        assert page.again(job_id, other) is None  # somebody else's
    page.cancel(job_id, ANNA)
    assert page.again(job_id, ANNA) is None
    spoken = submit(page, media, what="text", text="Bonjour !", lang="fr", voice="fr/espeak-male")
    wish = page.again(spoken, ENGLISH)
    assert (wish.what, wish.sound, wish.text, wish.lang, wish.voice) == (
        "text",
        None,
        "Bonjour !",
        "fr",
        "fr/espeak-male",
    )


def test_a_finished_video_can_be_deleted(page: Page, service: JobService, files: PageFiles, media: Path) -> None:
    job_id = submit(page, media)
    service.complete(service.take(), result_file(service), {"frames": 1, "seconds": 1.0})
    assert shown_files(look(page, job_id).pictures)
    page.cancel(job_id, ANNA)
    assert service.store.get(job_id) is not None
    page.cancel(job_id, ENGLISH)
    assert service.store.get(job_id) is None and not list(files.folder.iterdir())
    assert "no longer known" in look(page, job_id).status


def test_a_voice_can_be_chosen_while_the_language_is_recognised(
    page: Page, service: JobService, media: Path
) -> None:
    offered = dict(page.voices("auto", CHINESE).choices)
    assert offered["女声（espeak-female） · 德语"] == "de/espeak-female" and len(offered) > 200
    assert "female (espeak-female) · German" in dict(page.voices("auto", ENGLISH).choices)
    assert [value for _, value in page.voices("de", ENGLISH).choices] == ["", "de/espeak-female", "de/espeak-male"]
    job = service.store.get(submit(page, media, what="text", text="Taxi", voice="de/espeak-male"))
    assert (job.request["lang"], job.request["voice"], job.request["language"]) == ("de", "espeak-male", "de")
    job = service.store.get(submit(page, media, what="text", text="Taxi", lang="fr", voice="fr/espeak-male"))
    assert (job.request["lang"], job.request["voice"]) == ("fr", "espeak-male")


def test_the_sound_of_a_video_is_taken(page: Page, service: JobService, media: Path, tmp_path: Path) -> None:
    footage.make_video(tmp_path / "talk.mp4", 0.4)
    video = str(tmp_path / "talk.mp4")
    assert page.sound_of(video, ENGLISH) == video and page.sound_of(None, ENGLISH) is None
    assert "audio" in service.store.get(submit(page, media, sound=video)).inputs
    for path, request, said in (
        ("faceless.mp4", ENGLISH, "has no sound"),
        ("faceless.mp4", CHINESE, "这个视频没有声音"),
        ("text.mp4", CHINESE, "不是能读的文件"),
    ):
        with pytest.raises(gr.Error, match=said) as refused:
            page.sound_of(str(media / path), request)
        assert str(media) not in refused.value.message


def test_what_was_done_is_told_in_both_languages(page: Page, service: JobService, media: Path) -> None:
    left = {reason: 1 + i for i, reason in enumerate(REASONS)}
    made = Summary(
        output=Path("output.mp4"),
        frames=100,
        generated=100 - sum(left.values()),
        passed_through=left,
        seconds=8.0,
        adaptation=AdaptationReport(seconds=3.0, skipped="the video has no sound of its own"),
        notes=("The video is interlaced: it was deinterlaced (x), one frame for each.", "Transparency was ignored."),
    )
    job_id = submit(page, media)
    service.complete(service.take(), result_file(service), _told(made))
    english, chinese = (look(page, job_id, request).pictures for request in (ENGLISH, CHINESE))
    assert f"{sum(left.values())} of 100 pictures were left as they were: 1 without a face, 2 with a" in english
    assert "Transparency was ignored." in english and "no sound of its own" in english and "about 8 s" in english
    assert f"100 帧里有 {sum(left.values())} 帧保持原样：1 帧没有人脸、2 帧人脸太小、" in chinese
    assert "透明部分没有保留" in chinese and "视频是隔行扫描的" in chinese and "用时大约 8 秒" in chinese
    assert "英文" not in chinese
    job_id = submit(page, media)
    service.complete(service.take(), result_file(service), _told(Summary(Path("x"), 5, 5, {}, 1.0)))
    assert "Every picture has a new mouth." in look(page, job_id).pictures


@pytest.mark.parametrize(
    ("fault", "english", "chinese"),
    [
        (sqlite3.OperationalError("unable to open"), "The job queue does not answer", "任务队列没有回应"),
        (OSError(errno.ENOSPC, "No space left"), "not enough disk space", "磁盘空间不够"),
        (RuntimeError("/secret/path"), "Something went wrong inside", "服务器内部出错"),
    ],
)
def test_no_button_is_silent(
    page: Page,
    service: JobService,
    media: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    english: str,
    chinese: str,
) -> None:
    job_id = submit(page, media)

    def broken(*_: Any, **__: Any) -> None:
        raise fault

    for name in ("get", "find", "count", "add", "change"):
        monkeypatch.setattr(service.store, name, broken)
    monkeypatch.setattr(page.files, "new_folder", broken)
    for request, said in ((ENGLISH, english), (CHINESE, chinese)):
        for press in (
            lambda request=request: submit(page, media, request),
            lambda request=request: page.cancel(job_id, request),
            lambda request=request: page.again(job_id, request),
            lambda request=request: page.recall([job_id], request),
            lambda request=request: page.faces("portrait", str(media / "portrait.png"), None, [], request),
        ):
            with pytest.raises(gr.Error) as refused:
                press()
            assert said in refused.value.message and "secret" not in refused.value.message
    if isinstance(fault, service.store.faults):  # what looks by itself says so where the result stands, and looks again
        seen = look(page, job_id, CHINESE)
        assert "任务队列没有回应" in seen.status and seen.clock.active and seen.section.visible


def test_what_lies_on_the_page_counts_against_the_quota_once(
    page: Page, service: JobService, files: PageFiles, media: Path
) -> None:
    portrait = upload(files, media / "portrait.png", "a.png", "anna")
    before = kept_bytes(service.config, service.store, "anna")
    assert before >= Path(portrait).stat().st_size
    job_id = submit(page, media, ANNA, portrait=portrait, sound=upload(files, media / "speech.wav", "b.wav", "anna"))
    service.complete(service.take(), result_file(service, b"0" * 1000), {"frames": 1, "seconds": 1.0})
    for folder in files.uploads.glob("*/*"):
        for path in folder.iterdir():
            path.unlink()  # after a day; for the result's sake they are still there, and count
    kept = kept_bytes(service.config, service.store, "anna")
    assert kept >= before + 1000
    page.cancel(job_id, ANNA)
    assert kept_bytes(service.config, service.store, "anna") == 0


# ---- sentences of the program ----

ROOMS = ("pipeline", "video", "faces", "voices", "serving/page")
FILES = (
    *(f"serving/http/{name}.py" for name in ("crowd", "intake", "uploads")),
    *(f"serving/jobs/{name}.py" for name in ("jobs", "limits", "worker", "runner", "runner_process", "provenance")),
    *("serving/problems.py", "engines/published.py", "language_processor.py", "audio_processor.py"),
    *(f"utils/{name}.py" for name in ("media", "sound_track", "disk")),
)
"""Whose sentences may come to be read on the page: refusals, failures and notes."""
OTHER_DOORS = (
    *(f"pipeline/{name}" for name in ("host", "live", "session", "studio", "face_list", "layer", "old_sound")),
    *(f"pipeline/tracks/{name}" for name in ("avatar", "capture", "formats", "gltf", "maker", "options")),
    *(f"video/{name}" for name in ("broadcast", "fragments", "loops", "sequence", "transparency")),
    *(f"serving/page/{name}" for name in ("gradio_words", "said", "texts")),
    *("faces/sprites.py", "faces/mouth_shape.py", "pipeline/tracks/arkit"),
)
"""What the page does not offer: hosts, layers, avatars, own mouths and weights; its own words are checked elsewhere."""
NOT_HERE = (
    "is a folder; give",  # files are sent, not named
    "is not a regular file",
    "is an address, not a file",
    "There is no file",
    "may not be read",
    "The output ",
    "Cannot write",
    "Unknown ",  # chosen from a list
    "The size '7'",
    "Lossless video",
    "ProRes does not fit",
    "WebM cannot hold",
    "A layer ",
    "A host needs",
    "sprites_file",
    "to the person of",
    "send files by address",  # fields as JSON
    "The body ",
    "This Idempotency-Key",
    "Give a video with a face",  # the page says so itself
    "Give a sound file",
    "frames left as they were",
    "made without a LanguageProcessor",  # faults of whoever writes programs
    "Open http://",  # on the terminal
)


def sentences() -> list[tuple[str, str]]:
    """What is raised or noted anywhere there, with an example in each gap: every text that looks like a sentence."""
    paths = [path for room in ROOMS for path in (REPO / room).rglob("*.py")] + [REPO / name for name in FILES]
    found = []
    for path in sorted(paths):
        where = path.relative_to(REPO).as_posix()
        if not where.startswith(OTHER_DOORS):
            found += [(where, text) for text in _said(ast.parse(path.read_text(encoding="utf-8")))]
    return [(where, text) for where, text in found if not any(word in text for word in NOT_HERE)]


def _said(tree: ast.Module) -> list[str]:
    """Sentences of a file, without what describes the program."""
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    silent |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = [_text(node) for node in ast.walk(tree) if id(node) not in silent]
    return [text for text in texts if text is not None and re.match(r"[A-Z7]\S* .* .*[.]$|[A-Z7].* .*; ", text)]


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "7" for part in node.values)
    return None


def test_sentences_that_can_reach_the_page_are_known_in_chinese() -> None:
    found = sentences()
    assert len(found) > 100
    assert not [f"{where}: {text}" for where, text in found if told(text, "zh").startswith("程序的说明")]
    assert all(told(text, "en").rstrip(".") for _, text in found)
    assert told("A word that nobody has translated.", "zh").startswith("程序的说明")


def test_files_are_called_what_the_page_calls_them() -> None:
    sentence = "No face can be used anywhere in the video (frames: 3 turned away, 2 covered); give a video or picture "
    sentence += "that shows a face from the front, choose another one with face, or lower min_confidence."
    assert "min_confidence" not in told(sentence, "en") and "or choose another face." in told(sentence, "en")
    assert "帧数：3 转过脸, 2 被遮住" in told(sentence, "zh")
    spoken = "The text is spoken as Portuguese, by its words (93% sure)."
    assert told(spoken, "zh") == "文字用葡萄牙语朗读（由词语判断，把握 93%）。"
    assert told("The sound of audio_file has zero length; x", "en") == "The sound has zero length; x"
    assert told("The colours of video are stored as x.", "en").startswith("The colours of the portrait or video are")
