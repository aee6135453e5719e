"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parent.parent
THREADS_PER_TEST_PROCESS = 1

# Workers run side by side (pytest -n 2). One thread each is faster than all of them fighting for the
# same cores, and it must be set before the numerical libraries are loaded.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, str(THREADS_PER_TEST_PROCESS))


# So that `pytest -m "not data"` and the like work without a mark on every test.
MARK_OF_FIXTURE = {"talking_faces": "data", "lite_weights": "weights"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use real clips or trained weights."""
    for item in items:
        for fixture in MARK_OF_FIXTURE.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARK_OF_FIXTURE[fixture])


def _talking_faces_dir() -> Path:
    """The folder of real clips: $LIPSYNC_TALKING_FACES, else ../shared/talking_faces beside the checkout."""
    named = os.environ.get("LIPSYNC_TALKING_FACES")
    return Path(named) if named else REPO.parent / "shared" / "talking_faces"


@pytest.fixture(scope="session", autouse=True)
def _torch_threads() -> None:
    """Keep PyTorch to the same number of threads as the other libraries."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def talking_faces() -> Path:
    """Folder with {train,val,test}/videos/*.mp4 and manifest.tsv; the test is skipped when it is absent."""
    folder = _talking_faces_dir()
    if not (folder / "manifest.tsv").is_file():
        pytest.skip(f"no real clips at {folder}: set LIPSYNC_TALKING_FACES to a folder with a manifest.tsv")
    return folder


@pytest.fixture(scope="session")
def lite_weights() -> Path:
    """The embedded weights pretrained/lite; the test is skipped when they have not been trained yet."""
    folder = REPO / "pretrained" / "lite"
    if not (folder / "generator" / "config.json").is_file():
        pytest.skip(f"no trained weights at {folder}: run `make train-lite`")
    return folder


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps one state per process; every test is a process of its own in this respect."""
    _forget_accelerate()
    yield
    _forget_accelerate()


def _forget_accelerate() -> None:
    if (state := sys.modules.get("accelerate.state")) is not None:  # it takes seconds to load
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like pretrained/ with random networks of the debug size."""
    from tests.tiny_weights import write_tiny_weights

    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def made_host(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Any:
    """A pipeline with networks of the debug size, and a host that it made; see `tests.live_host`."""
    from tests.live_host import make_small_host

    return make_small_host(tmp_path_factory.mktemp("live"), tiny_weights)


@pytest.fixture(scope="session")
def service_media(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """Inputs for a service that runs, and its configuration; see `tests.server.make_media`."""
    from tests.server import make_media

    return make_media(tmp_path_factory.mktemp("service_media"), tiny_weights)


@pytest.fixture(scope="session")
def example_portrait() -> Path:
    """The bundled still picture of one person."""
    return REPO / "examples" / "smile.png"


@pytest.fixture(scope="session")
def example_speech() -> Path:
    """The bundled speech file, mono 24 kHz, about six seconds."""
    return REPO / "examples" / "speech.wav"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """A Redis of the test file's own; None where there is no redis-server."""
    from tests.service import redis_server

    if shutil.which("redis-server") is None:
        yield None
        return
    pytest.importorskip("redis")
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["sqlite", "redis"])
def queue_url(request: pytest.FixtureRequest) -> str | None:
    """Where jobs are kept: None is SQLite, then an empty Redis."""
    if request.param == "sqlite":
        return None
    url = request.getfixturevalue("redis_url")
    if url is None:
        pytest.skip("redis-server is not installed")
    import redis

    redis.Redis.from_url(url).flushall()
    return url
