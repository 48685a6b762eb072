/**
 * The client against the real service: in memory, and on two nodes over one real Redis. What is sent arrives
 * once and in order through everything that ends connections, and what can't be delivered is told exactly.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { type CommonOptions, connect } from "../../src/client/mod.ts";
import { Inbox, take } from "../../testkit/client_watch.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openPatiently } from "../../testkit/ws_client.ts";

/** A back-off with which a client makes no attempt while it is offline, as it else does after the longest wait. */
const PATIENT = { baseMs: 20, maxMs: 60_000 };

/** A client of alice's that takes everything, and may report no error. */
class Listener extends Inbox implements AsyncDisposable {
  constructor(url: string, options: CommonOptions & { user?: string } = {}) {
    super(connect(url, { user: "alice", backoff: { baseMs: 20, maxMs: 100 }, ...options }));
  }

  /** Resolves when it is open again after it has lost so many connections. */
  async isBack(losses: number): Promise<void> {
    await this.losses(losses, 20_000);
    await this.state("open", 20_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
    // Why it is not let in for a while it may be told, as by a node that is only starting.
    assertEquals(this.errors.filter((text) => !text.startsWith("The service refuses to connect: ")), []);
  }
}

function numbers(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

/** Sends the numbers one after the other. */
async function sendAll(service: Service, from: number, to: number): Promise<void> {
  for (const number of numbers(from, to)) {
    const { status } = await service.send("alice", number);
    assert(status === 200 || status === 202, `Send answered ${status}`);
  }
}

Deno.test("Client receives from a service in memory what was sent to its user, as it was sent", async () => {
  await using service = await Service.start();
  await using alice = new Listener(service.server.url);
  await using bob = new Listener(service.server.url, { user: "bob" });
  await alice.state("open");
  await bob.state("open");
  const payloads = [{ order: 7 }, "text", null, Uint8Array.of(0, 255), [1.5], "{}"];
  for (const payload of payloads) assertEquals((await service.send("alice", payload)).body.sockets, 1);
  await alice.received(payloads.length);
  assertEquals(alice.data, payloads);
  assertMatch(alice.client.position!, /^[\w-]+\.6\.[\w-]{8}$/);
  assertEquals(bob.data, []);
  assertMatch(bob.client.position!, /^[\w-]+\.0$/, "A position, also where nothing ever came");
});

Deno.test("Client closes so that the service knows at once", async () => {
  await using service = await Service.start();
  const alice = new Listener(service.server.url);
  await alice.state("open");
  await alice[Symbol.asyncDispose]();
  await service.isEmpty();
  assertEquals(service.logged("connection closed").map(({ fields }) => fields?.code), [1000]);
});

Deno.test("Client that is kicked stays away", async () => {
  await using service = await Service.start();
  await using alice = new Listener(service.server.url);
  await alice.state("open");
  await service.fetch("/v1/users/alice/connections?code=4403&why=enough", { method: "DELETE" }).then(
    (response) => response.body?.cancel(),
  );
  assertEquals(await alice.closed(), { code: 4403, reason: "enough" });
  assertEquals(alice.states, ["open", "closed"]);
  await service.isEmpty();
});

Deno.test("Client learns that a service in memory has forgotten, and gets what is sent from then on", async () => {
  using port = OwnPort.take();
  await using first = await Service.start({ PORT: `${port}` });
  await using alice = new Listener(first.server.url);
  await alice.state("open");
  await sendAll(first, 1, 3);
  await alice.received(3);
  const before = alice.client.position!;
  await first.server.shutdown();
  await alice.state("waiting");
  assertEquals([alice.lost[0]!.code, alice.lost[0]!.opened], [1012, true]);
  assert(alice.lost[0]!.retryMs! <= 1_000, "The bye says when");

  await using second = await Service.start({ PORT: `${port}` });
  await alice.isBack(1);
  await sendAll(second, 4, 5);
  await alice.received(3 + 1 + 2);
  assertEquals(alice.data, [1, 2, 3, 4, 5]);
  assertEquals(alice.gaps.map(({ from, to, count, why }) => [from, to, count, why]), [[
    4,
    null,
    null,
    "epoch",
  ]]);
  assert(alice.client.position!.split(".")[0] !== before.split(".")[0]);
  assertMatch(alice.client.position!, /\.2\.[\w-]{8}$/);
});

Deno.test("Client goes on without history, at most once and without a position", async () => {
  await using service = await Service.start({ USERWIRE_HISTORY: "0" });
  await using alice = new Listener(service.server.url, { backoff: PATIENT });
  await alice.state("open");
  await sendAll(service, 1, 2);
  await alice.received(2);
  assertEquals(alice.client.position, undefined);
  dispatchEvent(new Event("offline"));
  await service.isEmpty();
  await sendAll(service, 3, 3);
  dispatchEvent(new Event("online"));
  await alice.isBack(1);
  await sendAll(service, 4, 4);
  await alice.received(3);
  assertEquals([alice.data, alice.gaps], [[1, 2, 4], []]);
});

redisTest("Client gets foreign messages between its own, and counts only its own", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  await using alice = new Listener(service.server.url);
  await alice.state("open");
  await sendAll(service, 1, 1);
  // Without a number it may overtake what a client that has just come gets from the history.
  await alice.received(1);
  assertEquals(await redis.cli("PUBLISH", "alice", "foreign"), 1);
  assertEquals(await redis.cli("PUBLISH", "alice", "foreign"), 1);
  await sendAll(service, 2, 2);
  await alice.received(4);
  assertEquals(alice.data, [1, "foreign", "foreign", 2]);
  assertMatch(alice.client.position!, /\.2\.[\w-]{8}$/);
});

redisTest("Client misses nothing while its node restarts, and resumes on another node", async () => {
  await using redis = await RedisServer.start();
  using port = OwnPort.take();
  const here = await Service.start({ REDIS_URL: redis.url, PORT: `${port}` });
  await using there = await Service.start({ REDIS_URL: redis.url });
  await using alice = new Listener(here.server.url);
  await alice.state("open");
  await sendAll(there, 1, 3);
  await alice.received(3);
  await here.server.shutdown();
  await sendAll(there, 4, 9);
  await using _again = await Service.start({ REDIS_URL: redis.url, PORT: `${port}` });
  await alice.isBack(1);
  await sendAll(there, 10, 12);
  await alice.received(12);
  assertEquals(alice.data, numbers(1, 12));

  const { position } = alice.client;
  await alice.client.close();
  await sendAll(there, 13, 15);
  await using elsewhere = new Listener(there.server.url, { resume: position! });
  await elsewhere.received(3);
  assertEquals(elsewhere.data, [13, 14, 15]);
  assertEquals([...alice.gaps, ...elsewhere.gaps], []);
});

redisTest(
  "Client misses nothing when its node is killed, and nothing while it stands still",
  async () => {
    await using redis = await RedisServer.start();
    await using other = await Service.start({ REDIS_URL: redis.url });
    using port = OwnPort.take();
    const env = { REDIS_URL: redis.url, USERWIRE_PING_S: "1", PORT: `${port}` };
    await using first = await ProcessService.start(env);
    // It lets in, and has done so before: its first handshake takes a busy machine longer than alice waits.
    await (await openPatiently(first.socketUrl("early"))).close();
    await using alice = new Listener(first.url, { timeoutMs: 500 });
    await alice.state("open", 20_000);
    await sendAll(other, 1, 2);
    await alice.received(2);

    const before = alice.lost.length;
    first.signal("SIGKILL");
    await first.ended();
    await sendAll(other, 3, 5);
    await alice.losses(before + 1);
    assertEquals([alice.lost[before]!.code, alice.lost[before]!.opened], [1006, true]);
    await using second = await ProcessService.start(env);
    await alice.isBack(before + 1);
    await sendAll(other, 6, 7);
    await alice.received(7);

    const losses = alice.lost.length;
    second.signal("SIGSTOP");
    await sendAll(other, 8, 10);
    await alice.losses(losses + 1, 20_000);
    const { reason, opened } = alice.lost[losses]!;
    assertMatch(reason, /^The server was silent for \d+ s$/);
    assertEquals(opened, true);
    // The kernel still takes connections for it, and nobody answers: that is not waited for either.
    await alice.losses(losses + 2, 20_000);
    assertMatch(alice.lost[losses + 1]!.reason, /^The server did not answer for \d+ s$/);
    second.signal("SIGCONT");
    await alice.isBack(losses + 2);
    await sendAll(other, 11, 12);
    await alice.received(12);
    assertEquals(alice.data, numbers(1, 12));
    assertEquals(alice.gaps, []);
  },
);

redisTest("Client is told exactly what it came too late for", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_HISTORY: "5" });
  await using alice = new Listener(service.server.url, { backoff: PATIENT });
  await alice.state("open");
  await sendAll(service, 1, 2);
  await alice.received(2);
  dispatchEvent(new Event("offline"));
  await service.isEmpty();
  await sendAll(service, 3, 12);
  dispatchEvent(new Event("online"));
  await alice.received(2 + 1 + 5);
  const [gap] = alice.gaps;
  assertEquals([gap?.from, gap?.to, gap?.count, gap?.why], [3, 7, 5, "trimmed"]);
  assertEquals(alice.data, [1, 2, ...numbers(8, 12)]);
  assertMatch(alice.client.position!, /\.12\.[\w-]{8}$/);
});

for (const store of ["memory", "redis"] as const) {
  const declare = store === "redis" ? redisTest : Deno.test;
  declare(`Client's acknowledgement reaches a sender that waits, by way of ${store}`, async () => {
    await using redis = store === "redis" ? await RedisServer.start() : undefined;
    const env: Record<string, string> = redis ? { REDIS_URL: redis.url } : {};
    await using here = await Service.start(env);
    // The sender's node holds none of the sockets, where there can be two.
    await using there = redis ? await Service.start(env) : here;
    await using alice = new Listener(here.server.url);
    await using again = new Listener(here.server.url);
    await alice.state("open");
    await again.state("open");
    const send = async (timeout: number) => {
      const response = await there.fetch(`/v1/users/alice/messages?wait=ack&timeout=${timeout}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: "1",
      });
      const { sockets, acked } = await response.json();
      return { sockets, acked };
    };
    assertEquals(
      await withDeadline(send(30_000), 20_000, "an answer as soon as both have acknowledged"),
      { sockets: 2, acked: 2 },
    );

    // A client whose application takes nothing has acknowledged nothing.
    const idle = connect(here.server.url, { user: "alice" });
    idle.on("error", (error) => assert(false, error.message));
    await until(() => idle.state === "open", "the third client to be open");
    // The others may need more than one try: they have 300 ms.
    let tries = 0, partly = { sockets: 0, acked: 0 };
    while (partly.acked < 2 && tries < 10) partly = await send(++tries * 300);
    assertEquals(partly, { sockets: 3, acked: 2 });
    const iterator = idle[Symbol.asyncIterator]();
    const sent = send(30_000);
    for (let i = 0; i <= tries; i++) await take(iterator);
    assertEquals(await withDeadline(sent, 20_000, "the third acknowledgement"), { sockets: 3, acked: 3 });
    await idle.close();
  });
}

redisTest("Client whose application is slow loses nothing, and keeps little", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_HISTORY: "2000" });
  await using client = connect(service.server.url, {
    user: "alice",
    backoff: { baseMs: 20 },
    buffer: { messages: 20 },
  });
  const trouble: unknown[] = [];
  client.on("gap", (gap) => trouble.push(gap));
  client.on("error", (error) => trouble.push(error));
  let pauses = 0;
  client.on("lost", ({ reason }) => {
    if (reason === "The application takes no more") pauses++;
    else trouble.push(reason);
  });
  await until(() => client.state === "open", "the client to be open");
  const COUNT = 250;
  const sending = sendAll(service, 1, COUNT);
  const data: unknown[] = [];
  for await (const message of client) {
    data.push(message.data);
    if (data.length === COUNT) break;
    await new Promise((resolve) => setTimeout(resolve, data.length % 5 === 0 ? 4 : 0));
    if (data.length === 1) await sending; // all of it is there before the second is asked for
  }
  assertEquals(data, numbers(1, COUNT));
  assertEquals(trouble, []);
  assert(pauses >= 2, `It paused ${pauses} times`);
});

redisTest("Client gets everything once and in order while its network comes and goes", async () => {
  await using redis = await RedisServer.start();
  const env = { REDIS_URL: redis.url, USERWIRE_HISTORY: "1000" };
  await using here = await Service.start(env);
  await using there = await Service.start(env);
  await using alice = new Listener(here.server.url, { backoff: { baseMs: 2, maxMs: 10 } });
  await alice.state("open");
  // A client that is further behind than a replay holds, which is 300, rightly gets a gap.
  const MAX_BEHIND = 200;
  let sent = 0, isDone = false;
  const sending = (async () => {
    while (!isDone) {
      await alice.until(() => sent - alice.data.length < MAX_BEHIND, "alice to catch up", 20_000);
      await (sent % 2 === 0 ? here : there).send("alice", ++sent);
    }
  })();
  sending.catch(() => {}); // waited for below
  for (let breaks = 1; breaks <= 30; breaks++) {
    dispatchEvent(new Event("offline"));
    const before = sent;
    if (breaks % 3 > 0) {
      await until(() => sent >= before + breaks, `${breaks} messages to be sent while she is away`, 20_000);
    }
    dispatchEvent(new Event("online"));
    await alice.isBack(breaks);
  }
  isDone = true;
  await sending;
  await alice.until(() => alice.data.at(-1) === sent, `message ${sent}, the last`, 20_000);
  assertEquals([alice.data, alice.gaps], [numbers(1, sent), []]);
});

redisTest("Client goes on after a restart of its program, by what its store kept", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  let saved: string | undefined;
  const store = { load: () => saved, save: (position: string) => void (saved = position) };
  {
    await using alice = new Listener(service.server.url, { store });
    await alice.state("open");
    await sendAll(service, 1, 3);
    await alice.received(3);
  }
  assertMatch(saved!, /\.3\.[\w-]{8},[\w-]{8}\.0$/);
  await sendAll(service, 4, 6);
  await using alice = new Listener(service.server.url, { store });
  await alice.received(3);
  assertEquals(alice.data, [4, 5, 6]);
});
