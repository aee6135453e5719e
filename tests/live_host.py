"""A small host, and sessions with it, for the tests of everything that is live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline import LipSyncPipeline, Options
from pipeline.host import Host
from pipeline.host_making import HostWish
from pipeline.session import Moment
from tests import footage
from tests.tiny_weights import tiny_config
from utils.config import load_config

PATIENCE_S = 60.0


def make_small_host(folder: Path, weights: Path, moves: bool = True) -> tuple[LipSyncPipeline, Host]:
    """A host in `folder`/hosts that moves or stands still, by networks of the debug size, and its configuration."""
    config = tiny_config(folder, weights)
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["hosts"] |= {"dir": str(folder / "hosts"), "portrait_s": 2}
    settings["sessions"]["most"] = 8  # however slow this machine is
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    lip_sync = LipSyncPipeline.load(load_config(config), torch.device("cpu"))
    picture = footage.make_portrait(folder / "portrait.png")
    return lip_sync, lip_sync.make_host(HostWish(picture, "anna", moves), Options())[0]


class Recorder:
    """A listener that keeps everything."""

    wants_packets, wants_pictures = True, True

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.came: list[float] = []
        self._changed = threading.Condition()

    def put(self, moment: Moment) -> None:
        with self._changed:
            self.moments.append(moment)
            self.came.append(time.monotonic())
            self._changed.notify_all()

    def wait(self, until: Callable[[Recorder], Any]) -> Any:
        """What `until` finds, as soon as it is true."""
        with self._changed:
            assert self._changed.wait_for(lambda: until(self), PATIENCE_S), [self.told(), len(self.moments)]
            return until(self)

    def told(self, name: str | None = None) -> list[dict[str, Any]]:
        """Events, of one name if wanted."""
        events = [event for moment in self.moments for event in moment.events]
        return [event for event in events if name in (None, event["event"])]
