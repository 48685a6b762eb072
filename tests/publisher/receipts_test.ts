/**
 * Receipts: `?wait=ack`, with clients that acknowledge, on the sender's node and on another; with subscriptions of
 * their own or shared ones.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import { MemoryBroker } from "../../src/broker/memory.ts";
import {
  BrokerUnavailableError,
  IdempotencyConflictError,
  UserOfflineError,
} from "../../src/protocol/errors.ts";
import { MemoryHistory } from "../../src/history/memory.ts";
import { Publisher, type SendOptions } from "../../src/publisher/mod.ts";
import type { Wait } from "../../src/publisher/receipts.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { nodesTest, numbers, SHARED } from "../../testkit/nodes.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { type Sent, Service, Truth } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const { onEveryBroker, onRedis } = nodesTest("A receipt");

interface PostOptions {
  headers?: Record<string, string>;
  to?: string;
}

async function post(service: Service, query: string, options: PostOptions = {}): Promise<Sent> {
  const { headers, to = "alice" } = options;
  const response = await service.fetch(`/v1/users/${to}/messages${query}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: '{"order":7}',
  });
  return { status: response.status, retryAfter: null, body: await response.json() };
}

/**
 * Sends with a time limit that is used up, since somebody does not acknowledge; and again with a longer one until all
 * those have who do, who need more than a moment on a busy machine.
 */
async function postUntilAcked(service: Service, acked: number): Promise<Sent> {
  for (let timeoutMs = 300;; timeoutMs *= 3) {
    const startMs = performance.now();
    const sent = await post(service, `?wait=ack&timeout=${timeoutMs}`);
    assert(performance.now() - startMs >= timeoutMs - 5, "It did not wait for the others");
    if (Number(sent.body.acked) >= acked || timeoutMs > 8_000) return sent;
  }
}

/** A client that acknowledges each message when it comes. */
async function openAcking(service: Service, username = "alice"): Promise<Follower> {
  const follower = await Follower.open(service.socketUrl(username));
  follower.onMessage = ({ seq }) => follower.send({ t: "ack", seq: seq! });
  return follower;
}

/** As many clients of that kind. */
async function openAll(services: readonly Service[]): Promise<AsyncDisposable> {
  await using clients = new AsyncDisposableStack();
  for (const service of services) clients.use(await openAcking(service));
  return clients.move();
}

/** What is published on the one channel whose name begins like that, from now on. */
async function listen(redis: RedisServer, pattern: string, stack: AsyncDisposableStack): Promise<string[]> {
  const [channel] = await redis.cli("PUBSUB", "CHANNELS", pattern) as string[];
  const engine = openEngine({ redisUrl: redis.url });
  stack.defer(engine.close);
  await connected(engine);
  const words: string[] = [];
  await engine.broker.subscribe(channel!, {
    message: (word) => void words.push(String(word)),
    lost() {},
    restored() {},
  });
  return words;
}

onEveryBroker("comes from a client on another node", async ({ here, there }) => {
  await using alice = await openAcking(there);
  for (const seq of numbers(1, 3)) {
    const { status, body } = await post(here, "?wait=ack&timeout=10000");
    assertEquals([status, body.seq, body.sockets, body.acked], [200, seq, 1, 1]);
  }
  assertEquals(alice.messages.map(({ ack }) => ack), [1, 1, 1]);
});

onEveryBroker("is asked for in the message, and only when the sender waits", async ({ here, there }) => {
  await using alice = await openAcking(there);
  assertEquals((await post(here, "")).body.acked, undefined);
  assertEquals((await post(here, "?wait=ack&timeout=10000")).body.acked, 1);
  assertEquals(alice.messages.map(({ ack }) => ack), [undefined, 1]);
});

onEveryBroker(
  "counts the sockets that acknowledged, and time that is up is a result",
  async ({ here, there }) => {
    await using _first = await openAcking(here);
    await using _second = await openAcking(there);
    await using silent = await Follower.open(there.socketUrl("alice"));
    await using raw = await openClient(here.socketUrl("alice"));
    const { status, body } = await postUntilAcked(there, 2);
    assertEquals([status, body.sockets, body.acked], [200, 4, 2]);
    await silent.reaches(1);
    assertEquals(await raw.next(), '{"order":7}');
  },
);

onEveryBroker("counts a socket once, however often it acknowledges", async ({ here, there }) => {
  await using eager = await Follower.open(here.socketUrl("alice"));
  eager.onMessage = ({ seq }) => {
    for (const wrong of [0, seq!, seq!, seq! + 100]) eager.send({ t: "ack", seq: wrong });
  };
  await using _silent = await Follower.open(here.socketUrl("alice"));
  const { body } = await postUntilAcked(there, 1);
  assertEquals([body.sockets, body.acked], [2, 1]);
});

onEveryBroker("of a later message covers the ones before", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  const waiting = numbers(1, 3).map(() => post(here, "?wait=ack&timeout=10000"));
  await alice.reaches(3);
  alice.send({ t: "ack", seq: 3 });
  const answers = await Promise.all(waiting);
  assertEquals(answers.map(({ body }) => [body.sockets, body.acked]), [[1, 1], [1, 1], [1, 1]]);
});

onEveryBroker("is not waited for when the user is offline", async ({ here }) => {
  const startMs = performance.now();
  const { status, body } = await post(here, "?wait=ack&timeout=30000");
  assertEquals([status, body.sockets, body.acked, body.stored], [202, 0, 0, true]);
  assert(performance.now() - startMs < 10_000, "It waited for nobody");
  assertEquals((await post(here, "?wait=ack&expect=online")).status, 404);
});

onEveryBroker("that comes too late harms nobody", async ({ here, there }) => {
  await using alice = await Follower.open(there.socketUrl("alice"));
  assertEquals((await post(here, "?wait=ack&timeout=1")).body.acked, 0);
  await alice.reaches(1);
  alice.send({ t: "ack", seq: 1 });
  alice.onMessage = ({ seq }) => alice.send({ t: "ack", seq: seq! });
  assertEquals((await post(here, "?wait=ack&timeout=10000")).body.acked, 1);
});

onEveryBroker("is refused with 400 where no history is kept", async ({ here }) => {
  const { status, body } = await post(here, "?wait=ack");
  assertEquals([status, body.code], [400, "invalid_message"]);
  assertMatch(String(body.detail), /USERWIRE_HISTORY/);
}, { USERWIRE_HISTORY: "0" });

onEveryBroker("is not waited for again when a send is repeated", async ({ here, there }) => {
  await using _alice = await openAcking(here);
  const key = { "idempotency-key": "k" };
  const first = await post(here, "?wait=ack&timeout=10000", { headers: key });
  assertEquals(first.body.acked, 1);
  const { id, seq, acked } = (await post(there, "?wait=ack&timeout=10000", { headers: key })).body;
  assertEquals([id, seq, acked], [first.body.id, first.body.seq, undefined]);
});

onEveryBroker(
  "reaches the sender that waits when the client came back in between",
  async ({ here, there }) => {
    await using alice = await Follower.open(there.socketUrl("alice"));
    const waiting = post(here, "?wait=ack&timeout=10000");
    await alice.reaches(1);
    const { position } = alice;
    await alice.disconnect();
    // She had the message, and did not say so before she left: now it comes again.
    await using again = new Follower();
    again.onMessage = ({ seq }) => again.send({ t: "ack", seq: seq! });
    await again.connect(`${there.socketUrl("alice")}&resume=${position!.replace(/1$/, "0")}`);
    assertEquals((await waiting).body.acked, 1);
    assertEquals(again.messages.map(({ r, ack }) => [r, ack]), [[1, 1]]);
  },
);

onRedis("is waited for again after the receipts' own subscription broke", async ({ here, there, redis }) => {
  await using _alice = await openAcking(there);
  assertEquals((await post(here, "?wait=ack&timeout=10000")).body.acked, 1);
  const truth = new Truth(redis);
  const before = await truth.subscribers();
  await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
  await until(async () => {
    const after = await truth.subscribers();
    return after.length === before.length && after.every((id) => !before.includes(id));
  }, "the subscriptions to be back");
  await until(async () => (await post(here, "?wait=ack&timeout=500")).body.acked === 1, "a receipt");
});

onEveryBroker("comes when the last of all sockets has acknowledged, not before", async ({ here, there }) => {
  await using late = await Follower.open(there.socketUrl("alice"));
  await using _others = await openAll([here, here, there, there]);
  await using _bob = await openAcking(there, "bob");
  let isAnswered = false;
  const waiting = post(here, "?wait=ack&timeout=10000").finally(() => isAnswered = true);
  await late.reaches(1);
  // A receipt that follows the others' on their way.
  for (const sender of [here, there]) await post(sender, "?wait=ack&timeout=10000", { to: "bob" });
  assert(!isAnswered, "It did not wait for the last one");
  late.send({ t: "ack", seq: 1 });
  const { body } = await waiting;
  assertEquals([body.sockets, body.acked], [5, 5]);
});

onRedis("is counted beside the number of nodes", async ({ here, there }) => {
  await using _all = await openAll([here, here, there]);
  const { body } = await post(here, "?wait=ack&timeout=10000");
  assertEquals([body.nodes, body.sockets, body.acked], [2, 3, 3]);
  const { nodes, sockets, acked } = (await post(here, "")).body;
  assertEquals([nodes, sockets, acked], [2, undefined, undefined], "Nobody asked how many sockets");
}, SHARED);

onRedis("is waited for as long as a node does not say how many sockets it has", async (nodes) => {
  const { here, there, redis } = nodes;
  await using _all = await openAll([there, there]);
  // Whoever listens without a word, as versions before this one did, counts as a node.
  using silent = await RedisCommands.connect({ port: redis.port });
  await silent.command("SUBSCRIBE", "alice");
  const { body } = await postUntilAcked(here, 2);
  assertEquals([body.nodes, body.sockets, body.acked], [2, undefined, 2]);
}, SHARED);

redisTest(
  "A receipt is waited for from every socket of a node whose subscriptions are shared, by one whose are not",
  async () => {
    await using redis = await RedisServer.start();
    await using here = await Service.start({ REDIS_URL: redis.url });
    await using there = await Service.start({ REDIS_URL: redis.url, ...SHARED });
    await using _all = await openAll([here, there, there, there]);
    const { body } = await post(here, "?wait=ack&timeout=10000");
    assertEquals([body.sockets, body.acked], [4, 4]);
  },
);

onRedis("makes each node say once how many sockets it has, also while they open", async (nodes) => {
  const { here, there, redis } = nodes;
  const send = () => here.server.app.publisher.send("alice", { kind: "text", text: "?" }, { waitAckMs: 1 });
  await using sockets = new AsyncDisposableStack();
  sockets.use(await openClient(there.socketUrl("alice")));
  await send();
  const words = await listen(redis, "userwire:receipts:*", sockets);
  const newcomers = [];
  for (const _ of numbers(1, 10)) newcomers.push(sockets.use(await openClient(there.socketUrl())));
  for (const newcomer of newcomers) {
    newcomer.send('{"user_name":"alice"}');
    // One of these comes between its subscription and its opening.
    await Promise.all(numbers(1, 4).map(send));
    await until(async () => (await send(), newcomer.waiting.length > 0), "the newcomer to be sent to");
  }
  const count = words.length;
  await send();
  await until(() => words.slice(count).some((word) => word.endsWith(" 11")), "the last word");
  const keys = words.map((word) => /^handed (\d+) \d+$/.exec(word)![1]);
  assertEquals(keys.length, new Set(keys).size, words.join());
}, SHARED);

/** A publisher in memory with a history, on a broker that stays the caller's. */
function publisherOn(broker: MemoryBroker): Publisher {
  return new Publisher(broker, new MemoryHistory(broker, { limits: { count: 9, ttlMs: 60_000 } }));
}

Deno.test("A receipt can be waited for again as soon as the broker is back", async () => {
  const broker = new MemoryBroker();
  const { subscribe } = broker;
  broker.subscribe = () => Promise.reject(new BrokerUnavailableError("away"));
  await using publisher = publisherOn(broker);
  const send = () => publisher.send("alice", "hello", { waitAckMs: 1 });
  for (let i = 0; i < 2; i++) await assertRejects(send, BrokerUnavailableError, "away");
  assertEquals((await publisher.history("alice")).last, 0, "nothing is sent that could not be waited for");
  // And from then on without a subscription for each.
  let subscriptions = 0;
  broker.subscribe = (...args) => {
    subscriptions++;
    return subscribe.apply(broker, args);
  };
  for (let i = 0; i < 2; i++) assertEquals((await send()).acked, 0);
  assertEquals(subscriptions, 1);
  await broker.close();
});

Deno.test("A receipt comes though the sender can't be reached for a moment, and once where it may have come", async () => {
  const broker = new MemoryBroker();
  await using publisher = publisherOn(broker);
  const { receipts } = publisher;
  const publish = broker.publish.bind(broker);
  const failures: (Error | number)[] = [];
  let asked = 0;
  broker.publish = (...args) => {
    asked++;
    const failure = failures.shift();
    if (failure instanceof Error) return Promise.reject(failure);
    return failure === undefined ? publish(...args) : Promise.resolve(failure);
  };
  using wait = await receipts.wait();
  // A master has moved; then nobody hears it, as the sender subscribes anew.
  failures.push(new BrokerUnavailableError("moved"), 0);
  const told = receipts.report(wait.receipt, 3);
  assertEquals(await wait.handed(1, 10_000), { sockets: 3 });
  await told;
  assertEquals(asked, 3);
  // This one may have come: said again it would be counted twice.
  failures.push(new BrokerUnavailableError("late", { outcome: "unknown" }));
  await assertRejects(() => receipts.report(wait.receipt, 4), BrokerUnavailableError, "late");
  assertEquals(asked, 4);
  // Who has left for good is not called for ever, nor once more when this process ends.
  failures.push(...new Array(20).fill(0));
  await receipts.report(wait.receipt, 5);
  assertEquals(asked, 10);
  const untold = receipts.report(wait.receipt, 6);
  await receipts.close();
  await untold;
  assert(asked <= 12, `${asked}`);
  await broker.close();
});

Deno.test("A receipt is awaited no longer than its send, however that ends", async () => {
  const broker = new MemoryBroker();
  await using publisher = publisherOn(broker);
  const { receipts } = publisher;
  const waits: Wait[] = [];
  const wait = receipts.wait.bind(receipts);
  receipts.wait = async () => {
    waits.push(await wait());
    return waits.at(-1)!;
  };
  const send = (text: string, options: SendOptions) =>
    publisher.send("alice", { kind: "text", text }, { waitAckMs: 1, ...options });

  assertEquals((await send("nobody is there", {})).acked, 0);
  await assertRejects(() => send("not sent", { expectOnline: true }), UserOfflineError);
  await send("once", { idempotencyKey: "k" });
  assertEquals((await send("once", { idempotencyKey: "k" })).repeated, true);
  await assertRejects(() => send("other", { idempotencyKey: "k" }), IdempotencyConflictError);
  await broker.subscribe("alice", new Recorder());
  assertEquals((await send("time is up", {})).acked, 0);

  assertEquals(waits.length, 6);
  for (const wait of waits) {
    // Whoever is still listed would hear it, and be listed for ever.
    await receipts.confirm(wait.receipt, "a connection");
    assertEquals((await wait.acked(1, 0)).acked, 0);
  }
  const { receipt, acked } = await wait();
  await receipts.confirm(receipt, "a connection");
  assertEquals((await acked(1, 0)).acked, 1, "one that is not over hears it");
  await broker.close();
});

Deno.test("A receipt is owed for the last thousand messages that a client has not acknowledged, once each", async () => {
  await using service = await Service.start({ USERWIRE_HISTORY: "2000" });
  const { publisher } = service.server.app;
  const confirmed: string[] = [];
  publisher.receipts.confirm = (receipt) => {
    confirmed.push(receipt);
    return Promise.resolve();
  };
  await using alice = await Follower.open(service.socketUrl("alice"));
  const given: string[] = [];
  const wait = publisher.receipts.wait.bind(publisher.receipts);
  publisher.receipts.wait = async () => {
    const made = await wait();
    given.push(made.receipt);
    return made;
  };
  const send = (n: number) => publisher.send("alice", n, { waitAckMs: 1 });
  await Promise.all(numbers(1, 1_010).map(send));
  await alice.reaches(1_010);
  for (const seq of [500, 500, 1_010, 1_010]) alice.send({ t: "ack", seq });
  // What she said is heard before her leave.
  await alice.disconnect();
  assertEquals([confirmed.length, confirmed.join()], [1_000, given.slice(10).join()]);
});
