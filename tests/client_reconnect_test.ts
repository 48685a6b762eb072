/**
 * The client's rules of reconnection, one by one, against a server that plays every ending. Times are short by
 * option; chance is taken out where the lengths of waits are compared.
 */
import { assert, assertEquals, assertMatch, assertStrictEquals } from "@std/assert";
import { type Client, connect, type ConnectOptions, type Lost, type State } from "../src/client/mod.ts";
import { Bell, until, withDeadline } from "./support/deadline.ts";
import { ScriptedServer } from "./support/scripted_server.ts";

const QUICK = { baseMs: 1, maxMs: 20, steadyMs: 60_000 };

/** What a client has told so far, and a way to wait for more. */
class Watch {
  readonly states: State[] = [];
  readonly lost: Lost[] = [];
  readonly errors: string[] = [];
  readonly #bell = new Bell();

  constructor(client: Client) {
    client.on("state", (state) => this.#note(this.states, state));
    client.on("lost", (lost) => this.#note(this.lost, lost));
    client.on("error", ({ message }) => this.#note(this.errors, message));
  }

  #note<Entry>(list: Entry[], entry: Entry): void {
    list.push(entry);
    this.#bell.ring();
  }

  state(state: State, ms?: number): Promise<void> {
    return this.#bell.until(() => this.states.at(-1) === state, `state "${state}"`, ms);
  }

  losses(count: number, ms?: number): Promise<void> {
    return this.#bell.until(() => this.lost.length >= count, `${count} losses`, ms);
  }

  failures(count: number): Promise<void> {
    return this.#bell.until(() => this.errors.length >= count, `${count} errors`);
  }
}

function open(server: ScriptedServer, options: Partial<ConnectOptions> = {}) {
  const client = connect(server.url, { user: "alice", backoff: QUICK, ...options } as ConnectOptions);
  return { client, watch: new Watch(client) };
}

/** Runs the body with a `Math.random` that always takes the whole. */
async function withoutChance(body: () => Promise<void>): Promise<void> {
  const { random } = Math;
  Math.random = () => 1;
  try {
    await body();
  } finally {
    Math.random = random;
  }
}

function ended(client: Client) {
  return withDeadline(client.closed, 5_000, "the client to be closed");
}

for (const code of [1001, 1005, 1009, 1011, 1012, 1013, 3000, 4000, 4399, 4503, 4508]) {
  Deno.test(`Client comes back after code ${code} and resumes where it was`, async () => {
    await using server = new ScriptedServer();
    await using client = open(server).client;
    const first = await server.next();
    assertStrictEquals(first.resume, null);
    first.hi({ pos: "e.0" });
    // Deno sends no code for 1005, which is what it means.
    first.close(code);
    const second = await server.next();
    assertEquals(second.resume, "e.0");
    second.hi({ pos: "e.0", resumed: true });
    await until(() => client.state === "open", "the client to be open");
  });
}

for (const code of [1000, 4400, 4401, 4403, 4408, 4409, 4429, 4499]) {
  Deno.test(`Client stays away after code ${code} and says why`, async () => {
    await using server = new ScriptedServer();
    const { client, watch } = open(server);
    const socket = await server.next();
    socket.hi();
    socket.close(code, "because");
    // A timer that would bring it back fails the test.
    assertEquals(await ended(client), { code, reason: "because" });
    assertEquals(watch.states, ["open", "closed"]);
    assertEquals(watch.lost, [{ code, reason: "because", opened: true, retryMs: undefined }]);
    assertEquals(client.state, "closed");
    assertEquals(server.attempts, 1);
  });
}

Deno.test("Client comes back after a refused handshake, with nothing to resume from", async () => {
  await using server = new ScriptedServer();
  server.refuse(401, 503, 500);
  const { client, watch } = open(server);
  await using _ = client;
  const socket = await server.next();
  assertStrictEquals(socket.resume, null);
  assertEquals(watch.lost.map(({ code, opened }) => [code, opened]), [[1006, false], [1006, false], [
    1006,
    false,
  ]]);
  assertEquals(server.attempts, 4);
});

Deno.test("Client comes back exactly when a bye says", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = open(server, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  await using _ = client;
  const byes: unknown[] = [];
  client.on("bye", (bye) => byes.push(bye));
  const first = await server.next();
  first.hi({ pos: "e.0" });
  first.send({ t: "bye", code: 1012, why: "restart", retry_ms: 250 });
  first.close(1012, "other words");
  await watch.losses(1);
  const lostAt = performance.now();
  assertEquals(watch.lost, [{ code: 1012, reason: "restart", opened: true, retryMs: 250 }]);
  assertEquals(byes, [{ t: "bye", code: 1012, why: "restart", retry_ms: 250 }]);
  assertEquals(client.state, "waiting");
  await server.next();
  const waitedMs = performance.now() - lostAt;
  assert(waitedMs >= 245, `It came back after ${waitedMs} ms`);
});

for (const retry_ms of [undefined, -1, "soon", null]) {
  Deno.test(`Client takes its own time when a bye says retry_ms ${retry_ms}`, async () => {
    await using server = new ScriptedServer();
    const { client, watch } = open(server);
    await using _ = client;
    const socket = await server.next();
    socket.send({ t: "bye", code: 1012, why: "restart", retry_ms });
    socket.close(1012);
    await server.next();
    assert(watch.lost[0]!.retryMs! <= QUICK.baseMs);
  });
}

Deno.test("Client does not come back at once when a bye says never", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = open(server);
  const socket = await server.next();
  // As milliseconds of a timer this would overflow to none.
  socket.send({ t: "bye", code: 1012, why: "restart", retry_ms: 2 ** 40 });
  socket.close(1012);
  await watch.losses(1);
  assertEquals(watch.lost[0]!.retryMs, 3_600_000);
  await client.close();
  assertEquals(server.attempts, 1);
});

Deno.test("Client waits twice as long after each failure, up to a limit, and less by chance", async () => {
  await using server = new ScriptedServer();
  await withoutChance(async () => {
    server.refuse(...Array(6).fill(503));
    const { client, watch } = open(server, { backoff: { baseMs: 2, maxMs: 20, steadyMs: 60_000 } });
    await using _ = client;
    (await server.next()).close(1012);
    await watch.losses(7);
    assertEquals(watch.lost.map(({ retryMs }) => retryMs), [2, 4, 8, 16, 20, 20, 20]);
  });

  server.refuse(...Array(20).fill(503));
  const { client, watch } = open(server, { backoff: { baseMs: 20, maxMs: 20 } });
  await using _ = client;
  await watch.losses(20);
  const waits = watch.lost.map(({ retryMs }) => retryMs!);
  assert(waits.every((wait) => wait >= 0 && wait < 20), String(waits));
  assert(
    Math.min(...waits) < 10 && Math.max(...waits) > 10,
    `Twenty waits on one side of the middle: ${waits}`,
  );
});

Deno.test("Client begins with the shortest wait again after a steady connection, and only then", async () => {
  await withoutChance(async () => {
    await using server = new ScriptedServer();
    server.refuse(503, 503);
    const { client, watch } = open(server, { backoff: { baseMs: 2, maxMs: 1_000, steadyMs: 200 } });
    await using _ = client;
    const short = await server.next();
    short.hi();
    short.close(1012);
    await watch.losses(3);
    assertEquals(watch.lost.map(({ retryMs }) => retryMs), [2, 4, 8]);

    const steady = await server.next();
    steady.hi();
    await watch.state("open");
    const openedAt = Date.now();
    await until(() => Date.now() - openedAt > 200, "the connection to be steady");
    steady.close(1012);
    await watch.losses(4);
    assertEquals(watch.lost[3]!.retryMs, 2);
  });
});

Deno.test("Client that knows a position resumes from it until the server gives another", async () => {
  await using server = new ScriptedServer();
  await using client = open(server, { resume: "old.7" }).client;
  assertEquals(client.position, "old.7");
  const first = await server.next();
  assertEquals(first.resume, "old.7");
  first.close(1012); // before it said anything
  const second = await server.next();
  assertEquals(second.resume, "old.7");
  second.hi({ pos: "old.7", resumed: true });
  second.message(8);
  second.close(1012);
  // The message was received, and nobody has taken it yet.
  const third = await server.next();
  assertEquals(third.resume, "old.8");
  assertEquals(client.position, "old.7");
});

// ---------------------------------------------------------------------------------------------------------
// Tokens

Deno.test("Client offers its token as a subprotocol, and asks for a new one before every attempt", async () => {
  await using server = new ScriptedServer();
  const tokens = ["eyJ.a-b_c.d", "ü?>ÿ~"];
  await using client = connect(server.url, {
    token: () => Promise.resolve(tokens.shift()!),
    backoff: QUICK,
  });
  const first = await server.next();
  assertEquals(first.protocols, ["userwire.v1", "userwire.bearer.ZXlKLmEtYl9jLmQ"]);
  assertEquals(first.url.search, "");
  first.hi({ pos: "e.3" });
  first.close(1012);
  const second = await server.next();
  // "ü?>ÿ~" in UTF-8 has both letters that base64url has in place of others.
  assertEquals(second.protocols, ["userwire.v1", "userwire.bearer.w7w_PsO_fg"]);
  assertEquals(second.url.search, "?resume=e.3");
  await client.close();
});

Deno.test("Client exchanges an expired token once, and stops when the new one is refused too", async () => {
  await using server = new ScriptedServer();
  let count = 0;
  const client = connect(server.url, { token: () => Promise.resolve(`t${++count}`), backoff: QUICK });
  const first = await server.next();
  first.hi({ pos: "e.0" });
  first.close(4401, "token_expired");
  const second = await server.next();
  assertEquals(second.protocols[1], `userwire.bearer.${btoa("t2").replaceAll("=", "")}`);
  assertEquals(second.resume, "e.0");
  second.hi({ pos: "e.0" });
  second.close(4401, "token_expired");
  assertEquals(await ended(client), { code: 4401, reason: "token_expired" });
  assertEquals(server.attempts, 2);
});

Deno.test("Client exchanges an expired token again after a steady connection, also by word of a bye", async () => {
  await using server = new ScriptedServer();
  await using client = connect(server.url, {
    token: () => Promise.resolve("t"),
    backoff: { ...QUICK, steadyMs: 0 },
  });
  for (let round = 0; round < 3; round++) {
    const socket = await server.next();
    socket.hi();
    socket.send({ t: "bye", code: 4401, why: "token_expired" });
    socket.close(4401);
  }
  (await server.next()).hi();
  await until(() => client.state === "open", "the client to be open");
});

Deno.test("Client stops when its token is refused for another reason, or it has none to exchange", async () => {
  await using server = new ScriptedServer();
  const withToken = connect(server.url, { token: () => Promise.resolve("t"), backoff: QUICK });
  (await server.next()).close(4401, "bad signature");
  assertEquals((await ended(withToken)).reason, "bad signature");
  const withName = open(server).client;
  (await server.next()).close(4401, "token_expired");
  assertEquals((await ended(withName)).reason, "token_expired");
  assertEquals(server.attempts, 2);
});

Deno.test("Client tries again when no token can be had, and says so", async () => {
  await using server = new ScriptedServer();
  let count = 0;
  const client = connect(server.url, {
    token: () => ++count < 3 ? Promise.reject(new Error("no network")) : Promise.resolve("t"),
    backoff: QUICK,
  });
  const watch = new Watch(client);
  await using _ = client;
  await server.next();
  assertEquals(watch.errors, ["Can't get a token: no network", "Can't get a token: no network"]);
  assertEquals(watch.lost.map(({ code, opened }) => [code, opened]), [[1006, false], [1006, false]]);
  assertEquals(server.attempts, 1);
});

// ---------------------------------------------------------------------------------------------------------
// Silence

Deno.test("Client gives up a server that is silent for longer than its ping and the time-out", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = open(server, { timeoutMs: 100 });
  await using _ = client;
  const first = await server.next();
  first.hi({ pos: "e.4", ping: 0.1 });
  const openedAt = performance.now();
  for (let signs = 0; signs < 6; signs++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    first.send(signs % 2 === 0 ? { t: "p" } : { t: "m", ts: 1, data: 1 });
  }
  assertEquals([client.state, watch.lost.length], ["open", 0], "Signs of life keep it open");
  const second = await server.next();
  assert(performance.now() - openedAt >= 290 + 200, "It gave up too early");
  assertEquals(second.resume, "e.4");
  assertEquals(watch.lost[0]!.code, 1006);
  assertMatch(watch.lost[0]!.reason, /^The server was silent for \d+ s$/);
  assertEquals(await first.closed, 1000);
});

Deno.test("Client gives up a handshake that is not answered, and a server that does not say hi", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const mute: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const conn of listener) mute.push(conn);
  })();
  {
    const client = connect(`ws://127.0.0.1:${listener.addr.port}`, {
      user: "alice",
      timeoutMs: 50,
      backoff: QUICK,
    });
    await using _ = client;
    await until(() => mute.length >= 3, "three attempts");
    assertEquals(client.state === "open", false);
  }
  listener.close();
  await accepting;
  for (const conn of mute) conn.close();

  await using server = new ScriptedServer();
  await using _ = open(server, { timeoutMs: 50 }).client;
  await server.next();
  await server.next();
});

// ---------------------------------------------------------------------------------------------------------
// The browser's word

Deno.test("Client lets go of its socket when the browser is offline, and resumes when it is online", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = open(server);
  await using _ = client;
  const first = await server.next();
  first.hi({ pos: "e.5" });
  await watch.state("open");
  dispatchEvent(new Event("offline"));
  assertEquals(client.state, "offline");
  assertEquals(watch.lost, [{ code: 1006, reason: "offline", opened: true, retryMs: undefined }]);
  await first.closed;
  dispatchEvent(new Event("online"));
  const second = await server.next();
  assertEquals(second.resume, "e.5");
  second.hi({ pos: "e.5", resumed: true });
  await watch.state("open");
  assertEquals(watch.states, ["open", "offline", "waiting", "connecting", "open"]);
  // Being online when it is online already is no news.
  dispatchEvent(new Event("online"));
  assertEquals(client.state, "open");
});

Deno.test("Client makes no attempt while it is offline, but one now and then", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = open(server, { backoff: { baseMs: 1, maxMs: 300 } });
  await using _ = client;
  const first = await server.next();
  first.hi();
  await watch.state("open");
  const offlineAt = performance.now();
  dispatchEvent(new Event("offline"));
  await server.next();
  assert(performance.now() - offlineAt >= 295, "The browser may be wrong, but not so soon");
});

Deno.test("Client that waits for the next attempt, or for a token, waits for the network instead", async () => {
  await using server = new ScriptedServer();
  server.refuse(503);
  const { client, watch } = open(server, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  await watch.state("waiting");
  dispatchEvent(new Event("offline"));
  assertEquals(client.state, "offline");
  await client.close();

  const token = Promise.withResolvers<string>();
  const asking = connect(server.url, { token: () => token.promise });
  await until(() => asking.state === "connecting", "the token to be asked for");
  dispatchEvent(new Event("offline"));
  assertEquals(asking.state, "offline");
  token.resolve("late");
  await token.promise;
  await asking.close();
  assertEquals(server.attempts, 1, "A token that came too late is not used");
});

/** A document that the test hides and shows. */
class FakeDocument extends EventTarget implements Disposable {
  visibilityState = "visible";

  constructor() {
    super();
    Object.defineProperty(globalThis, "document", { value: this, configurable: true });
  }

  turn(visibilityState: "hidden" | "visible"): void {
    this.visibilityState = visibilityState;
    this.dispatchEvent(new Event("visibilitychange"));
  }

  [Symbol.dispose](): void {
    delete (globalThis as { document?: unknown }).document;
  }
}

Deno.test("Client keeps its socket in a hidden page, but makes new attempts rarely until it is seen", async () => {
  using document = new FakeDocument();
  await using server = new ScriptedServer();
  const { client, watch } = open(server, { backoff: { baseMs: 1, maxMs: 400 } });
  await using _ = client;
  const first = await server.next();
  first.hi({ pos: "e.0" });
  await watch.state("open");
  document.turn("hidden");
  first.message(1);
  const iterator = client[Symbol.asyncIterator]();
  assertEquals((await iterator.next()).value?.seq, 1, "The socket is still there");

  let lostAt = performance.now();
  first.close(1012);
  const second = await server.next();
  assert(performance.now() - lostAt >= 395, "A hidden page has time");
  second.hi({ pos: "e.1", resumed: true });
  await watch.state("open");

  lostAt = performance.now();
  second.close(1012);
  await watch.state("waiting");
  document.turn("visible");
  const third = await server.next();
  assert(performance.now() - lostAt < 395, "A page that is seen has none");
  third.hi({ pos: "e.1", resumed: true });
});

// ---------------------------------------------------------------------------------------------------------
// Closing

Deno.test("Client closes with code 1000 and tells everybody once", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = open(server);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  await watch.state("open");
  const closing = client.close();
  assertEquals(client.state, "closed");
  assertEquals(await closing, { code: 1000, reason: "" });
  assertEquals(await socket.closed, 1000);
  assertEquals(await client.close(), { code: 1000, reason: "" });
  assertEquals(watch.states, ["open", "closed"]);
  assertEquals(watch.lost, []);
});

Deno.test("Client can be closed in every state", async () => {
  await using server = new ScriptedServer();
  const atOnce = open(server).client;
  await atOnce.close();

  const token = Promise.withResolvers<string>();
  const asking = connect(server.url, { token: () => token.promise });
  await until(() => asking.state === "connecting", "the token to be asked for");
  await asking.close();
  token.resolve("late");

  server.refuse(503);
  const { client: waiting, watch } = open(server, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  await watch.state("waiting");
  await waiting.close();

  const offline = open(server).client;
  const socket = await server.next();
  dispatchEvent(new Event("offline"));
  await socket.closed;
  await offline.close();
  // A client that is closed hears nothing of the browser any more.
  dispatchEvent(new Event("online"));
  for (const client of [atOnce, asking, waiting, offline]) assertEquals(client.state, "closed");
});

Deno.test("Client can be closed by whoever it tells something", async () => {
  await using server = new ScriptedServer();
  for (const name of ["state", "open", "message", "lost"] as const) {
    const { client } = open(server);
    client.on(name, () => void client.close());
    const socket = await server.next();
    socket.hi({ pos: "e.0" });
    socket.message(1);
    socket.close(1012);
    await ended(client);
    assertEquals(client.state, "closed", name);
  }
  assertEquals(server.attempts, 4);
});

/** A socket for what no server can be made to do. */
class FakeSocket {
  static readonly made: FakeSocket[] = [];
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  closedWith: number | undefined;

  constructor(readonly url: string) {
    FakeSocket.made.push(this);
  }

  send(): void {}

  close(code: number): void {
    this.closedWith = code;
  }

  frame(frame: unknown): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

/** A client on fake sockets, and the one that is made next. */
function fake(options: Partial<ConnectOptions> = {}) {
  FakeSocket.made.length = 0;
  const client = connect("ws://example.com", {
    user: "alice",
    backoff: QUICK,
    WebSocket: FakeSocket as never,
    ...options,
  } as ConnectOptions);
  const made = async (count: number) => {
    await until(() => FakeSocket.made.length >= count, `${count} sockets`);
    return FakeSocket.made[count - 1]!;
  };
  return { client, watch: new Watch(client), made };
}

Deno.test("Client does not wait long for a server that does not answer its close", async () => {
  const { client, made } = fake();
  const socket = await made(1);
  socket.frame({ t: "hi", ping: 25 });
  const closingAt = performance.now();
  assertEquals(await client.close(), { code: 1000, reason: "" });
  assert(performance.now() - closingAt < 1_500);
  assertEquals(socket.closedWith, 1000);
});

Deno.test("Client goes by the bye when the connection breaks after it", async () => {
  for (const code of [0, 1006]) {
    const { client, made } = fake();
    const socket = await made(1);
    socket.frame({ t: "hi", ping: 25 });
    socket.frame({ t: "bye", code: 4403, why: "kicked" });
    socket.onclose!({ code, reason: "" });
    assertEquals(await ended(client), { code: 4403, reason: "kicked" });
  }
});

Deno.test("Client takes what its socket says about a failure as the reason", async () => {
  const { client, watch, made } = fake();
  const socket = await made(1);
  socket.onerror!({ message: "connection refused" });
  socket.onclose!({ code: 0, reason: "" });
  await made(2);
  const [{ retryMs: _, ...lost }] = watch.lost as [Lost];
  assertEquals(lost, { code: 1006, reason: "connection refused", opened: false });
  await client.close();
});

Deno.test("Client looks twice before it gives up a server when it was itself not running", async () => {
  const { client, watch, made } = fake({ timeoutMs: 100 });
  const socket = await made(1);
  socket.frame({ t: "hi", ping: 0.1 });
  // As a busy program or a sleeping machine does: nothing runs, and the server's frames wait to be read.
  const until = Date.now() + 1_500;
  while (Date.now() < until);
  setTimeout(() => socket.frame({ t: "p" }), 100);
  await new Promise((resolve) => setTimeout(resolve, 150));
  assertEquals([client.state, watch.lost.length], ["open", 0]);
  await watch.losses(1); // now that it runs, and hears nothing
  await client.close();
});

Deno.test("Client goes on when a socket can't even be made", async () => {
  let count = 0;
  class Failing extends FakeSocket {
    constructor(url: string) {
      if (++count < 3) throw new DOMException("The page is secure, the address is not", "SecurityError");
      super(url);
    }
  }
  const { client, watch, made } = fake({ WebSocket: Failing as never });
  await made(1);
  assertEquals(watch.errors.length, 2);
  assertMatch(watch.lost[0]!.reason, /^The page is secure/);
  await client.close();
});
