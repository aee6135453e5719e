"""`--mode web`: a page in the browser. It hands its jobs to the same job service as the HTTP API."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request

from faces.detector import FaceDetector
from serving.http.context import Access
from serving.http.listening import serve
from serving.http.security import Guard, new_key
from serving.http.server import Embedded, build_parser, live_command, make_intake, read_access, worker_command
from serving.jobs.jobs import JobService
from serving.jobs.setup import ROOT, Settings, open_service, read_settings, start_logging
from serving.page.door import OWNER, Door, in_words_of
from serving.page.files import PageFiles
from serving.page.gradio_words import head
from serving.page.layout import PORTRAIT, SPEECH, build_page
from serving.page.login import EndedSessions, Sessions
from serving.page.marking import script
from serving.page.page import Page
from serving.page.uploads import PageUploads
from utils.config import load_config
from utils.helpers import InputError

_HERE = Path(__file__).resolve().parent
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # Gradio's page brings scripts and styles in itself; nothing may come from elsewhere.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
}
_DESCRIPTION = """\
Serve a page for the browser. Only with the consent of the people shown.

On this computer only (127.0.0.1) everybody is let in. For any other --host, make API keys with --new-key (the page then
asks for name and key), or say --insecure."""


def create_page(service: JobService, settings: Settings, access: Access) -> tuple[FastAPI, PageFiles]:
    """The web application of the page, and the files that it shows.

    Args:
        service: the jobs.
        settings: of this process.
        access: who may use it.
    """
    files = PageFiles(service, (PORTRAIT, SPEECH))
    # Gradio takes files from this folder as its own, and copies nothing that lies there.
    tempfile.tempdir = str(files.uploads)
    os.environ["GRADIO_TEMP_DIR"] = str(files.uploads)
    gr.set_static_paths([PORTRAIT, SPEECH, files.folder])
    faces = load_config(settings.config_path).faces
    detector = FaceDetector(ROOT / faces.models_dir, faces.min_detection_score)
    intake, has_keys = make_intake(service, settings), access.keys is not None
    blocks, words = build_page(Page(service, intake, detector, files, has_keys))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _mount(app, blocks, words, settings.service.media.max_file_gb)
    ended = EndedSessions(service.config.data_dir / "ended_sessions")
    ended.forget_old()
    sessions = None if access.keys is None else Sessions(access.keys, ended)
    app.add_middleware(Door, files=files, uploads=PageUploads(service, files), sessions=sessions)
    app.add_middleware(
        Guard,
        hosts=access.hosts,
        origins=access.origins,
        headers=_HEADERS,
        known=None if sessions is None else lambda scope: sessions.owner(Request(scope)),
        per_minute=settings.service.max_requests_per_minute,
        rates=service.store.rates,
        in_words=in_words_of,
    )
    return app, files


def _mount(app: FastAPI, blocks: gr.Blocks, words: gr.I18n, max_file_gb: float) -> None:
    """Have Gradio serve the page."""
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth_dependency=lambda request: request.scope[OWNER],
        max_file_size=int(max_file_gb * 1e9),
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        favicon_path=str(_HERE / "favicon.svg"),
        theme=gr.themes.Soft(
            primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css_paths=[_HERE / "page.css"],
        head=head() + script(),
        i18n=words,
    )
    blocks.has_launched = True  # else Gradio does not check paths; the door does, but two locks are better than one


def main(argv: Sequence[str]) -> int:
    """Serve the page until interrupted. Returns 0, or 2 if the settings cannot be used."""
    arguments = build_parser("web", _DESCRIPTION, 7860).parse_args(argv)
    try:
        settings = read_settings(arguments)
        if arguments.new_key is not None:
            print(new_key(settings.keys_file, arguments.new_key))
            return 0
        access = read_access(arguments, settings)
        service, _ = open_service(settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    start_logging()
    app, files = create_page(service, settings, access)
    stopping = threading.Event()
    threading.Thread(target=files.sweep_until, args=(stopping,), daemon=True).start()
    print(f"Open http://{arguments.host}:{arguments.port} in a browser.", file=sys.stderr)
    with (
        Embedded(worker_command(arguments, settings) if arguments.worker else None),
        Embedded(live_command(arguments, settings) if arguments.live_port else None, "live server"),
    ):
        serve(app, arguments.host, arguments.port, settings.service.upload_idle_s, settings.service.trusted_proxies)
    stopping.set()
    return 0
