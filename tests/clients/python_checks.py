"""What the Python client does with a real service, and with servers that misbehave. Each check is a function; what became
of it is a line of JSON on standard output.

    python3 python_checks.py http://127.0.0.1:8765 <key> <secret of tokens> \\
        https://localhost:<port with TLS> <PEM file of its authority> <PEM file of another> [names of checks]
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.server
import inspect
import json
import logging
import os
import socket
import ssl
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../clients/python"))
import userwire  # noqa: E402

URL, KEY, SECRET, SECURE, CA, OTHER_CA, *ONLY = sys.argv[1:]
sender = userwire.Sender(URL, key=KEY)
WAIT_S = 20


def token_for(user, life_s=60):
    def encode(part):
        raw = part if isinstance(part, bytes) else json.dumps(part).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + life_s}
    text = encode({"alg": "HS256", "typ": "JWT"}) + b"." + encode(claims)
    return (text + b"." + encode(hmac.digest(SECRET.encode(), text, hashlib.sha256))).decode()


def connect(user, **options):
    return userwire.connect(URL, token=lambda: token_for(user), **options)


async def in_thread(call, *args, **options):
    return await asyncio.to_thread(call, *args, **options)


async def until(condition, what):
    ends_at = time.monotonic() + WAIT_S
    while not await condition():
        assert time.monotonic() < ends_at, f"waited for {what} in vain"
        await asyncio.sleep(0.01)


async def until_online(user, sockets=1, asked=None):
    async def is_so():
        return await in_thread((asked or sender).online, user) == sockets

    await until(is_so, f"{sockets} sockets of {user}")


async def following(messages):
    return await asyncio.wait_for(messages.__anext__(), WAIT_S)


@contextlib.contextmanager
def warnings():
    """What the client logs meanwhile, as texts."""
    texts, log = [], logging.getLogger("userwire")

    class Keeping(logging.Handler):
        def emit(self, record):
            texts.append(record.getMessage())

    handler = Keeping(logging.WARNING)
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        yield texts
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
        log.propagate = True


@contextlib.contextmanager
def scripted(*answers):
    """A server that answers each request with the next of these: a status with headers and a body, or a function that is
    given the handler."""
    left, requests = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("content-length", 0))
            requests.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            answer = left.pop(0)
            if callable(answer):
                return answer(self)
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()


SENT = (200, {"content-type": "application/json"}, b'{"id":"a","epoch":"e","seq":1,"sockets":1,"later":true}')
BUSY = (503, {"retry-after": "0"}, b'{"code":"broker_unavailable","detail":"Redis is away"}')


def hang_up(handler):
    """The request was carried out, and the answer is lost."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_off(handler):
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id":')
    hang_up(handler)


def hasty(url, **options):
    made = userwire.Sender(url, **options)
    userwire._BASE_S = 0.001
    return made


# -- receiving


async def messages_of_all_kinds():
    async with connect("kinds") as messages:
        await until_online("kinds")
        sent = []
        for data in ({"order": 7}, "é😀\u2028", [1.5, None], b"\0\xff", bytearray(b"x"), ""):
            sent.append((await in_thread(sender.send, "kinds", data), data))
        for receipt, data in sent:
            message = await following(messages)
            assert message.data == data, message
            assert (message.seq, message.id, message.epoch) == (receipt.seq, receipt.id, receipt.epoch), message
            assert abs(message.ts / 1000 - time.time()) < 600 and not message.replayed
        assert messages.position.startswith(f"{receipt.epoch}.{receipt.seq}.")


async def resumed_after_a_restart_of_the_program():
    async with connect("again") as messages:
        await until_online("again")
        await in_thread(sender.send, "again", 1)
        assert (await following(messages)).data == 1
        position = messages.position
    await until_online("again", 0)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = await in_thread(sender.send, "again", 2, traceparent=parent)
    assert sent.stored and sent.sockets == 0
    async with connect("again", resume=position) as messages:
        message = await following(messages)
        assert message.data == 2 and message.replayed and message.traceparent == parent
        for no_parent in ("a\r\nb: c", "", "é", "none"):
            await in_thread(sender.send, "again", 3, traceparent=no_parent)
            assert (await following(messages)).traceparent is None
        await in_thread(sender.batch, [{"to": "again", "data": 4}], traceparent=parent)
        assert (await following(messages)).traceparent == parent


async def resumed_after_a_break():
    async with connect("broken") as messages:
        await until_online("broken")
        for round_ in range(3):
            assert await in_thread(sender.kick, "broken", code=1012, why="restart") == 1
            await in_thread(sender.send, "broken", round_)
            assert (await following(messages)).data == round_
            await until_online("broken")


async def gaps_are_told_in_their_place():
    told = []

    async def on_gap(gap):
        await asyncio.sleep(0)
        told.append(gap)

    position = (await in_thread(sender.send, "gaps", "first")).epoch + ".1"
    for i in range(2, 108):  # the history keeps 100
        await in_thread(sender.send, "gaps", i)
    async with connect("gaps", resume=position, on_gap=on_gap) as messages:
        assert (await following(messages)).data == 8
        assert told == [userwire.Gap(2, 7, 6, "trimmed")], told
    async with connect("gaps", resume="elsewhere.5", on_gap=on_gap) as messages:
        await until_online("gaps")
        await in_thread(sender.send, "gaps", "last")
        await following(messages)
        assert told[1].why == "epoch" and told[1].count is None, told


async def fails(asking):
    try:
        return await asking
    except userwire.RequestError as error:
        return error.code, error.outcome, error.retry_s


async def requests():
    async with connect("py-asks") as messages:
        answers = await asyncio.gather(*(messages.request("echo", number) for number in range(30)))
        assert answers == [{"user": "py-asks", "data": number} for number in range(30)], answers
        assert await fails(messages.request("other")) == ("unknown_op", "refused", 1.5)
        assert await fails(messages.request("echo", "x" * 70_000)) == ("too_large", "refused", None)
        assert await fails(messages.request("hang", timeout=0.1)) == ("timeout", "unknown", None)
        for bad in (dict(op=""), dict(op="x" * 65), dict(op="a", timeout=0), dict(op="a", data=float("nan"))):
            try:
                await messages.request(**bad)
                raise AssertionError(bad)
            except ValueError:
                pass
    assert await fails(messages.request("echo")) == ("closed", "refused", None)


async def requests_over_a_connection_that_breaks():
    async with connect("py-breaks") as messages:
        once = asyncio.create_task(fails(messages.request("hang")))
        again = asyncio.create_task(fails(messages.request("echo", 1, retry=True)))
        await until_online("py-breaks")

        async def both_are_sent():
            return messages._link is not None and len(messages._link.answers) == 2

        await until(both_are_sent, "both requests")
        messages._link.socket.transport.abort()
        assert await once == ("lost", "unknown", None)
        assert await again == {"user": "py-breaks", "data": 1}, again


async def receipts():
    async with connect("acks") as messages:
        await until_online("acks")
        sending = asyncio.create_task(in_thread(sender.send, "acks", 1, wait_ack=15))
        await following(messages)
        assert (await sending).acked == 1
        # Nobody has it before the application does.
        assert (await in_thread(sender.send, "acks", 2, wait_ack=0.2)).acked == 0


async def cancelling_loses_nothing():
    # python-websockets#486, #50: wait_for around the next message dropped messages.
    async with connect("cancel") as messages:
        await until_online("cancel")
        sending = asyncio.create_task(in_thread(lambda: [sender.send("cancel", i) for i in range(60)]))
        got = []
        while len(got) < 60:
            with contextlib.suppress(asyncio.TimeoutError):
                got.append((await asyncio.wait_for(messages.__anext__(), 0.001)).data)
        assert got == list(range(60)), got
        await sending


async def cancelling_during_the_handshake_and_the_wait():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        messages = userwire.connect(f"http://127.0.0.1:{silent.getsockname()[1]}", user="alice")
        for _ in range(3):
            try:
                await asyncio.wait_for(messages.__anext__(), 0.01)
                raise AssertionError("a message came")
            except asyncio.TimeoutError:
                pass
        await asyncio.wait_for(messages.close(), WAIT_S)
        try:
            await messages.__anext__()
            raise AssertionError("it went on")
        except StopAsyncIteration:
            pass


async def closing_from_another_task_ends_the_loop():
    async with connect("closing") as messages:
        await until_online("closing")

        async def loop():
            return [message async for message in messages]

        looping = asyncio.create_task(loop())
        await asyncio.sleep(0)
        await messages.close()
        assert await asyncio.wait_for(looping, WAIT_S) == []
    await until_online("closing", 0)


async def closing_from_the_callback():
    async with connect("callback", resume="elsewhere.5", on_gap=lambda gap: messages.close()) as messages:
        assert [message async for message in messages] == []


async def stops_for_good():
    messages = connect("kicked")
    waiting = asyncio.create_task(messages.__anext__())
    await until_online("kicked")
    await in_thread(sender.kick, "kicked")
    for _ in range(2):
        try:
            await asyncio.wait_for(waiting, WAIT_S)
            raise AssertionError("it goes on")
        except userwire.Closed as error:
            assert (error.code, error.reason) == (4403, "kicked"), error
        waiting = asyncio.create_task(messages.__anext__())


async def refusals_say_what_to_mend():
    for options, status, hint in (
        ({"user": "alice"}, 401, "give a function as token="),
        ({"token": "nonsense"}, 401, "give a function as token="),
        ({"token": lambda: "nonsense"}, 401, "give a function as token="),
    ):
        try:
            await following(userwire.connect(URL, **options))
            raise AssertionError("it was let in")
        except userwire.Refused as error:
            assert error.status == status and hint in str(error), error
    for path, status in (("/nowhere", 404),):
        try:
            await following(userwire.connect(URL + path, token=token_for("alice")))
            raise AssertionError("it was let in")
        except userwire.Refused as error:
            assert error.status == status, error


async def a_redirect_is_not_followed():
    # The token would go to whoever the answer names.
    with scripted((200, {}, b"")) as (elsewhere, requests):
        with scripted((302, {"location": elsewhere.replace("http", "ws") + "/ws"}, b"")) as (url, _):
            try:
                await following(userwire.connect(url, token="secret"))
                raise AssertionError("it was let in")
            except userwire.Refused as error:
                assert "redirect" in str(error), error
        assert requests == []


async def a_static_token_that_has_ended_stops():
    # centrifuge-dart#129: a client with a static token came back with it for ever.
    # A busy machine may show it when it has ended already: then one that lives longer.
    life_s = 2
    messages = userwire.connect(URL, token=token_for("static", life_s=life_s))
    try:
        while True:
            try:
                await following(messages)
            except userwire.Refused:
                life_s *= 2
                assert life_s < WAIT_S, "a good token was refused"
                messages = userwire.connect(URL, token=token_for("static", life_s=life_s))
    except userwire.Closed as error:
        assert (error.code, error.reason) == (4401, "token_expired"), error


async def tokens_by_any_kind_of_function():
    async def later():
        await asyncio.sleep(0)
        return token_for("async")

    async with userwire.connect(URL, token=later):
        await until_online("async")
    async with userwire.connect(URL, token=lambda: later()):
        await until_online("async")
    async with userwire.connect(URL, token=lambda: sender.ticket("ticket", ttl=60).ticket) as messages:
        await until_online("ticket")
        await in_thread(sender.kick, "ticket", code=1012)
        await in_thread(sender.send, "ticket", "back")
        assert (await following(messages)).data == "back"


async def a_login_that_fails_is_asked_again():
    calls = []

    def token():
        calls.append(1)
        if len(calls) < 3:
            raise OSError("the login service is away")
        return token_for("login")

    async with userwire.connect(URL, token=token):
        await until_online("login")
    assert len(calls) == 3


async def a_message_of_two_mebibytes():
    # python-websockets#668: messages above 1 MiB end the connection, again and again.
    big = "é" * 2**20
    async with connect("big") as messages:
        await until_online("big")
        await in_thread(sender.send, "big", big)
        assert (await following(messages)).data == big


async def a_slow_application_loses_nothing():
    full = userwire._FULL_MESSAGES
    userwire._FULL_MESSAGES = 5
    try:
        async with connect("slow") as messages:
            await until_online("slow")
            for i in range(50):
                await in_thread(sender.send, "slow", i)
            assert len(messages._queue) <= 5
            assert [(await following(messages)).data for _ in range(50)] == list(range(50))
    finally:
        userwire._FULL_MESSAGES = full


async def two_loops_of_one_program():
    # modal-client#2581: what is made outside of the loop belonged to another one before Python 3.10.
    messages = connect("outside")

    def run_elsewhere():
        async def use():
            async with messages:
                await until_online("outside")

        asyncio.run(use())

    await in_thread(run_elsewhere)
    other = connect("loops")
    async with other:
        try:
            await in_thread(lambda: asyncio.run(other.__anext__()))
            raise AssertionError("it served two loops")
        except RuntimeError as error:
            assert "another event loop" in str(error), error


async def nothing_is_logged_as_lost():
    # python-websockets#797: "Task exception was never retrieved" where a reader was cancelled.
    faults = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    async with connect("quiet") as messages:
        await until_online("quiet")
        await in_thread(sender.send, "quiet", 1, wait_ack=0.01)
        await in_thread(sender.kick, "quiet", code=1012)
        await following(messages)
        await until_online("quiet")
    with contextlib.suppress(userwire.Refused):
        await following(userwire.connect(URL, user="quiet"))
    import gc

    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert faults == [], faults


async def what_can_never_work_is_said_at_once():
    for options, hint in (
        ({}, "either user= or token="),
        ({"user": "a", "token": "b"}, "either user= or token="),
        ({"user": "a", "resume": "nonsense"}, "no position"),
        ({"user": "\ud800"}, ""),
    ):
        try:
            userwire.connect(URL, **options)
            raise AssertionError(f"{options} was taken")
        except ValueError as error:
            assert hint in str(error), error
    for url in ("push.example.com", "ftp://host", "http://", "http://host:port", "http://a:b@host", "/ws"):
        for make in (lambda: userwire.connect(url, user="a"), lambda: userwire.Sender(url)):
            try:
                make()
                raise AssertionError(f"{url} was taken")
            except ValueError:
                pass
    try:
        userwire.connect("http://host/ws?ticket=t", user="a")
        raise AssertionError("it was taken")
    except ValueError as error:
        assert "token=" in str(error)


# -- sending


def calls():
    assert sender.online("nobody") == 0
    assert sender.online(["nobody", "n2"]) == {"nobody": 0, "n2": 0}
    sent = sender.send("nobody", 1, ttl=60)
    assert sent.stored and sent.sockets == 0 and sent.nodes is None
    results = sender.batch([{"to": ["a", "b"], "data": b"\xff"}, {"to": "c", "data": {"é": 1}, "ttl": 5}])
    assert results[0]["users"] == {"a": 0, "b": 0} and results[1]["seq"] == 1, results
    assert sender.kick("nobody") == 0
    assert "issued_before" in sender.revoke("nobody")
    assert sender.revoke("nobody", jti="j") == {"jti": "j"}
    assert sender.ticket("nobody", ttl=5).url.startswith("ws://")
    sent = sender.send("é/ü?#%+", {"a": 1})
    assert sent.seq == 1, sent
    try:
        sender.send("nobody", 1, expect_online=True)
        raise AssertionError("it was sent")
    except userwire.Refused as error:
        assert (error.status, error.code) == (404, "user_offline"), error


async def broadcasts():
    got, has_come = [], asyncio.Event()

    async def on_broadcast(message):
        await asyncio.sleep(0)
        # Others are sent by other checks.
        if message.data in ({"sale": 1}, b"\0\xff"):
            got.append(message)
            has_come.set()

    async def comes():
        await asyncio.wait_for(has_come.wait(), WAIT_S)
        has_come.clear()

    async with connect("everybody", on_broadcast=on_broadcast) as messages:
        await until_online("everybody")
        sent = await in_thread(sender.broadcast, {"sale": 1}, ttl=60, idempotency_key="all-1")
        # A node that is busy for two seconds does not say its number in time.
        assert sent.nodes == 1 and sent.seq > 0 and (sent.sockets is None) == (sent.heard is not None), sent
        again = await in_thread(sender.broadcast, {"sale": 1}, ttl=60, idempotency_key="all-1")
        assert again == sent._replace(sockets=None, heard=None), again
        await comes()
        assert (got[0].seq, got[0].epoch, got[0].replayed) == (sent.seq, sent.epoch, False), got
        position = messages.broadcast_position
        epoch, seq, tag = position.split(".")
        assert epoch == sent.epoch and int(seq) >= sent.seq and tag, position
    sent = await in_thread(sender.broadcast, b"\0\xff")
    async with connect("everybody", on_broadcast=on_broadcast, resume_broadcasts=position):
        await comes()
        assert [message.data for message in got] == [{"sale": 1}, b"\0\xff"] and got[1].replayed, got


async def a_callback_of_broadcasts_may_fail_ask_and_close():
    told = []

    async def on_broadcast(message):
        if message.data == "fail":
            told.append(message.data)
            raise ValueError("no")
        if message.data == "ask":
            # The answer comes over the socket that the broadcast came over.
            told.append(await messages.request("echo", message.data))
            await messages.close()

    logging.getLogger("userwire").addFilter(lambda record: "callback" not in record.msg)
    async with connect("asker", on_broadcast=on_broadcast) as messages:
        await until_online("asker")
        await in_thread(sender.broadcast, "fail")
        await in_thread(sender.broadcast, "ask")
        try:
            await following(messages)
            raise AssertionError("nobody has sent anything")
        except StopAsyncIteration:
            pass

    async def is_told():
        return len(told) == 2

    await until(is_told, "the callback to end")
    assert told == ["fail", {"user": "asker", "data": "ask"}], told


async def one_connection_of_several():
    async with connect("several"), connect("several"):
        await until_online("several", 2)
        shown = await in_thread(sender.connections, "several")
        assert (len(shown["items"]), shown["sockets"], shown["unanswered"]) == (2, 2, 0), shown
        for conn in ("", ".", ".."):
            try:
                sender.close_connection("several", conn)
                raise AssertionError("it was taken")
            except ValueError:
                pass
        await in_thread(sender.close_connection, "several", shown["items"][0]["conn"], code=4403, why="go & rest")
        await until_online("several", 1)
        try:
            await in_thread(sender.close_connection, "several", "a/b?")
            raise AssertionError("it was there")
        except userwire.Refused as error:
            assert error.code == "connection_not_found", error


def what_is_kept():
    sender.send("kept", {"order": 1})
    second = sender.send("kept", b"\0\xff")
    kept = sender.history("kept")
    assert (kept["first"], kept["last"], kept["epoch"]) == (1, 2, second.epoch), kept
    assert [item["data"] for item in kept["items"]] == [{"order": 1}, b"\0\xff"], kept
    for after in (1, f"{second.epoch}.1"):
        assert sender.history("kept", after=after, limit=5)["items"] == kept["items"][1:]
    try:
        sender.history("kept", after="other.1")
        raise AssertionError("it was read")
    except userwire.Refused as error:
        assert error.code == "epoch_changed", error


def a_ticket_for_more_than_one():
    ticket = sender.ticket("again", ttl=60, reuse=True)
    assert ticket.events.endswith(f"/v1/events?ticket={ticket.ticket}"), ticket
    for _ in range(2):
        asyncio.run(asyncio.wait_for(get_in(ticket.ticket), WAIT_S))


async def get_in(ticket):
    async with userwire.connect(URL, token=ticket):
        await until_online("again")


def groups_by_every_call():
    groups, name = sender.groups, "py/7é"
    made = groups.put(name, ["gina", "hal"], if_version=0)
    assert made[:3] == (2, 0, 2), made
    assert groups.add(name, {"ida"}).users == 3
    assert groups.remove(name, ["hal"]).removed == 1
    try:
        groups.put(name, [], if_version=made.version)
        raise AssertionError("it was replaced")
    except userwire.Refused as error:
        assert (error.status, error.code) == (412, "group_changed"), error
    sender.send("ida", "seen")
    sent = sender.send_to_group(name, {"order": 7}, idempotency_key="group-1")
    assert sent[1:] == (1, 0, 0, None, 1, 1, None, 0, None), sent
    assert sender.send_to_group(name, {"order": 7}, idempotency_key="group-1") == sent
    assert sender.send_to_group(name, b"\xff", except_user="ida", ttl=60, store="online").users == 0
    assert sender.send_to_group(name, 1, expect_online=True, wait_ack=0.01).offline == 2
    info = groups.get(name)
    assert (info["users"], info["online"]) == (2, 0), info
    assert groups.members(name, limit=1) == {"items": [{"user": "gina", "sockets": 0}], "next": "gina"}
    assert [item["user"] for item in groups.members(name, after="gina")["items"]] == ["ida"]
    assert groups.of("ida") == groups.leave_all("ida") == [name] and groups.of("ida") == []
    assert groups.delete(name) == 1
    for call in (groups.get, groups.members, groups.delete, lambda name: sender.send_to_group(name, 1)):
        try:
            call(name)
            raise AssertionError("it is there")
        except userwire.Refused as error:
            assert (error.status, error.code) == (404, "group_not_found"), error
    for call in (lambda: groups.put("", []), lambda: groups.get(".."), lambda: groups.add("team", "alice")):
        try:
            call()
            raise AssertionError("it was taken")
        except ValueError:
            pass


def a_message_that_is_told_when_nobody_sees_it():
    # This service tells nobody: so it is seen that the option arrives.
    for send in (lambda: sender.send("away", 1, unacked=0), lambda: sender.send_to_group("away", 1, unacked=0)):
        try:
            send()
            raise AssertionError("it was taken")
        except userwire.Refused as refused:
            assert "USERWIRE_WEBHOOK_EVENTS" in refused.detail, refused


def keys_of_idempotency():
    one = sender.send("once", {"n": 1}, idempotency_key="once-1")
    assert sender.send("once", {"n": 1}, idempotency_key="once-1") == one
    try:
        sender.send("once", {"n": 2}, idempotency_key="once-1")
        raise AssertionError("it was sent")
    except userwire.Refused as error:
        assert error.code == "idempotency_conflict", error


def a_key_from_a_file():
    assert userwire.Sender(URL, key=KEY + "\n").online("nobody") == 0
    for key in ("two words", "é", "a\r\nb"):
        try:
            userwire.Sender(URL, key=key)
            raise AssertionError(f"{key!r} was taken")
        except ValueError:
            pass
    try:
        userwire.Sender(URL, key="wrong").online("nobody")
        raise AssertionError("it was let in")
    except userwire.Refused as error:
        assert error.code == "unauthorized", error


def data_that_is_no_json():
    for data in (float("nan"), {"a": float("inf")}, {1, 2}, "\ud800", {"a": object()}):
        try:
            sender.send("nobody", data)
            raise AssertionError(f"{data!r} was sent")
        except ValueError:
            pass
    for user in ("", ".", ".."):
        try:
            sender.send(user, 1)
            raise AssertionError(f"{user!r} was taken")
        except ValueError:
            pass


def what_fails_is_tried_again_under_one_key():
    # requests#3661: a connection that was kept may be closed at the moment it is used.
    with scripted(hang_up, cut_off, BUSY, SENT) as (url, requests):
        assert hasty(url).send("alice", 1) == userwire.Sent("a", 1, None, 1, "e")
        assert len(requests) == 4
        assert len({headers["idempotency-key"] for _, _, headers, _ in requests}) == 1, requests
    with scripted(SENT, SENT) as (url, requests):
        once = hasty(url)
        once.send("alice", 1)
        once.send("alice", 1)
        assert len({headers["idempotency-key"] for _, _, headers, _ in requests}) == 2, requests


def an_answer_that_drips_is_given_up():
    def drip(handler):
        handler.send_response(200)
        handler.send_header("content-length", "9999")
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(200):
                handler.wfile.write(b" ")
                time.sleep(0.05)
        handler.close_connection = True

    with scripted(drip) as (url, _):
        started_at = time.monotonic()
        try:
            userwire.Sender(url, timeout=0.2, retries=0).online("alice")
            raise AssertionError("it was answered")
        except userwire.Unavailable:
            assert time.monotonic() - started_at < 5


def a_connection_that_the_server_has_ended_is_no_failure():
    def answer_and_hang_up(handler):
        status, _, body = SENT
        handler.send_response(status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        hang_up(handler)

    with scripted(answer_and_hang_up, SENT) as (url, requests):
        with userwire.Sender(url, retries=0) as once:
            assert once.send("alice", 1).sockets == 1
            # It has come here by then; who looks takes nothing of it.
            assert once._local.connection.sock.recv(1, socket.MSG_PEEK) == b""
            assert once.send("alice", 2).sockets == 1
        assert len(requests) == 2


def what_goes_on_failing_is_said():
    with scripted(BUSY, BUSY, BUSY) as (url, requests):
        try:
            hasty(url, retries=2).send("alice", 1)
            raise AssertionError("it was sent")
        except userwire.Unavailable as error:
            assert "3 times: Redis is away (503 broker_unavailable)" in str(error), error
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # ably-pubsub-php#62: a server that takes the call and says nothing.
        try:
            hasty(f"http://127.0.0.1:{silent.getsockname()[1]}", retries=1, timeout=0.05).online("alice")
            raise AssertionError("it was answered")
        except userwire.Unavailable as error:
            assert "timed out" in str(error), error
    with scripted((404, {}, b"<html>nginx</html>")) as (url, _):
        try:
            hasty(url).online("alice")
            raise AssertionError("it was answered")
        except userwire.Refused as error:
            assert "not Userwire" in str(error), error
    with scripted((302, {"location": "http://127.0.0.1:1/"}, b"")) as (url, _):
        try:
            hasty(url).online("alice")
            raise AssertionError("it was followed")
        except userwire.Refused as error:
            assert error.status == 302


async def tls_with_an_authority_of_its_own():
    own = ssl.create_default_context(cafile=CA)
    secure = userwire.Sender(SECURE, key=KEY, ssl=own)
    for url in (SECURE, SECURE.replace("https:", "wss:") + "/ws"):
        async with userwire.connect(url, token=lambda: token_for("secure"), ssl=own) as messages:
            await until_online("secure", asked=secure)
            await in_thread(secure.send, "secure", url)
            assert (await following(messages)).data == url


async def another_authority_is_not_trusted():
    hint = "not trusted; for an authority of your own give ssl="
    for context in (None, ssl.create_default_context(cafile=OTHER_CA)):
        try:
            # Not tried again: that is no use.
            await in_thread(userwire.Sender(SECURE, key=KEY, retries=99, ssl=context).online, "alice")
            raise AssertionError("it was trusted")
        except userwire.Unavailable as error:
            assert hint in str(error), error
        with warnings() as texts:
            async with userwire.connect(SECURE, token=lambda: token_for("wary"), ssl=context):
                # It may be renewed, so this one comes back.
                async def has_said_twice():
                    return sum(hint in text for text in texts) >= 2

                await until(has_said_twice, "the receiver to say why")


def tls_is_for_addresses_with_it():
    for make in (userwire.Sender, lambda url, ssl: userwire.connect(url, user="alice", ssl=ssl)):
        try:
            make("http://127.0.0.1:1", ssl=ssl.create_default_context())
            raise AssertionError("it was taken")
        except ValueError as error:
            assert "ssl= is for https://" in str(error), error


def threads_share_a_sender():
    faults = []

    def work(number):
        try:
            for i in range(20):
                user = f"thread-{number}-{i}"
                assert sender.send(user, user).seq == 1
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == [], faults


def a_fork_has_its_own_connection():
    # openai-python#579: the child used the parent's connection, and each read the other's answers.
    sender.online("parent")
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            ok = all(sender.send(f"fork-{number}-{i}", i).seq == 1 for i in range(10))
            os._exit(0 if ok else 1)
        children.append(pid)
    assert all(sender.send(f"parent-{i}", i).seq == 1 for i in range(10))
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4


def proxies_of_the_environment_are_not_used():
    # websocket-client#585: a service in the private network was asked for at the proxy.
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "WS_PROXY", "ws_proxy")
    os.environ.update({name: "http://127.0.0.1:1" for name in names})
    try:
        assert userwire.Sender(URL, key=KEY).online("nobody") == 0

        async def receive():
            async with connect("proxied"):
                await until_online("proxied")

        asyncio.run(receive())
    finally:
        for name in names:
            del os.environ[name]


def sending_needs_no_package():
    import subprocess

    program = "import sys; sys.modules['websockets'] = None; import userwire; userwire.Sender('http://a')\n"
    program += "import asyncio\n"
    program += "try: asyncio.run(userwire.connect('http://a', user='a').__anext__())\n"
    program += "except ImportError as error: print(error)"
    env = {**os.environ, "PYTHONPATH": os.path.dirname(userwire.__file__)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert "python3-websockets" in done.stdout, done


logging.basicConfig(level=logging.CRITICAL)
logging.raiseExceptions = True
CHECKS = [
    check
    for name, check in list(globals().items())
    if inspect.isfunction(check)
    and check.__module__ == "__main__"
    and not inspect.signature(check).parameters
    and (not ONLY or check.__name__ in ONLY)
]


def say(**what):
    print(json.dumps(what), flush=True)


async def run_async(checks):
    """All at once: most of their time is waiting."""

    async def run(check):
        try:
            await check()
            say(check=check.__name__)
        except BaseException:
            say(check=check.__name__, fault=traceback.format_exc())

    await asyncio.gather(*(run(check) for check in checks))


if __name__ == "__main__":
    # What sets something that all share goes last, by itself.
    alone = [check for check in CHECKS if check in (nothing_is_logged_as_lost, a_slow_application_loses_nothing)]
    together = [check for check in CHECKS if inspect.iscoroutinefunction(check) and check not in alone]
    asyncio.run(run_async(together))
    for check in alone:
        asyncio.run(run_async([check]))
    for check in CHECKS:
        if not inspect.iscoroutinefunction(check):
            try:
                check()
                say(check=check.__name__)
            except BaseException:
                say(check=check.__name__, fault=traceback.format_exc())
