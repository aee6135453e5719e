"""Loads the networks of a live server, and makes sure that there is a host."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config import Config
from utils.helpers import InputError, resolve_device

if TYPE_CHECKING:
    from pipeline import LipSyncPipeline
    from pipeline.host import Host
    from pipeline.studio import Studio

_ROOT = Path(__file__).resolve().parent.parent.parent
_EXAMPLE, _EXAMPLE_NAME = _ROOT / "examples" / "smile.png", "astronaut"
_SPARE = 0.7  # of the measured speed that sessions may use together
_LINES_S = 5.0
_FPS = 25  # of a usual session


@dataclass(frozen=True)
class Loaded:
    """What a live server works with.

    Attributes:
        studio: draws and speaks.
        hosts: by name.
        most: sessions that this machine can carry.
    """

    studio: Studio
    hosts: dict[str, Host]
    most: int


def load(config: Config, device: str, weights: Path) -> Loaded:
    """Load everything; takes seconds, and longer where no host has been made yet.

    Args:
        config: the configuration, with absolute paths.
        device: auto, cpu or cuda.
        weights: folder of the trained weights.

    Raises:
        InputError: weights are missing, or a host cannot be made.
    """
    from language_processor import LanguageProcessor
    from pipeline import LipSyncPipeline, Options
    from pipeline.host import list_hosts
    from pipeline.studio import Studio, StudioSettings

    logging.getLogger("diffusers").setLevel(logging.ERROR)  # its hints are for developers
    inference = config.inference.model_copy(update={"weights_dir": weights})
    config = config.model_copy(update={"inference": inference})
    language = LanguageProcessor(weights, weights / config.size / "phonemes", own=config.language.engines)
    pipeline = LipSyncPipeline.load(config, resolve_device(device), language)
    folder = _ROOT / config.hosts.dir
    hosts = list_hosts(folder) or [_example_host(pipeline)]
    fitting = {host.card.name: host for host in hosts if _fits(host, pipeline)}
    if not fitting:
        raise InputError(f"No host in {folder} was made for this engine and these weights; make one with --make-host.")
    chosen = config.sessions
    settings = StudioSettings(config.live.sound_ahead_s, chosen.most_waiting, chosen.most_sound_s)
    most = chosen.most or max(1, int(_SPARE * pipeline.drawing_speed() / _FPS))
    studio = Studio(pipeline.engine, language if language.voices else None, settings, Options())
    for host in fitting.values():
        studio.warm_up(host)
    return Loaded(studio, fitting, most)


def _fits(host: Host, pipeline: LipSyncPipeline) -> bool:
    try:
        host.engine(pipeline.engine).unpack(host.person)
    except InputError as error:
        print(f"The host {host.card.name} is left out: {error}", file=sys.stderr)
        return False
    return True


def _example_host(pipeline: LipSyncPipeline) -> Host:
    """A first host of the portrait that comes with the program, so that a fresh installation has somebody to show."""
    from pipeline import Options
    from pipeline.host_making import HostWish

    print(f"There is no host yet: one is made of {_EXAMPLE.name}. This takes a minute, once.", file=sys.stderr)
    shown = time.monotonic()

    def say(said: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= _LINES_S:
            shown = time.monotonic()
            print(said, file=sys.stderr, flush=True)

    return pipeline.make_host(HostWish(_EXAMPLE, _EXAMPLE_NAME), Options(), say)[0]
