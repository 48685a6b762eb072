"""Userwire for Python 3.9 and newer, in one file: copy it beside your program.

Receive, with the package ``websockets`` (Debian: ``python3-websockets``; version 10 or newer)::

    async with userwire.connect("http://127.0.0.1:8765", user="alice", on_gap=reload) as messages:
        async for message in messages:
            print(message.seq, message.data)

Send, with the standard library alone::

    sender = userwire.Sender("http://127.0.0.1:8765", key="…")
    sent = sender.send("alice", {"order": 7})
    print(sent.sockets)

What happens meanwhile is logged under the name ``userwire``. Proxies in the environment are not used.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import dataclasses
import hashlib
import hmac
import http.client
import importlib
import inspect
import json
import logging
import os
import random
import re
import selectors
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from typing import (
    Any, Awaitable, Callable, Deque, Dict, Iterable, List, Mapping, NamedTuple, NoReturn, Optional, Tuple,
    TypeVar, Union, cast, overload,
)  # fmt: skip

__all__ = [
    "connect", "Receiver", "Message", "Gap",
    "Sender", "Sent", "Ticket", "verify_webhook",
    "Error", "Refused", "Unavailable", "Closed", "RequestError",
]  # fmt: skip

_Value = TypeVar("_Value")
_log = logging.getLogger("userwire")


class Error(Exception):
    """Whatever the service, or the way to it, is the cause of. What the program gave wrongly is a ValueError."""


class Refused(Error):
    """The service has said no, and would again: mend what ``detail`` names."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({status} {code})" if code else f"{detail} ({status})")
        self.status, self.code, self.detail = status, code, detail


class Unavailable(Error):
    """Not reached or not ready, as often as it was tried. Whether the last try was carried out is not known."""


class Closed(Error):
    """The server has closed the socket for good: ``code`` 4400 to 4499, and ``reason``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"The server has closed the connection for good: {code} {reason}".rstrip())
        self.code, self.reason = code, reason


class RequestError(Error):
    """A request that was not done, or of which that is not known: ``outcome`` is ``refused`` or ``unknown``.

    ``code`` is the backend's own, or ``refused``, ``busy``, ``timeout``, ``unavailable``, ``bad_answer``, ``too_large``,
    ``unsupported``, ``lost`` or ``closed``. ``retry_s`` says when it is worth asking again, in seconds.
    """

    def __init__(self, code: str, detail: str, outcome: str = "refused", retry_s: Optional[float] = None) -> None:
        super().__init__(f"{detail} ({code})")
        self.code, self.detail, self.outcome, self.retry_s = code, detail, outcome, retry_s


# ----------------------------------------------------------------------------------------------------------
# Receiving


class Message(NamedTuple):
    """A message. ``data`` is what was sent: a JSON value, or bytes."""

    #: Its number among the user's messages; None when the service keeps no history, or does not know it.
    seq: Optional[int]
    data: Any
    #: Unique; None when it was published past the service.
    id: Optional[str]
    #: When it was sent, in Unix milliseconds.
    ts: int
    #: In which epoch the number counts; None when ``seq`` is.
    epoch: Optional[str]
    #: Whether it was read from the history.
    replayed: bool
    #: The span that the send was a part of, as the ``traceparent`` of W3C Trace Context; None when its sender named none.
    traceparent: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Gap:
    """Messages that can't be delivered: load your state anew."""

    #: Number of the first that is missing.
    first: int
    #: Number of the last, and how many; None when nobody knows, after the history was lost.
    last: Optional[int]
    count: Optional[int]
    #: ``trimmed`` or ``epoch``.
    why: str


class _Position(NamedTuple):
    epoch: str
    seq: int
    tag: Optional[str] = None

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}" + (f".{self.tag}" if self.tag else "")


class _Entry(NamedTuple):
    """What waits for the application."""

    item: Union[Message, Gap]
    #: Where the application stands when it has it; None when it does not count.
    position: Optional[_Position]
    #: Numbers of another counting must not be acknowledged.
    counting: int
    #: The sender waits to hear that the application has it.
    urgent: bool
    size: int


class _End(NamedTuple):
    """How a connection, or the attempt to have one, has ended."""

    #: The close code; 1006 when it broke or never came about.
    code: int = 1006
    reason: str = ""
    #: When the server wants to see the client again, in seconds.
    retry_s: Optional[float] = None
    #: How long it was open, in seconds; None when it never was.
    lasted_s: Optional[float] = None
    #: HTTP status of a refusal.
    status: Optional[int] = None


#: The n-th wait is a random part of so many seconds times 2 ** n, at most the longest; no n counts after a steady time.
_BASE_S, _LONGEST_S, _STEADY_S = 0.5, 30.0, 10.0
#: How late the server's sign of life may be, and how long opening and ``token`` may take, in seconds.
_PATIENCE_S = 10.0
#: No server's word keeps a client away longer, in seconds.
_LONGEST_RETRY_S = 3600.0
#: With more waiting for the application nothing is read; the server then holds back, or closes and is resumed.
_FULL_MESSAGES, _FULL_CHARS = 1000, 4 * 1024 * 1024
#: Acknowledged are all messages after a second, or so many at once, and never more often than that, in seconds.
_ACK_AFTER_S, _ACK_BATCH, _ACK_SPACING_S = 1.0, 32, 0.05

#: So many requests may be unanswered, so many bytes may each have, and one by one they are sent after the first ones.
_REQUESTS, _REQUEST_BYTES, _REQUEST_SPACING_S = 16, 65_536, 0.025

_POSITION = re.compile(r"([A-Za-z0-9_-]{1,32})\.([0-9]{1,15})(?:\.([A-Za-z0-9_-]{8}))?")

#: What a refused handshake means, for those who have to mend it.
_REFUSALS = {
    400: "The user's name, the position or the address is not valid",
    401: "The service asks for a token or a ticket, and this is none that it takes: give a function as token=",
    403: "The user's name is not the token's, or the service takes no such origin",
    404: "There are no sockets at this address: it ends with / or /ws, or a proxy leads elsewhere",
    421: "The service does not know itself by this name: call it localhost, or add the address to USERWIRE_ALLOWED_ORIGINS",
    426: "Something between here and the service takes the handshake apart: let it pass Upgrade",
}

Token = Union[str, Callable[[], Union[str, Awaitable[str]]]]


def connect(
    url: str,
    *,
    user: Optional[str] = None,
    token: Optional[Token] = None,
    resume: Optional[str] = None,
    on_gap: Optional[Callable[[Gap], Any]] = None,
    on_broadcast: Optional[Callable[[Message], Any]] = None,
    on_broadcast_gap: Optional[Callable[[Gap], Any]] = None,
    resume_broadcasts: Optional[str] = None,
    ssl: Optional[ssl.SSLContext] = None,
) -> Receiver:
    """A user's messages, each once and in order, over as many connections as it takes.

    Nothing is done before it is entered (``async with``) or iterated over; then it keeps a connection up until it is
    closed, the loop being busy or not.

    :param url: ``https://host`` or ``wss://host/ws``.
    :param user: Who connects, where the service is open.
    :param token: In place of ``user``: a token or a ticket, or a function, async or not, that gives one and is called
        before each attempt. A plain function runs in a thread. A ticket lets one connection in: give a function.
    :param resume: Position to go on from, as ``Receiver.position`` gave it.
    :param on_gap: Called, and awaited if need be, between the messages before and after. Without it a gap is logged.
    :param on_broadcast: Called with each message to everybody, and awaited before the next one. They are in order among
        themselves, and come beside the user's own messages. Without it they are passed over.
    :param on_broadcast_gap: Called with what is missing among them, in its place. Without it that is logged.
    :param resume_broadcasts: Position to go on from among them, as ``Receiver.broadcast_position`` gave it.
    :param ssl: For certificates of an authority of your own: ``ssl.create_default_context(cafile="ca.pem")``.
    :raises ValueError: for what can never work.
    """
    told = _Broadcasts(on_broadcast, on_broadcast_gap, resume_broadcasts)
    return Receiver(url, user, token, resume, on_gap, told, ssl)


class Receiver:
    """Made by ``connect``. Of one event loop and its thread; several loops over it share the messages."""

    def __init__(
        self, url: str, user: Optional[str], token: Optional[Token], resume: Optional[str],
        on_gap: Optional[Callable[[Gap], Any]], broadcasts: _Broadcasts, context: Optional[ssl.SSLContext],
    ) -> None:  # fmt: skip
        if (user is None) == (token is None):
            raise ValueError("Give either user= or token=")
        parts = _split(url, ("http", "https", "ws", "wss"))
        query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
        if any(name == "ticket" for name, _ in query):
            raise ValueError("A ticket in the address lets one connection in: give a function that gets one as token=")
        if user is not None:
            query.append(("username", user))
        scheme = "wss" if parts.scheme in ("https", "wss") else "ws"
        if context is not None and scheme == "ws":
            raise ValueError("ssl= is for https:// and wss:// addresses")
        self._address = parts._replace(scheme=scheme, path=parts.path.rstrip("/") or "/ws", query="", fragment="")
        # Encoded here, so that a name that can't be is noticed now.
        self._query = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        self._ssl, self._token, self._on_gap, self._broadcasts = context, token, on_gap, broadcasts
        self._received = self._handed = _position(resume) if resume is not None else None
        self._counting = 0
        self._queue: Deque[_Entry] = collections.deque()
        self._size = 0
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._task: Optional[asyncio.Task[None]] = None
        self._is_over = False
        self._error: Optional[BaseException] = None
        self._acks: Optional[_Acks] = None
        self._link: Optional[_Link] = None
        self._paid_until = 0.0

    @property
    def position(self) -> Optional[str]:
        """Where the application stands: give it as ``resume`` to go on from here. None until it is known."""
        return None if self._handed is None else str(self._handed)

    @property
    def broadcast_position(self) -> Optional[str]:
        """The same among the broadcasts: give it as ``resume_broadcasts``."""
        handed = self._broadcasts.handed
        return None if handed is None else str(handed)

    async def __aenter__(self) -> Receiver:
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Receiver:
        return self

    async def __anext__(self) -> Message:
        """The next message. May be cancelled, by ``asyncio.wait_for`` too: nothing is lost by it.

        :raises Closed: when the server has ended it for good.
        :raises Refused: when it lets this client in under no circumstances.
        """
        self._start()
        while True:
            while not self._queue:
                if self._is_over:
                    raise self._error or StopAsyncIteration
                self._changed.clear()
                await self._changed.wait()
            entry = self._queue.popleft()
            self._size -= entry.size
            self._room.set()
            if entry.position is not None:
                self._handed = entry.position
            if isinstance(entry.item, Message):
                if entry.item.seq is not None and entry.counting == self._counting:
                    self._acknowledge(entry.item.seq, entry.urgent)
                return entry.item
            if self._on_gap is None:
                _log.warning("messages are missing: %s", entry.item)
            else:
                result = self._on_gap(entry.item)
                if inspect.isawaitable(result):
                    await result

    async def request(self, op: str, data: Any = None, *, timeout: float = 10.0, retry: bool = False) -> Any:
        """Asks the backend, and returns its answer; None when it had nothing to say.

        Without a connection it waits for one. Requests go out in the order in which they were made.

        :param op: What is asked for: 1 to 64 characters.
        :param data: What ``json.dumps`` takes.
        :param timeout: How long to wait for the answer, in seconds, waiting for a connection included.
        :param retry: Repeat it with the same id when the connection breaks, or nobody can answer now. The backend must
            then drop what it has had. Else it is made at most once.
        :raises RequestError: when it was not done, or that is not known.
        :raises ValueError: for what can't be asked.
        """
        if not 0 < len(op) <= 64 or not timeout > 0:
            raise ValueError("op has 1 to 64 characters, and timeout is above 0")
        frame = {"t": "req", "id": uuid.uuid4().hex, "op": op, "data": data}
        json.dumps(frame, allow_nan=False)
        self._start()
        sent: List[bool] = []
        try:
            return await _within(timeout, self._ask(frame, time.monotonic() + timeout, retry, sent))
        except asyncio.TimeoutError:
            outcome = "unknown" if sent else "refused"
            raise RequestError("timeout", f"There was no answer within {timeout:g} s", outcome) from None

    async def close(self) -> None:
        """Ends it; loops over it end. What was received and not handed over is left to whoever resumes."""
        self._is_over = True
        self._queue.clear()
        if self._task is None:
            return
        self._changed.set()
        self._broadcasts.end(discard=True)
        # A callback may be who closes: that one ends by itself.
        tasks = (self._task, self._broadcasts.task)
        others = [task for task in tasks if task is not None and task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        if others:
            # Their end only: being cancelled here is the caller's business.
            await asyncio.wait(others)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is None and not self._is_over:
            _websockets_connect()  # found missing here, where the application sees it
            self._loop = loop
            # Not in the constructor: before Python 3.10 they belong to the loop that is there when they are made.
            self._changed, self._room, self._linked = asyncio.Event(), asyncio.Event(), asyncio.Event()
            self._turns, self._pace = asyncio.Semaphore(_REQUESTS), asyncio.Lock()
            self._broadcasts.start(loop, self._room)
            self._task = loop.create_task(self._run())
        elif self._loop not in (None, loop):
            raise RuntimeError("This receiver belongs to another event loop: make one in each")

    async def _ask(self, frame: Dict[str, Any], end: float, retry: bool, sent: List[bool]) -> Any:
        while True:
            try:
                async with self._turns:
                    return await self._ask_once(frame, end, sent)
            except RequestError as error:
                if not retry or error.code not in ("lost", "busy", "unavailable", "timeout"):
                    raise
                if error.code != "lost":
                    await asyncio.sleep(1.0 if error.retry_s is None else error.retry_s)

    async def _ask_once(self, frame: Dict[str, Any], end: float, sent: List[bool]) -> Any:
        # The lock keeps the order: who sends more in a second than the service takes is closed for good.
        async with self._pace:
            wait_s = self._paid_until - time.monotonic() - (_REQUESTS - 1) * _REQUEST_SPACING_S
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            while self._link is None:
                if self._is_over:
                    raise RequestError("closed", "The receiver is closed", "unknown" if sent else "refused")
                self._linked.clear()
                await self._linked.wait()
            link = self._link
            if link.hi.get("req") != 1:
                raise RequestError("unsupported", "The service takes no requests")
            now = time.monotonic()
            text = json.dumps({**frame, "timeout_ms": max(1, round((end - now) * 1000))}, allow_nan=False)
            most = min(link.hi.get("max", _REQUEST_BYTES), _REQUEST_BYTES)
            if len(text) > most:
                raise RequestError("too_large", f"The request has {len(text)} bytes, and the service takes {most}")
            self._paid_until = max(self._paid_until, now) + _REQUEST_SPACING_S
            sent.append(True)
            answer = link.expect(frame["id"])
            with contextlib.suppress(Exception):  # the connection has ended, which its reader notices
                await link.socket.send(text)
        try:
            return await answer
        finally:
            link.answers.pop(frame["id"], None)

    # -- from the server

    async def _run(self) -> None:
        try:
            await self._stay_connected()
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self._error = error
        finally:
            self._is_over = True
            self._changed.set()
            self._linked.set()
            self._broadcasts.end(discard=False)

    async def _stay_connected(self) -> None:
        failures, is_refreshing = 0, False
        while True:
            end = await self._attempt()
            if end.lasted_s is not None and end.lasted_s >= _STEADY_S:
                failures, is_refreshing = 0, False
            if end.code == 1000:
                return
            if 4400 <= end.code <= 4499 or end.status is not None:
                is_stale = end.status == 401 or (end.code == 4401 and end.reason == "token_expired")
                if not (is_stale and callable(self._token) and not is_refreshing):
                    if end.status is not None:
                        raise Refused(end.status, "", _REFUSALS.get(end.status, end.reason))
                    raise Closed(end.code, end.reason)
                is_refreshing = True
            wait_s = end.retry_s
            if wait_s is None:
                wait_s = random.uniform(0, min(_LONGEST_S, _BASE_S * 2.0 ** min(failures, 30)))
            failures += 1
            _log.info("not connected (%d %s): next attempt in %.1f s", end.code, end.reason, wait_s)
            await asyncio.sleep(wait_s)

    async def _attempt(self) -> _End:
        headers: Dict[str, str] = {}
        if self._token is not None:
            try:
                headers["Authorization"] = f"Bearer {await _within(_PATIENCE_S, _given(self._token))}"
            except Exception as error:
                _log.warning("no token: %r", error, exc_info=not isinstance(error, asyncio.TimeoutError))
                return _End(reason=f"no token: {error!r}")
        resume = "" if self._received is None else f"resume={self._received}"
        query = "&".join(part for part in (self._query, resume, self._broadcasts.query) if part)
        try:
            socket = await _open(self._address._replace(query=query).geturl(), headers, self._ssl)
        except Exception as error:
            return _failure(error)
        self._acks = acks = _Acks(socket)
        try:
            return await self._read(socket)
        finally:
            if self._link is not None:
                self._link.end()
            self._acks = self._link = None
            acks.task.cancel()
            with contextlib.suppress(Exception):
                if self._is_over:
                    await acks.flush()
                await socket.close()

    async def _read(self, socket: Any) -> _End:
        limit_s = _PATIENCE_S
        opened_at: Optional[float] = None
        bye: Dict[str, Any] = {}
        end = _End()
        try:
            while True:
                frame, size = _frame(await _within(limit_s, socket.recv()))
                kind = frame.get("t")
                if kind == "m":
                    self._on_message(frame, size)
                elif kind == "gap":
                    self._on_gap_frame(frame, size)
                elif kind == "b":
                    self._broadcasts.on_message(frame, size)
                elif kind == "bgap":
                    self._broadcasts.on_gap(frame, size)
                elif kind == "bye":
                    bye = frame
                elif kind == "re" and self._link is not None:
                    self._link.answered(frame)
                elif kind == "hi":
                    self._link = _Link(socket, frame)
                    self._linked.set()
                    opened_at = time.monotonic()
                    limit_s = (frame.get("ping") or 25) + _PATIENCE_S
                    if self._received is None and "pos" in frame:
                        self._received = self._handed = _position(frame["pos"], frame.get("tag"))
                    self._broadcasts.start_at(frame.get("all"))
                while len(self._queue) >= _FULL_MESSAGES or self._size >= _FULL_CHARS or self._broadcasts.are_full:
                    self._room.clear()
                    await self._room.wait()
        except asyncio.TimeoutError:
            end = _End(reason=f"the server was silent for {limit_s:g} s")
        except Exception as error:
            received = getattr(error, "rcvd", None)
            end = _End(received.code, received.reason) if received else _End(reason=repr(error))
        if end.code == 1006 and bye:
            end = end._replace(code=int(bye.get("code", 1006)))
        retry_ms = bye.get("retry_ms")
        if isinstance(retry_ms, (int, float)) and retry_ms >= 0:
            end = end._replace(retry_s=min(retry_ms / 1000, _LONGEST_RETRY_S))
        lasted_s = None if opened_at is None else time.monotonic() - opened_at
        return end._replace(reason=bye.get("why") or end.reason, lasted_s=lasted_s)

    def _on_message(self, frame: Dict[str, Any], size: int) -> None:
        seq, before, urgent = frame.get("seq"), self._received, frame.get("ack") == 1
        counts = seq is not None and before is not None
        if seq is not None and before is not None:
            if seq <= before.seq:
                # The sender of what the application has may still wait, for a receipt that was lost.
                handed = self._handed
                if urgent and handed is not None and handed.epoch == before.epoch and seq <= handed.seq:
                    self._acknowledge(handed.seq, True)
                return
            if seq > before.seq + 1:
                _log.warning("message %d came after %d, and no gap was announced", seq, before.seq)
            self._received = _Position(before.epoch, seq, frame.get("tag"))
        message = _message(frame, before.epoch if counts and before is not None else None)
        self._push(_Entry(message, self._received if counts else None, self._counting, urgent, size))

    def _on_gap_frame(self, frame: Dict[str, Any], size: int) -> None:
        position, before, why = _position(frame["pos"], frame.get("tag")), self._received, frame.get("why", "")
        # Within an epoch what is known to be missing is not news; a new one may begin anywhere.
        if why == "trimmed" and before and before.epoch == position.epoch and position.seq <= before.seq:
            return
        if why == "epoch":
            self._counting += 1
            if self._acks is not None:
                self._acks.reset()
        self._received = position
        self._push(_Entry(_gap(frame), position, self._counting, False, size))

    def _push(self, entry: _Entry) -> None:
        self._queue.append(entry)
        self._size += entry.size
        self._changed.set()

    def _acknowledge(self, seq: int, urgent: bool) -> None:
        if self._acks is not None:
            self._acks.handed(seq, urgent)


class _Broadcasts:
    """Messages to everybody, which have a position of their own, and a task that calls the application with them."""

    def __init__(
        self,
        on_message: Optional[Callable[[Message], Any]],
        on_gap: Optional[Callable[[Gap], Any]],
        resume: Optional[str],
    ) -> None:
        self._on_message, self._on_gap = on_message, on_gap
        self._received = self.handed = _position(resume) if resume is not None else None
        self._queue: Deque[Tuple[Union[Message, Gap], Optional[_Position], int]] = collections.deque()
        self._size = 0
        self._is_over = False
        self.task: Optional[asyncio.Task[None]] = None

    @property
    def query(self) -> str:
        return "" if self._received is None or self._on_message is None else f"all={self._received}"

    @property
    def are_full(self) -> bool:
        return len(self._queue) >= _FULL_MESSAGES or self._size >= _FULL_CHARS

    def start(self, loop: asyncio.AbstractEventLoop, room: asyncio.Event) -> None:
        if self._on_message is not None:
            self._room, self._changed = room, asyncio.Event()
            self.task = loop.create_task(self._run())

    def end(self, *, discard: bool) -> None:
        self._is_over = True
        if discard:
            self._queue.clear()
        if self.task is not None:
            self._changed.set()

    def start_at(self, position: Optional[str]) -> None:
        if position is not None and self._received is None:
            self._received = self.handed = _position(position)

    def on_message(self, frame: Dict[str, Any], size: int) -> None:
        seq, before = frame.get("seq"), self._received
        if seq is None or before is None:
            return self._push(_message(frame, None), None, size)
        if seq <= before.seq:
            return
        if seq > before.seq + 1:
            _log.warning("broadcast %d came after %d, and no gap was announced", seq, before.seq)
        self._received = _Position(before.epoch, seq, frame.get("tag"))
        self._push(_message(frame, before.epoch), self._received, size)

    def on_gap(self, frame: Dict[str, Any], size: int) -> None:
        self._received = _position(frame["pos"], frame.get("tag"))
        self._push(_gap(frame), self._received, size)

    def _push(self, item: Union[Message, Gap], position: Optional[_Position], size: int) -> None:
        if self.task is not None:
            self._queue.append((item, position, size))
            self._size += size
            self._changed.set()

    async def _run(self) -> None:
        while True:
            while self._queue:
                item, position, size = self._queue.popleft()
                self._size -= size
                self._room.set()
                self.handed = position or self.handed
                try:
                    await self._tell(item)
                except Exception:
                    _log.exception("the callback for a broadcast has failed")
            if self._is_over:
                return
            self._changed.clear()
            await self._changed.wait()

    async def _tell(self, item: Union[Message, Gap]) -> None:
        call: Optional[Callable[[Any], Any]] = self._on_message if isinstance(item, Message) else self._on_gap
        if call is None:
            return _log.warning("broadcasts are missing: %s", item)
        result = call(item)
        if inspect.isawaitable(result):
            await result


class _Link:
    """An open connection, and the requests that were made over it."""

    def __init__(self, socket: Any, hi: Dict[str, Any]) -> None:
        self.socket, self.hi = socket, hi
        self.answers: Dict[str, asyncio.Future[Any]] = {}

    def expect(self, ident: str) -> asyncio.Future[Any]:
        self.answers[ident] = answer = asyncio.get_running_loop().create_future()
        return answer

    def answered(self, frame: Dict[str, Any]) -> None:
        answer = self.answers.pop(str(frame.get("id")), None)
        if answer is None or answer.done():
            return
        if frame.get("ok") is True:
            answer.set_result(frame.get("data"))
            return
        retry_ms = frame.get("retry_ms")
        retry_s = min(retry_ms / 1000, _LONGEST_RETRY_S) if isinstance(retry_ms, (int, float)) else None
        code, detail = frame.get("code", "refused"), frame.get("err", "")
        answer.set_exception(RequestError(code, detail, frame.get("outcome", "refused"), retry_s))

    def end(self) -> None:
        for answer in self.answers.values():
            if not answer.done():
                answer.set_exception(
                    RequestError("lost", "The connection broke before the answer came", "unknown")
                )


class _Acks:
    """When to tell the server, over one connection, what the application has."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._seq, self._count = socket, 0, 0
        self._some, self._urgent = asyncio.Event(), asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run())

    def handed(self, seq: int, urgent: bool) -> None:
        self._seq = seq
        self._count += 1
        self._some.set()
        if urgent or self._count >= _ACK_BATCH:
            self._urgent.set()

    def reset(self) -> None:
        """Forgets what was not told yet."""
        self._count = 0
        self._some.clear()
        self._urgent.clear()

    async def flush(self) -> None:
        if self._count > 0:
            self.reset()
            await self._socket.send(json.dumps({"t": "ack", "seq": self._seq}))

    async def _run(self) -> None:
        with contextlib.suppress(Exception):  # the connection has ended, which its reader notices
            while True:
                await self._some.wait()
                with contextlib.suppress(asyncio.TimeoutError):
                    await _within(_ACK_AFTER_S, self._urgent.wait())
                await self.flush()
                await asyncio.sleep(_ACK_SPACING_S)


def _message(frame: Dict[str, Any], epoch: Optional[str]) -> Message:
    data = frame.get("data")
    if frame.get("enc") == "base64":
        data = base64.b64decode(data or "")
    replayed, parent = frame.get("r") == 1, frame.get("tp")
    return Message(frame.get("seq"), data, frame.get("id"), frame.get("ts", 0), epoch, replayed, parent)


def _gap(frame: Dict[str, Any]) -> Gap:
    return Gap(frame.get("from", 0), frame.get("to"), frame.get("count"), frame.get("why", ""))


def _position(text: str, tag: Optional[str] = None) -> _Position:
    match = _POSITION.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is no position: give what "position" was')
    return _Position(match[1], int(match[2]), match[3] or tag)


def _frame(text: Union[str, bytes]) -> Tuple[Dict[str, Any], int]:
    """A frame and its length. What can't be read is no frame that this version knows."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    if isinstance(value, dict):
        return cast("Dict[str, Any]", value), len(text)
    _log.warning("the server has sent what is no frame: %.80r", text)
    return {}, 0


async def _within(seconds: float, waiting: Awaitable[_Value]) -> _Value:
    """What comes in time. Not ``asyncio.wait_for``: before Python 3.12 that may swallow that it was cancelled.

    :raises asyncio.TimeoutError:
    """
    task = asyncio.ensure_future(waiting)
    # It may fail just when it is not wanted any more.
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


async def _awaited(waiting: Awaitable[Any]) -> Any:
    return await waiting


async def _given(token: Token) -> str:
    value: Any = token
    if callable(token):
        make: Callable[[], Any] = token
        # A plain function may wait for a server, as Sender.ticket does, and would hold up the whole loop.
        value = make() if inspect.iscoroutinefunction(make) else await asyncio.to_thread(make)
    if inspect.isawaitable(value):
        value = await value
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"token must be, or give, a string that is not empty: it gave {type(value).__name__}")
    return value.strip()


def _websockets_connect() -> Any:
    try:
        try:
            return importlib.import_module("websockets.asyncio.client").connect  # version 13 and newer
        except ImportError:
            return importlib.import_module("websockets").connect
    except ImportError as error:
        raise ImportError(
            'Receiving needs the package "websockets", version 10 or newer (Debian: python3-websockets)'
        ) from error


async def _open(url: str, headers: Dict[str, str], context: Optional[ssl.SSLContext]) -> Any:
    connect_ = _websockets_connect()
    known = inspect.signature(connect_).parameters
    options: Dict[str, Any] = {
        "additional_headers" if "additional_headers" in known else "extra_headers": headers,
        "subprotocols": ["userwire.v1"],
        "compression": None,
        # The server's own sign of life is watched.
        "ping_interval": None,
        # What is too large for the server was refused when it was sent.
        "max_size": None,
        "open_timeout": None,
        "close_timeout": 1,
    }
    if context is not None:
        options["ssl"] = context
    if "proxy" in known:
        options["proxy"] = None
    connecting = connect_(url, **options)

    def refuse(_: Any) -> NoReturn:
        raise _Redirected

    # The token is for this host. The former is asked by older versions, the latter by 13 and newer, of each failure.
    connecting.handle_redirect, connecting.process_redirect = refuse, _same
    opening = asyncio.get_running_loop().create_task(_awaited(connecting))
    try:
        return await _within(_PATIENCE_S, opening)
    except BaseException:
        opening.add_done_callback(_abandon)
        raise


def _abandon(opening: asyncio.Task[Any]) -> None:
    """It may have opened just when it was not wanted any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().transport.abort()


def _same(error: Exception) -> Exception:
    return error


class _Redirected(Exception):
    status_code = 302


def _failure(error: Exception) -> _End:
    """How an attempt that raised this has ended."""
    response: Any = getattr(error, "response", None)
    status: Optional[int] = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    headers: Any = getattr(error, "headers", None) or getattr(response, "headers", None) or {}
    if status is None or status in (101, 408, 425, 429) or status >= 500:
        reason = f"refused with {status}" if status else f"{type(error).__name__}: {error}"
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = _untrusted(error)
        _log.warning("the attempt to connect has failed: %s", reason)
        return _End(reason=reason, retry_s=_seconds(headers.get("Retry-After")))
    reason = "The handshake was answered with a redirect: give the address it leads to" if status < 400 else (
        "The handshake was refused"
    )
    return _End(reason=reason, status=status)


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    return (
        "The certificate of the service is not trusted; for an authority of your own give "
        f"ssl=ssl.create_default_context(cafile=…): {error}"
    )


def _seconds(text: Optional[str]) -> Optional[float]:
    """What ``Retry-After`` says, unless it is a date, which this service never sends."""
    return min(float(text), _LONGEST_RETRY_S) if text is not None and text.strip().isdecimal() else None


def _split(url: str, schemes: Tuple[str, ...]) -> urllib.parse.SplitResult:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f'Can\'t use "{url}": give an address such as "https://push.example.com"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("An address holds no user and no password here: give user=, token= or key=")
    parts.port  # raises for one that is no number
    return parts


# ----------------------------------------------------------------------------------------------------------
# Sending


class Sent(NamedTuple):
    """What became of a message."""

    id: str
    #: Sockets it was handed to, 0 when the user is offline; with shared subscriptions that is ``nodes``.
    sockets: Optional[int] = None
    nodes: Optional[int] = None
    seq: Optional[int] = None
    epoch: Optional[str] = None
    #: Whether it is kept for a user who is offline.
    stored: bool = False
    #: How many clients have confirmed it, with ``wait_ack``.
    acked: Optional[int] = None


class BroadcastSent(NamedTuple):
    """What became of a message to everybody."""

    id: str
    #: How many nodes got it.
    nodes: int
    #: How many sockets these gave it to, or keep it for; None when a node did not say so in 2 s, and of a repetition.
    sockets: Optional[int] = None
    #: How many nodes have said their number, when it is not all of them.
    heard: Optional[int] = None
    #: Its number among the broadcasts; None when the service keeps no history.
    seq: Optional[int] = None
    epoch: Optional[str] = None


class GroupSent(NamedTuple):
    """What became of a message to a group: how many users, but for sockets and nodes."""

    id: str
    #: Users that it was numbered for.
    users: int
    #: Of these, who had a socket.
    online: int
    #: Sockets it was handed to; with shared subscriptions that is ``nodes``, once for each user.
    sockets: Optional[int] = None
    nodes: Optional[int] = None
    #: Users who had no socket, and for whom it is kept.
    stored: int = 0
    #: Users who got nothing: without a socket, and not seen for a day.
    unknown: int = 0
    #: With ``expect_online``: users who were left out.
    offline: Optional[int] = None
    #: Users for whom Redis refused it.
    failed: int = 0
    #: How many clients have confirmed it, with ``wait_ack``.
    acked: Optional[int] = None


class GroupUpdate(NamedTuple):
    """What a change of a group came to."""

    added: int
    removed: int
    #: How many users the group has now.
    users: int
    #: Greater after each change; 0 where no group is left.
    version: int


class Ticket(NamedTuple):
    ticket: str
    #: Where to connect with it.
    url: str
    #: The same for server-sent events.
    events: str


_Named = TypeVar("_Named", bound=NamedTuple)


class Sender:
    """Calls the HTTP API. May be shared by threads, and survives a fork: each thread of each process has a connection.

    Every call blocks; in asyncio use ``await asyncio.to_thread(sender.send, …)``. What fails on the way, or is answered
    with 429 or 5xx, is tried again; messages carry an idempotency key, so that they are sent once all the same.
    """

    def __init__(
        self,
        url: str,
        *,
        key: Optional[str] = None,
        timeout: float = 10.0,
        retries: int = 3,
        ssl: Optional[ssl.SSLContext] = None,
    ) -> None:
        """
        :param url: ``https://host``, or with the path that a proxy has put before ``/v1``.
        :param key: An API key. A service in open mode needs none.
        :param timeout: How long connecting may take, and waiting for an answer, and the rest of it, each in seconds.
        :param retries: How many times to try again.
        :param ssl: For certificates of an authority of your own: ``ssl.create_default_context(cafile="ca.pem")``.
        :raises ValueError: for what can never work.
        """
        self._address = _split(url, ("http", "https"))
        self._headers = {"accept": "application/json", "user-agent": "userwire-python"}
        key = (key or "").strip()  # keys come from files, which end with a new line
        if key:
            if not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError("The key must be printable ASCII without spaces, as \"userwire key new\" wrote it")
            self._headers["authorization"] = f"Bearer {key}"
        if ssl is not None and self._address.scheme == "http":
            raise ValueError("ssl= is for https:// addresses")
        self._timeout, self._retries, self._ssl = timeout, retries, ssl
        self._local = threading.local()

    def send(
        self,
        user: str,
        data: Any,
        *,
        ttl: Optional[int] = None,
        expect_online: bool = False,
        wait_ack: Optional[float] = None,
        unacked: Optional[int] = None,
        idempotency_key: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> Sent:
        """Sends a message.

        :param data: Any JSON value, or ``bytes``.
        :param ttl: How long it is kept for a user who is away, in seconds.
        :param expect_online: Only send to a user who is online; else Refused with the code ``user_offline``.
        :param wait_ack: Wait so many seconds for clients to confirm it; see ``Sent.acked``.
        :param unacked: Have the webhook ``message.unacked`` sent when no client has confirmed it after so many seconds;
            0: at once, when the user is offline.
        :param idempotency_key: Sends with the same key within five minutes are one. Every call has one of its own if
            not given; give it when you may call again yourself.
        :param traceparent: The span that the send is a part of, as the ``traceparent`` of W3C Trace Context: clients get
            it with the message. What is none is left out.
        :raises ValueError: when ``data`` is not JSON.
        :raises Refused: when the service does not take it.
        :raises Unavailable: when it can't be reached, or is not ready.
        """
        options = _send_query(ttl, expect_online, wait_ack, unacked)
        headers = _send_headers(idempotency_key, traceparent)
        return _read_as(Sent, self._send(f"/v1/users/{_quoted(user)}/messages", data, options, headers))

    def send_to_group(
        self,
        group: str,
        data: Any,
        *,
        ttl: Optional[int] = None,
        expect_online: bool = False,
        store: Optional[str] = None,
        except_user: Optional[str] = None,
        wait_ack: Optional[float] = None,
        unacked: Optional[int] = None,
        idempotency_key: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> GroupSent:
        """Sends a message to every user of a group. What is not said here is as for ``send``.

        :param expect_online: Only for users who are online; ``GroupSent.offline`` counts the others.
        :param store: ``"online"`` keeps no copy for users who are offline: they get a number, and a gap later.
        :param except_user: A user of the group who does not get it.
        :raises Refused: with the code ``group_not_found`` when there is no such group.
        """
        options = {**_send_query(ttl, expect_online, wait_ack, unacked), **_given_only(store=store)}
        if except_user is not None:
            options["except"] = except_user
        headers = _send_headers(idempotency_key, traceparent)
        answer = self._send(f"/v1/groups/{_quoted(group)}/messages", data, options, headers)
        return _read_as(GroupSent, answer)

    def broadcast(
        self,
        data: Any,
        *,
        ttl: Optional[int] = None,
        idempotency_key: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> BroadcastSent:
        """Sends a message to everybody who is connected, to any node. What is not said here is as for ``send``.

        The key needs the scope ``broadcast``, and all users.
        """
        headers = _send_headers(idempotency_key, traceparent)
        return _read_as(BroadcastSent, self._send("/v1/broadcast", data, _given_only(ttl=ttl), headers))

    def _send(
        self, to: str, data: Any, options: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Dict[str, Any]:
        raw = _bytes(data)
        return self._call(
            "POST",
            f"{to}{_query(**options)}",
            _json(data) if raw is None else raw,
            {
                "content-type": "application/json" if raw is None else "application/octet-stream",
                **headers,
            },
            timeout=self._timeout + int(options.get("timeout", 0)) / 1000,
        )

    def batch(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> List[Dict[str, Any]]:
        """Sends many messages in one call.

        :param items: ``{"to": "alice", "data": …}``, where ``to`` may be a list, ``data`` may be bytes, and ``id``,
            ``ttl`` and ``"expect": "online"`` may stand beside.
        :returns: One result per item, in order; one with ``error`` was not sent.
        """
        answer = self._post(
            "/v1/messages",
            {"items": [_batch_item(item) for item in items]},
            _send_headers(idempotency_key, traceparent),
        )
        results: List[Dict[str, Any]] = answer["results"]
        return results

    @property
    def groups(self) -> Groups:
        """Who is in which group."""
        return Groups(self)

    @overload
    def online(self, user: str) -> int: ...  # type: ignore[misc]
    @overload
    def online(self, user: Iterable[str]) -> Dict[str, int]: ...
    def online(self, user: Union[str, Iterable[str]]) -> Union[int, Dict[str, int]]:
        """How many sockets a user has, or each of several; nodes, with shared subscriptions. 0 is offline."""
        if not isinstance(user, str):
            return self._post("/v1/users/online", {"users": list(user)})
        answer = self._call("GET", f"/v1/users/{_quoted(user)}")
        return int(answer.get("sockets", answer.get("nodes", 0)))

    def history(
        self, user: str, *, after: Union[int, str, None] = None, limit: Optional[int] = None
    ) -> Dict[str, Any]:
        """What is kept of a user's messages: ``{"epoch", "first", "last", "items"}``, oldest first.

        :param after: Number, or position, to begin after.
        :param limit: At most so many; 100 if not given.
        :returns: ``first`` is the number of the first item, ``last`` that of the newest message ever sent. An item has
            ``seq``, ``id``, ``ts`` and ``data``, where bytes are ``bytes``; ``g`` is the group that it was sent to.
        :raises Refused: with the code ``epoch_changed`` when the position is of a history that is gone.
        """
        answer = self._call("GET", f"/v1/users/{_quoted(user)}/messages{_query(after=after, limit=limit)}")
        for item in answer["items"]:
            if item.pop("enc", None) == "base64":
                item["data"] = base64.b64decode(item["data"])
        return answer

    def ticket(self, user: str, *, ttl: Optional[int] = None, reuse: bool = False) -> Ticket:
        """A ticket, which lets one connection in as this user within ``ttl`` seconds.

        :param reuse: Any number of connections until then, as a browser's ``EventSource`` needs it.
        """
        asked = {"user": user, **_given_only(ttl=ttl, reuse=reuse or None)}
        return _read_as(Ticket, self._post("/v1/tickets", asked))

    def kick(self, user: str, *, code: Optional[int] = None, why: Optional[str] = None) -> int:
        """Closes the user's sockets everywhere. :returns: How many; with shared subscriptions, on how many nodes."""
        answer = self._call("DELETE", f"/v1/users/{_quoted(user)}/connections{_query(code=code, why=why)}")
        return int(answer.get("closed", answer.get("nodes", 0)))

    def connections(self, user: str) -> Dict[str, Any]:
        """Every connection of a user, on all nodes: ``{"items": [{"conn", "node", "mode", …}], "unanswered": 0}``, with
        ``sockets`` or ``nodes``, how many were asked."""
        return self._call("GET", f"/v1/users/{_quoted(user)}/connections")

    def close_connection(
        self, user: str, conn: str, *, code: Optional[int] = None, why: Optional[str] = None
    ) -> None:
        """Closes one connection of a user, by its id, as ``kick`` does all of them.

        :raises Refused: with the code ``connection_not_found`` when the user has none of this id.
        """
        path = f"/v1/users/{_quoted(user)}/connections/{_quoted(conn)}"
        self._call("DELETE", f"{path}{_query(code=code, why=why)}")

    def revoke(
        self, user: str, *, jti: Optional[str] = None, issued_before: Optional[int] = None
    ) -> Dict[str, Any]:
        """Lets the user's tokens in no more, and closes their sockets: all until now, one, or all before a time."""
        body = _given_only(jti=jti, issued_before=issued_before)
        return self._post(f"/v1/users/{_quoted(user)}/revocations", body)

    def close(self) -> None:
        """Closes this thread's connection. The sender can be used again."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, path: str, value: Any, headers: Mapping[str, str] = {}) -> Dict[str, Any]:
        return self._write("POST", path, value, headers)

    def _write(self, method: str, path: str, value: Any, headers: Mapping[str, str] = {}) -> Dict[str, Any]:
        return self._call(method, path, _json(value), {"content-type": "application/json", **headers})

    def _call(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        headers: Mapping[str, str] = {},
        timeout: Optional[float] = None,
    ) -> Dict[str, Any]:
        trouble: Any = None
        cause: Optional[Exception] = None
        for attempt in range(self._retries + 1):
            retry_s = None
            try:
                status, retry_after, text = self._request(method, path, body, headers, timeout or self._timeout)
            except ssl.SSLCertVerificationError as error:
                raise Unavailable(_untrusted(error)) from error
            except (OSError, http.client.HTTPException) as error:
                trouble, cause = f"{type(error).__name__}: {error}", error
            else:
                if status < 300:
                    answer: Dict[str, Any] = json.loads(text)
                    return answer
                trouble = _refusal(status, text)
                if status < 500 and status not in (408, 425, 429):
                    raise trouble
                retry_s = _seconds(retry_after)
            if attempt < self._retries:
                wait_s = random.uniform(0, min(_LONGEST_S, _BASE_S * 2**attempt)) if retry_s is None else retry_s
                _log.info("%s %s failed: %s; next attempt in %.1f s", method, path, trouble, wait_s)
                time.sleep(min(wait_s, _LONGEST_S))
        raise Unavailable(f"{method} {path} failed {self._retries + 1} times: {trouble}") from cause

    def _request(
        self, method: str, path: str, body: Optional[bytes], headers: Mapping[str, str], timeout: float
    ) -> Tuple[int, Optional[str], bytes]:
        if self._local.__dict__.get("pid") != os.getpid():
            # After a fork the connection is the parent's: two processes would read each other's answers.
            self._local.connection, self._local.pid = None, os.getpid()
        connection: http.client.HTTPConnection = self._local.__dict__.get("connection") or self._connection()
        self._local.connection = connection
        connection.timeout = timeout
        if connection.sock is not None and _has_ended(connection.sock):
            connection.close()  # and the request opens it anew
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            full = self._address.path.rstrip("/") + path
            connection.request(method, full, body, {**self._headers, **headers})
            response = connection.getresponse()
            return response.status, response.getheader("retry-after"), _whole(response, timeout)
        except BaseException:
            connection.close()  # an answer may still be on its way, which the next call would take for its own
            raise

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        if self._address.scheme == "https":
            context = self._ssl or ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)


class Groups:
    """Named sets of users that the service keeps: ``sender.groups``. Raises as the calls of ``Sender`` do."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def put(self, group: str, users: Iterable[str], *, if_version: Optional[int] = None) -> GroupUpdate:
        """Makes these the users of the group, all of them in one step.

        :param if_version: Only when the group is in this version, 0: when there is none; else Refused with the code
            ``group_changed``.
        """
        headers = {} if if_version is None else {"if-match": f'"{if_version}"'}
        return self._change("PUT", group, {"users": _names(users)}, headers)

    def add(self, group: str, users: Iterable[str]) -> GroupUpdate:
        """Adds users, at most 10,000."""
        return self._change("PATCH", group, {"add": _names(users)})

    def remove(self, group: str, users: Iterable[str]) -> GroupUpdate:
        """Takes users out, at most 10,000."""
        return self._change("PATCH", group, {"remove": _names(users)})

    def get(self, group: str) -> Dict[str, Any]:
        """``{"users", "online", "sockets" or "nodes", "version", "epoch"}``: how many are in it, and online."""
        return self._sender._call("GET", f"/v1/groups/{_quoted(group)}")

    def members(
        self, group: str, *, after: Optional[str] = None, limit: Optional[int] = None
    ) -> Dict[str, Any]:
        """A page of its users: ``{"items": [{"user", "sockets"}], "next"}``; ``next`` is ``after`` of the next page, and
        missing on the last one. :param limit: At most so many; 1,000 if not given."""
        return self._sender._call("GET", f"/v1/groups/{_quoted(group)}/users{_query(after=after, limit=limit)}")

    def delete(self, group: str) -> int:
        """Deletes the group. :returns: How many users it had."""
        return int(self._sender._call("DELETE", f"/v1/groups/{_quoted(group)}")["users"])

    def of(self, user: str) -> List[str]:
        """The groups that a user is in, of those that the key may address."""
        return list(self._sender._call("GET", f"/v1/users/{_quoted(user)}/groups")["groups"])

    def leave_all(self, user: str) -> List[str]:
        """Takes a user out of all groups that the key may address. :returns: Out of which."""
        return list(self._sender._call("DELETE", f"/v1/users/{_quoted(user)}/groups")["groups"])

    def _change(self, method: str, group: str, value: Any, headers: Mapping[str, str] = {}) -> GroupUpdate:
        return _read_as(GroupUpdate, self._sender._write(method, f"/v1/groups/{_quoted(group)}", value, headers))


def verify_webhook(
    headers: Mapping[str, str],
    body: Union[str, bytes],
    secret: Union[str, Iterable[str]],
    *,
    tolerance_s: float = 300,
) -> Dict[str, Any]:
    """Checks that a webhook is from the service, and reads it: ``{"type": …, "timestamp": …, "data": …}``.

    ``headers``: of the request, in any case of letters. ``body``: as it came. ``secret``: ``whsec_…``, one or
    several. Raises ``Error`` when no signature fits, or its time is more than ``tolerance_s`` from now.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        id, timestamp, signatures = (lower[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise Error(f"The header {missing.args[0]} is missing") from None
    if not re.fullmatch("[0-9]{1,15}", timestamp) or abs(time.time() - int(timestamp)) > tolerance_s:
        raise Error(f"The webhook is from another time: webhook-timestamp is not within {tolerance_s:g} s of now")
    text = body.encode() if isinstance(body, str) else body
    given = [one[3:].encode() for one in signatures.split(" ") if one.startswith("v1,")]
    for one in [secret] if isinstance(secret, str) else secret:
        if not one.startswith("whsec_"):
            raise ValueError("A secret must begin with whsec_")
        key = base64.b64decode(one[len("whsec_"):])
        digest = hmac.new(key, f"{id}.{timestamp}.".encode() + text, hashlib.sha256).digest()
        expected = base64.b64encode(digest)
        if any(hmac.compare_digest(expected, signature) for signature in given):
            return cast(Dict[str, Any], json.loads(text))
    raise Error("No signature of the webhook fits a secret")


def _whole(response: http.client.HTTPResponse, timeout: float) -> bytes:
    """The body. Of one that comes in ever smaller pieces no single piece is late."""
    ends_at, pieces = time.monotonic() + timeout, []
    # Counted here: before Python 3.12 `read1` does not, and would wait for more than there is.
    left = response.length
    while left is None or left > 0:
        piece = response.read1(65536 if left is None else left)
        if not piece:
            break
        pieces.append(piece)
        left = None if left is None else left - len(piece)
        if time.monotonic() > ends_at:
            raise TimeoutError(f"the answer was not whole after {timeout:g} s")
    if left:
        raise http.client.IncompleteRead(b"".join(pieces), left)
    response.close()  # which leaves the connection to the next request
    return b"".join(pieces)


def _has_ended(idle: socket.socket) -> bool:
    """Whether the server has hung up meanwhile, as servers and proxies do with connections that are not used."""
    with selectors.DefaultSelector() as selector:
        selector.register(idle, selectors.EVENT_READ)
        return bool(selector.select(0))


def _refusal(status: int, text: bytes) -> Refused:
    try:
        problem = json.loads(text)
        return Refused(status, problem["code"], problem["detail"])
    except (ValueError, KeyError, TypeError):
        return Refused(status, "", "Something that is not Userwire has answered: look at the address, and at proxies")


def _batch_item(item: Mapping[str, Any]) -> Dict[str, Any]:
    raw = _bytes(item.get("data"))
    if raw is None:
        return dict(item)
    rest = {name: value for name, value in item.items() if name != "data"}
    return {**rest, "base64": base64.b64encode(raw).decode()}


def _bytes(data: Any) -> Optional[bytes]:
    """What was given as bytes; None when it is JSON."""
    return bytes(cast(bytes, data)) if isinstance(data, (bytes, bytearray, memoryview)) else None


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ValueError("A string in the data is no Unicode: it has half of a surrogate pair") from error
    except TypeError as error:
        raise ValueError(f"The data is not JSON: {error}") from error


def _quoted(name: str) -> str:
    if name in ("", ".", ".."):
        raise ValueError(f'"{name}" can\'t be a name here: addresses have another meaning for it')
    return urllib.parse.quote(name, safe="")


def _names(users: Iterable[str]) -> List[str]:
    if isinstance(users, str):
        raise ValueError("The users must be a list of names, not one name")
    return list(users)


def _query(**values: Any) -> str:
    """With its "?", unless there is nothing in it."""
    text = urllib.parse.urlencode(_given_only(**values))
    return f"?{text}" if text else ""


def _send_query(
    ttl: Optional[int], expect_online: bool, wait_ack: Optional[float], unacked: Optional[int]
) -> Dict[str, Any]:
    wait = {} if wait_ack is None else {"wait": "ack", "timeout": round(wait_ack * 1000)}
    return {**_given_only(ttl=ttl, expect="online" if expect_online else None, unacked=unacked), **wait}


def _send_headers(idempotency_key: Optional[str], traceparent: Optional[str]) -> Dict[str, str]:
    headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
    # The service reads it; what can't stand in a header is none.
    if traceparent and traceparent.isascii() and traceparent.isprintable():
        headers["traceparent"] = traceparent
    return headers


def _given_only(**values: Any) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read_as(kind: Callable[..., _Named], answer: Mapping[str, Any]) -> _Named:
    """Fields that this version does not know are left out."""
    fields = kind._fields  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in answer.items() if name in fields})
