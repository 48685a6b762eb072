/** Several processes on one port, as real ones with a real Redis: what they are together, and what ends one of them. */
import { assert, assertEquals, assertGreater, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname } from "node:path";
import { newKey } from "../../src/auth/keys.ts";
import { connect } from "../../src/client/mod.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { Inbox } from "../../testkit/client_watch.ts";
import { KEY } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { SteadySender } from "../../testkit/steady_sender.ts";
import { isAlive, Supervised } from "../../testkit/supervised.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { openClient } from "../../testkit/ws_client.ts";

const V1 = ["userwire.v1"];

/** Sends by a connection of its own, which leads to any of the processes. */
async function send(url: string, user: string, data: unknown): Promise<{ sockets: number }> {
  using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  const response = await fetch(new URL(`v1/users/${user}/messages`, url), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(data),
    client,
  });
  return await response.json();
}

function pidsOf({ records }: ProcessService): number[] {
  return records.filter(({ event }) => event === "process started").map(({ pid }) => Number(pid));
}

/** Runs a service that is not to start, and returns what it said and its exit code. */
async function startInVain(
  env: Record<string, string>,
  [command, ...args]: string[] = [Deno.execPath(), "run", "-A", "main.ts"],
) {
  using folder = new TempFolder("processes");
  const { code, stdout, stderr } = await new Deno.Command(command!, {
    args,
    cwd: new URL("../../", import.meta.url),
    env: {
      PORT: "0",
      // By itself it takes the port after PORT, which another test may have.
      USERWIRE_OPS_PORT: "0",
      LOG_DIR: folder.path,
      LOG_FORMAT: "json",
      NO_COLOR: "1",
      USERWIRE_PROCESSES: "2",
      ...env,
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

// ---------------------------------------------------------------------------------------------------------
// Together

redisTest(
  "Two processes serve on one port, and a send through any of them reaches the sockets of both",
  async () => {
    await using redis = await RedisServer.start();
    await using both = await Supervised.start({ REDIS_URL: redis.url });
    await using sockets = new AsyncDisposableStack();
    const clients: Awaited<ReturnType<typeof openClient>>[] = [];
    const count = await both.openOnBoth("alice", (client) => clients.push(sockets.use(client)));

    const sends = async () => {
      const text = await (await fetch(new URL("metrics", both.opsUrl))).text();
      const samples = parseMetrics(text);
      return [1, 2].map((k) => samples.get(`userwire_sends_total{process="${k}",outcome="reached"}`)!);
    };
    let n = 0;
    for (; n < 40 && (await sends()).includes(0); n++) {
      assertEquals((await send(both.url, "alice", n)).sockets, count);
    }
    assert(!(await sends()).includes(0), "both have sent");
    for (const client of clients) {
      for (let i = 0; i < n; i++) assertEquals(await client.next(), `${i}`);
    }
    const { processes } = await both.readiness();
    assertEquals(processes.map(({ node }) => /#\d$/.exec(node!)![0]), ["#1", "#2"]);
  },
);

redisTest("A process that is killed is replaced, and the sockets of the other live on", async () => {
  await using redis = await RedisServer.start();
  await using both = await Supervised.start({ REDIS_URL: redis.url });
  await using sockets = new AsyncDisposableStack();
  const clients: Awaited<ReturnType<typeof openClient>>[] = [];
  const count = await both.openOnBoth("alice", (client) => clients.push(sockets.use(client)));
  const { processes } = await both.readiness();
  const left = processes.find(({ process }) => process === 2)!.connections!;

  Deno.kill(both.pidOf(1), "SIGKILL");
  const { process, signal } = await both.service.logged("process ended: it is started again");
  assertEquals([process, signal], [1, "SIGKILL"]);
  await until(
    async () => (await send(both.url, "alice", "still here")).sockets === left,
    "those of the other",
  );
  await both.areReady(2);
  const numbers = (await both.readiness()).processes.map(({ process }) => process);
  assertEquals(numbers, [1, 2]);
  let open = 0;
  for (const client of clients) open += Number(client.waiting.length > 0);
  assertEquals([open, count > left], [left, true], "each of them got it");
  assert(both.service.records.every(({ event }) => event !== "processes shutting down"));
});

redisTest(
  "What one of the processes writes is in a file of its own, and says which it is on the console",
  async () => {
    await using redis = await RedisServer.start();
    await using both = await Supervised.start({ REDIS_URL: redis.url, USERWIRE_NODE: "web:1" });
    const files = [...Deno.readDirSync(both.service.logDir)].map(({ name }) => name).sort();
    assertEquals(files, ["userwire-web_1.log", "userwire-web_1_1.log", "userwire-web_1_2.log"]);
    const listening = both.service.records.filter(({ event }) => event === "listening");
    assertEquals(listening.map(({ process, node }) => [process, node]).sort(), [[1, "web:1#1"], [
      2,
      "web:1#2",
    ]]);
  },
);

redisTest(
  "auto starts a process for each core; they share a port with TLS too, and take a new certificate",
  async () => {
    await using redis = await RedisServer.start();
    await using certificates = await Certificates.make();
    using folder = new TempFolder("processes");
    const write = async (name: string) => {
      await Deno.copyFile(certificates.cert(name), `${folder}/cert`);
      await Deno.copyFile(certificates.key(name), `${folder}/key`);
    };
    await write("server");
    await using all = await Supervised.start({
      REDIS_URL: redis.url,
      USERWIRE_PROCESSES: "auto",
      USERWIRE_TLS_CERT: `${folder}/cert`,
      USERWIRE_TLS_KEY: `${folder}/key`,
    });
    await all.areReady(navigator.hardwareConcurrency);
    assertMatch(all.url, /^https:/);
    using http = Deno.createHttpClient({ caCerts: [certificates.ca], poolMaxIdlePerHost: 0 });
    const get = async () => await (await fetch(new URL("healthz", all.url), { client: http })).json();
    assertEquals(await get(), { status: "ok" });
    await write("other");
    all.service.signal("SIGHUP");
    for (let process = 1; process <= navigator.hardwareConcurrency; process++) {
      await all.service.logged("certificate replaced: clients are told to come back", undefined, { process });
    }
    assertEquals(await get(), { status: "ok" });
  },
);

redisTest("The limits of sockets are divided, and rounded up", async () => {
  await using redis = await RedisServer.start();
  await using both = await Supervised.start({
    REDIS_URL: redis.url,
    USERWIRE_MAX_CONNECTIONS: "5",
    USERWIRE_MAX_CONNECTIONS_PER_USER: "0",
  });
  await using sockets = new AsyncDisposableStack();
  let refused = 0, open = 0;
  for (; open < 6 || refused < 8; open++) {
    try {
      sockets.use(await openClient(both.service.socketUrl("alice")));
    } catch {
      refused++;
      open--;
    }
    assert(refused < 200, "some went to each");
  }
  const { processes } = await both.readiness();
  assertEquals(processes.map(({ connections }) => connections), [3, 3]);
});

redisTest("/metrics and /readyz are those of all, and as open as those of one", async (t) => {
  await using redis = await RedisServer.start();
  const { key: sending, line } = newKey("sender", { scopes: ["send"] });
  await using both = await Supervised.start({
    REDIS_URL: redis.url,
    USERWIRE_API_KEYS: `${KEY.line},${line}`,
  });
  const get = async (path: string, key?: string, base = both.opsUrl, method = "GET") => {
    const response = await fetch(new URL(path, base), {
      method,
      headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
    });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };

  await t.step("a text that a strict reader takes, with each sample of each process", async () => {
    const { status, headers, text } = await get("metrics", KEY.key);
    assertEquals(status, 200, text);
    assertMatch(headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
    const samples = parseMetrics(text);
    for (const k of [1, 2]) {
      assertEquals(samples.get(`userwire_connections{process="${k}",mode="v1"}`), 0);
      assertEquals(samples.get(`userwire_send_duration_seconds_bucket{process="${k}",le="+Inf"}`), 0);
      assertGreater(samples.get(`process_start_time_seconds{process="${k}"}`)!, 1e9);
    }
  });

  await t.step("a key is needed, with the scope", async () => {
    for (
      const [key, status, code] of [[undefined, 401, "unauthorized"], [sending, 403, "forbidden"]] as const
    ) {
      const answer = await get("metrics", key);
      assertEquals([answer.status, JSON.parse(answer.text).code], [status, code]);
      assertEquals(answer.headers.has("www-authenticate"), status === 401);
    }
  });

  await t.step("readiness needs none, and names each process", async () => {
    const { status, ready, processes } = await both.readiness();
    assertEquals([status, ready, processes.map(({ process, ready }) => [process, ready])], [200, true, [[
      1,
      true,
    ], [
      2,
      true,
    ]]]);
    assertEquals((await get("healthz")).text, '{"status":"ok"}');
  });

  await t.step("what it does not have, and other methods, are refused", async () => {
    assertEquals((await get("v1/users/alice", KEY.key)).status, 404);
    assertEquals((await get("metrics", KEY.key, both.opsUrl, "POST")).status, 405);
  });

  await t.step("a page of another site, whose name leads here, gets nothing", async () => {
    const port = Number(new URL(both.opsUrl).port);
    using conn = await Deno.connect({ hostname: "127.0.0.1", port });
    await conn.write(
      new TextEncoder().encode("GET /readyz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
    );
    assertMatch(await new Response(conn.readable).text(), /^HTTP\/1.1 421 /);
  });

  await t.step("on the port that they share the numbers of a random one are not shown", async () => {
    const { status, text } = await get("metrics", KEY.key, both.url);
    assertEquals([status, JSON.parse(text).code], [404, "not_found"]);
    assertStringIncludes(text, "USERWIRE_OPS_PORT");
    assertEquals((await get("readyz", undefined, both.url)).status, 200);
  });

  await t.step("a process that hangs is named, and holds nobody up for long", async () => {
    Deno.kill(both.pidOf(2), "SIGSTOP");
    try {
      const { status, processes } = await both.readiness();
      assertEquals([status, processes.map(({ ready }) => ready)], [200, [true, false]]);
      assertEquals(processes[1]!.why, "The process does not answer");
      const samples = parseMetrics((await get("metrics", KEY.key)).text);
      assertEquals([1, 2].map((k) => samples.has(`process_start_time_seconds{process="${k}"}`)), [
        true,
        false,
      ]);
    } finally {
      Deno.kill(both.pidOf(2), "SIGCONT");
    }
  });
});

// ---------------------------------------------------------------------------------------------------------
// Signals

redisTest("SIGTERM drains all processes and ends with 0, and SIGHUP reaches each", async () => {
  await using redis = await RedisServer.start();
  await using both = await Supervised.start({ REDIS_URL: redis.url });
  await using sockets = new AsyncDisposableStack();
  const clients: Awaited<ReturnType<typeof openClient>>[] = [];
  await both.openOnBoth("alice", (client) => clients.push(sockets.use(client)), V1);
  const { service } = both;
  service.signal("SIGHUP");
  for (const process of [1, 2]) await service.logged("reloaded", undefined, { process });

  service.signal("SIGTERM");
  for (const client of clients) assertEquals((await client.closed).code, 1012);
  assertEquals((await service.ended()).code, 0);
  const stopped = service.records.filter(({ event }) => event === "stopped");
  assertEquals(stopped.map(({ process }) => process).sort(), [1, 2]);
  assertEquals(service.records.at(-1)!.event, "processes stopped");
  assertEquals(service.records.filter(({ level }) => level === "error"), []);
});

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

redisTest("SIGTERM in the middle of the start ends all in order", async () => {
  await using redis = await RedisServer.start();
  for (const until of ["process started", "listening"]) {
    await using service = await ProcessService.start(
      { REDIS_URL: redis.url, USERWIRE_PROCESSES: "2", USERWIRE_DRAIN_S: "0" },
      { until },
    );
    service.signal("SIGTERM");
    assertEquals((await service.ended()).code, 0);
    assertEquals(service.records.at(-1)!.event, "processes stopped");
    for (const pid of pidsOf(service)) assertEquals(await isAlive(pid), false);
  }
});

redisTest("SIGUSR2 replaces one process after the other, and no message is lost", async () => {
  const users = ["alice", "bob", "carl", "dora", "emil", "fay"];
  await using redis = await RedisServer.start();
  await using both = await Supervised.start({ REDIS_URL: redis.url });
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
});

// ---------------------------------------------------------------------------------------------------------
// Faults

redisTest(
  "A process that can't start is tried again ever more seldom, and a rolling restart leaves the old ones",
  async () => {
    await using redis = await RedisServer.start();
    using folder = new TempFolder("processes");
    const keys = `${folder.path}/keys`;
    await Deno.writeTextFile(keys, KEY.line);
    await using both = await Supervised.start({ REDIS_URL: redis.url, USERWIRE_API_KEYS_FILE: keys });
    await Deno.writeTextFile(keys, "no key");
    both.service.signal("SIGUSR2");
    const { reason, replaced } = await both.service.logged("rolling restart given up", 60_000);
    assertEquals([reason, replaced], ["the new process has ended", 0]);
    await both.areReady(2);

    Deno.kill(both.pidOf(2), "SIGKILL");
    const pauses = () =>
      both.service.records.filter(({ event }) => event === "process ended: it is started again")
        .map(({ after_ms }) => Number(after_ms));
    await until(() => pauses().length >= 4, "some attempts", 60_000);
    for (const [i, pauseMs] of pauses().slice(0, 4).entries()) assertGreater(pauseMs, 99 * 2 ** i);
    const { ready, processes } = await both.readiness();
    assertEquals([ready, processes.some(({ ready }) => ready)], [true, true]);
    await Deno.writeTextFile(keys, KEY.line);
    await both.areReady(2);
  },
);

redisTest("What keeps all processes from starting is said once, and is the exit code", async () => {
  await using redis = await RedisServer.start();
  const { code, stderr } = await startInVain({ REDIS_URL: redis.url, USERWIRE_JWT_SECRET: "short" });
  assertEquals(code, 2);
  assertEquals(stderr.match(/USERWIRE_JWT_SECRET/g)?.length, 1, stderr);
});

redisTest("A port that is taken is said once, by the supervisor, and no process is started", async () => {
  await using redis = await RedisServer.start();
  for (const name of ["PORT", "USERWIRE_OPS_PORT"]) {
    // Also by one who would share it.
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0, reusePort: true });
    const { port } = taken.addr;
    const { code, stderr, stdout } = await startInVain({ REDIS_URL: redis.url, [name]: `${port}` });
    assertEquals([code, stderr], [
      2,
      `error: a setting can't be used:\n  ${name}: ${port} is in use on 127.0.0.1: stop what listens there, or set ` +
      "another (0 takes a free one)\n",
    ]);
    assertEquals(stdout.includes("process started"), false);
  }
});

redisTest("Without the right to start processes the supervisor says how to give it", async () => {
  await using redis = await RedisServer.start();
  const { code, stderr } = await startInVain({ REDIS_URL: redis.url }, [
    Deno.execPath(),
    "task",
    "--quiet",
    "start",
  ]);
  assertEquals(code, 2);
  assertStringIncludes(stderr, "deno task start:processes");
  assertStringIncludes(stderr, `--allow-run=${Deno.execPath()}`);
});

for (const through of ["bin", "task for several"] as const) {
  redisTest(`A supervisor may start processes through ${through}, and they may not`, async () => {
    await using redis = await RedisServer.start();
    await using both = await Supervised.start({ REDIS_URL: redis.url }, { through });
    await both.areReady(2);
    for (const number of [1, 2]) {
      const line = await Deno.readTextFile(`/proc/${both.pidOf(number)}/cmdline`);
      assert(!line.includes("--allow-run") && !line.includes("\0-A\0"), line);
    }
  });
}

Deno.test("bin/userwire gives the right to start Deno only where several processes are asked for", async () => {
  const { PATH = "" } = Deno.env.toObject();
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const env = {
    PATH: `${dirname(Deno.execPath())}:${PATH}`,
    PORT: `${taken.addr.port}`,
    REDIS_URL: "redis://127.0.0.1:1",
    USERWIRE_OPS_PORT: "0",
  };
  const asked: [processes: string, args: string[]][] = [
    ["2", []],
    ["12", ["serve"]],
    ["auto", ["--drain-s=1"]],
    ["", ["--processes", "2"]],
    ["1", ["serve", "--page", "off", "--processes=auto"]],
  ];
  for (const [USERWIRE_PROCESSES, args] of asked) {
    const { stderr } = await startInVain({ ...env, USERWIRE_PROCESSES }, ["bin/userwire", ...args]);
    assertMatch(stderr, /^error: a setting can't be used:\n {2}PORT: \d+ is in use .*\n$/, args.join(" "));
  }
  await using one = await ProcessService.start({ USERWIRE_PROCESSES: "1" }, { through: "bin" });
  const line = await Deno.readTextFile(`/proc/${one.pid}/cmdline`);
  assert(line.includes("--allow-net") && !line.includes("--allow-run"), line);
});

redisTest("When the supervisor is killed its processes drain and end, and leave nothing behind", async () => {
  await using redis = await RedisServer.start();
  using folder = new TempFolder("processes");
  await using service = await ProcessService.start({
    REDIS_URL: redis.url,
    USERWIRE_PROCESSES: "2",
    USERWIRE_DRAIN_S: "1",
    TMPDIR: folder.path,
  });
  await service.logged("processes started", 30_000);
  await using client = await openClient(service.socketUrl("alice"), V1);
  const pids = service.records.filter(({ event }) => event === "process started").map(({ pid }) =>
    Number(pid)
  );
  assertEquals([...Deno.readDirSync(folder.path)].length, 1);
  service.signal("SIGKILL");
  assertEquals((await client.closed).code, 1012);
  for (const pid of pids) await until(async () => !await isAlive(pid), `process ${pid} to end`);
  await service.ended();
  assertEquals(service.records.filter(({ event }) => event === "stopped").length, 2);
  assertEquals([...Deno.readDirSync(folder.path)], []);
});
