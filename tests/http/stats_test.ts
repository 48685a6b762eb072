/**
 * `GET /v1/stats` and `GET /v1/doctor`: who may ask, that the numbers are those of `/metrics`, and that streams are few, cost
 * no send anything, and end when the node or the key does.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { oneAtATime } from "../../src/http/api/doctor.ts";
import { OpenFiles } from "../../src/metrics/open_files.ts";
import { EVERY_MS } from "../../src/metrics/samples.ts";
import type { Look } from "../../src/server/app.ts";
import { call, CLOSED, KEY } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { SseClient } from "../../testkit/sse_client.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { openClient } from "../../testkit/ws_client.ts";

function open(service: Service, key?: string): Promise<SseClient> {
  const headers: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
  return SseClient.open(new URL("/v1/stats", service.server.url), { headers });
}

// deno-lint-ignore no-explicit-any -- tests look at whatever comes
async function statsOf(stream: SseClient, count = 1): Promise<any[]> {
  await stream.until(() => stream.of("stats").length >= count, `${count} events`);
  return stream.of("stats");
}

redisTest("Numbers that a stream brings are those of /metrics, /readyz and /v1/nodes", async () => {
  // None is taken in the middle of what it is to tell of.
  using samples = new HeldIntervals(EVERY_MS);
  await using redis = await RedisServer.start();
  await using there = await Service.start({ REDIS_URL: redis.url, USERWIRE_NODE: "there" });
  await using here = await Service.start({ REDIS_URL: redis.url, USERWIRE_NODE: "here" });
  await using alice = await openClient(here.socketUrl("alice"), "userwire.v1");
  await using _bob = await openClient(here.socketUrl("bob"));
  await alice.nextJson();
  for (const to of ["alice", "alice", "carol"]) await here.send(to, 1);
  for (let n = 0; n < 2; n++) await alice.nextJson();

  await using stream = await open(here);
  assertEquals(stream.response.headers.get("content-type"), "text/event-stream");
  assertMatch(stream.response.headers.get("cache-control")!, /no-store/);
  const [{ about, every_ms, samples: seen, readiness, nodes }] = await statsOf(stream);
  assertEquals([about.node, about.webhooks, every_ms], ["here", false, 5_000]);
  const { connections, sends, delivered, send_ms, broker_available } = seen.at(-1);
  assertEquals(connections, { raw: 1, v1: 1, sse: 0 });
  assertEquals([sends.reached, sends.stored, delivered, broker_available], [2, 1, 2, true]);
  assert(send_ms.p50 > 0 && send_ms.p50 <= send_ms.p99);
  const metrics = parseMetrics(await (await here.fetch("/metrics")).text());
  for (const [outcome, count] of Object.entries(sends)) {
    assertEquals(metrics.get(`userwire_sends_total{outcome="${outcome}"}`), count);
  }
  assertEquals(readiness, await (await here.fetch("/readyz")).json());
  assertEquals(nodes.map(({ node }: { node: string }) => node), ["here", "there"]);

  // What comes next is one sample more, and says what was done since.
  await there.send("alice", 1);
  await alice.nextJson();
  samples.run();
  const next = (await statsOf(stream, 2))[1];
  assertEquals([next.samples.length, next.samples[0].delivered, next.about], [1, 3, undefined]);
  await using second = await open(here);
  assertEquals((await statsOf(second))[0].samples.at(-2), next.samples[0], "it was kept");
});

Deno.test("A stream of numbers ends when the node does, and with the key that opened it", async () => {
  using samples = new HeldIntervals(EVERY_MS);
  using folder = new TempFolder("stats");
  const path = `${folder.path}/keys`;
  const gone = newKey("gone", { scopes: ["admin"] });
  Deno.writeTextFileSync(path, `${KEY.line}\n${gone.line}\n`);
  await using service = await Service.start({ USERWIRE_API_KEYS_FILE: path });
  await using kept = await open(service, KEY.key);
  await using lost = await open(service, gone.key);
  await Promise.all([statsOf(kept), statsOf(lost)]);
  Deno.writeTextFileSync(path, `${KEY.line}\n`);
  service.server.reload();
  samples.run();
  await lost.ended();
  assertEquals(lost.of("stats").length, 1, "nothing more was said to it");
  assertEquals(kept.hasEnded, false);
  const ending = service.server.shutdown();
  await kept.ended();
  await ending;
});

Deno.test("Only a key of scope admin sees the numbers, or asks the doctor", async (t) => {
  const look: Look = () => Promise.resolve([{ check: "deno", state: "ok", says: "version 2" }]);
  const weak = newKey("weak", { scopes: ["send", "read", "groups", "tickets", "broadcast"], users: "*|@*" });
  const keys = `${KEY.line},${weak.line}`;
  await using service = await Service.start({ ...CLOSED, USERWIRE_API_KEYS: keys }, { look });
  for (const path of ["/v1/stats", "/v1/doctor"]) {
    for (const method of ["GET", "HEAD"]) {
      await t.step(`${method} ${path}`, async () => {
        const status = async (key: string | undefined) => {
          const headers: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
          const response = await service.fetch(path, { method, headers });
          await response.body?.cancel();
          return response.status;
        };
        assertEquals([await status(undefined), await status("x"), await status(weak.key)], [401, 401, 403]);
        // In the address no key counts: addresses end up in logs.
        const asked = await service.fetch(`${path}?key=${KEY.key}&token=${KEY.key}&access_token=${KEY.key}`);
        assertEquals(asked.status, 401);
        await asked.body?.cancel();
        // HEAD does not wait for the end of a stream.
        assertEquals(await status(KEY.key), 200);
      });
    }
  }
  const page = { headers: { origin: "https://elsewhere.example", authorization: `Bearer ${KEY.key}` } };
  const foreign = await service.fetch("/v1/stats", page);
  assertEquals([foreign.status, (await foreign.json()).code], [403, "origin_not_allowed"]);
});

Deno.test("Sixteen streams of numbers may be open, those too that nobody reads, until they are gone", async () => {
  await using service = await Service.start();
  const status = async () => {
    const stream = await open(service);
    await stream[Symbol.asyncDispose]();
    return stream.response.status;
  };
  {
    const streams = new AsyncDisposableStack();
    // One after the other: what was opened and left does not count.
    for (let i = 0; i < 15; i++) streams.use(await open(service));
    using deaf = await Deno.connect({ port: service.server.port });
    await deaf.write(new TextEncoder().encode("GET /v1/stats HTTP/1.1\r\nhost: localhost\r\n\r\n"));
    await deaf.read(new Uint8Array(64));
    await using refused = await open(service);
    const { status: code, detail } = await refused.problem();
    assertEquals(code, 429);
    assertMatch(detail, /16 streams/);
    await streams.disposeAsync();
  }
  await until(async () => await status() === 200, "the streams to be gone");
});

const FINDINGS = [{ check: "redis", state: "fault", says: "away", remedy: "start it" }] as const;

Deno.test("The doctor is asked once by all who ask at one time, and again by who comes later", async () => {
  let asked = 0;
  const seen: unknown[] = [];
  let answer = Promise.withResolvers<void>();
  const look: Look = async (nodes, files) => {
    asked++;
    seen.push([nodes, typeof files.limit]);
    await answer.promise;
    return FINDINGS;
  };
  const files = new OpenFiles({ limit: 100, read: () => 1 });
  const shared = oneAtATime((nodes) => look(nodes, files));
  const looks = [1, 2, 3].map(() => shared(2));
  assertEquals(asked, 1);
  answer.resolve();
  for (const findings of await Promise.all(looks)) assertEquals(findings, FINDINGS);
  await shared(2);
  assertEquals(asked, 2);

  await using service = await Service.start({}, { look });
  answer = Promise.withResolvers();
  const before = asked;
  const calls = Array.from({ length: 10 }, () => call(service, "GET /v1/doctor", { key: undefined }));
  await until(() => asked > before, "the first to ask");
  answer.resolve();
  // Who comes after that asks again.
  for (const { status, body } of await Promise.all(calls)) {
    assertEquals([status, body], [200, { findings: FINDINGS }]);
  }
  assert(asked - before < calls.length, `${asked - before} looks for ${calls.length} calls`);
  assertEquals(seen.at(-1), [1, "number"]);
});
