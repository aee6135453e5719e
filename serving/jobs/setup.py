"""What the modes web, api and worker have in common: their options, the settings made of them, and the job service."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.jobs.jobs import INCOMING, JOBS, WORK, JobService
from serving.jobs.provenance import check_signing
from serving.jobs.queues import Queue, open_queue, open_store
from serving.jobs.storage import JobFiles
from serving.jobs.webhooks import check_receivers
from serving.logs import log_as_json
from utils.config import MediaLimits, ServiceConfig, load_config
from utils.helpers import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


@dataclass(frozen=True)
class Settings:
    """Of one process.

    Attributes:
        config_path: the settings file.
        service: its part about the service, with absolute paths.
        device: auto, cpu or cuda.
        weights: folder of the trained weights.
        queue: redis://..., None for SQLite.
        storage: fsspec URL, None for a folder in the data folder.
        engine_weights: folder of the weights of engines other than `lite`, None: as configured.
    """

    config_path: Path
    service: ServiceConfig
    device: str
    weights: Path
    queue: str | None
    storage: str | None
    engine_weights: Path | None = None

    @property
    def keys_file(self) -> Path:
        """Where the names and hashes of the API keys are."""
        return self.service.data_dir / "api_keys"


def common_parser(mode: str, description: str) -> argparse.ArgumentParser:
    """The options that every mode of the service has."""
    parser = argparse.ArgumentParser(
        prog=f"python app.py --mode {mode}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--mode", choices=(mode,), default=mode, help=argparse.SUPPRESS)
    jobs = parser.add_argument_group("jobs")
    jobs.add_argument("--data-dir", type=Path, metavar="FOLDER", help="jobs and uploads (default: as configured)")
    jobs.add_argument("--queue", metavar="URL", help="redis://host:port/number for many machines (default: SQLite)")
    jobs.add_argument(
        "--storage", metavar="URL", help="folder or fsspec URL of the jobs' files (default: in the data folder)"
    )
    jobs.add_argument("--keep", metavar="TIME", help="how long results are kept: 30m, 24h, 7d (default: as configured)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda (default: auto)")
    machine.add_argument(
        "--config", type=Path, default=ROOT / "model_config.yaml", help="settings file (default: %(default)s)"
    )
    machine.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="trained weights (default: the configuration's weights_dir)"
    )
    machine.add_argument(
        "--engine-weights", type=Path, metavar="FOLDER", help="weights of other engines than lite (default: configured)"
    )
    return parser


def worker_parser() -> argparse.ArgumentParser:
    """Options of `--mode worker`."""
    parser = common_parser("worker", "Run jobs that a web page or an HTTP API has taken in.")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; end with 0 if a worker of this machine lives, else with 1"
    )
    parser.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    return parser


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Check the options and the configuration.

    Raises:
        InputError: an option or the configuration cannot be used.
    """
    config = load_config(arguments.config, from_environment())
    changes: dict[str, Any] = resolved(config.service)
    if arguments.data_dir is not None:
        changes["data_dir"] = arguments.data_dir.resolve()
    if arguments.keep is not None:
        changes["keep_h"] = hours(arguments.keep)
    service = config.service.model_copy(update=changes)
    check_signing(service)
    check_receivers(service.webhook_origins)
    return Settings(
        config_path=arguments.config.resolve(),
        service=service,
        device=arguments.device,
        weights=(ROOT / config.inference.weights_dir) if arguments.weights is None else arguments.weights.resolve(),
        queue=arguments.queue or os.environ.get("LIPSYNC_QUEUE"),
        storage=arguments.storage or os.environ.get("LIPSYNC_STORAGE"),
        engine_weights=arguments.engine_weights and arguments.engine_weights.resolve(),
    )


def from_environment() -> list[str]:
    """Settings that the environment replaces, as `load_config` takes them: LIPSYNC_MAX_QUEUE=20 for service.max_queue,
    LIPSYNC_MEDIA_MAX_FILE_GB=2 for service.media.max_file_gb, LIPSYNC_ENGINE and LIPSYNC_ENGINE_WEIGHTS for those of
    the section inference; values are YAML."""
    names = {name: f"service.{name}" for name in ServiceConfig.model_fields if name != "media"}
    names |= {f"media_{name}": f"service.media.{name}" for name in MediaLimits.model_fields}
    names |= {name: f"inference.{name}" for name in ("engine", "engine_weights")}
    given = {key: os.environ.get(f"LIPSYNC_{name.upper()}") for name, key in names.items()}
    return [f"{key}={value}" for key, value in given.items() if value]


def resolved(service: ServiceConfig) -> dict[str, Path]:
    """The paths of the configuration, made absolute: relative ones start at the program's folder."""
    names = ("data_dir", "c2pa_certificate", "c2pa_key")
    return {name: ROOT / path for name in names if (path := getattr(service, name)) is not None}


def hours(text: str) -> float:
    """Hours in a time such as 30m, 24h or 7d.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    if match is None or float(match[1]) <= 0:
        raise InputError(f"The time '{text}' cannot be used; write 30m, 24h or 7d.")
    return float(match[1]) * _HOURS[match[2]]


def open_service(settings: Settings, work: Callable[[], None] | None = None) -> tuple[JobService, Queue]:
    """The job service of this process.

    Args:
        settings: of this process.
        work: what to do when a job is queued; None in a process that runs none.

    Raises:
        InputError: queue or storage cannot be used.
    """
    config = settings.service
    _keep_private(config.data_dir)
    for name in (INCOMING, JOBS):
        (config.data_dir / name).mkdir(parents=True, exist_ok=True)
    store = open_store(config, settings.queue)
    queue = open_queue(config, settings.queue, work)
    files = JobFiles(settings.storage or str(config.data_dir / JOBS))
    return JobService(config, store, queue, files), queue


def _keep_private(data_dir: Path) -> None:
    """From now on this process, and those that it starts, write files that no other user of the machine can read; and
    what earlier versions have left open in the data folder is closed."""
    os.umask(0o077)
    for pattern in (INCOMING, JOBS, WORK, "page", "*.db*", "api_keys"):
        for path in data_dir.glob(pattern):
            with suppress(OSError):  # somebody else's, on a shared disk
                path.chmod(0o700 if path.is_dir() else 0o600)


def start_logging() -> None:
    """One JSON object a line on standard error, from now on."""
    log_as_json(logging.getLogger(), os.environ.get("LIPSYNC_LOG_LEVEL", "INFO"))
