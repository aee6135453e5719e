"""The rooms of the house and what each may import, checked from the source, docs/design.md in short.

Nothing is run: what is read is every `import` of every Python file outside of tests/, also those within functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.conftest import REPO

LONGEST_FILE, LONGEST_FUNCTION = 450, 40
DOORS = {"app", "trainer", "evaluate"}
SIDE = {"benchmarks", "examples", "tools"}  # programs beside the house: they may look into every room
FLOOR = {"utils"}
SENSES = FLOOR | {"models", "faces"}
FILES = {"audio_processor", "video_processor"}
MAY_IMPORT: dict[str, set[str]] = {
    "utils": set(),
    "video": FLOOR,
    "audio_processor": FLOOR,
    "video_processor": FLOOR | {"video"},
    "models": FLOOR,
    "faces": FLOOR,
    "voices": FLOOR | {"models"},
    "language_processor": FLOOR | {"models", "voices", "audio_processor"},
    "latent_diffusion": SENSES,
    "engines": SENSES | {"latent_diffusion"},
    "pipeline": SENSES | FILES | {"engines", "voices", "language_processor"},
    "data": SENSES | FILES | {"voices", "language_processor", "latent_diffusion"},
    "training": SENSES | {"data", "voices", "latent_diffusion"},
    "evaluation": SENSES | FILES | {"data", "training", "engines", "pipeline", "voices", "language_processor"},
    "serving": FLOOR,
    "serving.cli": FLOOR | {"pipeline", "language_processor", "voices", "serving"},
    "serving.jobs": FLOOR | {"pipeline", "language_processor", "serving"},
    "serving.http": FLOOR | {"pipeline", "language_processor", "serving", "serving.jobs"},
    "serving.page": FLOOR | {"pipeline", "faces", "video_processor", "serving", "serving.jobs", "serving.http"},
    "serving.live": FLOOR
    | {"pipeline", "language_processor", "voices", "video_processor", "serving", "serving.jobs", "serving.http"},
    "app": FLOOR | {"serving.live", "serving.cli", "serving.page", "serving.http", "serving.jobs"},
    "trainer": FLOOR | {"models", "training"},
    "evaluate": FLOOR | {"evaluation"},
}
"""Room -> rooms that it may import. A file or folder of the top level that is not named here is a fault."""

GENERATORS = ("latent_diffusion", "engines.")
NO_GENERATORS = ("engines.base", "engines.load", "engines.catalogue", "engines.download")
KNOW_GENERATORS = {"engines", "latent_diffusion", "training", "data", "evaluation", "tools", "benchmarks"}
"""Who draws, who trains what draws, and who measures it. Everybody else asks `engines.load` and `engines.base`."""

FILE_LIBRARIES = {"av", "soundfile", "wave"}
NETWORKS = ("torch", "diffusers", "transformers", "engines.lite", "latent_diffusion", "pipeline.lip_sync")
LOADERS = {"serving/jobs/runner.py", "serving/cli/making.py", "serving/live/loading.py"}
"""Files of serving/ that load the networks, when the first job comes: the runner's process, the command
line, and before it listens the live server."""
LISTENERS = ("serving.page.web", "serving.http.server", "serving.jobs.worker")
"""Processes that must stay small."""


@cache
def house() -> dict[str, str]:
    """Path in the repository -> source of all Python files that are the program."""
    files = (path for path in REPO.rglob("*.py") if not any(part.startswith(".") for part in path.parts))
    named = {path.relative_to(REPO).as_posix(): path for path in files}
    aside = ("tests/", "outputs/", "runs/", "venv/", "build/")
    return {name: path.read_text(encoding="utf-8") for name, path in named.items() if not name.startswith(aside)}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    parts = module.split(".")
    inner = ".".join(parts[:2])
    return inner if inner in MAY_IMPORT else parts[0]


@cache
def imports(source: str, everywhere: bool = True) -> tuple[str, ...]:
    """Modules (and "module.name" for every imported name) of a file; only those that loading it loads, if wanted."""
    names: list[str] = []
    for node in _nodes(ast.parse(source), everywhere):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _nodes(node: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if everywhere or not (later or typing):
            yield child
            yield from _nodes(child, everywhere)


def rooms_of(files: Mapping[str, str]) -> dict[str, set[str]]:
    """Room -> other rooms that its files import."""
    own = {room_of(module_of(path)) for path in files} | set(MAY_IMPORT)
    graph: dict[str, set[str]] = {room: set() for room in own}
    for path, source in files.items():
        room = room_of(module_of(path))
        for name in imports(source):
            other = room_of(name)
            if other in own and other != room and not (other == "serving" and name == "serving"):
                graph[room].add(other)
    return graph


def faults(files: Mapping[str, str]) -> list[str]:
    """What of the house's order these files break, a sentence each."""
    return [*_strange_rooms(files), *_wrong_imports(files), *_wrong_knowledge(files), *_large_listeners(files)]


def _strange_rooms(files: Mapping[str, str]) -> Iterator[str]:
    known = {*MAY_IMPORT, *SIDE}
    yield from sorted({f"{path}: no room of the house" for path in files if room_of(module_of(path)) not in known})


def _wrong_imports(files: Mapping[str, str]) -> Iterator[str]:
    graph = rooms_of(files)
    for room in graph.keys() & MAY_IMPORT.keys():
        yield from (f"{room} must not import {other}" for other in graph[room] - MAY_IMPORT[room])
    try:
        TopologicalSorter({room: others - SIDE for room, others in graph.items()}).prepare()
    except CycleError as error:
        yield f"a circle: {' -> '.join(error.args[1])}"


def _wrong_knowledge(files: Mapping[str, str]) -> Iterator[str]:
    for path, source in files.items():
        room, names = room_of(module_of(path)), set(imports(source))
        if room in ("models", "faces") and (found := {name.split(".")[0] for name in names} & FILE_LIBRARIES):
            yield f"{path} must not know files of sound or video ({', '.join(found)})"
        for name in names:
            generator = name.startswith(GENERATORS) and not name.startswith(NO_GENERATORS)
            if generator and room not in KNOW_GENERATORS:
                yield f"{path} must not know the generator {name}"
            if room.startswith("serving") and path not in LOADERS and name.startswith(NETWORKS):
                yield f"{path} must not load networks ({name})"


def _large_listeners(files: Mapping[str, str]) -> Iterator[str]:
    """Processes that only listen, and what loading them loads."""
    modules = {module_of(path): path for path in files}
    for start in LISTENERS:
        seen, waiting = set(), [start]
        while waiting:
            module = waiting.pop()
            if module in seen:
                continue
            seen.add(module)
            yield from (f"{start} loads {module}" for network in NETWORKS if f"{module}.".startswith(f"{network}."))
            if module in modules:
                waiting += imports(files[modules[module]], everywhere=False)
                waiting += [module.rpartition(".")[0]] if "." in module else []


def test_the_house_is_in_order() -> None:
    assert faults(house()) == []


def test_the_top_level_holds_what_the_design_says() -> None:
    files = {name for name in house() if "/" not in name}
    assert files == {
        "app.py",
        "trainer.py",
        "evaluate.py",
        "latent_diffusion.py",
        "audio_processor.py",
        "video_processor.py",
        "language_processor.py",
    }


PLANTED = [
    ("faces/new.py", "from video_processor import VideoReader", "faces must not import video_processor"),
    ("faces/new.py", "import av", "faces/new.py must not know files"),
    ("models/new.py", "def f():\n    import soundfile", "models/new.py must not know files"),
    ("utils/new.py", "from pipeline.options import Options", "utils must not import pipeline"),
    ("utils/new.py", "import faces.alignment", "a circle: "),
    ("data/new.py", "from training.speech import SpeechStage", "data must not import training"),
    ("pipeline/new.py", "from latent_diffusion import rim_mask", "must not know the generator latent_diffusion"),
    ("pipeline/new.py", "from engines.lite.engine import Lite", "must not know the generator engines.lite.engine"),
    ("pipeline/new.py", "from engines import lite", "must not know the generator engines.lite"),
    ("serving/http/new.py", "from serving.page.page import Page", "serving.http must not import serving.page"),
    ("serving/jobs/new.py", "def f():\n    import torch", "serving/jobs/new.py must not load networks (torch)"),
    ("serving/logs.py", "from pipeline.seeing import Seeing", "serving must not import pipeline"),
    ("serving/problems.py", "import models.cover", "serving must not import models"),
    ("pipeline/options.py", "import torch", "serving.http.server loads torch"),
    ("helpers.py", "", "helpers.py: no room of the house"),
    ("extra/new.py", "", "extra/new.py: no room of the house"),
]


@pytest.mark.parametrize(("path", "source", "said"), PLANTED)
def test_a_planted_fault_is_found(path: str, source: str, said: str) -> None:
    found = faults({**house(), path: source})
    assert any(said in fault for fault in found), found


def test_files_and_functions_are_short() -> None:
    long = [f"{path}: {count} lines" for path, text in house().items() if (count := text.count("\n")) > LONGEST_FILE]
    for path, text in house().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = node.end_lineno - node.lineno + 1
                long += [f"{path}: {node.name} has {count} lines"] if count > LONGEST_FUNCTION else []
    assert not long
