"""Endpoint strings: whether they can be used, who can reach them, and how their sockets are set.

The strings are Twisted's, https://docs.twisted.org/en/stable/core/howto/endpoints.html.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from typing import Any

from twisted.internet import endpoints

KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 3


def check_server(text: str) -> None:
    """Sees that ``text`` is the endpoint string of a listener, without opening anything.

    Raises:
        ValueError: it is not.
    """
    _check(text, endpoints.serverFromString, 'such as "tcp:1500:interface=127.0.0.1"')


def check_client(text: str) -> None:
    """Sees that ``text`` is the endpoint string of a client, without opening anything.

    Raises:
        ValueError: it is not.
    """
    _check(text, endpoints.clientFromString, 'such as "tcp:hub.example.org:1500"')


def _check(text: str, parse: Any, example: str) -> None:
    try:
        # Parsing stores the reactor for later and asks nothing of it: the real one is not loaded yet.
        endpoint = parse(object(), text)
    except Exception as error:  # noqa: BLE001 - the parsers raise whatever their int() and calls raise
        raise ValueError(f"{text!r} is no endpoint {example}: {error}") from None
    port = getattr(endpoint, "_port", 0)
    if isinstance(port, int) and not 0 <= port <= 65_535:
        raise ValueError(f"{text!r}: {port} is no port number")


def is_exposed(text: str) -> bool:
    """Tells whether other machines can reach the listener that ``text`` describes, as far as the text tells."""
    if not text.startswith(("tcp:", "tcp6:", "ssl:")):
        return False
    found = re.search(r":interface=((?:\\.|[^:\\])*)", text)
    address = re.sub(r"\\(.)", r"\1", found[1]) if found else ""
    if address == "localhost":
        return False
    with contextlib.suppress(ValueError):
        return not ipaddress.ip_address(address).is_loopback
    return True


def keep_alive(transport: Any, idle_s: int = KEEPALIVE_IDLE_S) -> None:
    """Has the kernel probe a peer that is silent, so that a vanished one is found within about a minute.

    Args:
        transport: of a TCP connection; another kind is left as it is.
        idle_s: seconds without traffic before the first probe.

    ``TCP_USER_TIMEOUT`` stays off: it would abort a living peer that reads slowly.
    """
    with contextlib.suppress(AttributeError, OSError):  # a UNIX socket has neither
        transport.setTcpKeepAlive(1)
        transport.setTcpNoDelay(True)
        handle: socket.socket = transport.getHandle()
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def say_farewell(transport: Any, last_words: bytes) -> None:
    """Sends the last words and ends one's own half of the connection; the peer's half is left to be read off.

    Closing over bytes that have not been read would make the kernel reset the connection, and the peer might never
    see why. The caller throws away what still comes, and cuts the connection off after a while.
    """
    transport.unregisterProducer()
    transport.write(last_words)
    if hasattr(transport, "loseWriteConnection"):
        transport.loseWriteConnection()
        transport.resumeProducing()
    else:
        transport.loseConnection()
