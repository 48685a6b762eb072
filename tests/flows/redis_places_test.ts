/**
 * Redis where it is not simply at its address: over TLS, behind a NAT that gives each node of a cluster another port, and
 * by way of Sentinels that speak TLS and want a password. And two nodes of the service that see a cluster at different times.
 */
import { assert, assertEquals } from "@std/assert";
import { Certificates } from "../../testkit/certificates.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { SHARED } from "../../testkit/nodes.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { MASTER, SentinelSet } from "../../testkit/redis_sentinel.ts";
import { redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";

const WAIT_MS = 30_000;
/** Enough that each master keeps some. */
const NAMES = Array.from({ length: 12 }, (_, i) => `user${i}`);
/** Login of the node that learns of a move late. */
const LATE = "late";

async function isReady(service: Service): Promise<void> {
  let seen: unknown;
  await until(
    async () => {
      const readiness = await service.readiness();
      seen = readiness;
      return readiness.status === 200 && !`${readiness.warnings}`.includes("can't be used");
    },
    "the service to be ready, with all masters",
    WAIT_MS,
    () => JSON.stringify(seen),
  );
}

const reached = ({ body }: { body: Record<string, unknown> }) => body.nodes ?? body.sockets;

/** Resolves when a send was accepted, and says how many it reached. */
async function accepted(service: Service, user: string, data: unknown): Promise<unknown> {
  let last: unknown;
  let count: unknown;
  await until(
    async () => {
      const sent = await service.send(user, data);
      last = sent.body;
      count = reached(sent);
      return sent.status === 200 || sent.status === 202;
    },
    `"${data}" to be accepted`,
    WAIT_MS,
    () => JSON.stringify(last),
  );
  return count;
}

async function got(follower: Follower, data: unknown): Promise<void> {
  await until(() => follower.data.includes(data), `${data} to come`, WAIT_MS, () => JSON.stringify(follower));
}

redisTest("A cluster is reached over TLS", async (t) => {
  await using certificates = await Certificates.make();
  await using cluster = await ClusterSet.start({ tls: certificates });

  for (const [kind, env] of [["dedicated", {}], ["shared", SHARED]] as const) {
    await t.step(`with ${kind} subscriptions`, async () => {
      await using service = await Service.start({
        ...{ REDIS_URL: cluster.tlsUrl, REDIS_CA: certificates.cert("ca") },
        ...env,
      });
      await isReady(service);
      await using sockets = new AsyncDisposableStack();
      for (const name of NAMES) {
        const follower = sockets.use(await Follower.open(service.socketUrl(name)));
        assertEquals(reached(await service.send(name, kind)), 1);
        await got(follower, kind);
      }
      for (const { server } of cluster.nodes) {
        const channels = await server.cli("PUBSUB", "SHARDCHANNELS", "user*") as string[];
        assert(channels.length > 0, "each master keeps some");
        // Nobody but this test comes without TLS.
        const lines = String(await server.cli("CLIENT", "LIST")).trim().split("\n");
        const plain = lines.filter((line) => line.includes(`laddr=127.0.0.1:${server.port} `));
        assertEquals(plain.length, 1, lines.join("\n"));
      }
    });
  }

  await t.step("without its authority a certificate is not trusted, and that is said", async () => {
    await using service = await Service.start({ REDIS_URL: cluster.tlsUrl });
    await until(
      async () => (await service.readiness()).why?.includes("certificate") ?? false,
      "the reason",
      WAIT_MS,
    );
  });
});

redisTest("A cluster behind a NAT is seen at different times by two nodes", async (t) => {
  await using cluster = await ClusterSet.start();
  await using stack = new AsyncDisposableStack();
  const proxies: TcpProxy[] = [];
  for (const { server } of cluster.nodes) {
    const proxy = stack.use(await TcpProxy.start(server.port));
    proxies.push(proxy);
    await server.cli("CONFIG", "SET", "cluster-announce-port", proxy.port);
    await server.cli("ACL", "SETUSER", LATE, "on", `>${LATE}`, "~*", "&*", "+@all");
  }
  const announced = () => Promise.all(cluster.nodes.map(({ server }) => server.cli("CLUSTER", "SLOTS")));
  await until(
    async () =>
      (await announced()).every((slots) => proxies.every(({ port }) => `${slots}`.includes(`${port}`))),
    "all nodes to know the announced ports",
    WAIT_MS,
  );
  const url = `redis://127.0.0.1:${proxies[0]!.port}`;
  const here = stack.use(await Service.start({ REDIS_URL: url }));
  const there = stack.use(await Service.start({ REDIS_URL: url.replace("//", `//${LATE}:${LATE}@`) }));
  await Promise.all([isReady(here), isReady(there)]);

  await t.step("its nodes are dialled where they announce to be", async () => {
    await using sockets = new AsyncDisposableStack();
    const before = proxies.map(({ connections }) => connections);
    for (const name of NAMES) sockets.use(await Follower.open(here.socketUrl(name)));
    for (const name of NAMES) assertEquals(reached(await there.send(name, "hello")), 1);
    const come = proxies.map(({ connections }, i) => connections - before[i]!);
    assert(come.every((count) => count > 0), `${come}`);
  });

  await t.step(
    "a node that learns of a move late sends nothing astray, and nothing is lost or doubled",
    async () => {
      const user = "user0";
      const slot = await cluster.slotOf(user);
      const from = await cluster.keeperOf(slot);
      const to = cluster.nodes.find((node) => node !== from)!;
      await using early = await Follower.open(here.socketUrl(user));
      await using late = await Follower.open(there.socketUrl(user));
      assertEquals(await accepted(there, user, "before"), 2);

      for (const proxy of proxies) {
        proxy.hold((said) => said.includes(LATE) && said.includes("NODES") && said.includes("CLUSTER"));
      }
      await cluster.move([slot], from, to);
      // It does not know where the user is: it refuses, and hands nothing to the former master.
      const refused = await there.send(user, "refused");
      assertEquals(refused.status, 503, JSON.stringify(refused.body));
      // Of the other side the count is true: its own socket is there, that of the late node is not.
      assertEquals(await accepted(here, user, "meanwhile"), 1);
      await got(early, "meanwhile");
      assertEquals((await there.send(user, "refused, too")).status, 503);
      assert(!late.data.includes("meanwhile"));

      for (const proxy of proxies) proxy.hold(() => false);
      await got(late, "meanwhile");
      assertEquals(await accepted(there, user, "after"), 2);
      for (const follower of [early, late]) {
        await got(follower, "after");
        assertEquals(follower.data, ["before", "meanwhile", "after"]);
        assertEquals(follower.gaps, []);
        follower.assertNoFault();
      }
    },
  );
});

redisTest("A node that was taken out of a cluster leads nobody into the one that it is in now", async () => {
  await using cluster = await ClusterSet.start({ masters: 1, replicas: true });
  await using out = await cluster.addNode();
  await using other = await ClusterSet.start({ masters: 1 });
  await using service = await Service.start({ REDIS_URL: `${out.server.url},${cluster.url.slice(8)}` });
  await isReady(service);
  await using follower = await Follower.open(service.socketUrl("alice"));
  cluster.nodes.splice(cluster.nodes.indexOf(out), 1);
  for (const { server } of cluster.nodes) await server.cli("CLUSTER", "FORGET", out.id);
  await out.server.cli("CLUSTER", "RESET", "SOFT");
  await other.nodes[0]!.server.cli("CLUSTER", "MEET", "127.0.0.1", out.server.port, out.busPort);
  const warned = () => service.logged("cluster node is of another cluster").length > 0;
  await until(warned, "the node to be left", WAIT_MS);
  assertEquals(await accepted(service, "alice", "here"), 1);
  await cluster.failOver(cluster.nodes[1]!);
  assertEquals(await accepted(service, "alice", "followed"), 1);
  await got(follower, "followed");
  assertEquals(follower.data, ["here", "followed"]);
  assertEquals(service.logged("redis slots moved"), []);
  assertEquals(await other.nodes[0]!.server.cli("DBSIZE"), 0);
});

redisTest("Sentinels with TLS and a password lead to the master, and to the next one", async () => {
  await using certificates = await Certificates.make();
  await using set = await SentinelSet.start({ tls: certificates, password: "guard" });
  await using service = await Service.start({
    REDIS_URL: set.url,
    REDIS_SENTINEL_PASSWORD: "guard",
    REDIS_CA: certificates.cert("ca"),
  });
  await isReady(service);
  await using alice = await Follower.open(service.socketUrl("alice"));
  assertEquals(await accepted(service, "alice", "before"), 1);
  await got(alice, "before");
  assertEquals(await set.sentinels[0]!.cli("SENTINEL", "FAILOVER", MASTER), "OK");
  await until(async () => await set.master() === set.servers[1], "the replica to be the master", WAIT_MS);
  await until(() => service.logged("redis master found").length >= 2, "it to be found", WAIT_MS);
  assertEquals(await accepted(service, "alice", "after"), 1);
  await got(alice, "after");
  assertEquals(alice.faults, []);
});
