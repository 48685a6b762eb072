/**
 * `/metrics`: a text that a strict reader takes, numbers that are what was really done over real sockets, and nobody's
 * name or message in it. `parseMetrics` is the strict reader.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { call, CLOSED, KEY, protocolsFor, SECRET, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { X509Certificate } from "node:crypto";
import { Certificates } from "../../testkit/certificates.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { ENV, MANY, openStalled, sendMany } from "../../testkit/slow_readers.ts";
import { openClient } from "../../testkit/ws_client.ts";
import denoJson from "../../deno.json" with { type: "json" };

/** The samples of a service, under their names without `userwire_`. */
async function read(service: Service): Promise<{ text: string; of: (series: string) => number | undefined }> {
  const response = await service.fetch("/metrics");
  const text = await response.text();
  assertEquals(response.status, 200, text);
  assertMatch(response.headers.get("content-type")!, /^text\/plain; version=0\.0\.4(?:;|$)/);
  const samples = parseMetrics(text);
  return { text, of: (series) => samples.get(`userwire_${series}`) };
}

async function assertSamples(service: Service, expected: Record<string, number>): Promise<void> {
  const { of } = await read(service);
  assertEquals(Object.fromEntries(Object.keys(expected).map((series) => [series, of(series)])), expected);
}

const FRAMED = ["userwire.v1"];

Deno.test("Metrics count what was done: sockets, handshakes, sends, deliveries", async () => {
  await using service = await Service.start();
  const { connections } = service.server.app;
  await assertSamples(service, {
    'connections{mode="raw"}': 0,
    'sends_total{outcome="reached"}': 0,
    messages_delivered_total: 0,
    broker_available: 1,
    redis_reconnects_total: 0,
  });

  await using raw = await openClient(service.socketUrl("alice"));
  await using framed = await openClient(service.socketUrl("alice"), FRAMED);
  assertEquals((await framed.nextJson()).t, "hi");
  await using left = await openClient(service.socketUrl("bob"), FRAMED);
  await left.close(1000);
  await until(() => connections.size === 2, "the third to be gone");
  for (const [name, protocol] of [["a b", null], ["{}", null], ["bob", "other"]] as const) {
    await using refused = await RawSocket.open(service.socketUrl(name), {
      headers: { "Sec-WebSocket-Protocol": protocol },
    });
    assertEquals(refused.answer.status, 400);
  }

  await service.send("alice", { data: "payload" });
  for (const client of [raw, framed]) await client.next();
  await service.send("carol", "payload");
  const path = "/v1/users/carol/messages";
  const post = async (query: string, headers: Record<string, string>, body = "1") => {
    const response = await service.fetch(path + query, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body,
    });
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await post("?expect=online", {}), 404);
  for (let i = 0; i < 3; i++) assertEquals(await post("", { "idempotency-key": "same" }), 202);
  assertEquals(await post("", {}, "{"), 400);

  await assertSamples(service, {
    'connections{mode="raw"}': 1,
    'connections{mode="v1"}': 1,
    'connections_opened_total{mode="raw"}': 1,
    'connections_opened_total{mode="v1"}': 2,
    'connections_closed_total{code="1000"}': 1,
    'handshakes_refused_total{code="invalid_username"}': 2,
    'handshakes_refused_total{code="invalid_handshake"}': 1,
    'sends_total{outcome="reached"}': 1,
    'sends_total{outcome="stored"}': 2,
    'sends_total{outcome="offline"}': 1,
    'sends_total{outcome="repeated"}': 2,
    'sends_total{outcome="refused"}': 1,
    'sends_total{outcome="unavailable"}': 0,
    send_duration_seconds_count: 6,
    messages_delivered_total: 2,
    messages_replayed_total: 0,
  });

  for (const client of [raw, framed]) await client.close();
  await service.isEmpty();
  // The log counts on its own.
  const closed = service.logged("connection closed");
  const sum = (field: string) => closed.reduce((sum, { fields }) => sum + Number(fields[field]), 0);
  await assertSamples(service, {
    'connections{mode="raw"}': 0,
    'connections{mode="v1"}': 0,
    messages_delivered_total: sum("messages"),
    delivered_bytes_total: sum("bytes"),
  });
  const { text } = await read(service);
  for (const word of ["alice", "bob", "carol", "payload", "same"]) assert(!text.includes(word), word);
});

Deno.test("Metrics count what is replayed, and what is announced as missing", async () => {
  await using service = await Service.start({ USERWIRE_HISTORY: "2" });
  const url = service.socketUrl("alice");
  let pos: unknown;
  {
    await using alice = await openClient(url, FRAMED);
    ({ pos } = await alice.nextJson());
  }
  for (let n = 1; n <= 5; n++) await service.send("alice", n);
  await using alice = await openClient(`${url}&resume=${pos}`, FRAMED);
  const types = [];
  for (let i = 0; i < 4; i++) types.push((await alice.nextJson()).t);
  assertEquals(types, ["hi", "gap", "m", "m"]);
  await using stranger = await openClient(`${url}&resume=elsewhere.7`, FRAMED);
  for (const t of ["hi", "gap", "gap", "m", "m"]) assertEquals((await stranger.nextJson()).t, t);
  await assertSamples(service, {
    'gaps_total{why="trimmed"}': 2,
    'gaps_total{why="epoch"}': 1,
    messages_missed_total: 6,
    messages_delivered_total: 4,
    messages_replayed_total: 4,
  });
});

Deno.test("Metrics count sockets that were closed before they were let in, and bound the codes", async () => {
  await using service = await Service.start(CLOSED);
  const headers = { authorization: `Bearer ${KEY.key}` };
  const token = await tokenFor("alice");
  await using stranger = await openClient(service.socketUrl());
  stranger.send("{}");
  assertEquals((await stranger.closed).code, 4401);
  await using alice = await openClient(service.socketUrl(), protocolsFor(token));
  assertEquals((await alice.nextJson()).t, "hi");
  // A client may close with any code above 3000: they must not become as many series.
  await alice.close(3_999);
  await service.isEmpty();
  const text = await (await service.fetch("/metrics", { headers })).text();
  for (const word of ["alice", "tests", KEY.key, token]) assert(!text.includes(word), word);
  assertEquals(
    [...parseMetrics(text)].filter(([series, count]) => /_(closed|failed)_total/.test(series) && count > 0),
    [
      ['userwire_connections_closed_total{code="other"}', 1],
      ['userwire_connections_failed_total{code="4401"}', 1],
    ],
  );
});

redisTest("Metrics count what happens to Redis, and say when it can't be used", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  await using alice = await openClient(service.socketUrl("alice"), FRAMED);
  await alice.nextJson();
  const reads = async (expected: Record<string, number>) => {
    const { of } = await read(service);
    return Object.entries(expected).every(([series, value]) => of(series) === value);
  };
  await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
  await until(() => reads({ subscription_interruptions_total: 1 }), "the interruption to be counted");
  await redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
  await until(() => reads({ redis_reconnects_total: 1, broker_available: 1 }), "Redis to be back");

  await using cutOff = await Service.start({ REDIS_URL: "redis://127.0.0.1:1" });
  assertEquals((await cutOff.send("alice", 1)).status, 503);
  await using refused = await RawSocket.open(cutOff.socketUrl("alice"));
  assertEquals(refused.answer.status, 503);
  // Each service of a process has numbers of its own.
  await assertSamples(cutOff, {
    broker_available: 0,
    'sends_total{outcome="unavailable"}': 1,
    'handshakes_refused_total{code="broker_unavailable"}': 1,
    'connections_opened_total{mode="v1"}': 0,
    subscription_interruptions_total: 0,
  });
});

Deno.test("Metrics count from 0 what may be refused, closed or told: the first of it is a rise", async () => {
  await using service = await Service.start();
  const zeros = {
    'handshakes_refused_total{code="full"}': 0,
    'handshakes_refused_total{code="unauthorized"}': 0,
    'connections_closed_total{code="4508"}': 0,
    'connections_closed_total{code="other"}': 0,
    'connections_failed_total{code="4408"}': 0,
    'webhooks_total{type="users.changed",outcome="failed"}': 0,
    'webhooks_total{type="client.request",outcome="refused"}': 0,
    log_lines_lost_total: 0,
    events_dropped_total: 0,
  };
  await assertSamples(service, zeros);
  await using refused = await RawSocket.open(service.socketUrl("a b"));
  assertEquals(refused.answer.status, 400);
  const { of } = await read(service);
  const series = [...parseMetrics((await read(service)).text).keys()];
  assertEquals(of('handshakes_refused_total{code="invalid_username"}'), 1);
  assertEquals(new Set(series).size, series.length);
  assert(series.length < 300, "a node is no burden to Prometheus");
});

Deno.test("Metrics say whether the node is ready, as /readyz does, and when it is warned", async () => {
  await using service = await Service.start();
  await assertSamples(service, { ready: 1, warnings: 0 });
  await (await service.fetch("/v1/drain", { method: "POST" })).body?.cancel();
  assertEquals((await service.readiness()).status, 503);
  await assertSamples(service, { ready: 0 });
  await (await service.fetch("/v1/drain", { method: "DELETE" })).body?.cancel();
  await assertSamples(service, { ready: 1 });
});

redisTest("Metrics count the warnings of a Redis that may lose data", async () => {
  await using redis = await RedisServer.start({
    args: ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
  });
  await using service = await Service.start({ REDIS_URL: redis.url });
  const { warnings } = await service.readiness();
  assert(warnings.some((text) => text.includes("maxmemory-policy")), String(warnings));
  await assertSamples(service, { ready: 1, warnings: warnings.length });
});

Deno.test("Metrics say when the certificates end that are in use, also after a new one was read", async () => {
  await using certificates = await Certificates.make();
  const [cert, key] = [certificates.cert("served"), certificates.key("served")];
  const put = async (name: string) => {
    await Deno.copyFile(certificates.cert(name), cert);
    await Deno.copyFile(certificates.key(name), key);
    return Date.parse(new X509Certificate(await Deno.readTextFile(cert)).validTo) / 1_000;
  };
  const first = await put("server");
  await using service = await Service.start({ USERWIRE_TLS_CERT: cert, USERWIRE_TLS_KEY: key });
  using client = Deno.createHttpClient({ caCerts: [certificates.ca] });
  const served = async () => {
    const text = await (await fetch(new URL("/metrics", service.server.url), { client })).text();
    return parseMetrics(text).get('userwire_certificate_end_seconds{setting="USERWIRE_TLS_CERT"}');
  };
  assertEquals(await served(), first);
  await certificates.renew("other", 9);
  const second = await put("other");
  assert(second > first);
  assertEquals(await served(), first, "what lies on the disk is not served yet");
  service.server.reload();
  await until(async () => await served() === second, "the new certificate to be counted");

  await using plain = await Service.start();
  assert(
    ![...parseMetrics((await read(plain)).text).keys()].some((series) => series.includes("certificate")),
  );
});

Deno.test("Metrics say which version runs, since when, and with how much memory", async () => {
  await using service = await Service.start();
  const { text } = await read(service);
  const samples = parseMetrics(text);
  assertEquals(samples.get(`userwire_build_info{version="${denoJson.version}"}`), 1);
  const startS = samples.get("process_start_time_seconds")!;
  assert(startS > 1_600_000_000 && startS <= Date.now() / 1_000, "in seconds");
  assert(samples.get("process_resident_memory_bytes")! > 2 ** 20, "in bytes");
});

Deno.test("Metrics are behind a key except in open mode, for all, or off", async () => {
  const reader = newKey("reader", { scopes: ["read"], users: "nobody" });
  const sender = newKey("sender", { scopes: ["send"] });
  const keys = { USERWIRE_API_KEYS: `${reader.line},${sender.line}` };
  const statuses = async (env: Record<string, string>) => {
    await using service = await Service.start(env);
    const answers = [undefined, sender.key, reader.key].map((key) => call(service, "GET /metrics", { key }));
    const { body } = await call(service, "GET /openapi.json", { key: undefined });
    return [...(await Promise.all(answers)).map(({ status }) => status), "/metrics" in body.paths];
  };
  assertEquals(await statuses({}), [200, 200, 200, true], "in open mode nobody has a key");
  assertEquals(await statuses(keys), [401, 403, 200, true]);
  assertEquals(await statuses({ USERWIRE_JWT_SECRET: SECRET }), [401, 401, 401, true]);
  assertEquals(await statuses({ ...keys, USERWIRE_METRICS: "on" }), [200, 200, 200, true]);
  assertEquals(await statuses({ ...keys, USERWIRE_METRICS: "off" }), [404, 404, 404, false]);
});

Deno.test("Metrics are all in docs/metrics.md, and no others", async () => {
  await using service = await Service.start();
  const { text } = await read(service);
  const page = await Deno.readTextFile(new URL("../../docs/metrics.md", import.meta.url));
  const described = [...page.matchAll(/^\| `(\w+)`\s+\| (\w+)/gm)].map(([, name, type]) => `${name} ${type}`);
  const there = [...text.matchAll(/^# TYPE (.+)$/gm)].map(([, type]) => type!);
  assertEquals(described.sort(), there.sort());
});

Deno.test("Metrics say how many connections lag, until their clients read again or are gone", async () => {
  await using service = await Service.start(ENV);
  const lagging = async () => (await read(service)).of("connections_lagging");
  await using reads = await openStalled(service);
  await using leaves = await openStalled(service);
  assertEquals(await lagging(), 0);
  const { publisher } = service.server.app;
  await sendMany(publisher, MANY);
  assertEquals(await lagging(), 2);
  await leaves.reset();
  await until(async () => await lagging() === 1, "the one that left to be gone");
  reads.resumeReading();
  await until(async () => await lagging() === 0, "the other to have read");
});
