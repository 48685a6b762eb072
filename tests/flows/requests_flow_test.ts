/** Clients ask the backend, through real services, sockets and webhooks: what it gets, and what each way to answer means. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { MAX_FAILURES } from "../../src/requests/breaker.ts";
import { MAX_OUTSTANDING } from "../../src/session/request_line.ts";
import { type Client, connect, type ConnectOptions, RequestError } from "../../src/client/mod.ts";
import { connectAlice } from "../../testkit/client_watch.ts";
import { Bell, until, withDeadline } from "../../testkit/deadline.ts";
import { HeldTimeouts } from "../../testkit/held_timers.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { Service } from "../../testkit/service.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { type Received, WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

/** Nothing of presence is told, so that what comes is a request. */
function settings(receiver: WebhookReceiver, more: Record<string, string> = {}): Record<string, string> {
  return { ...receiver.env, USERWIRE_WEBHOOK_EVENTS: "requests", ...more };
}

interface Asked {
  user: string;
  conn: string;
  node: string;
  op: string;
  data?: unknown;
}

function asked({ data }: Received): Asked {
  return data as Asked;
}

/** What became of a request, as one line. */
async function outcome(request: Promise<unknown>): Promise<string> {
  try {
    return JSON.stringify(await withDeadline(request, 20_000, "an answer")) ?? "nothing";
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    const { code, message, outcome, retryMs } = error;
    return [code, outcome, retryMs, message].filter((part) => part !== undefined).join(" | ");
  }
}

/** A framed socket of alice's, and its `hi`. */
async function openFramed(service: Service): Promise<{ socket: WsClient; hi: Record<string, unknown> }> {
  const socket = await openClient(service.socketUrl("alice"), "userwire.v1");
  return { socket, hi: await socket.nextJson() };
}

function ask(socket: WsClient, id: string, more: Record<string, unknown> = {}): void {
  socket.send(JSON.stringify({ t: "req", id, op: "echo", ...more }));
}

Deno.test("The backend gets who asks for what, signed and as it was written, and its answer comes back", async () => {
  await using receiver = new WebhookReceiver();
  await using service = await Service.start(settings(receiver, { USERWIRE_NODE: "n1" }));
  receiver.answer = (_, { data }) => Response.json((data as Asked).data ?? null);
  await using client = connectAlice(service.server.url);
  const data = { order: 7, words: ["é", "\u2028", "😀"] };
  assertEquals(await client.request("orders.get", data), data);
  const [first] = receiver.received as [Received];
  assertEquals([first.type, receiver.forged], ["client.request", 0]);
  const { conn, ...rest } = asked(first);
  assertEquals(rest, { user: "alice", node: "n1", op: "orders.get", data });
  assertEquals(service.logged("connection opened")[0]!.fields.conn, conn);
  assertMatch(first.id, /^req_alice:[\w-]{32}$/);
  assertEquals(await client.request("nothing"), null);
  assertEquals("data" in asked(receiver.received[1]!), false);
  // Numbers that no double holds, and white space, are left as they are in both directions.
  const { socket, hi } = await openFramed(service);
  assertEquals(hi.req, 1);
  receiver.answer = () => new Response('\ufeff{"big":\n 12345678901234567890}');
  socket.send('{"t":"req","data":1,"op":"o","\\u0064ata": [12345678901234567890, 1.50] ,"id":"a_b-1"}');
  assertEquals(
    await socket.next(),
    '{"t":"re","id":"a_b-1","ok":true,"data":{"big":  12345678901234567890}}',
  );
  await socket.close();
  assertEquals(receiver.bodies.at(-1)!.endsWith('"data":[12345678901234567890, 1.50]}}'), true);
});

Deno.test("What each answer of the backend means to who asked", async (t) => {
  await using receiver = new WebhookReceiver();
  await using service = await Service.start(settings(receiver));
  await using client = connectAlice(service.server.url);
  const body = (value: unknown, status: number, headers: Record<string, string> = {}) => () =>
    Response.json(value, { status, headers });
  const endless = () =>
    new Response(new ReadableStream({ pull: (it) => it.enqueue(new Uint8Array(65_536)) }));
  const answers: [name: string, answer: () => Response, outcome: string | RegExp][] = [
    ["200", body([1, null], 200), "[1,null]"],
    ["201 without a body", () => new Response("", { status: 201 }), "nothing"],
    ["204", () => new Response(null, { status: 204 }), "nothing"],
    ["no JSON", () => new Response("<html>"), "bad_answer | unknown | The backend's answer is no JSON"],
    ["1 GiB", endless, "bad_answer | unknown | The backend's answer is too large"],
    [
      "a problem",
      body({ code: "not_yours", detail: "Order 7 is not yours" }, 422),
      "not_yours | refused | Order 7 is not yours",
    ],
    ["a problem without code", body({ title: "Gone" }, 410), "refused | refused | Gone"],
    [
      "404 without a body",
      () => new Response(null, { status: 404 }),
      "refused | refused | The backend answered 404",
    ],
    [
      "429",
      body({ code: "slow_down" }, 429, { "retry-after": "3" }),
      "slow_down | refused | 3000 | The backend answered 429",
    ],
    [
      "503",
      () => new Response("sorry", { status: 503, headers: { "retry-after": "2" } }),
      "unavailable | unknown | 2000 | The backend answered 503",
    ],
    [
      "a redirect",
      () => new Response(null, { status: 307, headers: { location: receiver.url } }),
      "unavailable | unknown | The backend answered 307",
    ],
    ["401 with a close code that is none", body({}, 401, { "userwire-close": "17" }), /^refused \| refused/],
  ];
  for (const [name, answer, wanted] of answers) {
    await t.step(name, async () => {
      receiver.answer = answer;
      const found = await outcome(client.request("op"));
      if (wanted instanceof RegExp) assertMatch(found, wanted);
      else assertEquals(found, wanted);
    });
  }
  assertEquals(receiver.received.length, answers.length, "each was asked once");
  assertEquals(client.state, "open");
  await t.step("403 with userwire-close", async () => {
    receiver.answer = body({ detail: "You are not let in any more" }, 403, { "userwire-close": "4403" });
    assertEquals(await outcome(client.request("op")), "refused | refused | You are not let in any more");
    assertEquals(await client.closed, { code: 4403, reason: "You are not let in any more" });
    assertEquals(await outcome(client.request("op")), "closed | refused | The client is closed");
  });
});

Deno.test("A backend that hangs is left after its time, then not asked at all, and asked again when it is back", async () => {
  await using receiver = new WebhookReceiver();
  await using service = await Service.start(settings(receiver, { USERWIRE_WEBHOOK_TIMEOUT_MS: "100" }));
  await using client = connectAlice(service.server.url);
  receiver.answer = receiver.hang;
  // The time of each is up when it is there, and none has passed when the next one comes after the last.
  using times = new HeldTimeouts();
  const answers = Array.from({ length: MAX_FAILURES }, () => outcome(client.request("op")));
  {
    using _clock = new StandingClock();
    for (let count = 1; count <= MAX_FAILURES; count++) {
      await receiver.until(() => receiver.received.length === count, `request ${count}`);
      times.run();
    }
    for (const answer of answers) {
      assertEquals(await answer, "timeout | unknown | The backend gave no answer within 100 ms");
    }
    assertMatch(await outcome(client.request("op")), /^unavailable \| refused \| \d+ \| .*left alone/);
  }
  assertEquals(receiver.received.length, MAX_FAILURES);
  assertEquals(service.logged("requests not answered").length, 1);
  receiver.answer = () => new Response("1");
  assertEquals(await client.request("op", null, { retry: true }), 1);
  assertEquals(service.logged("requests answered again").length, 1);
  const metrics = await (await service.fetch("/metrics")).text();
  assertMatch(metrics, /userwire_requests_total\{outcome="timeout"\} 5\n/);
  assertMatch(metrics, /userwire_requests_total\{outcome="answered"\} 1\n/);
  assertMatch(metrics, /userwire_webhooks_total\{type="client.request",outcome="failed"\} 5\n/);
});

Deno.test("A thousand requests of a connection arrive in their order, one at a time, and the 17th at once is too many", async () => {
  const came: unknown[] = [];
  const held = Promise.withResolvers<void>();
  let isHeld = false;
  const bell = new Bell();
  await using service = await Service.start({ USERWIRE_MAX_FRAMES_PER_SECOND: "1000000" }, {
    async onRequest({ data }) {
      came.push(data);
      bell.ring();
      if (isHeld) await held.promise;
      return data;
    },
  });
  const { socket } = await openFramed(service);
  await using _ = socket;
  const COUNT = 1_000;
  let sent = 0;
  for (; sent < MAX_OUTSTANDING; sent++) ask(socket, `r${sent}`, { data: sent });
  for (let i = 0; i < COUNT; i++) {
    assertEquals(await socket.nextJson(), { t: "re", id: `r${i}`, ok: true, data: i });
    if (sent < COUNT) ask(socket, `r${sent}`, { data: sent++ });
  }
  assertEquals(came, Array.from({ length: COUNT }, (_, i) => i));

  isHeld = true;
  for (let i = 1; i <= MAX_OUTSTANDING + 1; i++) ask(socket, `x${i}`, { data: i });
  const { err, ...busy } = await socket.nextJson();
  assertEquals(busy, { t: "re", id: "x17", ok: false, code: "busy", retry_ms: 1_000 });
  assertMatch(String(err), /under way on this connection/);
  await bell.until(() => came.length === COUNT + 1, "the first to be asked");
  held.resolve();
  for (let i = 1; i <= MAX_OUTSTANDING; i++) assertEquals((await socket.nextJson()).id, `x${i}`);
  assertEquals(came.length, COUNT + MAX_OUTSTANDING, "the 17th was not asked");
});

Deno.test("The socket of a request closes: it is broken off, and what waits behind it is not begun", async () => {
  await using receiver = new WebhookReceiver();
  await using service = await Service.start(settings(receiver));
  const left = Promise.withResolvers<void>();
  const held: Request[] = []; // what is collected as garbage tells nobody of its end
  receiver.answer = (request, received) => {
    held.push(request);
    request.signal.addEventListener("abort", () => left.resolve());
    return receiver.hang(request, received);
  };
  const { socket } = await openFramed(service);
  for (const id of ["a", "b"]) ask(socket, id);
  await receiver.until(() => receiver.received.length === 1, "the first request");
  await socket.close();
  await withDeadline(left.promise, 20_000, "the backend to see that nobody waits");
  await until(() => service.server.app.connections.size === 0, "the session to end");
  receiver.answer = () => new Response();
  const { socket: next } = await openFramed(service);
  await using _ = next;
  ask(next, "c");
  assertEquals((await next.nextJson()).id, "c");
  assertEquals(receiver.received.map(({ id }) => id), ["req_alice:a", "req_alice:c"]);
  assertMatch(
    await (await service.fetch("/metrics")).text(),
    /userwire_requests_total\{outcome="gone"\} 1\n/,
  );
});

Deno.test("A connection that breaks ends a request as unknown, or repeats it with the same id, as its maker said", async () => {
  await using receiver = new WebhookReceiver();
  await using there = await Service.start(settings(receiver));
  await using here = await ProcessService.start(settings(receiver));
  receiver.answer = receiver.hang;
  let url = here.socketUrl();
  await using once = connectTo(() => url, "alice");
  await using often = connectTo(() => url, "bob");
  const answers = [once.request("op", 1), often.request("op", 2, { retry: true })].map(outcome);
  await receiver.until(() => receiver.received.length === 2, "both requests");
  receiver.answer = () => new Response("true");
  url = there.socketUrl();
  here.signal("SIGKILL");
  assertEquals(await Promise.all(answers), [
    "lost | unknown | The connection broke before the answer came",
    "true",
  ]);
  const ids = receiver.received.map(({ id, data }) => [(data as Asked).user, id] as const);
  const [bobs, again] = ids.filter(([user]) => user === "bob");
  assertEquals([ids.length, again], [3, bobs]);
});

/** A client whose socket goes where the address leads at that moment, as behind a load balancer. */
function connectTo(address: () => string, user: string): Client {
  class Led extends WebSocket {
    constructor(url: string, protocols: string[]) {
      const target = new URL(address());
      target.search = new URL(url).search;
      super(target, protocols);
    }
  }
  const options: ConnectOptions = { user, backoff: { baseMs: 1, maxMs: 50 }, WebSocket: Led };
  return connect("http://127.0.0.1:1", options);
}

Deno.test("A request of 64 KiB + 1, by the library, by a bare socket, and where larger frames are let in", async () => {
  let largest = 0;
  const listener = { onRequest: ({ data }: { data: unknown }) => void (largest = (data as string).length) };
  await using service = await Service.start({ USERWIRE_MAX_FRAME_BYTES: "1000000" }, listener);
  const { socket } = await openFramed(service);
  await using _ = socket;
  const frame = (bytes: number) => {
    const empty = JSON.stringify({ t: "req", id: "a", op: "b", data: "" }).length;
    return JSON.stringify({ t: "req", id: "a", op: "b", data: "x".repeat(bytes - empty) });
  };
  socket.send(frame(65_537));
  const { code, ok } = await socket.nextJson();
  assertEquals([code, ok, largest], ["too_large", false, 0]);
  socket.send(frame(65_536));
  assertEquals((await socket.nextJson()).ok, true);
  assert(largest > 65_000);
  await using client = connectAlice(service.server.url);
  assertMatch(
    await outcome(client.request("b", "x".repeat(65_536))),
    /^too_large \| refused \| The request has \d+ bytes, and the service takes 65536/,
  );
  await using small = await Service.start({ USERWIRE_MAX_FRAME_BYTES: "1000" }, listener);
  await using other = connectAlice(small.server.url);
  assertMatch(await outcome(other.request("b", "é".repeat(500))), /^too_large .* takes 1000/);
  assertEquals([client.state, other.state], ["open", "open"]);
});

Deno.test("A request that is none closes with 4400 and says why; where nobody answers it is said so", async () => {
  await using service = await Service.start({}, { onRequest: () => 1 });
  const bad: [Record<string, unknown>, RegExp][] = [
    [{ op: "a" }, /"id"/],
    [{ id: "a.b", op: "a" }, /"id": 1 to 64 of letters/],
    [{ id: "x".repeat(65), op: "a" }, /"id"/],
    [{ id: "a" }, /"op"/],
    [{ id: "a", op: "" }, /"op": 1 to 64/],
    [{ id: "a", op: "x".repeat(65) }, /"op"/],
    [{ id: "a", op: "a", timeout_ms: 0 }, /"timeout_ms"/],
    [{ id: "a", op: "a", timeout_ms: "5" }, /"timeout_ms"/],
  ];
  for (const [fields, says] of bad) {
    const { socket } = await openFramed(service);
    socket.send(JSON.stringify({ t: "req", ...fields }));
    const { code, reason } = await socket.closed;
    assertEquals(code, 4400);
    assertMatch(reason, says);
  }
  await using mute = await Service.start();
  const { socket, hi } = await openFramed(mute);
  await using _ = socket;
  assertEquals("req" in hi, false);
  ask(socket, "a");
  assertEquals((await socket.nextJson()).code, "unsupported");
  await using client = connectAlice(mute.server.url);
  assertMatch(await outcome(client.request("op")), /^unsupported \| refused/);
  await assertRejects(() => client.request(""), TypeError, "1 to 64 characters");
});
