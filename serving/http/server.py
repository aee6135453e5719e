"""`--mode api`: the HTTP API, with a worker beside it unless workers run elsewhere."""

from __future__ import annotations

import argparse
import base64
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.engine_choice import with_engine_weights
from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.listening import serve
from serving.http.security import LOOPBACK_NAMES, ApiKeys, is_loopback, new_key
from serving.http.speech import Speaker
from serving.jobs.jobs import JobService
from serving.jobs.setup import (
    ROOT,
    Settings,
    common_parser,
    from_environment,
    open_service,
    read_settings,
    start_logging,
)
from serving.jobs.webhooks import secret_name, secrets_of
from utils.config import load_config
from utils.helpers import InputError

_LOG = logging.getLogger("lipsync.server")
_RESTART_S = 1.0
_BAD_SETTINGS = 2

_DESCRIPTION = """\
Serve the HTTP API (docs/api.md). Only with the consent of the people shown.

On this computer only (127.0.0.1) everybody is let in. For any other --host, make API keys with --new-key, or say
--insecure."""


def main(argv: Sequence[str]) -> int:
    """Serve until interrupted. Returns 0, or 2 if the settings cannot be used."""
    arguments = build_parser("api", _DESCRIPTION, 8000).parse_args(argv)
    try:
        settings = read_settings(arguments)
        if arguments.new_key is not None:
            print(new_key(settings.keys_file, arguments.new_key))
            return 0
        if arguments.webhook_secret is not None:
            print(webhook_secret(settings, arguments.webhook_secret))
            return 0
        access = read_access(arguments, settings)
        service, _ = open_service(settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return _BAD_SETTINGS
    start_logging()
    app = create_app(service, make_intake(service, settings), access)
    with (
        Embedded(worker_command(arguments, settings) if arguments.worker else None),
        Embedded(live_command(arguments, settings) if arguments.live_port else None, "live server"),
    ):
        serve(app, arguments.host, arguments.port, settings.service.upload_idle_s, settings.service.trusted_proxies)
    return 0


def make_intake(service: JobService, settings: Settings) -> Intake:
    """What takes requests in, for these settings."""
    config = load_config(settings.config_path, from_environment())
    inference = with_engine_weights(config, settings.engine_weights).inference
    recogniser = settings.weights / config.size / "phonemes"
    return Intake(service, inference, Speaker(settings.weights, recogniser, config.language.engines))


def build_parser(mode: str, description: str, port: int) -> argparse.ArgumentParser:
    """Options of the modes that listen."""
    parser = common_parser(mode, description)
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    server.add_argument("--port", type=int, default=port, help="port to listen on (default: %(default)s)")
    doors = server.add_mutually_exclusive_group()
    doors.add_argument(
        "--keys", action="store_true", help="want API keys on this computer too, as behind a reverse proxy"
    )
    doors.add_argument(
        "--insecure", action="store_true", help="let everybody in, also when others can reach this address"
    )
    server.add_argument("--new-key", metavar="NAME", help="make an API key, print it once, and end")
    if mode != "live":
        server.add_argument(
            "--live-port", type=int, metavar="PORT", help="also serve hosts who speak live there (docs/live.md)"
        )
    if mode == "api":
        server.add_argument(
            "--webhook-secret", metavar="NAME", help="print the secret that signs the webhooks of an API key, and end"
        )
    server.add_argument(
        "--no-worker", dest="worker", action="store_false", help="run no jobs here; start --mode worker elsewhere"
    )
    return parser


def webhook_secret(settings: Settings, name: str) -> str:
    """The secret that signs what is told about the jobs of an API key, as receivers write it.

    Raises:
        InputError: there is no such key, or no secret in the environment.
    """
    key_hash = ApiKeys(settings.keys_file).hash_of(name)
    if key_hash is None:
        raise InputError(f"There is no API key with the name '{name}'; make one with --new-key {name}.")
    return "whsec_" + base64.b64encode(secrets_of(secret_name(name, key_hash))[0]).decode()


def read_access(arguments: argparse.Namespace, settings: Settings) -> Access:
    """Decide who is let in.

    Raises:
        InputError: keys are wanted, because others could reach the server, and there are none.
    """
    keys = ApiKeys(settings.keys_file)
    wanted = arguments.keys or not (is_loopback(arguments.host) or arguments.insecure)
    if wanted and not len(keys):
        raise InputError(
            f"Others may reach {arguments.host}, but there are no API keys: make one with --new-key NAME, "
            "or say --insecure."
        )
    hosts = (*LOOPBACK_NAMES, arguments.host, *settings.service.allowed_hosts)
    return Access(
        keys=keys if wanted else None,
        hosts=("*",) if arguments.host in ("0.0.0.0", "::") and not settings.service.allowed_hosts else hosts,
        origins=settings.service.allowed_origins,
    )


def worker_command(arguments: argparse.Namespace, settings: Settings) -> list[str]:
    """How to start a worker for the same jobs."""
    given = {
        "--config": settings.config_path,
        "--weights": settings.weights,
        "--engine-weights": settings.engine_weights,
        "--device": settings.device,
        "--data-dir": settings.service.data_dir,
        "--queue": arguments.queue,
        "--storage": arguments.storage,
        "--keep": arguments.keep,
    }
    return _program("worker", given)


def live_command(arguments: argparse.Namespace, settings: Settings) -> list[str]:
    """How to start a live server for the same people."""
    given = {
        "--host": arguments.host,
        "--port": arguments.live_port,
        "--config": settings.config_path,
        "--weights": settings.weights,
        "--engine-weights": settings.engine_weights,
        "--device": settings.device,
        "--data-dir": settings.service.data_dir,
    }
    doors = [f"--{name}" for name in ("keys", "insecure") if getattr(arguments, name)]
    return [*_program("live", given), *doors]


def _program(mode: str, given: Mapping[str, object]) -> list[str]:
    """How to start this program in another mode, with what is given; None is not."""
    command = [sys.executable, str(ROOT / "app.py"), "--mode", mode, "--end-with-parent"]
    return command + [word for name, value in given.items() if value is not None for word in (name, str(value))]


class Embedded:
    """A process beside this one for as long as the block lasts; when it dies it is started again.

    Args:
        command: how to start it; None: none.
        name: what it is called in the log.
    """

    def __init__(self, command: list[str] | None, name: str = "worker"):
        self._command, self._name = command, name
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Embedded:
        if self._command is not None:
            self._process = subprocess.Popen(self._command, cwd=Path.cwd())
            self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._closing.is_set():
            code = self._process.wait()
            if code == _BAD_SETTINGS:
                _LOG.error("the %s cannot work with these settings and stays away", self._name)
                return
            if self._closing.wait(_RESTART_S):
                return
            _LOG.warning("the %s ended (code %d) and is started again", self._name, code)
            self._process = subprocess.Popen(self._command, cwd=Path.cwd())

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
