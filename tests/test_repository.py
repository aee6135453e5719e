"""The promises that the repository as a whole makes: documented commands exist, files are small and portable."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from data.preprocess import face_tracker
from faces.alignment import eye_distance
from faces.mouth_shape import SHAPE_POINTS, mouth_opening
from utils.config import load_config
from video_processor import VideoReader

REPO = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh.md")
MAX_FILE_MB = 1.0
MAX_PRETRAINED_MB = 60.0
PATIENCE_S = 300  # loading the libraries takes seconds, on a busy machine minutes

# Paths that exist on one machine only: home folders, and roots that no documentation needs.
MACHINE_PATH = re.compile(r"(?<![\w./-])(?:/home/\w+|/root/|/Users/\w+|/work/|/workspace/|/mnt/\w+|[A-Z]:\\Users)")


def tracked_files() -> list[Path]:
    """Files in git, that are also on disk; skips the test in a copy without git."""
    if not (REPO / ".git").exists():
        pytest.skip("this copy is no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True)
    return [REPO / name for name in listed.stdout.split("\0") if name and (REPO / name).is_file()]


def documented_commands(readme: str) -> list[list[str]]:
    """Every `python SCRIPT ...` line in the code blocks of a README, split into words."""
    blocks = re.findall(r"```bash\n(.*?)```", (REPO / readme).read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words for words in commands if words and Path(words[0]).name == "python" and words[1].endswith(".py")]


def documented_scripts() -> list[str]:
    """The scripts that a README asks to run."""
    return sorted({words[1] for readme in READMES for words in documented_commands(readme)})


def run_help(script: str, *arguments: str) -> str:
    """Output of `python script --help`, run as a user would from the repository's folder."""
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, script, *arguments, "--help"],
        cwd=REPO,
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def known_options(script: str, mode: str | None) -> frozenset[str]:
    """The options that a program's help lists; each mode of app.py has its own."""
    return frozenset(re.findall(r"--[\w-]+", run_help(script, *(("--mode", mode) if mode else ()))))


def test_the_readmes_name_the_programs() -> None:
    assert {"app.py", "trainer.py", "data/preprocess.py"} <= set(documented_scripts())


@pytest.mark.parametrize("script", documented_scripts())
def test_documented_options_exist(script: str) -> None:
    for readme in READMES:
        for words in documented_commands(readme):
            if words[1] != script:
                continue
            mode = words[words.index("--mode") + 1] if "--mode" in words else None
            used = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
            assert used <= {"--mode", *known_options(script, mode)}, f"{readme}: {shlex.join(words)}"


def test_documented_stages_are_the_trainers() -> None:
    help_text = run_help("trainer.py")
    for readme in READMES:
        commands = [words for words in documented_commands(readme) if words[1] == "trainer.py"]
        stages = [words[words.index("--stage") + 1] for words in commands]
        assert stages == ["autoencoder", "syncnet", "syncnet_judge", "speech", "generator"]
        assert all(stage in help_text for stage in stages)


def test_both_readmes_give_the_same_commands() -> None:
    assert documented_commands("README.md") == documented_commands("README.zh.md")


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench", "train-lite"])
def test_make_targets_use_existing_scripts(target: str) -> None:
    try:
        planned = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True, timeout=PATIENCE_S)
    except FileNotFoundError:
        pytest.skip("make is not installed")
    assert planned.returncode == 0, planned.stderr
    scripts = set(re.findall(r"(?<=\s)[\w/]+\.py\b", planned.stdout))
    assert all((REPO / script).is_file() for script in scripts), scripts


@pytest.mark.parametrize("document", [*READMES, "examples/README.md", "pretrained/MODEL_CARD.md"])
def test_links_lead_to_files(document: str) -> None:
    text = (REPO / document).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    missing = [target for target in targets if not ((REPO / document).parent / target).exists()]
    assert not missing


def test_the_configuration_loads_and_its_folders_are_relative() -> None:
    config = load_config(REPO / "model_config.yaml")
    for folder in (config.data.processed_dir, config.inference.weights_dir, config.faces.models_dir):
        assert not Path(folder).is_absolute()


def test_files_outside_pretrained_are_small() -> None:
    sizes = {file.relative_to(REPO): file.stat().st_size / 1e6 for file in tracked_files()}
    large = {str(name): size for name, size in sizes.items() if name.parts[0] != "pretrained" and size > MAX_FILE_MB}
    assert not large


def test_pretrained_is_small_and_licensed() -> None:
    files = [file for file in tracked_files() if file.relative_to(REPO).parts[0] == "pretrained"]
    assert sum(file.stat().st_size for file in files) / 1e6 < MAX_PRETRAINED_MB
    for folder in ("", "faces", "whisper_tiny_en_encoder"):
        assert (REPO / "pretrained" / folder / "LICENSE").is_file()


def test_no_file_names_one_machine() -> None:
    found = []
    for file in tracked_files():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures, sound, weights
        if file != Path(__file__).resolve():
            found += [f"{file.relative_to(REPO)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert not found


def test_requirements_are_pinned_once_for_every_python() -> None:
    lines = (REPO / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r'[\w-]+==[\w.]+(; python_version (<|>=) "3\.11")?', line) for line in requirements)
    names = [line.split("==")[0] for line in requirements]
    for name in set(names):
        markers = sorted(line.partition("; ")[2] for line in requirements if line.startswith(f"{name}=="))
        assert markers in ([""], ['python_version < "3.11"', 'python_version >= "3.11"']), name


def test_the_example_can_be_used(example_portrait: Path, example_speech: Path) -> None:
    """The portrait of the demo shows a large face with closed lips; the one of the tests a small one that smiles."""
    faces = []
    for picture in (REPO / "examples" / "portrait.jpg", example_portrait):
        config = load_config(REPO / "model_config.yaml")
        with VideoReader(picture) as reader:
            faces.append(next(face_tracker(config).follow(reader)).points)
    distances = [eye_distance(points) for points in faces]
    assert distances[0] > 75 and distances[1] < 50
    closed, smiling = (mouth_opening(points[None, SHAPE_POINTS, :2])[0] / eye_distance(points) for points in faces)
    assert closed < 0.06 < smiling
    with wave.open(str(example_speech)) as speech:
        seconds = speech.getnframes() / speech.getframerate()
        assert speech.getnchannels() == 1 and speech.getframerate() == 24000
    assert 5 < seconds < 8
