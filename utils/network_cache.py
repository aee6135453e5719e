"""Networks that OpenVINO has made, kept in the user's cache folder so that only the first start pays for them.

OpenVINO has a cache of its own (CACHE_DIR). It writes files in place and maps them into memory: of several programs
that start at once, one that reads what another is just writing dies of a bus error. Here files appear whole or not at
all, and are read into memory.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import openvino

from utils.helpers import atomic_path
from utils.user_cache import user_cache

_LOGGER = logging.getLogger(__name__)


def compiled_network(
    settings: dict[str, Any], make: Callable[[], Path | openvino.Model], file: Path | None
) -> openvino.CompiledModel:
    """A network for the CPU: what is kept in `file` where that can be used, else made and kept.

    Args:
        settings: OpenVINO's properties.
        make: gives the network, or the path of its file.
        file: where it is kept, see `cache_file`; None: it is not kept.
    """
    core = openvino.Core()
    if file is not None and (kept := _kept(core, file, settings)) is not None:
        return kept
    compiled = core.compile_model(make(), "CPU", settings)
    if file is not None:
        _keep(compiled, file)
    return compiled


def cache_file(part: str, name: str, *differences: object, contents: Iterable[bytes] = ()) -> Path | None:
    """Where such a network is kept in the user's cache; None where nothing can be kept.

    Args:
        part: the folder.
        name: the first part of the file's name.
        differences: what else tells networks of this name apart; by what `repr` says of them.
        contents: bytes that do so, such as weights.
    """
    folder = user_cache(part)
    if folder is None:
        return None
    digest = hashlib.sha256()
    machine = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    digest.update(repr((openvino.get_version(), machine, differences)).encode())
    for content in contents:
        digest.update(content)
    return folder / f"{name}-{digest.hexdigest()[:32]}.blob"


def _kept(core: openvino.Core, file: Path, settings: dict[str, Any]) -> openvino.CompiledModel | None:
    try:
        return core.import_model(io.BytesIO(file.read_bytes()), "CPU", settings)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:  # cut off, or of another build: it is made again
        _LOGGER.warning("The cached network %s cannot be used (%s); it is made again.", file, error)
        return None


def _keep(compiled: openvino.CompiledModel, file: Path) -> None:
    try:
        with atomic_path(file) as temporary:
            temporary.write_bytes(compiled.export_model().getvalue())
    except (OSError, ValueError, RuntimeError) as error:
        _LOGGER.warning("The network cannot be kept in %s (%s); the next start takes longer.", file.parent, error)
