/** How several processes on one port end, and are replaced, when their supervisor is told to. */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { connect } from "../../src/client/mod.ts";
import { Inbox } from "../../testkit/client_watch.ts";
import { until } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { SteadySender } from "../../testkit/steady_sender.ts";
import { isAlive, Supervised } from "../../testkit/supervised.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { openClient } from "../../testkit/ws_client.ts";

const V1 = ["userwire.v1"];

function pidsOf({ records }: ProcessService): number[] {
  return records.filter(({ event }) => event === "process started").map(({ pid }) => Number(pid));
}

redisTest("SIGUSR2, SIGHUP and SIGTERM, one after the other", async (t) => {
  await using redis = await RedisServer.start();
  await using both = await Supervised.start({ REDIS_URL: redis.url });
  await t.step(
    "SIGUSR2 replaces one process after the other, and no message is lost",
    () => replaceAll(both),
  );
  await t.step("SIGHUP reaches each, and SIGTERM drains all and ends with 0", () => reloadAndEnd(both));
});

async function replaceAll(both: Supervised): Promise<void> {
  const users = ["alice", "bob", "carl", "dora", "emil", "fay"];
  const before = [1, 2].map((number) => both.pidOf(number));
  const clients = users.map((user) =>
    new Inbox(connect(both.url, { user, backoff: { baseMs: 20, maxMs: 200 } }))
  );
  try {
    for (const client of clients) await client.state("open", 10_000);
    await using sender = new SteadySender({ users, url: () => both.url, perSecond: 60 });
    both.service.signal("SIGUSR2");
    await both.service.logged("rolling restart done", 60_000);
    await sender.end();
    for (const [i, client] of clients.entries()) {
      const accepted = sender.accepted.get(users[i]!)!;
      assertGreater(accepted.length, 0);
      await client.received(accepted.length, 20_000);
      const numbers = accepted.map(({ seq }) => seq).sort((a, b) => a - b);
      assertEquals(client.list, numbers, `${users[i]} got each once and in order, and no gap`);
    }
    assert(clients.every(({ lost }) => lost.length >= 1), "each client was sent away at least once");
  } finally {
    for (const { client } of clients) await client.close();
  }
  await both.areReady(2);
  for (const pid of before) assertEquals(await isAlive(pid), false);
  const ends = both.service.records.filter(({ event }) => event.startsWith("process ended"));
  assertEquals(ends, [], "they were asked to end");
}

async function reloadAndEnd(both: Supervised): Promise<void> {
  await using sockets = new AsyncDisposableStack();
  const clients: Awaited<ReturnType<typeof openClient>>[] = [];
  await both.openOnBoth("alice", (client) => clients.push(sockets.use(client)), V1);
  const { service } = both;
  const numbers = (await both.readiness()).processes.map(({ process }) => process);
  service.signal("SIGHUP");
  for (const process of numbers) await service.logged("reloaded", undefined, { process });

  const { length } = service.records;
  service.signal("SIGTERM");
  for (const client of clients) assertEquals((await client.closed).code, 1012);
  assertEquals((await service.ended()).code, 0);
  const stopped = service.records.slice(length).filter(({ event }) => event === "stopped");
  assertEquals(stopped.map(({ process }) => process).sort(), numbers);
  assertEquals(service.records.at(-1)!.event, "processes stopped");
  assertEquals(service.records.filter(({ level }) => level === "error"), []);
}

redisTest(
  "All processes drain, and write what they are told to, by a signal and by the port for operators",
  async () => {
    await using redis = await RedisServer.start();
    using folder = new TempFolder("several");
    const path = `${folder}/userwire.json`;
    Deno.writeTextFileSync(path, '{"USERWIRE_PING_S": 77}');
    await using both = await Supervised.start({ REDIS_URL: redis.url }, {
      args: ["serve", "--config", path],
    });
    const call = async (path: string, method = "GET", body?: string) => {
      const headers = { "content-type": "application/json" };
      const response = await fetch(new URL(path, both.opsUrl), { method, headers, ...(body && { body }) });
      return { status: response.status, answer: await response.json() };
    };
    await using sockets = new AsyncDisposableStack();
    const clients: Awaited<ReturnType<typeof openClient>>[] = [];
    await both.openOnBoth("alice", (client) => clients.push(sockets.use(client)), V1);
    // Each process has read the file.
    for (const client of clients) assertEquals(JSON.parse(String(await client.next())).ping, 77);

    both.service.signal("SIGUSR1");
    for (const client of clients) assertEquals((await client.closed).code, 1012);
    const { answer: { processes } } = await call("v1/drain");
    assertEquals(processes.map(({ process, draining }: Record<string, unknown>) => [process, draining]), [[
      1,
      true,
    ], [2, true]]);
    assertEquals((await both.readiness()).status, 503);
    await call("v1/drain", "DELETE");
    await both.areReady(2);
    assertEquals((await call("v1/drain", "POST")).answer.processes[1].draining, true);

    const put = await call("v1/log-level", "PUT", '{"level":"debug","area":"http"}');
    assertEquals(
      put.answer.processes.map(({ areas }: { areas: unknown }) => areas),
      Array(2).fill({
        ...{ service: "info", http: "debug", session: "info", redis: "info", auth: "info", webhooks: "info" },
      }),
    );
    assertEquals((await call("v1/log-level", "PUT", '{"level":"loud"}')).status, 400);
    assertEquals((await call("v1/log-level", "PUT", `{"level":"${"x".repeat(2_000)}"}`)).status, 413);
    assertEquals((await call("v1/log-level", "DELETE")).status, 405);
    // On the port that they share a random one would answer.
    const shared = await fetch(new URL("v1/drain", both.url), { method: "POST" });
    assertEquals([shared.status, (await shared.json()).code], [404, "not_found"]);
  },
);

redisTest("Signals that reach every process, as systemd sends them to a unit, count once", async () => {
  await using redis = await RedisServer.start();
  await using service = await ProcessService.start({
    REDIS_URL: redis.url,
    USERWIRE_PROCESSES: "2",
    USERWIRE_DRAIN_S: "1",
  });
  await service.logged("processes started", 30_000);
  const pids = pidsOf(service);
  const toAll = (name: Deno.Signal) => {
    for (const pid of pids) Deno.kill(pid, name);
    service.signal(name);
  };
  toAll("SIGUSR2");
  await service.logged("rolling restart done", 60_000);
  pids.splice(0, 2, ...pidsOf(service).slice(-2));
  await using client = await openClient(service.socketUrl("alice"), V1);
  toAll("SIGTERM");
  assertEquals((await client.closed).code, 1012);
  assertEquals((await service.ended()).code, 0);
  const ends = service.records.filter(({ event }) => event.startsWith("process ended"));
  assertEquals(ends, []);
});

redisTest("A second signal ends all processes at once", async () => {
  await using redis = await RedisServer.start();
  await using service = await ProcessService.start({
    REDIS_URL: redis.url,
    USERWIRE_PROCESSES: "2",
    USERWIRE_DRAIN_S: "60",
  });
  await service.logged("processes started", 30_000);
  // Never answers the Close frame, so that the drain waits for it.
  await using _mute = await RawSocket.open(service.socketUrl("bob"));
  const pids = pidsOf(service);
  service.signal("SIGTERM");
  await service.logged("processes shutting down");
  // Within the first moments a signal may be the same one, passed on.
  const again = setInterval(() => service.signal("SIGTERM"), 400);
  try {
    const { code } = await service.ended();
    // One may come when nobody listens any more.
    assert(code === 1 || code === 143, `it ended with ${code}`);
  } finally {
    clearInterval(again);
  }
  for (const pid of pids) await until(async () => !await isAlive(pid), `process ${pid} to end`);
});

const MOMENTS: readonly [event: string, like: Readonly<Record<string, unknown>>][] = [
  ["process started", { process: 1 }],
  ["listening", { process: 1 }],
  // The first has nobody to send away: it ends long before the second has started.
  ["process started", { process: 2 }],
  ["listening", { process: 2 }],
];

redisTest("SIGTERM in the middle of the start ends all in order", async () => {
  await using redis = await RedisServer.start();
  for (const [event, like] of MOMENTS) {
    // One that is still starting ends when it has started; the drain is the time that it has for that.
    const env = { REDIS_URL: redis.url, USERWIRE_PROCESSES: "2", USERWIRE_DRAIN_S: "60" };
    await using service = await ProcessService.start(env, { until: "process started" });
    await service.logged(event, 30_000, like);
    service.signal("SIGTERM");
    await endsInOrder(service, `${event} ${JSON.stringify(like)}`);
  }
});

redisTest("SIGTERM in the middle of a rolling restart ends all in order", async () => {
  await using redis = await RedisServer.start();
  for (const event of ["process started", "listening"]) {
    const env = { REDIS_URL: redis.url, USERWIRE_PROCESSES: "2", USERWIRE_DRAIN_S: "60" };
    await using service = await ProcessService.start(env, { until: "processes started" });
    service.signal("SIGUSR2");
    await service.logged(event, 30_000, { process: 3 });
    service.signal("SIGTERM");
    await endsInOrder(service, `${event} of the new process`);
  }
});

/** @param when When it was signalled. */
async function endsInOrder(service: ProcessService, when: string): Promise<void> {
  const { code } = await service.ended(60_000);
  assertEquals(code, 0, `signalled at ${when}: ${service.lastWords()}`);
  assertEquals(service.records.at(-1)!.event, "processes stopped");
  const started = service.records.filter(({ event }) => event === "process started").length;
  const stopped = service.records.filter(({ event }) => event === "stopped").length;
  assertEquals(stopped, started, `signalled at ${when}: ${service.lastWords()}`);
  for (const pid of pidsOf(service)) assertEquals(await isAlive(pid), false);
}
