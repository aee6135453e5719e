"""Takes in multipart forms: files go to disk piece by piece, and what is too large or too slow is cut off on the way.

File names that clients send are no paths: a file is stored under our own name of its field.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from anyio import fail_after, to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from serving.problems import Problem, bad_input, too_large
from utils.config import ServiceConfig

_PIECE = 2**20
_MAX_PARTS = 64
_FORM_BYTES = 64 * 1024  # what a form may have besides files and text
_DISK_EVERY = 64 * 2**20  # bytes between two looks at the free space
_DRAIN_BYTES, _DRAIN_S = 8 * 2**20, 2.0


@dataclass(frozen=True)
class Form:
    """What came in.

    Attributes:
        fields: texts by name.
        files: local files by name of the field.
    """

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def fingerprint_of(form: Form) -> str:
    """The same for the same fields and the same contents of files, whatever their names and order; 64 hexadecimal
    digits (SHA-256). Empty fields count as left out, as they do for the job."""
    fields = {name: value for name, value in form.fields.items() if value != ""}
    contents = {name: _hash(path) for name, path in form.files.items()}
    return hashlib.sha256(json.dumps([fields, contents], sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


class _Parts:
    """Callbacks of the parser: sorts the parts of a form into texts and files."""

    def __init__(self, folder: Path, names: Mapping[str, str], max_field: int):
        self.form = Form()
        self.sent_names: dict[str, str] = {}  # what the client calls its files: to be told back, never a path
        self.ended = False
        self._folder = folder
        self._names = names
        self._max_field = max_field
        self._parts = 0
        self._header = [b"", b""]
        self._disposition = b""
        self._name = ""
        self._text = bytearray()
        self._file: IO[bytes] | None = None

    def callbacks(self) -> dict[str, Callable[..., None]]:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end")
        return {f"on_{name}": getattr(self, name) for name in (*names, "headers_finished", "end")}

    def part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise bad_input(f"The form has more than {_MAX_PARTS} parts.")
        self._header, self._disposition, self._text, self._file = [b"", b""], b"", bytearray(), None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise Problem(400, "broken-form", "A part of the form has no name.")
        if self._name in self.form.fields or self._name in self.form.files:
            raise bad_input(f"The field {self._name!r} was sent twice.")
        if b"filename" in options or self._name in self._names:
            if self._name not in self._names:
                raise bad_input(f"The field {self._name!r} takes no file; use {' and '.join(self._names)}.")
            self.sent_names[self._name] = options.get(b"filename", b"").decode("utf-8", "replace")
            path = self._folder / self._names[self._name]
            self._file = path.open("wb")
            self.form.files[self._name] = path

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > self._max_field:
            raise bad_input(f"The field {self._name!r} is too long.")

    def part_end(self) -> None:
        if self._file is None:
            try:
                self.form.fields[self._name] = self._text.decode("utf-8")
            except UnicodeDecodeError as error:
                raise bad_input(f"The field {self._name!r} is not UTF-8 text.") from error
            return
        self._file.close()
        if self.form.files[self._name].stat().st_size == 0:  # a browser's form without a chosen file
            del self.form.files[self._name]

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


async def receive_form(
    request: Request,
    folder: Path,
    names: Mapping[str, str],
    config: ServiceConfig,
    check_space: Callable[[], None],
    watch: Callable[[dict[str, str], int], None] | None = None,
) -> Form:
    """Read a multipart form.

    Args:
        request: whose body has not been read yet.
        folder: where the files go; it is the caller's to remove.
        names: fields that take files -> name of the file on disk.
        config: limits.
        check_space: raises a problem when there is no more room.
        watch: told, after every piece, what the client calls its files (by field) and how many bytes have come.

    Raises:
        Problem: 400 broken form, 408 too slow, 413 too large, 415 no form, 422 unknown or doubled field, 507 full disk.
    """
    boundary = _boundary(request)
    limit = int(config.media.max_file_gb * 1e9) + _FORM_BYTES + 4 * config.max_text
    stream = _pieces(request, config)
    parts = _Parts(folder, names, max_field=4 * config.max_text)
    try:
        if int(request.headers.get("content-length") or 0) > limit:
            raise too_large(config.media.max_file_gb)
        parser = MultipartParser(boundary, parts.callbacks())
        await _parse(_watched(stream, parts, watch), parser, limit, config, check_space)
        if not parts.ended:
            raise Problem(400, "broken-form", "The form ends in the middle.")
    except FormParserError as error:
        raise Problem(400, "broken-form", "The form cannot be read; send it as multipart/form-data.") from error
    except Problem:
        await _drain(stream)
        raise
    finally:
        parts.close()
    return parts.form


async def receive_json(request: Request, config: ServiceConfig, check: Callable[[dict[str, Any]], None]) -> Form:
    """Read the fields of a form from a JSON object; files come by address then. Null counts as left out, like an empty
    field of a form.

    Args:
        request: whose body it is.
        config: how much and how slow it may be.
        check: raises a Problem where a value has a wrong type.

    Raises:
        Problem: 400 no JSON object, 408 too slow, 413 too large, 422 a value that is no text, number or truth.
    """
    limit, body = _FORM_BYTES + 12 * config.max_text, bytearray()  # a character takes up to 12 bytes as \ud83d\ude00
    async for piece in _pieces(request, config):
        body += piece
        if len(body) > limit:
            raise Problem(413, "too-large", f"The request is larger than {limit // 1000} kB; send files by address.")
    try:
        told = json.loads(body)
        json.dumps(told, ensure_ascii=False).encode()  # halves of characters, which JSON can hold, are no text
    except (ValueError, RecursionError) as error:
        raise Problem(400, "broken-form", "The body cannot be read as JSON.") from error
    if not isinstance(told, dict):
        raise Problem(400, "broken-form", "The body is to be a JSON object, with the fields of the form.")
    check(told)
    return Form({name: _as_text(name, value) for name, value in told.items()})


def _as_text(name: str, value: Any) -> str:
    """A value of JSON as a form would hold it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return repr(value)
    raise bad_input(f"The field {name[:50]!r} takes a text, a number, or true or false.")


def _boundary(request: Request) -> bytes:
    """What parts the parts of a form."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        detail = "Send the files as multipart/form-data, or their addresses as application/json."
        raise Problem(415, "no-form", detail)
    return options[b"boundary"]


async def _watched(
    stream: AsyncIterator[bytes], parts: _Parts, watch: Callable[[dict[str, str], int], None] | None
) -> AsyncIterator[bytes]:
    """The same pieces; each is told about when the next one is asked for, that is when it has been read."""
    received = 0
    async for piece in stream:
        received += len(piece)
        yield piece
        if watch is not None:
            watch(parts.sent_names, received)


async def _parse(
    stream: AsyncIterator[bytes],
    parser: MultipartParser,
    limit: int,
    config: ServiceConfig,
    check_space: Callable[[], None],
) -> None:
    received = checked = 0
    async for piece in stream:
        received += len(piece)
        if received > limit:
            raise too_large(config.media.max_file_gb)
        if received - checked >= _DISK_EVERY:
            checked = received
            await to_thread.run_sync(check_space)
        await to_thread.run_sync(parser.write, piece)


async def _pieces(request: Request, config: ServiceConfig) -> AsyncIterator[bytes]:
    """The body as it comes in; ends in a problem when the client is too slow or goes away."""
    stream = request.stream()
    began, received = time.monotonic(), 0
    while True:
        elapsed = time.monotonic() - began
        try:
            if received < config.upload_min_rate * (elapsed - config.upload_idle_s):
                raise TimeoutError
            with fail_after(min(config.upload_idle_s, max(config.upload_max_s - elapsed, 0.0))):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Problem(408, "too-slow", "The upload took too long; try again on a faster line.") from error
        except ClientDisconnect as error:
            raise Problem(400, "broken-off", "The upload was broken off.") from error
        if piece:
            received += len(piece)
            yield piece


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Read on for a moment after a refusal: many clients look for an answer only when they have sent all."""
    received = 0
    with suppress(Problem, TimeoutError, RuntimeError):
        with fail_after(_DRAIN_S):
            async for piece in stream:
                received += len(piece)
                if received > _DRAIN_BYTES:
                    return
