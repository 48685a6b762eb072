/** Clients where WebSockets are blocked: server-sent events, the change from one to the other, and what is said of it. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { connect, type ConnectOptions } from "../../src/client/mod.ts";
import type { Session } from "../../src/session/session.ts";
import { Inbox, QUICK } from "../../testkit/client_watch.ts";
import { call, CLOSED, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldTimers } from "../../testkit/held_timers.ts";
import { nodesTest, numbers, send, sendAll } from "../../testkit/nodes.ts";
import { Service } from "../../testkit/service.ts";
import { WallClock } from "../../testkit/wall_clock.ts";

const ALICE = { user: "alice", backoff: QUICK };

/** What sockets are made with in a network that lets none through; as long as `isBlocking`. */
function network(isBlocking = true, code = 1006) {
  const state = { isBlocking, tried: 0 };
  /** Fails as a browser's does: later, with an error that says nothing, and 1006. */
  class Blocked {
    onmessage: unknown = null;
    onclose: unknown = null;
    onerror: unknown = null;
    constructor() {
      setTimeout(() => (this.onclose as ((event: unknown) => void) | null)?.({ code, reason: "" }), 1);
    }
    send() {}
    close() {}
  }
  const Constructor = function (url: string, protocols: string[]) {
    state.tried++;
    return state.isBlocking ? new Blocked() : new WebSocket(url, protocols);
  } as unknown as NonNullable<ConnectOptions["WebSocket"]>;
  return { state, WebSocket: Constructor };
}

/** How alice is connected, to the services, each in the order in which she was. */
function modes(...services: Service[]): unknown[] {
  return services.flatMap((service) => service.logged("connection opened")).map(({ fields }) => fields.mode);
}

/** Ends every connection as a stream's time does. */
function outlive(service: Service): void {
  for (const member of service.server.app.connections.live()) (member as Session).expired();
}

const { everywhere } = nodesTest("Client by server-sent events");

everywhere("gets everything in order, acknowledges, pauses, and comes back", async ({ here, there }) => {
  await using client = connect(here.server.url, { ...ALICE, transport: "sse" });
  const watch = new Inbox(client);
  await watch.state("open");
  assertEquals(await here.sockets("alice"), 1);
  const { publisher } = there.server.app;
  await publisher.send("alice", { kind: "json", text: '{\n"n":\r\n1\r}' });
  await publisher.send("alice", "text\n\ntext");
  await publisher.send("alice", new Uint8Array([0, 255]));
  await watch.received(3);
  assertEquals(watch.data, [{ n: 1 }, "text\n\ntext", new Uint8Array([0, 255])]);
  const { acked } = await publisher.send("alice", 4, { waitAckMs: 10_000 });
  assertEquals(acked, 1);
  client.pause();
  await until(async () => await there.sockets("alice") === 0, "the service to see her go");
  await sendAll(there, 5, 8);
  client.resume();
  await watch.received(8);
  outlive(here);
  await until(() => watch.lost.length >= 2, "the stream to end");
  await sendAll(here, 9, 12);
  await watch.received(12);
  assertEquals(watch.data.slice(3), numbers(4, 12));
  assertEquals([watch.gaps, watch.errors], [[], []]);
  assertEquals(new Set(modes(here)), new Set(["sse"]));
  await client.close();
  await until(async () => await there.sockets("alice") === 0, "the stream to be closed");
});

Deno.test("Client shows its token on a stream, and for each frame", async () => {
  await using service = await Service.start(CLOSED);
  const token = await tokenFor("alice");
  await using client = connect(service.server.url, {
    ...{ token: () => Promise.resolve(token), backoff: QUICK, transport: "sse" },
  });
  const watch = new Inbox(client);
  await watch.state("open");
  assertEquals((await service.server.app.publisher.send("alice", 1, { waitAckMs: 10_000 })).acked, 1);
  assertEquals(watch.errors, []);
});

Deno.test("Client with a ticket that is used up goes on, and says once that no frame is taken", async () => {
  await using service = await Service.start(CLOSED);
  const buy = async (reuse: boolean) =>
    (await call(service, "POST /v1/tickets", { body: { user: "alice", reuse } })).body.ticket as string;
  for (const reuse of [false, true]) {
    await using client = connect(service.server.url, {
      ...{ token: () => buy(reuse), backoff: QUICK, transport: "sse" },
    });
    const watch = new Inbox(client);
    await watch.state("open");
    const { publisher } = service.server.app;
    for (const n of numbers(1, 2)) {
      const { acked } = await publisher.send("alice", n, { waitAckMs: reuse ? 10_000 : 200 });
      assertEquals(acked, Number(reuse));
    }
    await watch.received(2);
    if (!reuse) await watch.failures(1);
    assertEquals(watch.errors.length, reuse ? 0 : 1);
    if (!reuse) assertMatch(watch.errors[0]!, /takes no frames: 401 .*ticket is not valid/);
    assertEquals([watch.lost.length, watch.data.length], [0, 2]);
  }
});

for (const code of [1006, 1000, 1005, 1011]) {
  Deno.test(`Client whose sockets end with ${code} before they begin falls back, and comes back`, async () => {
    await using service = await Service.start();
    const { state, WebSocket } = network(true, code);
    await using client = connect(service.server.url, { ...ALICE, WebSocket });
    const watch = new Inbox(client);
    await watch.state("open");
    assertEquals(modes(service), ["sse"]);
    assert(state.tried >= 2, "One handshake in vain is no block");
    assertEquals(watch.errors, []);
    await sendAll(service, 1, 3);
    await watch.received(3);
    // Still blocked: it goes on with a stream, and tries no socket before its time.
    const { tried } = state;
    outlive(service);
    await until(() => modes(service).length === 2, "a second stream");
    assertEquals([modes(service).at(-1), state.tried], ["sse", tried]);
    await sendAll(service, 4, 5);
    await watch.received(5);
    using clock = new WallClock(600_000);
    outlive(service);
    await until(() => modes(service).length === 3, "a third one");
    assertEquals([modes(service).at(-1), state.tried], ["sse", tried + 1], "Once is enough to see it again");
    await sendAll(service, 6, 7);
    await watch.received(7);
    state.isBlocking = false;
    clock.aheadMs += 600_000;
    outlive(service);
    await until(() => modes(service).length === 4, "a socket");
    assertEquals(modes(service).at(-1), "v1");
    await sendAll(service, 8, 9);
    await watch.received(9);
    assertEquals([watch.data, watch.gaps, watch.errors], [numbers(1, 9), [], []]);
  });
}

Deno.test("Client that tries a stream already takes a late answer about its sockets for no news", async () => {
  const welcome = () =>
    new Response(JSON.stringify({ code: "upgrade_required", detail: "You would be let in" }), {
      headers: { "content-type": "application/problem+json" },
    });
  const asked: { url: string; answer(response: Response): void }[] = [];
  const sockets: Partial<Pick<WebSocket, "onclose">>[] = [];
  const { fetch } = globalThis;
  globalThis.fetch = (url, init) =>
    new Promise((answer, reject) => {
      asked.push({ url: String(url), answer });
      init?.signal?.addEventListener("abort", reject);
    });
  using _back = { [Symbol.dispose]: () => void (globalThis.fetch = fetch) };
  const Silent = function () {
    const socket = { close() {}, send() {} };
    return sockets[sockets.push(socket as typeof sockets[0]) - 1];
  } as unknown as NonNullable<ConnectOptions["WebSocket"]>;
  const client = connect("http://127.0.0.1:9", { ...ALICE, WebSocket: Silent });
  const watch = new Inbox(client);
  const fail = async (n: number) => {
    await until(() => sockets.length === n, `attempt ${n}`);
    sockets[n - 1]!.onclose!.call({} as WebSocket, new CloseEvent("close", { code: 1006 }));
    await until(() => asked.length === n, `question ${n}`);
  };
  await fail(1);
  asked[0]!.answer(welcome());
  await fail(2);
  // The third attempt has begun when the second one's reason is known.
  await until(() => sockets.length === 3, "attempt 3");
  asked[1]!.answer(welcome());
  await new Promise((resolve) => setTimeout(resolve));
  await fail(3);
  await until(() => asked.length === 4, "a stream to be tried");
  assertMatch(asked[3]!.url, /\/v1\/events/);
  asked[2]!.answer(welcome());
  await new Promise((resolve) => setTimeout(resolve));
  asked[3]!.answer(new Response(null, { status: 502 }));
  await until(() => watch.lost.length === 4, "the stream to fail");
  assertEquals(watch.errors, []);
  await client.close();
});

Deno.test("Client that has been in by a socket falls back too, when no more get through", async () => {
  await using service = await Service.start();
  const { state, WebSocket } = network(false);
  await using client = connect(service.server.url, { ...ALICE, WebSocket });
  const watch = new Inbox(client);
  await watch.state("open");
  await send(service, 1);
  await watch.received(1);
  state.isBlocking = true;
  outlive(service);
  await send(service, 2);
  await watch.received(2);
  assertEquals([modes(service), watch.data, watch.errors], [["v1", "sse"], [1, 2], []]);
});

Deno.test("Client whose service is back after some failures takes that for no block", async () => {
  for (const failures of [1, 4]) {
    await using service = await Service.start();
    const { state, WebSocket } = network(false);
    let left = 0;
    // As while it starts: handshakes fail, and by the time that somebody asks why it would let them in.
    const Starting = function (url: string, protocols: string[]) {
      state.isBlocking = left-- > 0;
      return new WebSocket(url, protocols);
    } as unknown as typeof WebSocket;
    await using client = connect(service.server.url, { ...ALICE, WebSocket: Starting });
    const watch = new Inbox(client);
    await watch.state("open");
    left = failures;
    outlive(service);
    await send(service, 1);
    await watch.received(1);
    assertEquals([modes(service), state.tried, watch.errors], [["v1", "v1"], failures + 2, []]);
  }
});

Deno.test("Client falls back only where the service answers by plain HTTP", async () => {
  const { state, WebSocket } = network();
  const wall = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("<title>Log in to this network</title>", { headers: { "content-type": "text/html" } }),
  );
  {
    const url = `http://127.0.0.1:${wall.addr.port}`;
    await using client = connect(url, { ...ALICE, WebSocket });
    const watch = new Inbox(client);
    await watch.failures(1);
    assertMatch(watch.errors[0]!, /No Userwire answers/);
    const { tried } = state;
    await until(() => state.tried > tried + 2, "it to try sockets and nothing else");
    await using stream = connect(url, { ...ALICE, transport: "sse" });
    const other = new Inbox(stream);
    await until(() => other.lost.length > 0, "the stream to be refused");
    assertEquals(other.lost[0]!.reason, "The stream was answered with 200, text/html");
    await other.failures(1);
  }
  await wall.shutdown();
});

Deno.test("Client takes turns when streams don't get through either, says so, and is in with what does", async () => {
  await using service = await Service.start();
  let holds = true;
  // As a proxy does that knows no upgrades, and holds back a body until it is whole.
  const proxy = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    if (request.headers.has("upgrade")) return new Response(null, { status: 400 });
    const { pathname, search } = new URL(request.url);
    const { headers, method, signal } = request;
    const answer = await fetch(new URL(pathname + search, service.server.url), { headers, method, signal });
    if (!holds || pathname !== "/v1/events") return answer;
    await answer.body!.cancel();
    return new Response(new ReadableStream({ start() {} }), { headers: answer.headers });
  });
  {
    await using client = connect(`http://127.0.0.1:${proxy.addr.port}`, { ...ALICE, timeoutMs: 100 });
    const watch = new Inbox(client);
    await watch.failures(1);
    assertMatch(watch.errors[0]!, /would be let in.*pass Upgrade/);
    assert(watch.lost.some(({ reason }) => /did not answer/.test(reason)), "A stream was tried");
    const { length } = watch.lost;
    await watch.losses(length + 3);
    holds = false;
    // From here on each has the time that it needs.
    using _held = new HeldTimers(100);
    await watch.state("open");
    await send(service, 1);
    await watch.received(1);
  }
  await proxy.shutdown();
});

Deno.test("Client that is refused on a stream is told why", async () => {
  await using service = await Service.start(CLOSED);
  await using client = connect(service.server.url, {
    ...{ token: () => Promise.resolve("x.y.z"), backoff: QUICK, transport: "sse" },
  });
  const watch = new Inbox(client);
  await watch.failures(1);
  assertMatch(watch.errors[0]!, /^RefusedError|refuses to connect/);
});

Deno.test("Client needs no WebSocket but where it may use nothing else", async () => {
  await using service = await Service.start();
  const { WebSocket } = globalThis;
  // deno-lint-ignore no-explicit-any -- as in Node 20
  (globalThis as any).WebSocket = undefined;
  try {
    assertThrows(() => connect("http://h", { ...ALICE, transport: "websocket" }), TypeError, "no WebSocket");
    await using client = connect(service.server.url, ALICE);
    await new Inbox(client).state("open");
    assertEquals(modes(service), ["sse"]);
  } finally {
    globalThis.WebSocket = WebSocket;
  }
  const wrong = { ...ALICE, transport: "polling" } as unknown as ConnectOptions;
  assertThrows(() => connect("http://h", wrong), TypeError, 'no transport "polling"');
});

Deno.test("Client sends a frame again that the service can't take just now", async () => {
  await using service = await Service.start();
  const { fetch } = globalThis;
  let posts = 0;
  globalThis.fetch = (input, init) =>
    init?.method === "POST" && ++posts === 1
      ? Promise.resolve(new Response("{}", { status: 503 }))
      : fetch(input, init);
  try {
    await using client = connect(service.server.url, { ...ALICE, transport: "sse" });
    const watch = new Inbox(client);
    await watch.state("open");
    const { acked } = await service.server.app.publisher.send("alice", 1, { waitAckMs: 20_000 });
    assertEquals([acked, posts, watch.errors], [1, 2, []]);
  } finally {
    globalThis.fetch = fetch;
  }
});

Deno.test("Client that closes a stream lets go of it itself, and does not wait for what collects garbage", async () => {
  const { fetch } = globalThis;
  let isCancelled = false;
  // As Deno's: one that is aborted leaves its body's connection as it is.
  globalThis.fetch = () => {
    const text = 'data: {"t":"hi","v":1,"conn":"c","user":"alice","max":65536,"ping":25}\n\n';
    const body = new ReadableStream({
      // Not before whoever asked for it listens.
      start: (controller) => void setTimeout(() => controller.enqueue(new TextEncoder().encode(text)), 0),
      cancel: () => void (isCancelled = true),
    });
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  };
  try {
    await using client = connect("http://127.0.0.1:1", { ...ALICE, transport: "sse" });
    await new Inbox(client).state("open");
    await client.close();
    assert(isCancelled);
  } finally {
    globalThis.fetch = fetch;
  }
});
