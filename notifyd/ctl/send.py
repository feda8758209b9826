"""``notifyctl send``: one event to the hub, and the hub's word that it is kept."""

from __future__ import annotations

import socket
import time
import uuid
from typing import Any

import click
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from notifyd import event as events
from notifyd import wire
from notifyd.ctl import hubaddress, running
from notifyd.ctl.say import CommandError, complain

ANSWER_TIMEOUT_S = 10.0
"""How long connecting and the hub's answer may take together."""


@click.command()
@click.argument("type_", metavar="TYPE")
@click.argument("text", required=False)
@click.option("--priority", type=click.Choice([lane.value for lane in reversed(events.LANES)]), help="A hint.")
@click.option("--source", metavar="S", help="Default: /notifyctl/HOSTNAME.")
@click.option("--data", metavar="JSON", help="The event's data; TEXT goes into it as line.")
@hubaddress.hub_options
def send(
    type_: str,
    text: str | None,
    priority: str | None,
    source: str | None,
    data: str | None,
    hub: str | None,
    config: str | None,
) -> None:
    """Send one event and print its id once the hub has stored it.

    TYPE is the type of the event, as in panel.alarm, and TEXT the line in its data.
    """
    address = hubaddress.find(["ingest"], hub, config)["ingest"]
    event = events.Event(
        specversion="1.0",
        id=str(uuid.uuid4()),
        source=f"/notifyctl/{socket.gethostname()}" if source is None else source,
        type=type_,
        time=events.format_time(time.time()),
    )
    if priority is not None:
        event.priority = priority
    if (encoded := _data(text, data)) is not None:
        event.data = encoded
    line = _line(event)

    from twisted.internet import reactor

    connection = _Producer(line)
    Deferred.fromCoroutine(_connect(reactor, address, connection)).addErrback(connection.fail)
    connection.done.addTimeout(ANSWER_TIMEOUT_S, reactor, _timed_out)
    work = connection.done.addCallbacks(_succeed, _fail, callbackArgs=(event.id,), errbackArgs=(address,))
    running.run(reactor, work, lambda: running.leave(running.INTERRUPTED))


def _data(text: str | None, data: str | None) -> msgspec.Raw | None:
    """Puts TEXT and ``--data`` together; what is written in JSON keeps its figures as they are."""
    if data is None:
        return None if text is None else msgspec.Raw(_encode({"line": text}, "TEXT"))
    try:
        compact = msgspec.json.format(data.encode(), indent=-1)
        is_object = compact[:1] == b"{"
        members = msgspec.json.decode(compact, type=dict[str, msgspec.Raw]) if is_object else None
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise click.BadParameter(f"no valid JSON: {error}", param_hint="--data") from None
    if text is None:
        return msgspec.Raw(compact)
    if members is None:
        raise click.BadParameter("must be a JSON object where TEXT is given too", param_hint="--data")
    return msgspec.Raw(_encode({"line": text, **members}, "TEXT"))


def _line(event: events.Event) -> bytes:
    """Encodes the event, and finds what the hub would refuse before it is asked."""
    try:
        line = events.encode(event)
        events.decode(line)
    except UnicodeEncodeError:
        raise click.UsageError("an argument is no UTF-8", click.get_current_context()) from None
    except events.NotAcceptableError as error:
        raise click.UsageError(f"no acceptable event: {error}", click.get_current_context()) from None
    if len(line) > wire.MAX_LINE:
        raise CommandError(f"the event has {len(line)} bytes; the hub takes at most {wire.MAX_LINE}")
    return line


def _encode(data: dict[str, Any], what: str) -> bytes:
    try:
        return msgspec.json.encode(data)
    except UnicodeEncodeError:
        raise click.BadParameter("is no UTF-8", param_hint=what) from None


class NotConfirmedError(Exception):
    """The hub did not confirm the event; the text says why, for the operator."""


class _Producer(Protocol):
    """Sends one line and waits for its ``ACK``.

    Args:
        line: the event, without its line end.
    """

    def __init__(self, line: bytes) -> None:
        self.done: Deferred[None] = Deferred()
        self._line = line
        self._splitter = wire.LineSplitter(wire.MAX_HUB_LINE)

    def connectionMade(self) -> None:
        """Sends the event; a producer of one event needs no HELLO."""
        self._transport().write(self._line + b"\n")

    def dataReceived(self, data: bytes) -> None:
        """Looks for the answer."""
        for line in self._splitter.feed(data):
            verb, argument = wire.parse_verb(line) or ("", None)
            if verb == "ACK" and argument is not None and argument.isdigit() and int(argument) >= 1:
                self._finish(None)
            elif verb == "REJECT":
                reason = (argument or b"").partition(b" ")[2].decode("utf-8", "replace")
                self._finish(NotConfirmedError(f"refused the event, and kept it as an error: {reason}"))
            elif verb == "ERROR":
                self._finish(NotConfirmedError(f"ended the connection: {(argument or b'').decode('utf-8', 'replace')}"))
            elif not verb:
                self._finish(NotConfirmedError("does not answer as a notify-hub does"))
        if self._splitter.overflow:
            self._finish(NotConfirmedError("does not answer as a notify-hub does"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tells that no answer will come."""
        self._finish(NotConfirmedError("closed the connection without an answer; the event may be stored all the same"))

    def fail(self, failure: Failure) -> None:
        """Tells that there is no connection."""
        if not self.done.called:
            self.done.errback(failure)

    def _finish(self, error: Exception | None) -> None:
        if self.done.called:
            return
        if error is None:
            self.done.callback(None)
        else:
            self.done.errback(error)

    def _transport(self) -> Any:
        return self.transport


async def _connect(reactor: Any, address: hubaddress.Address, connection: _Producer) -> None:
    await address.endpoint(reactor).connect(Factory.forProtocol(lambda: connection))


def _timed_out(_: object, seconds: float) -> None:
    raise NotConfirmedError(f"did not confirm the event within {seconds:g} s; it may be stored all the same")


def _succeed(_: object, event_id: str) -> int:
    print(event_id)
    return 0


def _fail(failure: Failure, address: hubaddress.Address) -> int:
    error: BaseException | None = failure.value
    if isinstance(error, NotConfirmedError):
        complain(f"the hub at {address} {error}")
    else:
        complain(f"cannot connect to the hub at {address}: {hubaddress.why_not(error)}")
    return 1
