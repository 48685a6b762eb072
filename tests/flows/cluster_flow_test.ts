/**
 * Two nodes on a real cluster: everything that is asked for, for users of all slots; and slots that wander and masters that
 * change while messages flow, with no socket closed. The chaos has more of it, and longer.
 */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import type { BroadcastFrame } from "../../src/protocol/frames.ts";
import type { BroadcastResult } from "../../src/publisher/mod.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { type Env, SHARED } from "../../testkit/nodes.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { type ClusterServer, ClusterSet } from "../../testkit/redis_cluster.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { post, SseClient } from "../../testkit/sse_client.ts";
import { openClient } from "../../testkit/ws_client.ts";
import { SteadySender } from "../../testkit/steady_sender.ts";

const WAIT_MS = 30_000;
const NAMES = Array.from({ length: 24 }, (_, i) => `user${i}`);
const JSON_TYPE = { "content-type": "application/json" };

async function isReady(service: Service): Promise<void> {
  let seen: unknown;
  await until(
    async () => {
      const readiness = await service.readiness();
      seen = readiness;
      return readiness.status === 200;
    },
    "the service to be ready",
    WAIT_MS,
    () => JSON.stringify(seen),
  );
}

/** Two nodes that are ready, and end with the stack. */
async function twoNodes(
  stack: AsyncDisposableStack,
  url: string,
  env: Env = {},
): Promise<[Service, Service]> {
  const here = stack.use(await Service.start({ REDIS_URL: url, ...env }));
  const there = stack.use(await Service.start({ REDIS_URL: url, ...env }));
  await Promise.all([isReady(here), isReady(there)]);
  return [here, there];
}

for (const [kind, env] of Object.entries({ dedicated: {}, shared: SHARED }) as [string, Env][]) {
  redisTest(`On a cluster two nodes serve users of all slots, with ${kind} subscriptions`, async (t) => {
    await using cluster = await ClusterSet.start();
    await using stack = new AsyncDisposableStack();
    const [here, there] = await twoNodes(stack, cluster.url, env);
    const call = async (method: string, path: string, body?: unknown, headers = {}) => {
      const init = body === undefined ? {} : { body: JSON.stringify(body) };
      const response = await there.fetch(path, { method, ...init, headers: { ...JSON_TYPE, ...headers } });
      return { status: response.status, body: await response.json() };
    };
    const reached = ({ sockets, nodes }: { sockets?: number; nodes?: number }) => nodes ?? sockets;
    const followers = new Map<string, Follower>();
    for (const name of NAMES) followers.set(name, stack.use(await Follower.open(here.socketUrl(name))));
    const got = (name: string, data: unknown) =>
      until(() => followers.get(name)!.data.includes(data), `${data} to come to ${name}`, WAIT_MS);

    await t.step("the masters have their part of the users each", async () => {
      for (const { server } of cluster.nodes) {
        const channels = await server.cli("PUBSUB", "SHARDCHANNELS", "user[0-9]*") as string[];
        assert(channels.length > 0 && channels.length < NAMES.length, `${channels.length} channels`);
      }
    });

    await t.step("a send, whoever is online, and nobody", async () => {
      for (const name of NAMES) {
        const { status, body } = await call("POST", `/v1/users/${name}/messages?expect=online`, "hello");
        assertEquals([status, reached(body)], [200, 1], JSON.stringify(body));
        await got(name, "hello");
      }
      assertEquals((await call("POST", "/v1/users/nobody/messages?expect=online", "x")).status, 404);
    });

    await t.step("frames that come by another node than the one with the stream", async () => {
      for (const name of NAMES.slice(0, 6)) {
        await using stream = await SseClient.open(here.socketUrl(name));
        const frame = { t: "auth", token: "x", id: name };
        assertEquals((await post(there.socketUrl(name), await stream.conn(), frame)).status, 204);
        assertEquals((await stream.next("re")).id, name);
      }
    });

    await t.step("the connections of a user, one of which is closed, and the nodes", async () => {
      for (const name of NAMES.slice(0, 6)) {
        await using second = await openClient(there.socketUrl(name), "userwire.v1");
        const { conn } = await second.nextJson();
        const { body } = await call("GET", `/v1/users/${name}/connections`);
        const nodes = body.items.map(({ node }: { node: string }) => node).sort();
        assertEquals([nodes, body.unanswered], [[here.server.node, there.server.node].sort(), 0]);
        assertEquals((await call("DELETE", `/v1/users/${name}/connections/${conn}`)).body, { closed: 1 });
        assertEquals((await second.closed).code, 4403);
      }
      const { body } = await call("GET", "/v1/nodes");
      assertEquals(body.items.length, 2);
    });

    await t.step("presence of one and of many", async () => {
      const { body } = await call("GET", "/v1/users/user3");
      assertEquals([body.online, reached(body)], [true, 1]);
      const absent = Array.from({ length: 976 }, (_, i) => `absent${i}`);
      const many = await call("POST", "/v1/users/online", { users: [...NAMES, ...absent] });
      assertEquals(many.status, 200, JSON.stringify(many.body).slice(0, 200));
      const online = Object.keys(many.body).filter((name) => many.body[name] > 0);
      assertEquals(online.sort(), [...NAMES].sort());
    });

    await t.step("a batch reaches each, and a repeated one nobody twice", async () => {
      const headers = { "idempotency-key": "batch" };
      const many = { items: [{ to: [...NAMES, "away"], data: "all" }] };
      for (let times = 0; times < 2; times++) {
        const { status, body } = await call("POST", "/v1/messages", many, headers);
        assertEquals(status, 200, JSON.stringify(body).slice(0, 300));
      }
      for (const name of NAMES) await got(name, "all");
      for (const follower of followers.values()) {
        assertEquals(follower.data.filter((data) => data === "all").length, 1);
      }
    });

    await t.step("a receipt", async () => {
      const follower = followers.get("user5")!;
      follower.onMessage = ({ seq }) => follower.send({ t: "ack", seq: seq! });
      const { body } = await call("POST", "/v1/users/user5/messages?wait=ack", "receipt");
      assertEquals([body.sockets, body.acked], [1, 1], JSON.stringify(body));
    });

    await t.step("a resume gets what was missed", async () => {
      const follower = followers.get("user7")!;
      await follower.disconnect();
      await until(
        async () => !(await call("GET", "/v1/users/user7")).body.online,
        "user7 to be away",
        WAIT_MS,
      );
      for (const n of [1, 2, 3]) await call("POST", "/v1/users/user7/messages", `missed ${n}`);
      await follower.connect(there.socketUrl("user7"));
      await got("user7", "missed 3");
    });

    await t.step("a kick", async () => {
      const closed = followers.get("user9")!.closed;
      const { status, body } = await call("DELETE", "/v1/users/user9/connections");
      assertEquals([status, body.closed ?? body.nodes], [200, 1], JSON.stringify(body));
      assertEquals(await closed, 4403);
    });

    for (const follower of followers.values()) follower.assertNoFault();
    assertEquals([...followers.values()].flatMap(({ gaps }) => gaps), []);
  });
}

redisTest("On a cluster without a history the count is true all the same", async () => {
  await using cluster = await ClusterSet.start({ masters: 2, password: "secret" });
  await using stack = new AsyncDisposableStack();
  const urls = cluster.nodes.map(({ server }) => server.url);
  const [here, there] = await twoNodes(stack, urls.join(","), { USERWIRE_HISTORY: "0" });
  for (const name of NAMES.slice(0, 8)) {
    assertEquals((await there.send(name, "x")).body.sockets, 0);
    const client = stack.use(await openClient(here.socketUrl(name)));
    assertEquals((await there.send(name, "heard")).body.sockets, 1);
    assertEquals(await client.next(), "heard");
  }
});

interface Change {
  readonly name: string;
  readonly env?: Env;
  readonly replicas?: boolean;
  /** How soon the others take it for failed. */
  readonly nodeTimeoutMs?: number;
  /** Whether nobody may be told of a gap. */
  readonly isWhole: boolean;
  happens(cluster: ClusterSet): Promise<void>;
}

/** The master that has the broadcasts, another one, and the slots of users and of broadcasts that the former has. */
async function keepers(cluster: ClusterSet): Promise<[ClusterServer, ClusterServer, number[]]> {
  const slots = await Promise.all([...NAMES, "userwire:all"].map((name) => cluster.slotOf(name)));
  const from = await cluster.keeperOf(slots.at(-1)!);
  const own = [];
  for (const slot of slots) if (await cluster.keeperOf(slot) === from) own.push(slot);
  return [from, (await cluster.masters()).find((other) => other !== from)!, own];
}

async function reshard(cluster: ClusterSet): Promise<void> {
  const [from, to, own] = await keepers(cluster);
  await cluster.move(own, from, to);
}

const CHANGES: readonly Change[] = [
  { name: "Slots that are moved to another master", isWhole: true, happens: reshard },
  { name: "Slots that are moved, with shared subscriptions,", env: SHARED, isWhole: true, happens: reshard },
  {
    name: "A slot that is moved step by step",
    isWhole: true,
    async happens(cluster) {
      const [from, to, [slot]] = await keepers(cluster);
      await cluster.beginMove(slot!, from, to);
      while (await cluster.moveKeys(slot!, from, to, 1) > 0);
      await cluster.endMove(slot!, from, to);
    },
  },
  {
    name: "A planned failover",
    replicas: true,
    isWhole: true,
    async happens(cluster) {
      const [from] = await keepers(cluster);
      await cluster.failOver(await cluster.replicaOf(from));
    },
  },
  {
    name: "A planned failover whose former master is late to follow",
    replicas: true,
    isWhole: true,
    async happens(cluster) {
      const [from] = await keepers(cluster);
      const replica = await cluster.replicaOf(from);
      await from.server.cli("CONFIG", "SET", "masteruser", "nobody", "masterauth", "wrong");
      await cluster.failOver(replica);
      // Longer than a node waits for others where a former master says nothing.
      const fromMs = performance.now();
      await until(() => performance.now() - fromMs > 2_500, "two and a half seconds to be over");
      await from.server.cli("CONFIG", "SET", "masteruser", "", "masterauth", "");
    },
  },
  {
    name: "A master that is killed, with shared subscriptions,",
    env: SHARED,
    replicas: true,
    nodeTimeoutMs: 1_000,
    isWhole: false,
    async happens(cluster) {
      const [from] = await keepers(cluster);
      const replica = await cluster.replicaOf(from);
      await from.server.stop({ signal: "SIGKILL" });
      await cluster.promoted(replica);
    },
  },
  {
    name: "A master that hangs, and wakes up when another one is in its place,",
    replicas: true,
    nodeTimeoutMs: 1_000,
    isWhole: false,
    async happens(cluster) {
      const [from] = await keepers(cluster);
      const replica = await cluster.replicaOf(from);
      await from.server.pause();
      await cluster.promoted(replica);
      from.server.resume();
      await cluster.settled();
    },
  },
];

for (const { name, env, replicas = false, nodeTimeoutMs = 15_000, isWhole, happens } of CHANGES) {
  redisTest(`${name} costs no message and closes no socket`, async () => {
    await using cluster = await ClusterSet.start({ masters: replicas ? 3 : 2, replicas, nodeTimeoutMs });
    await using stack = new AsyncDisposableStack();
    const [here, there] = await twoNodes(stack, cluster.url, env);
    const followers = new Map<string, Follower>();
    for (const name of NAMES) followers.set(name, stack.use(await Follower.open(here.socketUrl(name))));
    const sender = stack.use(
      new SteadySender({
        users: NAMES,
        url: () => there.socketUrl("any").replace(/^ws/, "http"),
        perSecond: 100,
      }),
    );
    const more = async () => {
      const enough = sender.total + 100;
      await until(
        () => sender.total >= enough,
        "more messages to be accepted",
        WAIT_MS,
        () => `${sender.total} of ${enough} were; the last failure was ${sender.lastFailure}`,
      );
    };
    const listener = stack.use(await openClient(here.socketUrl("listener"), "userwire.v1"));
    const broadcast = async (n: number) => {
      let result: BroadcastResult | undefined;
      const send = () => there.server.app.publisher.broadcast(n, { idempotencyKey: `broadcast${n}` });
      await until(
        () => send().then((sent) => (result = sent, true), () => false),
        `broadcast ${n} to be accepted`,
        WAIT_MS,
      );
      // One whose answer was lost is repeated, which does not tell how many. While a change is under way two nodes see it up to
      // a second apart: one of them may have left the old master, or can't reach the sender's just now. The answer says so.
      const { repeated, sockets, nodes, heard = nodes } = result!;
      const isUntold = repeated || n > 1 && (nodes < 2 || heard < nodes);
      if (!isUntold) assertEquals(sockets, NAMES.length + 1, JSON.stringify(result));
    };
    await more();
    await broadcast(1);
    await happens(cluster);
    await more();
    await broadcast(2);
    await broadcast(3);
    const heard: BroadcastFrame[] = [];
    while (heard.at(-1)?.data !== 3) {
      const frame = JSON.parse(String(await listener.next()));
      if (frame.t === "b") heard.push(frame);
      else if (isWhole) assertNotEquals(frame.t, "bgap", JSON.stringify({ frame, heard }));
    }
    if (isWhole) assertEquals(heard.map(({ seq }) => seq), [1, 2, 3]);
    assertEquals(heard.filter(({ data }) => data === 3).length, 1);
    await sender.end();
    for (const name of NAMES) {
      const follower = followers.get(name)!;
      await follower.accountsFor(sender.accepted.get(name)!);
      follower.assertNoFault();
      if (isWhole) assertEquals(follower.gaps, []);
      // What was accepted is counted: there was a socket all the time.
      const { body } = await there.send(name, "last");
      assertEquals(body.sockets ?? body.nodes, 1, JSON.stringify(body));
    }
    assertEquals(here.logged("connection closed"), []);
  });
}

redisTest("On a cluster the rights that docs/redis.md gives are enough", async () => {
  const page = await Deno.readTextFile(new URL("../../docs/redis.md", import.meta.url));
  const rule = [...page.matchAll(/^ACL SETUSER userwire (.+)$/gm)][1]![1]!.replace(">PASSWORD", ">s3cret");
  assertMatch(rule, /spublish/);
  for (const env of [{}, SHARED]) {
    await using cluster = await ClusterSet.start({ masters: 2 });
    for (const { server } of cluster.nodes) {
      await server.cli("ACL", "SETUSER", "userwire", ...rule.split(" "));
    }
    await using stack = new AsyncDisposableStack();
    const url = cluster.url.replace("redis://", "redis://userwire:s3cret@");
    const [here, there] = await twoNodes(stack, url, env);
    const ticket = await here.fetch("/v1/tickets", {
      method: "POST",
      headers: JSON_TYPE,
      body: JSON.stringify({ user: "user0" }),
    });
    assertEquals(ticket.status, 201, await ticket.text());
    for (const name of NAMES.slice(0, 6)) {
      const follower = stack.use(await Follower.open(here.socketUrl(name)));
      follower.onMessage = ({ seq }) => follower.send({ t: "ack", seq: seq! });
      const sent = await there.fetch(`/v1/users/${name}/messages?wait=ack`, {
        method: "POST",
        headers: { ...JSON_TYPE, "idempotency-key": "k" },
        body: "1",
      });
      assertEquals((await sent.json()).acked, 1);
      const body = JSON.stringify({ jti: "one" });
      const revoked = await there.fetch(`/v1/users/${name}/revocations`, {
        method: "POST",
        headers: JSON_TYPE,
        body,
      });
      assertEquals(revoked.status, 201, await revoked.text());
      await follower.disconnect();
      await follower.connect(there.socketUrl(name));
    }
    const [from, to, own] = await keepers(cluster);
    await cluster.move(own.slice(0, 2), from, to);
    for (const { server } of cluster.nodes) assertEquals(await server.cli("ACL", "LOG"), []);
  }
});

redisTest("A master that has given away all it kept is taken out, and nobody is warned of it", async () => {
  await using cluster = await ClusterSet.start({ masters: 2 });
  const added = await cluster.addNode();
  const [first] = cluster.nodes;
  const place = `127.0.0.1:${added.server.port}`;
  const slots = [...Array(50).keys()];
  await cluster.move(slots, first!, added);
  await cluster.settled();
  await using service = await Service.start({ REDIS_URL: cluster.url });
  const said = (event: string) => service.logged(event).filter(({ fields }) => fields.master === place);
  await until(() => said("redis available").length > 0, "its connection", WAIT_MS);
  await cluster.move(slots, added, first!);
  const moved = () =>
    service.logged("redis slots moved").reduce((sum, { fields }) => sum + Number(fields.count), 0);
  await until(() => moved() === slots.length, "all to be back", WAIT_MS);
  // At once: its connections are kept for some seconds, for what was asked of it before.
  await added.server.stop({ signal: "SIGKILL" });
  await until(() => said("redis unavailable").length > 0, "its end to be noticed", WAIT_MS);
  assertEquals([...new Set(said("redis unavailable").map(({ level }) => level))], ["debug"]);
  assertEquals((await service.readiness()).warnings, []);
});

redisTest("A master that is away is refused to its users alone, and said in warnings", async () => {
  await using cluster = await ClusterSet.start({ masters: 3 });
  // Without that a cluster serves nobody when a part of it is away.
  for (const { server } of cluster.nodes) {
    await server.cli("CONFIG", "SET", "cluster-require-full-coverage", "no");
  }
  await using stack = new AsyncDisposableStack();
  const [service] = await twoNodes(stack, cluster.url);
  const [away, , slots] = await keepers(cluster);
  const areAway = new Map<string, boolean>();
  for (const name of NAMES) areAway.set(name, slots.includes(await cluster.slotOf(name)));
  await away.server.stop({ signal: "SIGKILL" });
  let readiness = await service.readiness();
  await until(
    async () => (readiness = await service.readiness()).warnings.length > 0,
    "the fault to be told",
    WAIT_MS,
    () => JSON.stringify(readiness),
  );
  assertEquals(readiness.status, 200);
  assertMatch(`${readiness.warnings}`, /1 of 3 masters of the Redis cluster can't be used/);
  for (const name of NAMES) {
    assertEquals((await service.send(name, "x")).status, areAway.get(name) ? 503 : 202, name);
  }
  const masters = service.logged("redis unavailable").map(({ fields }) => fields.master);
  assertEquals([...new Set(masters)], [`127.0.0.1:${away.server.port}`], "The log says which");
  const rest = cluster.nodes.filter((node) => node !== away);
  for (const { server } of rest) await server.cli("CLUSTER", "FORGET", away.id);
  await using later = await Service.start({ REDIS_URL: rest[0]!.server.url });
  await until(() => later.logged("slots without a master").length > 0, "the log to say it", WAIT_MS);
  assertMatch(`${later.logged("slots without a master")[0]!.fields.detail}`, /^5\d{3} of 16384$/);
});

redisTest(
  "A master that does not know our user stops no start, and serves its users once it does",
  async () => {
    await using cluster = await ClusterSet.start({ masters: 2 });
    const added = cluster.nodes[1]!;
    const grant = ({ server }: ClusterServer) =>
      server.cli("ACL", "SETUSER", "userwire", "on", ">s3cret", "~*", "&*", "+@all");
    await grant(cluster.nodes[0]!);
    const url = cluster.url.replace("redis://", "redis://userwire:s3cret@");
    // Whoever is asked first.
    for (
      const REDIS_URL of [
        url,
        url.replace(`${cluster.nodes[0]!.server.port}`, (port) => `${added.server.port},127.0.0.1:${port}`),
      ]
    ) {
      await using service = await Service.start({ REDIS_URL });
      // A start does not wait for a master that is slow to answer.
      const said = /1 of 2 masters of the Redis cluster can't be used: Redis refused the password/;
      let warnings: string[] = [];
      await until(
        async () => said.test(`${({ warnings } = await service.readiness()).warnings}`),
        "the refusal to be told",
        WAIT_MS,
        () => `${warnings}`,
      );
      await service.send("user0", "x");
    }
    await using service = await Service.start({ REDIS_URL: url });
    await grant(added);
    await until(
      async () => (await service.readiness()).warnings.length === 0,
      "both masters to be used",
      WAIT_MS,
    );
    for (const name of NAMES) assertEquals((await service.send(name, "x")).status, 202, name);
  },
);

redisTest(
  "Of a cluster with many masters each is tried with names of its own slots, and found ready",
  async () => {
    await using cluster = await ClusterSet.start({ masters: 8 });
    for (const prefix of ["", "prod:"]) {
      await using service = await Service.start({ REDIS_URL: cluster.url, USERWIRE_CHANNEL_PREFIX: prefix });
      let seen: unknown;
      await until(
        async () => {
          const readiness = await service.readiness();
          seen = readiness;
          return readiness.status === 200 && readiness.warnings.length === 0;
        },
        "all masters to be found ready",
        WAIT_MS,
        () => JSON.stringify(seen),
      );
    }
  },
);

redisTest("A cluster without slots, and a password that is wrong, are told at the start", async () => {
  await using cluster = await ClusterSet.start({ masters: 1, password: "secret" });
  const wrong = cluster.url.replace("secret", "other");
  const refusal = await Service.start({ REDIS_URL: wrong }).then(() => undefined, (error) => `${error}`);
  assertMatch(refusal ?? "", /Redis refused the password or the user/);
  using bus = OwnPort.take();
  await using empty = await RedisServer.start({
    args: ["--cluster-enabled", "yes", "--cluster-port", `${bus}`],
  });
  await using service = await Service.start({ REDIS_URL: empty.url });
  const { status, why } = await service.readiness();
  assertEquals(status, 503);
  assertMatch(why ?? "", /has no slots yet: create it with redis-cli --cluster create/);
});
