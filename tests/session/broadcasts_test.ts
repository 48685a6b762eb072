/** A node's broadcasts: where they begin, what they do when the broker fails, and how all connections are served. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Link } from "../../src/async/chain.ts";
import { MemoryBroker } from "../../src/broker/memory.ts";
import { MemoryHistory } from "../../src/history/memory.ts";
import type { History } from "../../src/history/history.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import type { BroadcastGapFrame } from "../../src/protocol/frames.ts";
import type { Position } from "../../src/protocol/position.ts";
import { Publisher } from "../../src/publisher/publisher.ts";
import { Broadcasts } from "../../src/session/broadcasts.ts";
import { BroadcastReader } from "../../src/session/broadcast_reader.ts";
import type { BroadcastMessage } from "../../src/session/broadcast_ring.ts";
import { type Member, Registry } from "../../src/session/registry.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { numbers } from "../../testkit/nodes.ts";
import { StubBroker } from "../../testkit/stub_broker.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

/** What every node has in common: a broker and a history. */
class Ground {
  readonly broker = new MemoryBroker();
  readonly history: MemoryHistory;
  readonly publisher: Publisher;

  constructor(count = 100) {
    this.history = new MemoryHistory(this.broker, { limits: { count, ttlMs: 60_000 } });
    this.publisher = new Publisher(this.broker, this.history);
  }

  node(broker: Pick<MemoryBroker, "subscribe"> = this.broker, history: History = this.history): Node {
    return new Node(this.publisher, broker, history);
  }

  async broadcast(n: unknown): Promise<number | undefined> {
    // It ends as soon as all have answered.
    return (await this.publisher.broadcast(n as number, { timeoutMs: 20_000 })).sockets;
  }
}

class Node implements AsyncDisposable {
  readonly registry = new Registry({ maxConnections: 100_000, onFlood() {}, hasFlooded: () => false });
  readonly log = memoryLog();
  readonly broadcasts: Broadcasts;
  readonly metrics = { broadcasts: 0 };

  constructor({ receipts }: Publisher, broker: Pick<MemoryBroker, "subscribe">, history: History) {
    this.broadcasts = new Broadcasts({
      ...{ broker, history, receipts, registry: this.registry, log: this.log, metrics: this.metrics },
      ...{ channelPrefix: "", maxReplay: 300, pingS: 25, onForeign() {} },
    });
  }

  /** A connection that is open. */
  async join(wanted?: Position): Promise<Connection> {
    const { ring } = this.broadcasts;
    const connection = new Connection(this.registry);
    connection.reader = new BroadcastReader(ring, connection, await this.broadcasts.placeOf(wanted));
    connection.all = connection.reader.greeting().all;
    connection.reader.run();
    return connection;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of this.registry.live()) (member as Connection).close();
    await this.broadcasts.close();
  }
}

class Connection extends Link<Member> implements Member {
  addressKey: string | undefined = undefined;
  reader: BroadcastReader | undefined;
  all: string | undefined;
  readonly got: unknown[] = [];
  room = Infinity;
  onMessage = () => {};
  readonly #registry: Registry;

  constructor(registry: Registry) {
    super();
    this.#registry = registry;
    registry.join(this, "address");
  }

  hear(): void {
    this.reader?.take();
  }

  tick(): void {}

  close(): void {
    this.reader?.stop();
    this.#registry.onEnd(this);
  }

  broadcast(message: BroadcastMessage, isReplayed: boolean): boolean {
    if (this.room === 0) return false;
    this.room--;
    const { data } = JSON.parse(message.frame);
    this.got.push(isReplayed ? `r${data}` : data);
    this.onMessage();
    return true;
  }

  gap({ from, to, why }: BroadcastGapFrame): void {
    this.got.push(`${why} ${from}-${to}`);
  }

  miss(count: number): void {
    this.got.push(`missed ${count}`);
  }
}

Deno.test("A broadcast comes to all connections of all nodes, and its sender learns of how many", async () => {
  const ground = new Ground();
  await using here = ground.node();
  await using there = ground.node();
  assertEquals(here.broadcasts.unready(), "The node has not subscribed to broadcasts yet");
  await Promise.all([here.broadcasts.start(), there.broadcasts.start()]);
  assertEquals(here.broadcasts.unready(), undefined);
  assertEquals(await ground.publisher.broadcast({ n: 0 }).then(({ nodes, sockets }) => [nodes, sockets]), [
    2,
    0,
  ]);
  const connections = [await here.join(), await here.join(), await there.join()];
  assertEquals(new Set(connections.map(({ all }) => all?.split(".")[1])), new Set(["1"]));
  for (const n of numbers(1, 3)) assertEquals(await ground.broadcast(n), 3);
  assertEquals(connections.map(({ got }) => got), [[1, 2, 3], [1, 2, 3], [1, 2, 3]]);
  assertEquals([here.metrics.broadcasts, there.metrics.broadcasts], [4, 4]);
});

Deno.test("A node that starts has in its ring what others have, so a client resumes at it", async () => {
  const ground = new Ground(5);
  await using here = ground.node();
  const alice = await here.join();
  for (const n of numbers(1, 8)) await ground.broadcast(n);
  assertEquals(alice.got, numbers(1, 8));
  const [epoch] = alice.all!.split(".") as [string];
  await here.broadcasts.close();

  await using there = ground.node();
  await there.broadcasts.start();
  for (
    const [seq, expected] of [
      [6, ["r7", "r8"]],
      [1, ["trimmed 2-3", "r4", "r5", "r6", "r7", "r8"]],
      [8, []],
    ] as const
  ) {
    assertEquals((await there.join({ epoch, seq })).got, [...expected]);
  }
  assertEquals((await there.join()).got, [], "nothing is owed to a new client");
  // A client that is ahead has it from nowhere: it stands where all is. One with a proof of another message begins anew.
  assertEquals((await there.join({ epoch, seq: 99 })).got, ["epoch 100-null"]);
  assertEquals((await there.join({ epoch: "elsewhr0", seq: 3 })).got.slice(0, 2), [
    "epoch 4-null",
    "trimmed 1-3",
  ]);
  await ground.broadcast(9);
  assertEquals((await there.join({ epoch, seq: 8 })).got, ["r9"]);
});

Deno.test("A client that missed nothing is told of no gap: before the first broadcast, or when all have left", async () => {
  const ground = new Ground(2);
  await using here = ground.node();
  const { all } = await here.join();
  const [epoch] = all!.split(".") as [string];
  await using there = ground.node();
  assertEquals((await there.join({ epoch, seq: 0 })).got, []);
  for (const n of numbers(1, 3)) await ground.publisher.broadcast(n, { ttlMs: 1 });
  await until(
    async () => (await ground.history.since("userwire:all", 0, 9)).items.length === 0,
    "all to have left",
  );
  await using late = ground.node();
  for (const node of [here, there, late]) {
    assertEquals((await node.join({ epoch, seq: 3 })).got, []);
    let got: unknown[] = [];
    // Each node has a clock of its own to tell that by.
    await until(
      async () => (got = (await node.join({ epoch, seq: 1 })).got).join() === "trimmed 2-3",
      "a node to know that all have left",
      undefined,
      () => got,
    );
  }
});

Deno.test("A client that heard of it elsewhere first is not told that it is ahead", async () => {
  const ground = new Ground();
  let drop = false;
  // The node's subscription brings nothing for a while, as one that is slow.
  await using node = ground.node({
    subscribe: (channel, subscriber, options) =>
      ground.broker.subscribe(
        channel,
        {
          message: (payload, byteLength) => drop || subscriber.message(payload, byteLength),
          lost: (reason) => subscriber.lost(reason),
          restored: () => subscriber.restored(),
        } as typeof subscriber,
        options,
      ),
  });
  const old = await node.join();
  const [epoch] = old.all!.split(".") as [string];
  await ground.broadcast(1);
  drop = true;
  await ground.publisher.broadcast(2, { timeoutMs: 1 });
  drop = false;
  const client = await node.join({ epoch, seq: 2 });
  assertEquals([client.all, client.got], [`${epoch}.2`, []]);
  await ground.broadcast(3);
  assertEquals(
    [client.got, old.got],
    [[3], [1, 2, 3]],
    "and by that the node has found out what it had missed",
  );
});

Deno.test("A slow client gets the rest when it reads again; the others and the sender do not wait for it", async () => {
  const ground = new Ground();
  await using node = ground.node();
  const [slow, fast] = [await node.join(), await node.join()];
  slow.room = 1;
  for (const n of numbers(1, 4)) assertEquals(await ground.broadcast(n), 2, "it is kept for the slow one");
  assertEquals([slow.got, fast.got], [[1], [1, 2, 3, 4]]);
  slow.room = Infinity;
  slow.reader!.resume();
  assertEquals(slow.got, [1, "r2", "r3", "r4"]);
});

Deno.test("Five thousand connections are served in many turns, in order, without those that leave meanwhile", async () => {
  const ground = new Ground();
  await using node = ground.node();
  using turns = new TurnCounter();
  const connections: Connection[] = [];
  for (let i = 0; i < 5_000; i++) {
    const connection = await node.join();
    connection.onMessage = () => turns.count();
    connections.push(connection);
  }
  // The last ones leave when the first have it, and somebody comes.
  let late: Promise<Connection> | undefined;
  connections[0]!.onMessage = () => {
    turns.count();
    late ??= node.join();
    for (const connection of connections.slice(4_900)) connection.close();
  };
  const [first, second] = await Promise.all([ground.broadcast(1), ground.broadcast(2)]);
  assertEquals([first, second! >= 4_900 && second! <= 4_901], [4_900, true]);
  assert(connections.slice(0, 4_900).every(({ got }) => got.join() === "1,2"), "each has both, in order");
  assert(connections.slice(4_900).every(({ got }) => got.length === 0), "who has left gets nothing");
  assert(["2", "r2"].includes((await late!).got.join()), "who comes meanwhile gets what comes after");
  // A slice has at most 250 connections, each of which has two messages at most. In the turn in which a pass ends the next one
  // begins, with at most 32, each of which has one more.
  assert(turns.most <= 532, `${turns.most} in one turn`);
});

Deno.test("Without a history broadcasts have no numbers, and are counted all the same", async () => {
  const ground = new Ground(0);
  await using node = ground.node();
  const client = await node.join({ epoch: "AAAA", seq: 3 });
  assertEquals([client.all, client.got], [undefined, []]);
  const { seq, nodes, sockets } = await ground.publisher.broadcast(1);
  assertEquals([seq, nodes, sockets, client.got], [undefined, 1, 1, [1]]);
  client.room = 0;
  for (const n of numbers(2, 103)) await ground.broadcast(n);
  client.room = Infinity;
  client.reader!.resume();
  assertEquals(client.got.slice(0, 3), [1, "missed 2", "r4"]);
});

Deno.test("What comes past the service, and orders that nobody gives here", async () => {
  const ground = new Ground();
  await using node = ground.node();
  const client = await node.join();
  await ground.broker.publish("userwire:all", '{"bare":true}');
  await ground.broker.publish("userwire:all", '\u0001uw1k{"code":4403,"why":"no"}');
  await ground.broadcast("end");
  assertEquals(client.got, [{ bare: true }, "end"]);
  // One that throws harms no other, and is asked again.
  const broken = await node.join();
  const last = await node.join();
  broken.onMessage = () => {
    broken.onMessage = () => {};
    throw new Error("broken");
  };
  await ground.broadcast("next");
  assertEquals(last.got, ["next"]);
  assertEquals(node.log.records.at(-1)?.fields.reason, "broken");
});

Deno.test("A node that can't subscribe lets nobody in, tries again, and has then what was sent", async () => {
  const ground = new Ground();
  await ground.broadcast(1);
  let isAway = true;
  const away = () => Promise.reject(new BrokerUnavailableError("Redis is away"));
  await using node = ground.node({
    subscribe: (...args) => isAway ? away() : ground.broker.subscribe(...args),
  });
  await node.broadcasts.start();
  await assertRejects(() => node.join(), BrokerUnavailableError, "Redis is away");
  assertEquals(node.broadcasts.unready(), "The node can't subscribe to broadcasts: Redis is away");
  isAway = false;
  await until(() => node.broadcasts.unready() === undefined, "the node to be ready by itself");
  assertEquals((await node.join()).all?.split(".")[1], "1");
});

Deno.test("A history that can't be read at the start leaves no subscription", async () => {
  const ground = new Ground();
  const broker = new StubBroker();
  let failures = 1;
  const history: History = Object.assign(Object.create(ground.history), {
    since: (...args: Parameters<History["since"]>) =>
      failures-- > 0 ? Promise.reject(new BrokerUnavailableError("away")) : ground.history.since(...args),
  });
  await using node = ground.node(broker, history);
  await assertRejects(() => node.join(), BrokerUnavailableError, "away");
  assertEquals(broker.subscriptions.map(({ isClosed }) => isClosed), [true]);
  await node.join();
  assertEquals(broker.subscriptions.map(({ isClosed }) => isClosed), [true, false]);
});

Deno.test("The first broadcast of a new epoch is counted, though it is read from the history", async () => {
  const ground = new Ground();
  await using node = ground.node();
  const client = await node.join();
  await ground.broadcast(1);
  // Other data has taken the place of that which the node knows.
  const anew = new MemoryHistory(ground.broker, { limits: ground.history.limits });
  Object.assign(ground.history, { since: anew.since.bind(anew) });
  const { nodes, sockets, seq } = await new Publisher(ground.broker, anew).broadcast(2, {
    timeoutMs: 20_000,
  });
  assertEquals([nodes, sockets, seq], [1, 1, 1]);
  assertEquals(client.got, [1, "epoch 2-null", 2]);
});

Deno.test("A lost subscription is told as a fault; what was missed comes when it is back, or when nothing comes", async () => {
  using seconds = new HeldIntervals(1_000);
  const ground = new Ground();
  const broker = new StubBroker();
  await using node = ground.node(broker);
  const client = await node.join();
  const [{ subscriber }] = broker.subscriptions as [typeof broker.subscriptions[number]];
  subscriber.lost("cut");
  const fault = "The node's subscription to broadcasts is lost: they come when it is restored";
  assertEquals([node.broadcasts.unready(), node.broadcasts.faults()], [undefined, [fault]]);
  // In a memory history what is sent is there, and the stub brings none of it.
  await ground.broadcast(1);
  subscriber.restored();
  assertEquals(node.broadcasts.faults(), []);
  await until(() => client.got.length === 1, "what was missed");
  await ground.broadcast(2);
  for (let s = 1; s < 25; s++) seconds.run();
  assertEquals(client.got, [1]);
  seconds.run();
  await until(() => client.got.length === 2, "what nothing came after");
  assertEquals(client.got, [1, 2]);
});
