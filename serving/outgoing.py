"""Connections from this service to addresses that a client names: never into a private network unless that is allowed.

Addresses may have letters of any language: names of hosts are sent as IDNA (UTS 46) has it, the rest as RFC 3987 does.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote, urlsplit, urlunsplit

import idna

TIMEOUT_S = 10.0
"""For a connection, and for each answer that is waited for."""

HEADERS = {"User-Agent": "lip-sync"}
"""Of every request."""

_PORTS = {"http": 80, "https": 443}
_STAY = "%:@!$&'()*+,;=~/?"  # characters that mean something in a path or query, besides letters, digits and -._


def ascii_url(url: str) -> str:
    """An address as it is sent: only ASCII, the host in small letters, no port that goes without saying, no `#` part.

    Raises:
        ValueError: it is no address of http or https, or holds a user name, blanks or control characters.
    """
    if not url.isprintable() or " " in url:
        raise ValueError("blanks or control characters")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("no address of http or https")
    host = _ascii_host(parts.hostname)
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return urlunsplit((parts.scheme, host + port, quote(parts.path, _STAY), quote(parts.query, _STAY), ""))


def _ascii_host(host: str) -> str:
    if ":" in host:
        return f"[{ipaddress.ip_address(host)}]"
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(str(error)) from error


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, as `ascii_url` writes them.

    Raises:
        ValueError: see `ascii_url`.
    """
    parts = urlsplit(ascii_url(url))
    return f"{parts.scheme}://{parts.netloc}"


def is_listed(url: str, origins: Collection[str]) -> bool:
    """An address begins with one of these origins; also where either is written in another way."""
    try:
        return origin_of(url) in {origin_of(origin) for origin in origins}
    except ValueError:
        return False


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_global


def open_socket(host: str, port: int, to_private: bool, listed: bool = True) -> socket.socket:
    """Connect to a host, by the very address that was checked: a name may lead elsewhere the next time it is asked for.

    Args:
        host: name or address; an address, and localhost, are fine where the configuration lists them.
        port: TCP port.
        to_private: a name may also lead into a private network.
        listed: the configuration lists this very host; else only public addresses are fine.

    Raises:
        OSError: no connection, or the name leads into a private network.
    """
    is_plain = listed and (host == "localhost" or host.replace(".", "").isdigit() or ":" in host)
    fault = OSError(f"{host} leads into a private network")
    for _, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if is_plain or (listed and to_private) or _is_public(address[0]):
            try:
                return socket.create_connection(address[:2], TIMEOUT_S)
            except OSError as error:
                fault = error
    raise fault


@contextmanager
def connected(
    url: str, to_private: bool, longest_s: float, listed: bool = True
) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    """A connection for one request, and what is to be asked for on it. Neither redirects nor proxies are followed.

    Args:
        url: as `ascii_url` writes it.
        to_private, listed: see `open_socket`.
        longest_s: seconds after which the connection is cut off, whatever is going on.

    Raises:
        OSError: see `open_socket`; also what the block makes of a connection that is cut off.
    """
    parts = urlsplit(url)
    is_safe = parts.scheme == "https"
    port = parts.port or _PORTS[parts.scheme]
    sock = open_socket(parts.hostname, port, to_private, listed)
    with closing(sock), _cut_off(sock, longest_s):
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
        tls = ssl.create_default_context() if is_safe else None
        connection.sock = sock if tls is None else tls.wrap_socket(sock, server_hostname=parts.hostname)
        with closing(connection):
            yield connection, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@contextmanager
def _cut_off(sock: socket.socket, longest_s: float) -> Iterator[None]:
    """Within this block a connection that takes too long is cut off. Time limits of sockets are about single answers,
    and the other side may answer byte by byte."""
    twin = sock.dup()  # TLS takes the socket itself over

    def cut() -> None:
        with suppress(OSError):  # it has ended just now
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(longest_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        twin.close()
