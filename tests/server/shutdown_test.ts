/**
 * The end of a service: clients are told and sent away in their own time, nobody can hold it up, and the exit code
 * says how it went. What only a process has (signals, exit codes) is tried on real ones.
 */
import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import { serve } from "../../src/server/run.ts";
import { loadConfig } from "../../testkit/config.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service, Truth } from "../../testkit/service.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

const V1 = { headers: { "Sec-WebSocket-Protocol": "userwire.v1" } };

/** The end, which some of these would hold up for ever if they could. */
const END_MS = 20_000;

/** Reads `hi`, then `bye`, and returns when to come back, in milliseconds. */
async function readBye(client: WsClient): Promise<number> {
  assertEquals((await client.nextJson()).t, "hi");
  const { retry_ms, ...bye } = await client.nextJson(20_000);
  assertEquals(bye, { t: "bye", code: 1012, why: "restart" });
  return retry_ms as number;
}

/** A client that takes nothing any more, with megabytes for it in the server. */
async function openStuckReader(service: { url: string; socketUrl(username: string): string }) {
  const socket = await RawSocket.open(service.socketUrl("stuck"), V1);
  socket.stopReading();
  for (let i = 0; i < 30; i++) {
    const response = await fetch(new URL("/v1/users/stuck/messages", service.url), {
      method: "POST",
      headers: { "content-type": "text/plain" },
      body: "x".repeat(400_000),
    });
    assertEquals((await response.json()).sockets, 1);
  }
  return socket;
}

const ROOMY = { USERWIRE_MAX_BODY_BYTES: "1000000", USERWIRE_MAX_BUFFERED_BYTES: "100000000" };

// ---------------------------------------------------------------------------------------------------------
// Signals

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  redisTest(`${signal} sends every client away with 1012 and ends the process with code 0`, async () => {
    await using redis = await RedisServer.start();
    await using service = await ProcessService.start({ REDIS_URL: redis.url });
    await using framed = await openClient(service.socketUrl("alice"), ["userwire.v1"]);
    await using raw = await openClient(service.socketUrl("bob"));
    await using unnamed = await openClient(service.socketUrl());

    service.signal(signal);

    const retryMs = await readBye(framed);
    assert(retryMs >= 0 && retryMs <= 1_000, `retry_ms is ${retryMs}`);
    for (const client of [framed, raw, unnamed]) {
      assertEquals(await client.closed, { code: 1012, reason: "restart" });
    }
    assertEquals([raw.waiting, unnamed.waiting], [[], []]);
    assertEquals((await service.ended()).code, 0);
    assertEquals((await new Truth(redis).subscribers()).length, 0);
    assertEquals(service.records.filter(({ event }) => event === "connection closed").length, 2);
    assertEquals(service.records.at(-1)!.event, "stopped");
    assertEquals(service.records.filter(({ level }) => level === "error"), []);
    const [file] = [...Deno.readDirSync(service.logDir)];
    assertStringIncludes(await Deno.readTextFile(`${service.logDir}/${file!.name}`), '"event":"stopped"');
  });
}

for (const chunked of [false, true]) {
  const kind = chunked ? "in chunks" : "of known length";
  Deno.test(`A body ${kind} that is still coming at the end is answered 503, so that a proxy asks another node`, async () => {
    await using service = await ProcessService.start({ USERWIRE_DRAIN_S: "0", LOG_LEVEL: "debug" });
    const { port } = new URL(service.url);
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
    const head = [
      "POST /v1/users/alice/messages HTTP/1.1",
      `Host: 127.0.0.1:${port}`,
      "Content-Type: text/plain",
      "Expect: 100-continue",
      chunked ? "Transfer-Encoding: chunked" : "Content-Length: 10",
    ];
    const writer = connection.writable.getWriter();
    await writer.write(new TextEncoder().encode(`${head.join("\r\n")}\r\n\r\n`));
    const reader = connection.readable.pipeThrough(new TextDecoderStream()).getReader();
    const asked = await withDeadline(reader.read(), END_MS, "the service to read the body");
    assertEquals(asked.value, "HTTP/1.1 100 Continue\r\n\r\n");

    service.signal("SIGTERM");

    let answer = "";
    const read = async () => {
      for (let part; !(part = await reader.read()).done;) answer += part.value;
    };
    await withDeadline(read(), END_MS, "the service to hang up", () => answer);
    assert(answer.startsWith("HTTP/1.1 503 "), answer);
    assertStringIncludes(answer, '"code":"draining"');
    assertEquals((await service.ended()).code, 0);
  });
}

Deno.test("SIGTERM to deno task start reaches the service", async () => {
  await using service = await ProcessService.start({}, { through: "task" });
  await using client = await openClient(service.socketUrl("alice"), ["userwire.v1"]);
  service.signal("SIGTERM");
  await readBye(client);
  assertEquals((await client.closed).code, 1012);
  assertEquals((await service.ended()).code, 0);
});

Deno.test("Ctrl+C under deno task start, which reaches the service twice, still drains", async () => {
  await using service = await ProcessService.start({ USERWIRE_DRAIN_S: "1" }, { through: "task" });
  await using client = await openClient(service.socketUrl("alice"), ["userwire.v1"]);
  // Never answers the Close frame: the second one comes while the drain waits for it.
  await using _mute = await RawSocket.open(service.socketUrl("bob"));
  service.signal("SIGINT", { toGroup: true });
  await readBye(client);
  assertEquals((await client.closed).code, 1012);
  assertEquals((await service.ended()).code, 0);
  assertEquals(service.records.at(-1)!.event, "stopped");
});

Deno.test("A stuck reader does not hold up the end beyond the deadline", async () => {
  await using service = await ProcessService.start({ ...ROOMY, USERWIRE_DRAIN_S: "1" });
  await using _stuck = await openStuckReader(service);
  await using client = await openClient(service.socketUrl("alice"), ["userwire.v1"]);

  service.signal("SIGTERM");
  await readBye(client);
  assertEquals((await client.closed).code, 1012);
  assertEquals((await service.ended(END_MS)).code, 0);
  const late = service.records.find(({ event }) => event === "sockets did not answer the close");
  // Where the machine stood still at its end, the other's answer may have come too late as well.
  assert(late !== undefined && [1, 2].includes(Number(late.sockets)), JSON.stringify(late));
  assertEquals(service.records.at(-1)!.event, "stopped");
});

Deno.test("Clients that left during their handshake do not hold up the end", async () => {
  await using service = await ProcessService.start({ USERWIRE_MAX_CONNECTIONS_PER_USER: "0" });
  for (let i = 0; i < 20; i++) {
    const socket = await RawSocket.dial(service.socketUrl("alice"));
    socket.sendHandshake();
    await socket.reset();
  }
  await using client = await openClient(service.socketUrl("alice"), ["userwire.v1"]);

  service.signal("SIGTERM");
  await readBye(client);
  assertEquals((await service.ended(END_MS)).code, 0);
  assertEquals(service.records.filter(({ level }) => level === "error"), []);
});

Deno.test("A second signal ends the process at once", async () => {
  await using service = await ProcessService.start({ ...ROOMY, USERWIRE_DRAIN_S: "60" });
  await using _stuck = await openStuckReader(service);
  service.signal("SIGTERM");
  await service.logged("shutting down");

  // Within the first moments a signal may be the same one, passed on; so somebody impatient presses again and again. One
  // of them may come when nobody listens any more, which is 130: also then the log is whole.
  await until(
    () => {
      for (const endMs = performance.now() + 100; performance.now() < endMs;) service.signal("SIGINT");
      return service.hasEnded;
    },
    "the process to end",
    20_000, // a third of the drain
  );

  assert([1, 130].includes((await service.ended()).code));
  const [file] = [...Deno.readDirSync(service.logDir)];
  assertStringIncludes(await Deno.readTextFile(`${service.logDir}/${file!.name}`), '"event":"shutting down"');
});

redisTest("A hung Redis does not hold up the end", async () => {
  await using redis = await RedisServer.start();
  await using service = await ProcessService.start({ REDIS_URL: redis.url, USERWIRE_DRAIN_S: "1" });
  await using stack = new AsyncDisposableStack();
  const clients = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => stack.use(await openClient(service.socketUrl(`user${i}`)))),
  );
  await redis.pause();
  await using inHandshake = await RawSocket.dial(service.socketUrl("late"));
  inHandshake.sendHandshake();

  service.signal("SIGTERM");
  for (const client of clients) assertEquals((await client.closed).code, 1012);
  assertEquals((await service.ended(END_MS)).code, 0);
  redis.resume();
  await new Truth(redis).isEmpty();
});

// ---------------------------------------------------------------------------------------------------------
// The drain

Deno.test("A draining service takes nobody in, says so, and lives until its last client has answered", async () => {
  await using service = await Service.start({ USERWIRE_DRAIN_S: "600" });
  await using alice = await RawSocket.open(service.socketUrl("alice"));
  const ended = service.server.shutdown();
  assertEquals((await alice.readClose()).code, 1012);

  const { status, why, connections } = await service.readiness();
  assertEquals([status, why, connections], [503, "The node is shutting down", 0]);
  const health = await service.fetch("/healthz");
  assertEquals([health.status, await health.json()], [200, { status: "ok" }]);
  for (const username of ["bob", undefined]) {
    await using bob = await RawSocket.open(service.socketUrl(username));
    assertEquals([bob.answer.status, JSON.parse(bob.answer.body).code], [503, "draining"]);
    assertEquals(bob.answer.headers.get("retry-after"), "1");
  }
  assertEquals((await service.send("alice", "too late")).body.sockets, 0);
  assertEquals(service.logged("stopped"), []);

  alice.sendClose(1012);
  await withDeadline(ended, 20_000, "the end");
  assertEquals(service.logged("stopped").length, 1);
  assertEquals(service.logged("sockets did not answer the close"), []);
});

redisTest("A drain spreads its clients over time, and their return too", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url, USERWIRE_DRAIN_S: "20" });
  const clients: WsClient[] = [];
  for (let i = 0; i < 500; i += 50) {
    clients.push(
      ...await Promise.all(Array.from({ length: 50 }, (_, k) => {
        return openClient(service.socketUrl(`user${i + k}`), ["userwire.v1"]);
      })),
    );
  }
  assertEquals((await new Truth(redis).subscribers()).length, 500);

  const startedAt = performance.now();
  const ended = service.server.shutdown();
  const ends = await Promise.all(clients.map(async (client) => {
    const retryMs = await readBye(client);
    const { code } = await client.closed;
    return { code, retryMs, atMs: performance.now() - startedAt };
  }));
  await ended;

  assertEquals(new Set(ends.map(({ code }) => code)), new Set([1012]));
  const times = ends.map(({ atMs }) => atMs).sort((a, b) => a - b);
  // 200 a second, and not all when the time is over.
  assertGreater(times[250]!, 1_000);
  assertGreater(times[499]!, 2_000);
  assertLess(times[499]!, 600_000);
  const retries = new Set(ends.map(({ retryMs }) => retryMs));
  assertGreater(retries.size, 250);
  assertGreater(Math.max(...retries), 1_500);
  assertEquals((await new Truth(redis).subscribers()).length, 0);
  assertEquals(service.logged("connection closed").length, 500);
});

Deno.test("Server.shutdown may be called any number of times, and a drain of no time cuts all off", async () => {
  await using service = await Service.start({ USERWIRE_DRAIN_S: "0" });
  await using alice = await openClient(service.socketUrl("alice"));
  await Promise.all([service.server.shutdown(), service.server.shutdown()]);
  await service.server.shutdown();
  assert([1012, 1001, 0].includes((await alice.closed).code));
  assertEquals(service.logged("stopped").length, 1);
});

Deno.test("A signal that was aborted before the start ends the service as soon as it has started", async () => {
  using logs = new TempFolder("aborted");
  const config = loadConfig({ env: { PORT: "0", USERWIRE_DRAIN_S: "0", LOG_DIR: logs.path } });
  assertEquals(
    await withDeadline(serve(config, { stop: AbortSignal.abort() }), 10_000, "the service to end"),
    0,
  );
});
