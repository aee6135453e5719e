"""`--mode live`: hosts who listen and speak in the browser."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from pipeline.engine_choice import with_engine_weights
from serving.http.context import Access
from serving.http.listening import serve
from serving.http.security import new_key
from serving.http.server import build_parser, read_access
from serving.jobs.setup import Settings, from_environment, read_settings, start_logging
from serving.live.app import LiveApp
from serving.live.chat import Chat
from serving.live.loading import Loaded, load
from serving.live.push import Push
from serving.live.sessions import Sessions
from utils.config import load_config
from utils.helpers import InputError

_PARENT_S = 1.0
_DESCRIPTION = """\
Serve hosts who speak live (docs/live.md): a page for the browser, and a WebSocket for programs. Only with the consent
of the people shown; prepare them with --mode cli --make-host.

On this computer only (127.0.0.1) everybody is let in. For any other --host, make API keys with --new-key, or say
--insecure."""


def main(argv: Sequence[str]) -> int:
    """Serve until interrupted. Returns 0, or 2 if the settings cannot be used."""
    arguments = _parser().parse_args(argv)
    if arguments.end_with_parent:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        settings = read_settings(arguments)
        if arguments.new_key is not None:
            print(new_key(settings.keys_file, arguments.new_key))
            return 0
        access = read_access(arguments, settings)
        chat = None
        if arguments.chat is not None:
            chat = Chat(arguments.chat, arguments.chat_model, arguments.chat_prompt)
        loaded = _load(settings)
        on_air = None
        if arguments.push is not None:
            on_air = arguments.push_host or next(iter(loaded.hosts))
            if on_air not in loaded.hosts:
                raise InputError(f"There is no host {on_air}; there are: {', '.join(loaded.hosts)}.")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    start_logging()
    app = _application(loaded, settings, access, chat, on_air)
    if arguments.push is not None:
        app.started.append(lambda live: Push(live.session, arguments.push).close)
    print(f"Open http://{arguments.host}:{arguments.port} in a browser.", file=sys.stderr, flush=True)
    service = settings.service
    serve(app.build(), arguments.host, arguments.port, service.upload_idle_s, service.trusted_proxies)
    return 0


def _end_with_parent(parent: int) -> None:
    """Stop when the process that started this one is gone, however it ended."""
    while os.getppid() == parent:
        time.sleep(_PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _load(settings: Settings) -> Loaded:
    config = load_config(settings.config_path, from_environment())
    config = with_engine_weights(config, settings.engine_weights)
    config = config.model_copy(update={"media": settings.service.media})
    print("Loading the networks; this takes some seconds.", file=sys.stderr, flush=True)
    return load(config, settings.device, settings.weights)


def _application(
    loaded: Loaded, settings: Settings, access: Access, chat: Chat | None, on_air: str | None
) -> LiveApp:
    limits = load_config(settings.config_path, from_environment()).sessions
    sessions = Sessions(loaded.studio, loaded.hosts, limits, loaded.most + (on_air is not None))
    return LiveApp(sessions, access, chat, settings.service.max_text, on_air)


def _parser() -> argparse.ArgumentParser:
    parser = build_parser("live", _DESCRIPTION, 8010)
    live = parser.add_argument_group("live")
    live.add_argument("--chat", metavar="URL", help="an OpenAI-compatible service that answers visitors: http://.../v1")
    live.add_argument("--chat-model", default="default", metavar="NAME", help="which of its models answers")
    live.add_argument("--chat-prompt", default="", metavar="TEXT", help="what it is told before all else")
    live.add_argument("--push", metavar="URL", help="send one session to a broadcast: rtmp://, srt://, udp://, a file")
    live.add_argument("--push-host", metavar="NAME", help="the host of that session (default: the first one)")
    live.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    return parser
