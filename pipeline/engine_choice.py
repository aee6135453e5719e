"""Which engines can draw on this computer, what each is like, and how to get it. Loads no networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import engines
from engines.catalogue import ENTRIES, Shelf
from engines.download import get_engine
from pipeline.speed import known_pace
from utils.config import Config, InferenceConfig
from utils.helpers import InputError

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class EngineView:
    """An engine as people see it.

    Attributes:
        name: by which it is chosen.
        installed: its weights are there, and its licence is accepted.
        state: the same in words; how to get it where it is not.
        good_at, licence, memory: one line each.
        weights: where they are looked for.
        missing: files that are not there.
        download_bytes: of what is missing and can be downloaded.
        speed: frames per second on this computer, None: not measured.
    """

    name: str
    installed: bool
    state: str
    good_at: str
    licence: str
    memory: str
    weights: str
    missing: tuple[str, ...] = ()
    download_bytes: int = 0
    speed: float | None = None


def is_ours(name: str) -> bool:
    """The engine comes with this program."""
    return name in ENTRIES and not ENTRIES[name].files


def list_engines(inference: InferenceConfig) -> list[EngineView]:
    """All engines that can be chosen by name, and the configured one."""
    names = engines.names()
    own = [] if inference.engine in names else [inference.engine]
    return [_view(name, inference) for name in [*names, *own]]


def check_ready(name: str, inference: InferenceConfig) -> None:
    """Refuse an engine that cannot be loaded, with the sentence that says how to get it."""
    engines.check_ready(name, shelf_of(inference).folder)


def check_offered(name: str | None, inference: InferenceConfig) -> None:
    """The same for what strangers ask for: no module is loaded that the configuration does not name.

    Raises:
        InputError: there is no such engine, or it cannot be used.
    """
    if name is None or name == inference.engine:
        return
    if name not in engines.names():
        raise InputError(f"There is no engine '{name[:50]}'; use one of {', '.join(engines.names())}.", "no-engine")
    try:
        check_ready(name, inference)
    except InputError as error:  # where our folders are is none of their business
        raise InputError(str(error).replace(f" in {shelf_of(inference).folder}", ""), error.code) from error


def get(name: str, inference: InferenceConfig, accept: bool, say: Callable[[str], None]) -> None:
    """Download what is missing of an engine; see `engines.download.get_engine`."""
    get_engine(name, shelf_of(inference), accept, say)


def shelf_of(inference: InferenceConfig) -> Shelf:
    """Where the weights of engines other than `lite` are looked for."""
    return Shelf(_ROOT / inference.engine_weights)


def with_engine_weights(config: Config, folder: Path | None) -> Config:
    """The configuration, with the weights of engines other than `lite` from this folder; None: as it is."""
    if folder is None:
        return config
    inference = config.inference.model_copy(update={"engine_weights": folder.resolve()})
    return config.model_copy(update={"inference": inference})


def _view(name: str, inference: InferenceConfig) -> EngineView:
    shelf = shelf_of(inference)
    pace = known_pace(name, shelf.folder)
    speed = pace and pace.fps
    if name not in ENTRIES:
        source = engines.announced().get(name, name).partition(":")[0]
        return EngineView(name, True, "installed", "an engine of your own", "", "", source, speed=speed)
    entry, missing = ENTRIES[name], shelf.missing(name)
    weights = inference.weights_dir if is_ours(name) else shelf.folder / name
    try:
        shelf.check(name)
        state, installed = "installed", True
    except InputError as error:
        state, installed = str(error), False
    return EngineView(
        name,
        installed,
        state,
        entry.good_at,
        entry.licence,
        entry.memory,
        str(weights),
        tuple(file.names[0] for file in missing),
        sum(file.published.size for file in missing if file.published),
        speed,
    )
