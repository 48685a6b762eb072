/** What keeps several processes on one port from starting, who may start them, and what is left without a supervisor. */
import { assert, assertEquals, assertGreater, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname } from "node:path";
import { KEY } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { programPath } from "../../testkit/program.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { isAlive, Supervised } from "../../testkit/supervised.ts";
import { folderForSockets, TempFolder } from "../../testkit/temp_folder.ts";
import { openClient } from "../../testkit/ws_client.ts";

const V1 = ["userwire.v1"];

/** Runs a service that is not to start, and returns what it said and its exit code. */
async function startInVain(
  env: Record<string, string>,
  [command, ...args]: string[] = [Deno.execPath(), "run", "-A", programPath()],
) {
  using folder = new TempFolder("processes", folderForSockets());
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

redisTest(
  "A process that can't start is tried again ever more seldom, and a rolling restart leaves the old ones",
  async () => {
    await using redis = await RedisServer.start();
    using folder = new TempFolder("processes", folderForSockets());
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
  using folder = new TempFolder("bin");
  await Deno.writeTextFile(`${folder}/several.json`, '{"USERWIRE_PROCESSES": 2}');
  for (const args of [["--config", `${folder}/several.json`], ["serve", `--config=${folder}/several.json`]]) {
    const { stderr } = await startInVain(env, ["bin/userwire", ...args]);
    assertMatch(stderr, /PORT: \d+ is in use/, args.join(" "));
  }
  await using one = await ProcessService.start({ USERWIRE_PROCESSES: "1" }, { through: "bin" });
  const line = await Deno.readTextFile(`/proc/${one.pid}/cmdline`);
  assert(line.includes("--allow-net") && !line.includes("--allow-run"), line);
});

redisTest(
  "When the supervisor is killed in the middle of the start its processes end in order too",
  async () => {
    await using redis = await RedisServer.start();
    using folder = new TempFolder("processes", folderForSockets());
    const env = { REDIS_URL: redis.url, USERWIRE_PROCESSES: "2", TMPDIR: folder.path };
    await using service = await ProcessService.start(env, { until: "process started" });
    // The first has nobody to send away: it ends long before the second has started.
    await service.logged("process started", 30_000, { process: 2 });
    service.signal("SIGKILL");
    // Their log ends with them.
    await service.ended();
    assertEquals(
      service.records.filter(({ event }) => event === "stopped").length,
      2,
      service.lastWords(),
    );
    assertEquals([...Deno.readDirSync(folder.path)], []);
  },
);

redisTest("When the supervisor is killed its processes drain and end, and leave nothing behind", async () => {
  await using redis = await RedisServer.start();
  using folder = new TempFolder("processes", folderForSockets());
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
  assertEquals([...Deno.readDirSync(folder.path)].length, 2);
  service.signal("SIGKILL");
  assertEquals((await client.closed).code, 1012);
  for (const pid of pids) await until(async () => !await isAlive(pid), `process ${pid} to end`);
  await service.ended();
  assertEquals(service.records.filter(({ event }) => event === "stopped").length, 2);
  assertEquals([...Deno.readDirSync(folder.path)], []);
});
