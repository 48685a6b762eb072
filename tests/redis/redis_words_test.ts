/**
 * What is said when Redis is away or refuses something: clients get words of ours that name no address, no host and no
 * user; the log says what exactly failed, once.
 */
import { TcpProxy } from "../../testkit/tcp_proxy.ts";
import { Redis } from "../../src/redis/commands.ts";
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ConfigError } from "../../src/protocol/errors.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { WarnOnce } from "../../src/log/warn_once.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { until } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** Everything that whoever comes without a key is told while Redis is away. */
async function told(service: Service): Promise<string> {
  await using named = await RawSocket.open(service.socketUrl("alice"));
  await using unnamed = await RawSocket.open(service.socketUrl());
  assertEquals([named.answer.status, unnamed.answer.status], [503, 503]);
  const sent = await service.send("alice", "hello");
  assertEquals(sent.status, 503);
  return [(await service.readiness()).why, named.answer.body, unnamed.answer.body, sent.body.detail].join(
    "\n",
  );
}

/** The log's complaints that Redis is away. */
function outages(service: Service): { reason: string; detail: string }[] {
  return service.logged("redis unavailable").map(({ fields: { reason, detail } }) => ({
    reason: String(reason),
    detail: String(detail),
  }));
}

/** Answers whoever connects with these bytes and hangs up. */
class Stranger implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #running: Promise<void>;
  dialled = 0;

  constructor(answer: string) {
    const bytes = new TextEncoder().encode(answer);
    this.#running = (async () => {
      for await (const connection of this.#listener) {
        this.dialled++;
        await connection.write(bytes).catch(() => {});
        connection.close();
      }
    })();
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#listener.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#running;
  }
}

// ---------------------------------------------------------------------------------------------------------
// What it is, once

redisTest("A Redis without room for one more client is named, and once in an outage", async (t) => {
  for (const password of [undefined, "s3cret"]) {
    await t.step(password === undefined ? "without a password" : "with one", async () => {
      await using redis = await RedisServer.start({
        // Some of them no subscription gets.
        args: ["--maxclients", "24"],
        ...(password !== undefined && { password }),
      });
      const login = password === undefined ? {} : { password };
      using watch = await RedisCommands.connect({ port: redis.port }, login);
      const others: RedisCommands[] = [];
      while (others.length < 23) others.push(await RedisCommands.connect({ port: redis.port }, login));
      for (const other of others) await other.command("PING");
      const rejected = async () =>
        Number(/rejected_connections:(\d+)/.exec(String(await watch.command("INFO", "stats")))![1]);

      await using service = await Service.start({ REDIS_URL: redis.url });
      await until(async () => await rejected() >= 8, "eight attempts", 20_000);
      const full = "Redis has as many clients as its maxclients allows: raise it";
      await until(
        () => outages(service).some(({ reason }) => reason === full),
        "the reason to be named",
        20_000,
      );
      const before = outages(service);
      // Where Redis is faster than our question it can't be told what it refuses.
      for (const { reason } of before) assertMatch(reason, /as many clients as its maxclients allows/);
      assert(before.length <= 2, JSON.stringify(before));
      assertMatch((await service.readiness()).why ?? "", /maxclients/);
      assert(before.some(({ detail }) => detail === "ERR max number of clients reached"));
      assert(!JSON.stringify(before).includes("undefined"), "nothing of what fails inside");

      for (const other of others) other.close();
      let why: string | undefined;
      const isReady = async () => (why = (await service.readiness()).why) === undefined;
      await until(isReady, "the service to be ready", 20_000, () => why);
      assertEquals(outages(service), before);
      assertEquals(service.logged("redis available").length, 1);
    });
  }
});

Deno.test("What is no Redis is called that, once in an outage", async (t) => {
  const cases = [
    [
      "an HTTP server",
      "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
      /does not speak Redis' protocol/,
    ],
    ["a TLS port", "\x15\x03\x01\x00\x02\x02\x16", /speaks TLS: write rediss:\/\//],
    ["a mail server", "220 mail.internal ESMTP\r\n", /does not speak Redis' protocol/],
    ["a Redis in protected mode", "-DENIED Redis is running in protected mode\r\n", /protected mode/],
  ] as const;
  for (const [name, answer, expected] of cases) {
    await t.step(name, async () => {
      await using stranger = new Stranger(answer);
      await using service = await Service.start({ REDIS_URL: stranger.url });
      await until(() => stranger.dialled >= 6, "six attempts");
      const all = outages(service);
      assert(all.length <= 2, JSON.stringify(all));
      for (const { reason } of all) assertMatch(reason, expected);
      assertMatch(await told(service), expected);
    });
  }
});

Deno.test("WarnOnce warns of a thing once until all is well, and again when it goes on for long or comes back", () => {
  const log = memoryLog();
  const warnings = new WarnOnce(log);
  for (const detail of ["one", "two"]) warnings.warn("unwell", "cold", detail);
  warnings.warn("unwell", "fever");
  warnings.warn("unwell", "cold");
  warnings.reset();
  warnings.warn("unwell", "cold");
  assertEquals(log.records.map(({ fields }) => fields), [
    { reason: "cold", detail: "one" },
    { reason: "fever" },
    { reason: "cold" },
  ]);
  for (const [reason, options] of [["cough", { againMs: 0 }], ["hiccups", { quietMs: 0 }]] as const) {
    const other = new WarnOnce(log, options);
    for (let i = 0; i < 2; i++) other.warn("unwell", reason);
    assertEquals(log.records.filter(({ fields }) => fields.reason === reason).length, 2);
  }
});

// ---------------------------------------------------------------------------------------------------------
// Not for everybody

Deno.test("Where Redis is stands in the log, and in no answer", async (t) => {
  using port = OwnPort.take();
  const cases = [
    [`redis://127.0.0.1:${port}`, "127.0.0.1", /connection is refused/],
    [
      "redis://inside.invalid",
      "inside.invalid",
      /host is not found: that in REDIS_URL, or one that Redis announces/,
    ],
    ["unix:///run/inside/redis.sock", "/run/inside", /socket file is not there/],
  ] as const;
  for (const [url, secret, expected] of cases) {
    await t.step(url, async () => {
      await using service = await Service.start({ REDIS_URL: url });
      await until(() => outages(service).length > 0, "the log to say it");
      const text = await told(service);
      assertMatch(text, expected);
      assert(!text.includes(secret), text);
      const [outage] = outages(service);
      assertMatch(outage!.reason, expected);
      assert(outage!.detail.includes(secret), outage!.detail);
    });
  }
});

/** A Redis with a plain port and one for TLS, on two addresses; its certificate is for the first. */
function redisWithTls(certificates: Certificates, port: OwnPort): Promise<RedisServer> {
  return RedisServer.start({
    args: [
      ...["--bind", "127.0.0.1", "127.0.0.2", "--tls-port", `${port}`],
      ...certificates.forRedis().flatMap(([name, value]) => [`--${name}`, value]),
    ],
  });
}

redisTest(
  "Who mixes up redis:// and rediss:// is told which of them it must be, and is not asked for certificates",
  async (t) => {
    using port = OwnPort.take();
    await using certificates = await Certificates.make();
    await using redis = await redisWithTls(certificates, port);
    const cases = [
      ["redis:// for a TLS port", `redis://127.0.0.1:${port}`, /speaks TLS, write rediss:\/\//],
      [
        "rediss:// for a plain port",
        redis.url.replace("redis:", "rediss:"),
        /does (?:that port|not) speak TLS/,
      ],
    ] as const;
    for (const [name, url, expected] of cases) {
      await t.step(name, async () => {
        await using service = await Service.start({ REDIS_URL: url, USERWIRE_REDIS_TIMEOUT_MS: "500" });
        await until(() => outages(service).some(({ reason }) => expected.test(reason)), "the log to say it");
        assertMatch(await told(service), expected);
        for (const { reason } of outages(service)) assertMatch(reason, expected);
      });
    }
  },
);

redisTest(
  "A certificate of Redis that is for another host, or not trusted, is told without names",
  async (t) => {
    using port = OwnPort.take();
    await using certificates = await Certificates.make();
    await using _redis = await redisWithTls(certificates, port);
    await t.step("another host", async () => {
      await using service = await Service.start({
        REDIS_URL: `rediss://127.0.0.2:${port}`,
        REDIS_CA: certificates.cert("ca"),
      });
      await until(() => outages(service).length > 0, "the log to say it");
      const text = await told(service);
      assertMatch(text, /its certificate is for another host/);
      assert(!/127\.0\.0|localhost/.test(text), text);
      assert(outages(service)[0]!.detail.includes("127.0.0.2"));
    });
    await t.step("not trusted", async () => {
      await using service = await Service.start({ REDIS_URL: `rediss://localhost:${port}` });
      await until(() => outages(service).length > 0, "the log to say it");
      assertMatch(await told(service), /not from an authority trusted here: set REDIS_CA/);
    });
  },
);

redisTest(
  "A user of Redis without the rights is not named to clients, but in the log, and once",
  async () => {
    await using redis = await RedisServer.start();
    await redis.cli(
      "ACL",
      "SETUSER",
      "insider",
      "on",
      ">s3cret",
      "~*",
      "&*",
      "+@all",
      "-subscribe",
      "-publish",
    );
    await redis.cli("ACL", "SETUSER", "insider", "-eval", "-evalsha");
    for (const mode of ["dedicated", "shared"]) {
      await using service = await Service.start({
        REDIS_URL: redis.url.replace("redis://", "redis://insider:s3cret@"),
        USERWIRE_SUBSCRIPTIONS: mode,
        USERWIRE_REDIS_TIMEOUT_MS: "500",
        // A history needs more before anything is sent at all.
        USERWIRE_HISTORY: "0",
      });
      // It lives, for whoever needs none of these; but nobody new is sent to it.
      await until(
        async () => /rights that are needed, as EVALSHA:/.test((await service.readiness()).why ?? ""),
        "the service not to be ready, for the right that is missing",
      );
      const texts: string[] = [];
      for (let i = 0; i < 2; i++) {
        await using named = await RawSocket.open(service.socketUrl("alice"));
        await using unnamed = await openClient(service.socketUrl());
        unnamed.send('{"user_name":"bob"}');
        const { code, reason } = await unnamed.closed;
        const sent = await service.send("alice", "hello");
        assertEquals([named.answer.status, code, sent.status], [503, 1013, 503]);
        texts.push(named.answer.body, reason, String(sent.body.detail));
      }
      assert(!/insider|s3cret|NOPERM/.test(texts.join()), texts.join("\n"));
      assertMatch(texts.at(-1)!, /does not grant its user the rights/);
      const refused = service.logged("redis refused a command").map(({ fields }) => fields.detail);
      assertEquals(refused.length, 1);
      assertMatch(String(refused[0]), /^NOPERM .*'evalsha'/);
      if (mode === "shared") continue; // its one connection was refused before anybody asked for it
      const failed = service.logged("subscription failed").map(({ fields }) => fields.detail);
      assertEquals(failed.length, 1);
      assertMatch(String(failed[0]), /^NOPERM .*'subscribe'/);
    }
  },
);

redisTest("A start that Redis refuses says to the operator what exactly it said", async () => {
  await using redis = await RedisServer.start();
  await redis.cli("ACL", "SETUSER", "insider", "on", ">s3cret", "~*", "&*", "+@all", "-info");
  const { message } = await assertRejects(
    () => Service.start({ REDIS_URL: redis.url.replace("redis://", "redis://insider:s3cret@") }),
    ConfigError,
  );
  assertMatch(message, /^REDIS_URL: Redis does not grant .*: correct .* in it \(NOPERM .*'info'.*\)$/);
  assert(!message.includes("s3cret"));
});

redisTest("A Redis that repeats the password, as it does not know AUTH, repeats it to nobody", async () => {
  await using redis = await RedisServer.start({ args: ["--rename-command", "AUTH", ""] });
  await using service = await Service.start({ REDIS_URL: redis.url.replace("redis://", "redis://:s3cret@") });
  await until(() => outages(service).length > 0, "the log to say it");
  const text = await told(service);
  assertMatch(text, /does not know a command that is needed/);
  assertEquals(outages(service)[0]!.detail, "ERR unknown command 'AUTH'");
  assert(!`${text}${JSON.stringify(service.log.records)}`.includes("s3cret"));
});

redisTest("A Redis that has served and hangs up is not suspected of speaking TLS", async () => {
  await using server = await RedisServer.start();
  await using proxy = await TcpProxy.start(server.port);
  const log = memoryLog();
  const redis = Redis.open(proxy.through(server.url), { log });
  await redis.availability.whenReady();
  proxy.cut();
  const said = () => log.records.find(({ event }) => event === "redis unavailable");
  await until(() => said() !== undefined, "the loss to be said");
  assertMatch(
    String(said()!.fields.reason),
    /^Redis is not available: (the connection was reset|it closed the connection)$/,
  );
  redis.close();
});
