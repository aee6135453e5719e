"""Connections from this service to addresses that a client names: never into a private network unless that is allowed.

Addresses may have letters of any language: names of hosts are sent as IDNA (UTS 46) has it, the rest as RFC 3987 does.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import quote, urlsplit, urlunsplit

import idna

TIMEOUT_S = 10.0
"""For a connection, and for each answer that is waited for."""

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


def open_socket(host: str, port: int, to_private: bool) -> socket.socket:
    """Connect to a host, by the very address that was checked: a name may lead elsewhere the next time it is asked for.

    Args:
        host: name or address; an address, and localhost, are as the configuration lists them, so they are fine.
        port: TCP port.
        to_private: a name may also lead into a private network.

    Raises:
        OSError: no connection, or the name leads into a private network.
    """
    is_plain = host == "localhost" or host.replace(".", "").isdigit() or ":" in host
    fault = OSError(f"{host} leads into a private network")
    for _, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if is_plain or to_private or _is_public(address[0]):
            try:
                return socket.create_connection(address[:2], TIMEOUT_S)
            except OSError as error:
                fault = error
    raise fault
