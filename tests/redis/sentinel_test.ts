/** Where Sentinels say the master is: the newest of their answers counts, and silence changes nothing. */
import { assertEquals, assertThrows } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { ConfigError } from "../../src/protocol/errors.ts";
import { isRedisUrl, parseRedisUrl } from "../../src/redis/address.ts";
import { Sentinel } from "../../src/redis/sentinel.ts";
import { UrlSource } from "../../src/redis/url_source.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

/** Answers every command as a Sentinel answers `SENTINEL MASTER`, until it is silenced. */
class FakeSentinel implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #conns = new Set<Deno.Conn>();
  readonly #serving: Promise<void>;
  /** It answers nothing before. */
  answers: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** @param port Of the master; or what finds it out for each answer. */
  constructor(public port: number | (() => number), public epoch: number) {
    this.#serving = this.#serve();
  }

  get place(): string {
    return `127.0.0.1:${this.#listener.addr.port}`;
  }

  async #serve(): Promise<void> {
    const talks: Promise<void>[] = [];
    for await (const conn of this.#listener) {
      this.#conns.add(conn);
      talks.push(this.#talk(conn).catch(() => {}));
    }
    await Promise.all(talks);
  }

  async #talk(conn: Deno.Conn): Promise<void> {
    const encoder = new TextEncoder();
    while (await conn.read(new Uint8Array(4_096)) !== null) {
      await this.answers;
      const port = typeof this.port === "number" ? this.port : this.port();
      const fields = ["ip", "127.0.0.1", "port", `${port}`, "config-epoch", `${this.epoch}`];
      const reply = `*${fields.length}\r\n` + fields.map((text) => `$${text.length}\r\n${text}\r\n`).join("");
      await conn.write(encoder.encode(reply));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#listener.close();
    for (const conn of this.#conns) {
      try {
        conn.close();
      } catch {
        // The client was first.
      }
    }
    await this.#serving;
  }
}

function portOf(topology: Sentinel): number | undefined {
  try {
    return topology.locate()?.port;
  } catch {
    return undefined;
  }
}

Deno.test("Of what Sentinels say the newest configuration counts, and silence changes nothing", async () => {
  await using one = new FakeSentinel(1, 7);
  await using other = new FakeSentinel(2, 6);
  const log = memoryLog();
  const source = new UrlSource({ url: `redis+sentinel://user:pw@${one.place},${other.place}/main/0` });
  const topology = new Sentinel(source, { log });
  const changes: string[] = [];
  topology.onChange((reason) => changes.push(reason));
  try {
    assertEquals(topology.locate(), undefined, "They have not been heard yet");
    await until(() => portOf(topology) === 1, "the master of the newer configuration");
    const { hostname, username, password, transport } = topology.locate()!;
    assertEquals([hostname, username, password, transport], ["127.0.0.1", "user", "pw", "tcp"]);
    assertEquals(changes, []);
    other.port = 3;
    other.epoch = 8;
    await until(() => portOf(topology) === 3, "the master of the new configuration");
    assertEquals(changes, ["Redis has another master than before"]);
    // The one that is left behind goes on saying what it said.
    await one[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
    await until(
      () => log.records.some(({ event }) => event === "sentinel does not answer"),
      "the silence",
      10_000,
    );
    assertEquals([portOf(topology), changes.length], [3, 1]);
    // What is said of one says nothing of the others.
    const said = log.records.filter(({ event }) => event === "sentinel does not answer");
    assertEquals(said.filter(({ fields }) => `${fields.reason}`.includes("none of its Sentinels")), []);
  } finally {
    topology.close();
  }
});

Deno.test("Where Sentinels differ in one configuration all nodes go the same way, and it is said after a while", async () => {
  // Each watches itself, as where all were set up at once; the third has none of its kind.
  await using one = new FakeSentinel(2, 0);
  await using other = new FakeSentinel(1, 0);
  await using third = new FakeSentinel(3, 0);
  const places = [one, other, third].map(({ place }) => place);
  const log = memoryLog();
  const topologies = [places, places.toReversed()].map((hosts) =>
    new Sentinel(new UrlSource({ url: `redis+sentinel://${hosts.join(",")}/main` }), { log })
  );
  try {
    for (const topology of topologies) {
      await until(() => portOf(topology) === 1, "the place that sorts first");
    }
    assertEquals(topologies.map((topology) => topology.faults()), [[], []], "A failover looks like it, too");
    const differing = () => log.records.filter(({ event }) => event === "sentinels differ");
    await until(() => differing().length === 2, "both to say it", 15_000);
    const each = places.map((place, at) => `${place} says 127.0.0.1:${[2, 1, 3][at]} (epoch 0)`);
    const said = {
      reason: "Redis' Sentinels differ in where the master is: make them watch the same one",
      detail: each.sort().join(", "),
    };
    assertEquals(differing().map(({ fields }) => fields), [said, said], "in one order, whatever their URL's");
    for (const topology of topologies) {
      assertEquals(topology.faults(), [
        "Redis' Sentinels differ in where the master is: make them watch the same one",
      ]);
    }
    other.port = 3;
    for (const topology of topologies) await until(() => portOf(topology) === 3, "what most of them say");
    one.port = 3;
    for (const topology of topologies) {
      await until(() => topology.faults().length === 0, "all to say the same");
    }
    assertEquals(topologies.map(portOf), [3, 3]);
  } finally {
    for (const topology of topologies) topology.close();
  }
});

Deno.test("A Sentinel that takes its time to answer at the start is not taken for one that can't be reached", async () => {
  await using sentinel = new FakeSentinel(1, 1);
  const slow = Promise.withResolvers<void>();
  sentinel.answers = slow.promise;
  const beginMs = performance.now();
  const topology = new Sentinel(new UrlSource({ url: `redis+sentinel://${sentinel.place}/main` }));
  try {
    // Others would have been compared by now.
    await until(() => topology.locate() === undefined && performance.now() - beginMs > 1_000, "a second");
    slow.resolve();
    await until(() => topology.locate()?.port === 1, "the master");
  } finally {
    slow.resolve();
    topology.close();
  }
});

Deno.test("While Sentinels can't be asked the master stays, and it is said that a failover would not be followed", async () => {
  await using one = new FakeSentinel(1, 1);
  await using other = new FakeSentinel(1, 1);
  const topology = new Sentinel(new UrlSource({ url: `redis+sentinel://${one.place},${other.place}/main` }));
  const saysIt = (said: RegExp) =>
    until(
      () => topology.faults().some((text) => said.test(text)),
      `${said}`,
      10_000,
      () => topology.faults(),
    );
  try {
    assertEquals(topology.faults(), [], "The start says it itself");
    await until(() => portOf(topology) === 1, "the master");
    await one[Symbol.asyncDispose]();
    await saysIt(/^1 of 2 Sentinels of Redis can't be asked: the log says why$/);
    await other[Symbol.asyncDispose]();
    await saysIt(
      /^None of Redis' Sentinels can be asked, so no failover would be followed: the log says why$/,
    );
    assertEquals([portOf(topology), topology.faults().length], [1, 1]);
  } finally {
    topology.close();
  }
});

redisTest(
  "A former master that is back without its data, before the Sentinels were asked again, is left as it is",
  async () => {
    await using master = await RedisServer.start();
    await using replica = await RedisServer.start({ replicaOf: master });
    await replica.copied();
    await using empty = await RedisServer.start();
    await using wire = await TcpProxy.start(master.port);
    let isBack = false, isSeen = false;
    // Nobody hears of the change but who asks after a connection to the old place.
    const place = () => {
      isSeen ||= isBack && wire.connections > 0;
      return isSeen ? replica.port : wire.port;
    };
    await using sentinel = new FakeSentinel(place, 1);
    await using service = await Service.start({ REDIS_URL: `redis+sentinel://${sentinel.place}/main` });
    await until(async () => (await service.readiness()).status === 200, "the service to be ready");
    await using alice = await Follower.open(service.socketUrl("alice"));
    for (const n of [1, 2, 3]) assertEquals((await service.send("alice", n)).body.sockets, 1);
    await until(
      async () => await replica.cli("HGET", "userwire:{alice}:position", "seq") === "3",
      "the replica to have it",
    );
    await master.stop({ signal: "SIGKILL" });
    await replica.follow();
    await until(async () => (await service.readiness()).status === 503, "the service to miss it");
    sentinel.epoch = 2;
    isBack = true;
    wire.turn(empty.port);
    await until(
      () => service.logged("redis master found").length === 2,
      "the new master to be found",
      10_000,
    );
    await until(
      async () => (await service.readiness()).status === 200,
      "the service to be ready again",
      10_000,
    );
    assertEquals((await service.send("alice", 4)).body.sockets, 1);
    await until(() => alice.data.at(-1) === 4, "the last message");
    assertEquals([alice.data, alice.gaps, alice.faults], [[1, 2, 3, 4], [], []]);
    assertEquals(await empty.cli("DBSIZE"), 0);
  },
);

Deno.test("A file with the URL may name other Sentinels, and no Redis in their place", async () => {
  await using one = new FakeSentinel(1, 1);
  await using other = new FakeSentinel(2, 1);
  using folder = new TempFolder("sentinel");
  const file = `${folder}/redis-url`;
  Deno.writeTextFileSync(file, `redis+sentinel://${one.place}/main`);
  const topology = new Sentinel(new UrlSource({ file }));
  const changes: string[] = [];
  topology.onChange((reason) => changes.push(reason));
  try {
    await until(() => portOf(topology) === 1, "the first master");
    Deno.writeTextFileSync(file, `redis+sentinel://:new@${one.place}/main`);
    topology.reload();
    assertEquals([topology.locate()?.password, changes], ["new", []]);
    Deno.writeTextFileSync(file, `redis+sentinel://${other.place}/main`);
    topology.reload();
    assertEquals([portOf(topology), changes], [undefined, ["REDIS_URL_FILE names other Sentinels"]]);
    await until(() => portOf(topology) === 2, "the other master");
    Deno.writeTextFileSync(file, "redis://127.0.0.1:1");
    assertThrows(() => topology.reload(), ConfigError, "restart the service");
    assertEquals(portOf(topology), 2);
  } finally {
    topology.close();
  }
});

Deno.test("URLs of Sentinels are read, or refused", () => {
  const { sentinel, ...login } = parseRedisUrl("rediss+sentinel://u:p%40w@a,b:1,[::1]:2/my-main/3");
  assertEquals(sentinel, {
    places: [{ hostname: "a", port: 26_379 }, { hostname: "b", port: 1 }, { hostname: "::1", port: 2 }],
    master: "my-main",
  });
  const { transport, username, password, database, hostname, port } = login;
  assertEquals([transport, username, password, database, hostname, port], ["tls", "u", "p@w", 3, "", 0]);
  for (
    const wrong of [
      "redis+sentinel://a",
      "redis+sentinel://a/",
      "redis+sentinel:///main",
      "redis+sentinel://a,,b/main",
      "redis+sentinel://a:99999/main",
      "redis+sentinel://a/main/x",
      "redis+sentinel://a/main?x",
      "unix+sentinel://a/main",
    ]
  ) {
    assertEquals(isRedisUrl(wrong), false, wrong);
  }
});
