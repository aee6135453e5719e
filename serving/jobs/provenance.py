"""Content credentials (C2PA): a signed statement inside the result that a machine made it.

Every result says so in its metadata anyway (`pipeline.SYNTHETIC_MARK`); this is for those who have a certificate.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from utils.config import ServiceConfig
from utils.helpers import InputError, atomic_path

_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_SIGNABLE = (".mp4", ".mov")


class SigningError(RuntimeError):
    """A result cannot be signed, which is no fault of the client."""


def check_signing(config: ServiceConfig) -> None:
    """Refuse a configuration with which signing would fail later.

    Raises:
        InputError: a certificate without key or the other way round, a file is missing or none of its kind, or the
            package is missing.
    """
    given = (config.c2pa_certificate, config.c2pa_key)
    if given == (None, None):
        return
    for path in given:
        if path is None or not path.is_file():
            raise InputError(
                f"Content credentials need service.c2pa_certificate and service.c2pa_key, both files; found {path}."
            )
    try:
        import c2pa
    except ImportError as error:
        raise InputError(
            "Content credentials need one package more: pip install -r requirements-service.txt."
        ) from error
    try:
        c2pa.Signer.from_info(_signer_info(config)).close()
    except c2pa.C2paError as error:
        raise InputError(f"Nothing can be signed with {config.c2pa_certificate}: {error}.") from error


def sign(video: Path, config: ServiceConfig) -> None:
    """Put signed content credentials into a finished video; without a certificate nothing happens.

    Containers that cannot hold them (Matroska, WebM) keep only the mark in their metadata.

    Args:
        video: replaced when it is signed.
        config: names certificate and key.

    Raises:
        SigningError: the certificate or the key cannot be used.
    """
    if config.c2pa_certificate is None or config.c2pa_key is None or video.suffix not in _SIGNABLE:
        return
    import c2pa

    try:
        with atomic_path(video) as signed, c2pa.Signer.from_info(_signer_info(config)) as signer:
            with c2pa.Builder(json.dumps(_manifest(video))) as builder:
                os.unlink(signed)  # the library wants to make the file itself
                builder.sign_file(str(video), str(signed), signer)
    except c2pa.C2paError as error:
        raise SigningError(f"The content credentials cannot be signed: {error}.") from error


def _signer_info(config: ServiceConfig) -> object:
    import c2pa

    time_server = config.c2pa_time_server
    return c2pa.C2paSignerInfo(
        alg=config.c2pa_algorithm.encode(),
        sign_cert=config.c2pa_certificate.read_bytes(),
        private_key=config.c2pa_key.read_bytes(),
        ta_url=time_server.encode() if time_server else None,
    )


def _manifest(video: Path) -> dict[str, object]:
    actions = [{"action": "c2pa.created", "digitalSourceType": _SOURCE}]
    return {
        "claim_generator_info": [{"name": "lip-sync"}],
        "title": video.name,
        "format": "video/mp4" if video.suffix == ".mp4" else "video/quicktime",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
