/**
 * `/readyz` tells the truth within seconds, with the reason: all that a service lives on is tried, on connections dialled
 * anew, and so is each script. And a password may change while the service runs.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Attempt } from "../../src/async/attempt.ts";
import { Probe } from "../../src/broker/probe.ts";
import { RedisConnection } from "../../src/redis/raw_connection.ts";
import { encodeCommand } from "../../src/redis/resp.ts";
import { Deadlines } from "../../src/async/deadlines.ts";
import { ConfigError } from "../../src/protocol/errors.ts";
import { connected } from "../../testkit/connected.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { parseRedisUrl } from "../../src/redis/address.ts";
import { Redis, Script, type ServerInfo } from "../../src/redis/commands.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { SHARED } from "../../testkit/nodes.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const WAIT_MS = 15_000;

async function isReady(service: Service): Promise<void> {
  await until(async () => (await service.readiness()).status === 200, "the service to be ready", WAIT_MS);
}

async function isNotReady(service: Service, why: RegExp): Promise<void> {
  await until(
    async () => {
      const readiness = await service.readiness();
      return readiness.status === 503 && why.test(readiness.why ?? "");
    },
    `the service not to be ready: ${why}`,
    WAIT_MS,
  );
}

/** What goes wrong under a running service, and how it is undone; `why` is what `/readyz` must say. */
const TROUBLES: { name: string; why: RegExp; begin: string[]; end: string[] }[] = [
  {
    name: "another password",
    why: /Redis wants a password|refused the password/,
    begin: ["CONFIG", "SET", "requirepass", "new"],
    end: ["CONFIG", "SET", "requirepass", ""],
  },
  ...["subscribe", "publish", "evalsha", "pubsub|numsub"].map((command) => ({
    name: `a user without the right to ${command}`,
    why: new RegExp(`rights that are needed, as ${command.toUpperCase().replace("|", " ")}:`),
    begin: ["ACL", "SETUSER", "default", `-${command}`],
    end: ["ACL", "SETUSER", "default", `+${command}`],
  })),
  {
    name: "a string of another program where the timeline is kept",
    why: /another program writes to its keys/,
    begin: ["SET", "userwire:{userwire:timeline}:last", "oops"],
    end: ["DEL", "userwire:{userwire:timeline}:last"],
  },
  {
    name: "a user who may use no channel",
    why: /rights that are needed/,
    begin: ["ACL", "SETUSER", "default", "resetchannels"],
    end: ["ACL", "SETUSER", "default", "allchannels"],
  },
  {
    name: "no room for another client",
    why: /maxclients/,
    begin: ["CONFIG", "SET", "maxclients", "1"],
    end: ["CONFIG", "SET", "maxclients", "10000"],
  },
];

for (const { name: way, env } of [{ name: "dedicated", env: {} }, { name: "shared", env: SHARED }]) {
  redisTest(`What would keep the next user out is said before the user comes, ${way}`, async (t) => {
    for (const { name, why, begin, end } of TROUBLES) {
      await t.step(name, async () => {
        await using redis = await RedisServer.start();
        await using service = await Service.start({ REDIS_URL: redis.url, ...env });
        await isReady(service);
        // On a connection that is there already: what is begun keeps whoever comes out.
        using admin = await RedisCommands.connect({ port: redis.port });
        await admin.command(...begin);
        await isNotReady(service, why);
        // By the probe, by the connection for commands, or by both, as each meets it.
        const said = () =>
          ["not ready", "redis unavailable"].flatMap((event) =>
            service.logged(event).map(({ fields }) => `${event}: ${fields.reason}`)
          );
        await until(() => said().length > 0, "the log to say it");
        await admin.command(...end);
        await isReady(service);
        // What begins or ends while it is looked for is said in other words.
        assertEquals(said(), [...new Set(said())], "each says it once");
      });
    }
  });
}

redisTest(
  "Each right that docs/redis.md lists is named when it is missing, also where it is needed seldom",
  async () => {
    const page = await Deno.readTextFile(new URL("../../docs/redis.md", import.meta.url));
    const rule = /^ACL SETUSER userwire (.+)$/m.exec(page)![1]!.replace(">PASSWORD", ">pw").split(" ");
    // Those which it works without are said there; without INFO it does not start.
    const needed = rule.filter((word) => /^\+(?!info|client|append|object)/.test(word));
    assert(needed.length > 20);
    await using redis = await RedisServer.start();
    const isNamed = async (right: string) => {
      const user = right.replace(/\W/g, "");
      await redis.cli("ACL", "SETUSER", user, ...rule, right.replace("+", "-"));
      await using service = await Service.start({
        REDIS_URL: `redis://${user}:pw@127.0.0.1:${redis.port}`,
        ...(right === "+unsubscribe" ? SHARED : {}),
      });
      await isNotReady(service, new RegExp(`as .*\\b${right.slice(1).toUpperCase().replace("|", " ")}\\b`));
    };
    while (needed.length > 0) await Promise.all(needed.splice(0, 6).map(isNamed));
  },
);

redisTest("What keeps subscriptions from being restored after an outage is said", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  await using _alice = await openClient(service.socketUrl("alice"));
  await isReady(service);
  using admin = await RedisCommands.connect({ port: redis.port });
  await admin.command("ACL", "SETUSER", "default", "resetchannels", "&prod:*");
  // All of them, as in an outage; Redis itself ends subscriptions that are forbidden from now on.
  await admin.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
  await isNotReady(service, /rights that are needed/);
  await admin.command("ACL", "SETUSER", "default", "allchannels");
  await isReady(service);
});

redisTest(
  "What is tried to name a command that is forbidden leaves no key for ever, whichever that is",
  async () => {
    const script = new Script(
      `redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'field', '1')
redis.call('PEXPIRE', KEYS[1], 1000)`,
      { probe: (tag) => ({ keys: [`userwire:{${tag}}:field`], args: [] }) },
    );
    for (const command of ["pexpire", "del"]) {
      await using server = await RedisServer.start();
      const redis = Redis.open(server.url);
      redis.prepare(script);
      try {
        await redis.availability.whenReady();
        await server.cli("ACL", "SETUSER", "default", `-${command}`);
        const named = new RegExp(`rights that are needed, as ${command.toUpperCase()}`);
        assertMatch(await redis.tryScripts("mine") ?? "", named);
        await server.cli("ACL", "SETUSER", "default", "+@all");
        for (const name of ["rights", "field"]) {
          assert(
            Number(await server.cli("PTTL", `userwire:{mine}:${name}`)) !== -1,
            `${name} stays for ever`,
          );
        }
      } finally {
        redis.close();
      }
    }
  },
);

redisTest(
  "A command that Redis does not know is named, also where only a script uses it, and seldom",
  async () => {
    const isNamed = async (command: string) => {
      await using redis = await RedisServer.start({ args: ["--rename-command", command, ""] });
      await using service = await Service.start({ REDIS_URL: redis.url });
      await isNotReady(service, new RegExp(`does not know a command that is needed: .*\\b${command}\\b`));
    };
    await Promise.all(["HSET", "XADD", "PUBSUB", "PUBLISH", "TIME", "ZADD", "XDEL"].map(isNamed));
  },
);

redisTest("A Redis that knows no EVAL is named before anything is sent", async () => {
  await using redis = await RedisServer.start({ args: ["--rename-command", "EVAL", ""] });
  await using service = await Service.start({ REDIS_URL: redis.url });
  await isNotReady(service, /does not know a command that is needed: EVAL$/);
});

// ---------------------------------------------------------------------------------------------------------
// Scripts

const STORE = new Script(
  "redis.call('SET', KEYS[1], 'x', 'PX', 5000) redis.call('XADD', KEYS[2], '*', 'a', 'b') redis.call('PEXPIRE', KEYS[2], 5000)",
  { probe: (tag) => ({ keys: [`userwire:{${tag}}:a`, `userwire:{${tag}}:b`], args: [] }) },
);

redisTest("A script is tried as it says, and what keeps it from its work is named", async (t) => {
  await using server = await RedisServer.start();
  const log = memoryLog();
  await using stack = new AsyncDisposableStack();
  const redis = Redis.open(server.url, { log });
  stack.defer(() => redis.close());
  redis.prepare(STORE);
  await connected(redis.availability);
  await t.step("nothing, and no key stays", async () => {
    assertEquals(await redis.tryScripts("probe:1"), undefined);
    for (const key of await server.cli("KEYS", "userwire:*") as string[]) {
      assert(Number(await server.cli("PTTL", key)) > 0, key);
    }
  });
  await t.step("a right that is missing within it", async () => {
    await server.cli("ACL", "SETUSER", "default", "-xadd");
    assertMatch(await redis.tryScripts("probe:1") ?? "", /rights that are needed, as XADD:/);
    assert(log.records.some(({ fields }) => fields.detail === "Not granted: XADD"));
    await assertRejects(
      () => redis.evaluate(STORE, ["userwire:{b}:a", "userwire:{b}:b"], []),
      Error,
      "rights",
    );
    await server.cli("ACL", "SETUSER", "default", "+xadd");
    assertEquals(await redis.tryScripts("probe:1"), undefined);
  });
  await t.step("no memory", async () => {
    await server.cli("CONFIG", "SET", "maxmemory", "1");
    assertMatch(await redis.tryScripts("probe:1") ?? "", /maxmemory/);
    await server.cli("CONFIG", "SET", "maxmemory", "0");
  });
});

redisTest(
  "Whoever watches looks at a server before anything is sent to it, and again and again",
  async () => {
    await using server = await RedisServer.start();
    await using stack = new AsyncDisposableStack();
    const redis = Redis.open(server.url);
    stack.defer(() => redis.close());
    const looks: { isGreeting: boolean; server: ServerInfo; said: unknown }[] = [];
    let why: string | undefined = "The line is not drawn yet";
    redis.watchWith({
      async look(ask, server, isGreeting) {
        const said = await ask(new Script("return redis.call('INCR', KEYS[1])"), ["userwire:{line}"], []);
        looks.push({ isGreeting, server, said });
        return why;
      },
    });
    await until(() => looks.length >= 2, "it to be asked again", WAIT_MS);
    assertEquals(redis.availability.reason, why);
    await assertRejects(() => redis.publish("alice", "x"), Error, why);
    why = undefined;
    await withDeadline(redis.availability.whenReady(), WAIT_MS, "Redis to be available");
    assertEquals(looks.map(({ said }) => said), looks.map((_, i) => i + 1));
    assert(looks.every(({ isGreeting, server: { role } }) => isGreeting && role === "master"));
    await until(() => looks.at(-1)!.isGreeting === false, "the look of a heartbeat", WAIT_MS);
    why = "The line is gone";
    await until(() => redis.availability.reason === why, "that to be the reason", WAIT_MS);
    why = undefined;
    await withDeadline(redis.availability.whenReady(), WAIT_MS, "Redis to be available again");
    assertEquals(redis.server?.life.length, 12);
  },
);

// ---------------------------------------------------------------------------------------------------------
// Counting

redisTest("A Redis that does not count its subscribers is found out, one that does is not", async () => {
  await using server = await RedisServer.start();
  await using elsewhere = await RedisServer.start();
  for (const isCounting of [true, false]) {
    await using stack = new AsyncDisposableStack();
    const redis = Redis.open(server.url);
    stack.defer(() => redis.close());
    const channel = `userwire:probe:${crypto.randomUUID()}`;
    const found = Promise.withResolvers<boolean>();
    let dials = 0;
    const probe = new Probe({
      onWorking() {},
      redis,
      channel: () => channel,
      // As where a proxy spreads connections over servers of which each counts its own; the first to close is elsewhere.
      dial: (_, attempt: Attempt) =>
        RedisConnection.open(
          parseRedisUrl(isCounting || dials++ % 2 === 1 ? server.url : elsewhere.url),
          attempt,
          {
            commands: [encodeCommand("SUBSCRIBE", channel)],
          },
        ),
      onCounted: (counts) => found.resolve(counts),
    });
    stack.defer(() => probe.close());
    assertEquals(await withDeadline(found.promise, WAIT_MS, "the answer"), isCounting);
  }
});

// ---------------------------------------------------------------------------------------------------------
// The file with the URL

redisTest("A password that changes is taken from REDIS_URL_FILE, without a restart", async () => {
  await using redis = await RedisServer.start();
  const dir = await Deno.makeTempDir({ prefix: "userwire-url-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const file = `${dir}/redis-url`;
  await Deno.writeTextFile(file, `${redis.url}\n`);
  await using service = await Service.start({ REDIS_URL_FILE: file });
  await isReady(service);
  await using alice = await openClient(service.socketUrl("alice"));

  await redis.cli("CONFIG", "SET", "requirepass", "new");
  await isNotReady(service, /password/);
  await Deno.writeTextFile(file, "http://nonsense");
  await until(() => service.logged("settings not reloaded").length === 1, "the fault to be logged", WAIT_MS);
  assertMatch(
    String(service.logged("settings not reloaded")[0]!.fields.reason),
    /^REDIS_URL_FILE: .* must hold /,
  );
  const url = redis.url.replace("redis://", "redis://:new@");
  await Deno.writeTextFile(file, `${url}\n`);
  await isReady(service);
  await using bob = await openClient(service.socketUrl("bob"));
  assertEquals((await service.send("bob", "hi")).body.sockets, 1);
  assertEquals(await bob.next(), "hi");
  // The connection for commands takes it, too.
  using admin = await RedisCommands.connect({ port: redis.port }, { password: "new" });
  await admin.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
  await until(async () => (await service.send("alice", "back")).status === 200, "sends to work", WAIT_MS);
  assertEquals(await alice.next(), "back");
  assert(!JSON.stringify(service.log.records).includes(":new@"));
});

redisTest("REDIS_URL_FILE that leads to another Redis is followed on a reload", async () => {
  await using first = await RedisServer.start();
  await using second = await RedisServer.start();
  const file = await Deno.makeTempFile({ prefix: "userwire-url-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(file));
  await Deno.writeTextFile(file, first.url);
  await using service = await Service.start({ REDIS_URL_FILE: file });
  await using alice = await openClient(service.socketUrl("alice"));
  await isReady(service);
  await Deno.writeTextFile(file, second.url);
  service.server.reload();
  await until(
    async () => Number((await second.cli("PUBSUB", "NUMSUB", "alice") as unknown[])[1]) === 1,
    "alice to be subscribed there",
    WAIT_MS,
  );
  await until(async () => (await service.send("alice", "there")).status === 200, "sends to work", WAIT_MS);
  assertEquals(await alice.next(), "there");
});

Deno.test("A start with a bad REDIS_URL_FILE says what is wrong with it, and shows nothing of it", async () => {
  const file = await Deno.makeTempFile({ prefix: "userwire-url-" });
  try {
    await Deno.writeTextFile(file, "s3cret");
    const cases: [Record<string, string>, RegExp][] = [
      [{ REDIS_URL_FILE: file }, /^REDIS_URL_FILE: .* must hold a URL such as/],
      [{ REDIS_URL_FILE: `${file}.none` }, /^REDIS_URL_FILE: .* can't be read/],
      [{ REDIS_URL_FILE: file, REDIS_URL: "redis://localhost" }, /set one of them/],
    ];
    for (const [env, fault] of cases) {
      const { message } = await assertRejects(() => Service.start(env), ConfigError);
      assertMatch(message, fault);
      assert(!message.includes("s3cret"));
    }
  } finally {
    await Deno.remove(file);
  }
});

// ---------------------------------------------------------------------------------------------------------
// Ways to log in, and what may be refused

redisTest("A user without a password logs in on both kinds of connections", async () => {
  await using redis = await RedisServer.start();
  await redis.cli("ACL", "SETUSER", "svc", "on", "nopass", "~*", "&*", "+@all");
  for (const isDefaultOn of [true, false]) {
    if (!isDefaultOn) {
      using admin = await RedisCommands.connect({ port: redis.port });
      await admin.command("ACL", "SETUSER", "default", "off");
    }
    await using service = await Service.start({ REDIS_URL: redis.url.replace("redis://", "redis://svc@") });
    await isReady(service);
    await using alice = await openClient(service.socketUrl("alice"));
    assertEquals((await service.send("alice", "hi")).body.sockets, 1);
    assertEquals(await alice.next(), "hi");
  }
});

redisTest("A unix socket with a password in its URL serves both kinds of connections", async () => {
  await using redis = await RedisServer.start({ unixSocket: true, password: "p:w" });
  await using service = await Service.start({ REDIS_URL: redis.url });
  await isReady(service);
  await using alice = await openClient(service.socketUrl("alice"));
  assertEquals((await service.send("alice", "hi")).body.sockets, 1);
  assertEquals(await alice.next(), "hi");
});

Deno.test("parseRedisUrl reads users, passwords and databases of every kind of address", () => {
  const cases: [string, Partial<ReturnType<typeof parseRedisUrl>>][] = [
    ["redis://svc@h:1/3", { username: "svc", password: undefined, hostname: "h", port: 1, database: 3 }],
    ["redis://:p%40@[::1]", {
      username: undefined,
      password: "p@",
      hostname: "::1",
      port: 6379,
      database: 0,
    }],
    ["rediss://u:p@h", { transport: "tls", username: "u", password: "p" }],
    ["unix:///run/r.sock", {
      transport: "unix",
      path: "/run/r.sock",
      username: undefined,
      password: undefined,
    }],
    ["unix://:p%3Aw@/run/r.sock", { path: "/run/r.sock", username: undefined, password: "p:w" }],
    ["unix://u:p@/run/r.sock?db=2", { path: "/run/r.sock", username: "u", password: "p", database: 2 }],
    ["unix://u@/run/r.sock", { username: "u", password: undefined }],
  ];
  for (const [url, parts] of cases) {
    const address = parseRedisUrl(url);
    for (const [key, value] of Object.entries(parts)) {
      assertEquals(address[key as keyof typeof address], value, `${key} of ${url}`);
    }
  }
});

Deno.test("Subscriptions are named where that is allowed; in whatever words it is refused, they work", async () => {
  for (
    const said of [
      "ERR command 'CLIENT' is not allowed",
      "ERR forbidden",
      "EXECABORT no",
      "ERR unknown command",
    ]
  ) {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = (async () => {
      using connection = await listener.accept();
      await connection.read(new Uint8Array(1_000));
      const text = `-${said}\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n`;
      await connection.write(new TextEncoder().encode(text));
      await connection.read(new Uint8Array(1));
    })();
    const { port } = listener.addr as Deno.NetAddr;
    const deadlines = new Deadlines(5_000);
    const attempt = new Attempt(deadlines, { late: () => new Error("late"), signal: undefined });
    const connection = await RedisConnection.open(parseRedisUrl(`redis://127.0.0.1:${port}`), attempt, {
      commands: [encodeCommand("SUBSCRIBE", "a")],
    });
    connection.close();
    attempt.end();
    deadlines.close();
    await serving;
    listener.close();
  }
});

redisTest("Lost subscriptions are told in one line with their number", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  await using stack = new AsyncDisposableStack();
  for (let i = 0; i < 20; i++) stack.use(await openClient(service.socketUrl(`user${i}`)));
  await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
  await until(() => service.logged("subscriptions lost").length > 0, "the line", WAIT_MS);
  const [line, ...more] = service.logged("subscriptions lost");
  // The node's own is one more.
  assertEquals([line!.level, line!.fields.count, more.length], ["warn", 21, 0]);
});
