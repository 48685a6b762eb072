/** The faults of the night: what is done, which alerts come of it, and what the first look of their paragraphs shows. */
import { assert, assertEquals } from "@std/assert";
import { Certificates } from "../../../testkit/certificates.ts";
import { CLOSED, KEY, protocolsFor, tokenFor } from "../../../testkit/closed.ts";
import { until } from "../../../testkit/deadline.ts";
import { ProcessService } from "../../../testkit/process_service.ts";
import { RawSocket } from "../../../testkit/raw_socket.ts";
import { SentinelSet } from "../../../testkit/redis_sentinel.ts";
import { RedisServer } from "../../../testkit/redis_server.ts";
import { Service } from "../../../testkit/service.ts";
import { WebhookReceiver } from "../../../testkit/webhook_receiver.ts";
import { linesOf, type Night, readyz, userwire } from "./night.ts";

export interface Fault {
  readonly name: string;
  /** Alerts that must fire. */
  readonly fires: readonly string[];
  /** Alerts that may, since they follow from it. */
  readonly may?: readonly string[];
  /** @returns What the first look showed, of each alert. */
  play(night: Night): Promise<readonly (readonly [look: string, saw: RegExp, shown: string])[]>;
}

const USERS = Array.from({ length: 12 }, (_, i) => `user${i}`);

/** Nodes with what they share, in this process. */
async function nodes(night: Night, count: number, env: Record<string, string>): Promise<Service[]> {
  const made: Service[] = [];
  for (let i = 0; i < count; i++) made.push(night.use(await Service.start(env)));
  await until(
    async () => (await Promise.all(made.map((one) => one.readiness()))).every(({ status }) => status === 200),
    "the nodes to be ready",
  );
  return made;
}

function sendAll(night: Night, service: Service, perSecond = 20): void {
  let n = 0;
  night.steadily(1_000 / perSecond, () => service.send(USERS[n++ % USERS.length]!, n));
}

/** As the doctor of this node would be called. */
function doctor(env: Record<string, string>): Promise<string> {
  return userwire("doctor --port 0", env);
}

export const FAULTS: readonly Fault[] = [
  {
    name: "Redis fails over, by Sentinels",
    fires: ["UserwireRedisInterrupted"],
    may: [
      "UserwireSendsUnavailable",
      "UserwireRedisUnavailable",
      "UserwireHistoryLost",
      "UserwireMessagesMissed",
    ],
    async play(night) {
      const set = night.use(await SentinelSet.start());
      const env = { REDIS_URL: set.url };
      const [one, other] = await nodes(night, 2, env);
      await night.open(one!, USERS);
      sendAll(night, other!);
      await night.read(one!.server.url, other!.server.url);
      const [master, replica] = set.servers;
      await master!.stop({ signal: "SIGKILL" });
      await night.fires("UserwireRedisInterrupted");
      await until(async () => (await one!.readiness()).status === 200, "the node to be ready again");
      return [
        ["lines", /redis unavailable .*reason/, linesOf(one!, "redis unavailable")],
        ["redis-cli info replication", /role:master/, await replica!.info("replication")],
        ["doctor", /✓ redis version: .*master/, await doctor(env)],
      ];
    },
  },
  {
    name: "Redis is gone",
    fires: ["UserwireRedisUnavailable", "UserwireSendsUnavailable"],
    may: ["UserwireRedisInterrupted", "UserwireSendsSlow"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ appendOnly: true }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      sendAll(night, node!);
      await night.read(node!.server.url);
      await redis.stop();
      await night.fires("UserwireRedisUnavailable");
      await night.fires("UserwireSendsUnavailable");
      const [seen, found] = [await readyz(node!), await doctor(env)];
      await redis.restart({ keepData: true });
      await night.ends("UserwireRedisUnavailable");
      return [
        ["readyz", /"ready":false,"why":"Redis is not available: .*nobody listens there/, seen],
        ["doctor", /✗ redis: Redis is not available: .*nobody listens there/, found],
        ["readyz, when it is over", /"ready":true/, await readyz(node!)],
      ];
    },
  },
  {
    name: "Redis hangs",
    fires: ["UserwireRedisUnavailable"],
    may: ["UserwireSendsUnavailable", "UserwireRedisInterrupted", "UserwireSendsSlow"],
    async play(night) {
      const redis = night.use(await RedisServer.start());
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      await night.read(node!.server.url);
      await redis.pause();
      await night.fires("UserwireRedisUnavailable");
      const [seen, found] = [await readyz(node!), await doctor(env)];
      redis.resume();
      await night.ends("UserwireRedisUnavailable");
      return [["readyz", /"why":"[^"]*Redis/, seen], ["doctor", /✗ redis: [^\n]*Redis/, found]];
    },
  },
  {
    name: "Redis may evict, and does",
    fires: ["UserwireWarnings", "UserwireHistoryLost"],
    may: ["UserwireMessagesMissed", "UserwireSendsUnavailable"],
    async play(night) {
      const args = ["--maxmemory", "16mb", "--maxmemory-policy", "allkeys-random", "--appendonly", "yes"];
      const redis = night.use(await RedisServer.start({ args }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      const clients = await night.open(node!, USERS);
      for (const user of USERS) await node!.send(user, 1);
      for (const client of clients) await client.nextJson();
      await night.read(node!.server.url);
      let n = 0;
      // Others fill it, until histories have to go.
      night.steadily(2, () => redis.cli("SET", `other${n++}`, "x".repeat(65_536)));
      sendAll(night, node!, 10);
      await night.fires("UserwireWarnings");
      await night.fires("UserwireHistoryLost");
      return [
        ["readyz", /"warnings":\[".*maxmemory-policy allkeys-random/, await readyz(node!)],
        ["doctor", /! redis data: .*maxmemory-policy/, await doctor(env)],
        ["redis-cli info stats", /evicted_keys:[1-9]/, await redis.info("stats")],
      ];
    },
  },
  {
    name: "Redis is full",
    fires: ["UserwireSendsUnavailable"],
    may: ["UserwireWarnings", "UserwireRedisUnavailable"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      await night.open(node!, USERS);
      sendAll(night, node!);
      await night.read(node!.server.url);
      await redis.cli("CONFIG", "SET", "maxmemory", 1);
      await night.fires("UserwireSendsUnavailable");
      return [
        ["lines", /as much data as its maxmemory allows/, linesOf(node!, "redis refused a command")],
        ["readyz", /as much data as its maxmemory allows/, await readyz(node!)],
        ["doctor", /as much data as its maxmemory allows/, await doctor(env)],
      ];
    },
  },
  {
    name: "Redis closes subscriptions",
    fires: ["UserwireSubscriptionsLost"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      await night.open(node!, USERS);
      await night.read(node!.server.url);
      await redis.cli("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32768 8192 60");
      await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
      await night.fires("UserwireSubscriptionsLost");
      return [["doctor", /! redis output buffer: .*cuts a node off/, await doctor(env)]];
    },
  },
  {
    name: "A node is killed, and then the other",
    fires: ["UserwireNodeDown", "UserwireNoNodeReady"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [one, other] = [
        night.use(await ProcessService.start(env)),
        night.use(await ProcessService.start(env)),
      ];
      await night.read(one.url, other.url);
      const before = await userwire(`nodes --url ${other.url}`);
      one.signal("SIGKILL");
      const { labels } = await night.fires("UserwireNodeDown");
      assertEquals(labels.instance, new URL(one.url).host);
      let after = before;
      await until(
        async () => (after = await userwire(`nodes --url ${other.url}`)).trim().split("\n").length === 1,
        "the dead node to be gone",
        30_000,
        () => after,
      );
      assert(before.trim().split("\n").length === 2, before);
      assert(!night.fired.has("UserwireNoNodeReady"));
      other.signal("SIGKILL");
      await night.fires("UserwireNoNodeReady");
      const silent = await fetch(new URL("/readyz", other.url)).then(
        (it) => it.text(),
        (error) => `${error}`,
      );
      return [
        ["userwire nodes, on another", new RegExp(`:${new URL(other.url).port}: `), after],
        ["readyz", /refused/i, silent],
      ];
    },
  },
  {
    name: "A node was drained, and forgotten",
    fires: ["UserwireNotReady"],
    async play(night) {
      const [node, other] = await nodes(night, 2, {});
      await night.read(node!.server.url, other!.server.url);
      await userwire(`drain --url ${node!.server.url}`);
      await night.fires("UserwireNotReady");
      const seen = await readyz(node!);
      await userwire(`drain --cancel --url ${node!.server.url}`);
      await night.ends("UserwireNotReady");
      return [["readyz", /"ready":false,"why":"The node is draining"/, seen]];
    },
  },
  {
    name: "A certificate ends",
    fires: ["UserwireCertificateEnded", "UserwireCertificateEnding"],
    async play(night) {
      const certificates = night.use(await Certificates.make());
      await certificates.renew("server", 0);
      const env = {
        USERWIRE_TLS_CERT: certificates.cert("server"),
        USERWIRE_TLS_KEY: certificates.key("server"),
      };
      const [node] = [night.use(await Service.start(env))];
      await night.read(node!.server.url);
      await night.fires("UserwireCertificateEnded");
      await night.fires("UserwireCertificateEnding");
      const ended = await doctor(env);
      await certificates.renew("server", 90);
      const renewed = await doctor(env);
      assert(night.fired.has("UserwireCertificateEnded"), "what is served goes on ending");
      node!.server.reload();
      await night.ends("UserwireCertificateEnded");
      await night.ends("UserwireCertificateEnding");
      return [
        ["doctor", /✗ certificate: USERWIRE_TLS_CERT ended on/, ended],
        ["doctor, with a new one on the disk", /✓ certificate: USERWIRE_TLS_CERT is valid until/, renewed],
      ];
    },
  },
  {
    name: "A webhook hangs",
    fires: ["UserwireWebhookLate", "UserwireRequestsFailed"],
    async play(night) {
      const backend = night.use(new WebhookReceiver());
      const env = {
        ...backend.env,
        USERWIRE_WEBHOOK_EVENTS: "users,requests",
        USERWIRE_WEBHOOK_TIMEOUT_MS: "1000",
      };
      const [node] = await nodes(night, 1, env);
      await night.read(node!.server.url);
      const clients = await night.open(node!, USERS);
      await backend.until(() => backend.online().length === USERS.length, "the backend to know of all");
      backend.answer = backend.hang;
      await night.open(node!, ["late"]);
      let id = 0;
      night.steadily(200, async () => {
        await Promise.resolve();
        clients[id++ % clients.length]!.send(JSON.stringify({ t: "req", id: `${id}`, op: "ask" }));
      });
      await night.fires("UserwireWebhookLate");
      await night.fires("UserwireRequestsFailed");
      return [
        ["userwire webhook test", /in time|1000 ms|1 s/, await userwire("webhook test", env)],
        ["lines", /webhook failed .*reason/, linesOf(node!, "webhook failed")],
        ["lines", /requests not answered .*reason/, linesOf(node!, "requests not answered")],
      ];
    },
  },
  {
    name: "The backend signs tokens with another secret",
    fires: ["UserwireHandshakesRefused"],
    async play(night) {
      const [node] = await nodes(night, 1, { ...CLOSED, USERWIRE_METRICS: "on" });
      await night.read(node!.server.url);
      const token = await tokenFor("alice", {}, { secret: "another secret of thirty-two bytes or more" });
      const headers = { "Sec-WebSocket-Protocol": protocolsFor(token).join(", ") };
      night.steadily(100, async () => {
        await using socket = await RawSocket.open(node!.socketUrl(), { headers });
        assertEquals(socket.answer.status, 401);
      });
      await night.fires("UserwireHandshakesRefused");
      const told = await node!.fetch("/metrics", { headers: { authorization: `Bearer ${KEY.key}` } });
      return [
        ["curl /metrics | grep", /handshakes_refused_total\{code="unauthorized"\} [1-9]/, await told.text()],
        ["lines", /handshake refused .*unauthorized/, linesOf(node!, "handshake refused")],
      ];
    },
  },
  {
    name: "A node is full",
    fires: ["UserwireFull"],
    async play(night) {
      const [node] = await nodes(night, 1, { USERWIRE_MAX_CONNECTIONS: "3" });
      await night.open(node!, USERS.slice(0, 3));
      await night.read(node!.server.url);
      await using refused = await RawSocket.open(node!.socketUrl("one"));
      assertEquals(refused.answer.status, 503);
      await night.fires("UserwireFull");
      const shown = await userwire(`nodes --url ${node!.server.url}`);
      return [["userwire nodes", /3 sockets/, shown], [
        "lines",
        /handshake refused .*full/,
        linesOf(node!, "handshake refused"),
      ]];
    },
  },
  {
    name: "Redis is slow",
    fires: ["UserwireSendsSlow"],
    may: ["UserwireWarnings"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      sendAll(night, node!);
      await night.read(node!.server.url);
      // Somebody else's command holds it up, again and again.
      night.steadily(
        800,
        () => redis.cli("EVAL", "local n = 0 for i = 1, 60000000 do n = n + i end return n", 0),
      );
      await night.fires("UserwireSendsSlow");
      return [
        ["redis-cli slowlog get", /EVAL/, JSON.stringify(await redis.cli("SLOWLOG", "GET", 3))],
        ["doctor", /! redis round trip: an answer takes|✓ redis round trip/, await doctor(env)],
      ];
    },
  },
];
