/**
 * Hostile clients. The attacks of `hostile/`, with numbers smaller than those of `deno task hostile` so that a busy
 * machine with two cores is done in half a minute: the process lives, honest users are served, no socket and little memory is left.
 * And tricks with paths, names and lines of the log.
 */
import { assert, assertEquals } from "@std/assert";
import { attacksOf } from "../programs/hostile/attacks.ts";
import { exhaust } from "../programs/hostile/descriptors.ts";
import { isEndured, Siege } from "../programs/hostile/siege.ts";
import { call, CLOSED, KEY, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

/**
 * A busy machine may spoil one measurement, not all of them; and what a message takes there is no measure of the
 * service below this many milliseconds. `deno task hostile` measures in earnest.
 */
const TRIES = 3;
const FLOOR_MS = 1_000;
/** What heaps and allocators may keep for the next time, in MiB. */
const MAX_LEFT_MIB = 150;

Deno.test({
  name: "Hostile clients harm nobody else",
  ignore: Deno.build.os !== "linux", // which says how much memory a process has
  async fn(t) {
    await using siege = await Siege.begin({
      USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "100",
      USERWIRE_IDENTITY_TIMEOUT_S: "1",
    }, { windows: 1 });
    const before = await siege.service.memory();
    const attacks = attacksOf({
      halfOpen: 1_000,
      halfOpenPerSecond: 1_000,
      fromOneAddress: 300,
      fromOneAddressPerSecond: 300,
      maxPerAddress: 100,
      fragmentsMib: 64,
      fragmentsMibPerSecond: 64,
      silent: 50,
      rounds: 3,
      guesses: 500,
    });
    for (const [what, attack] of Object.entries(attacks)) {
      await t.step(what, async () => {
        let findings = await siege.endure(attack);
        for (let i = 1; i < TRIES && !isEndured(findings, FLOOR_MS); i++) {
          findings = await siege.endure(attack);
        }
        assert(isEndured(findings, FLOOR_MS), JSON.stringify(findings));
      });
    }
    const { records } = siege.service;
    assertEquals(records.filter(({ event, level }) => event === "unexpected error" || level === "error"), []);
    const leftMib = (await siege.service.memory() - before) / 2 ** 20;
    assert(leftMib < MAX_LEFT_MIB, `${leftMib} MiB are left`);
  },
});

Deno.test({
  name: "Resets and silent connections that use up all descriptors leave a service that answers",
  ignore: Deno.build.os !== "linux", // which has such limits
  async fn() {
    await using service = await ProcessService.start({}, { openFiles: 256 });
    const { resets, left, stops } = await exhaust(service, 256, 5_000);
    assert(stops > 0, "the descriptors were used up");
    // A few at the beginning, then ever fewer: less than five in a hundred of an attack that lasts.
    assert(left <= Math.max(20, resets * 0.05), `${left} are left of ${resets}`);
  },
});

Deno.test("No trick with a path reaches another user, a file or a call without its key", async () => {
  await using service = await Service.start(CLOSED);
  await using bob = await openClient(service.socketUrl(), protocolsFor(await tokenFor("bob")));
  await bob.nextJson();
  const paths = [
    ...[
      "/v1/users/alice%2F..%2Fbob/messages",
      "/v1/users/alice/../bob%00/messages",
      "/v1/users/%2e%2e/messages",
    ],
    ...[
      "/v1/users/..%252f..%252fbob/messages",
      "/v1/users/bob%00/messages",
      "/v1/users/%ff/messages",
      "/v1//users/bob/messages",
    ],
    ...[
      "//v1/users/bob/messages",
      "/v1/users/bob/messages/",
      "/V1/users/bob/messages",
      "/v1/users/bob;x/messages",
    ],
    ...[
      "/..%2f..%2fetc/passwd",
      "/%2e%2e/%2e%2e/main.ts",
      "/page.js%00.html",
      "/.env",
      "/src/config/settings.ts",
      "http://other.example/v1/users/bob/messages%20",
    ],
  ];
  for (const path of paths) {
    for (const key of [undefined, KEY.key]) {
      await using socket = await RawSocket.dial(service.server.url);
      const shown = key === undefined ? "" : `Authorization: Bearer ${key}\r\n`;
      socket.sendBytes(
        `POST ${path} HTTP/1.1\r\nHost: localhost\r\n${shown}Content-Type: text/plain\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx`,
      );
      const { status, body } = await socket.readAnswer();
      assert(!/root:|import |\.ts:\d/.test(body), body);
      // With a key a strange name is a user like any other, who is not there.
      assert(
        key === undefined ? [400, 401, 404, 405].includes(status) : [202, 400, 404, 405].includes(status),
        `${path} ${status}`,
      );
    }
  }
  assertEquals((await call(service, "POST /v1/users/bob/messages", { body: "real" })).body.sockets, 1);
  assertEquals((await bob.nextJson()).data, "real", "bob got nothing else");
});

redisTest("No username is a command, a pattern or another's channel in Redis", async () => {
  await using redis = await RedisServer.start();
  await using service = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  await redis.cli("SET", "canary", "alive");
  await using bob = await openClient(service.socketUrl(), protocolsFor(await tokenFor("bob")));
  await bob.nextJson();
  const refused = [
    "bob\r\nFLUSHALL\r\n",
    "bob\nPUBLISH",
    "a b",
    "{bob}",
    "x}:inbox{bob",
    "userwire:receipts:x",
    "bob\0",
    "\u001b[2J",
    "bob\u2028",
  ];
  for (const name of refused) {
    const { status } = await call(service, `POST /v1/users/${encodeURIComponent(name)}/messages`, {
      body: 1,
    });
    assertEquals(status, 400, JSON.stringify(name));
    const headers = { Authorization: `Bearer ${await tokenFor(name)}` };
    await using socket = await RawSocket.open(service.socketUrl(), { headers });
    assertEquals(socket.answer.status, 401, JSON.stringify(name));
  }
  const literal = [
    "*",
    "b?b",
    "[b]ob",
    "bob*",
    "b\\ob",
    "$-1",
    "*3",
    "bob:position",
    "';FLUSHALL;--",
    "\u202ebob",
    "bob\u0301",
  ];
  for (const name of literal) {
    await using client = await openClient(service.socketUrl(), protocolsFor(await tokenFor(name)));
    assertEquals((await client.nextJson()).user, name);
    const { status, body } = await call(service, `POST /v1/users/${encodeURIComponent(name)}/messages`, {
      body: name,
    });
    assertEquals([status, body.sockets], [200, 1], name);
    assertEquals((await client.nextJson()).data, name);
  }
  assertEquals((await call(service, "POST /v1/users/bob/messages", { body: "real" })).body.sockets, 1);
  assertEquals((await bob.nextJson()).data, "real");
  assertEquals(await redis.cli("GET", "canary"), "alive");
});

Deno.test("No name breaks a line of the log or steers a terminal", async () => {
  await using service = await ProcessService.start(CLOSED);
  const names = ['"\\n"level":"error', "<script>", "\u202egnp.exe", "a\\u000ab", "%0aERROR", "é\u0301"];
  for (const name of names) {
    await using client = await openClient(service.socketUrl(), protocolsFor(await tokenFor(name)));
    assertEquals((await client.nextJson()).user, name);
  }
  const closed = () => service.records.filter(({ event }) => event === "connection closed");
  await until(() => closed().length === names.length, "the lines");
  assertEquals(closed().map(({ user }) => user), names);
  for (
    const line of (await Deno.readTextFile(`${service.logDir}/${await onlyFile(service.logDir)}`)).trim()
      .split("\n")
  ) {
    JSON.parse(line);
    // deno-lint-ignore no-control-regex -- control characters are exactly what must not be there
    assert(!/[\u0000-\u001f\u007f-\u009f]/.test(line), line);
  }
  assertEquals(service.otherText, "", "the console has nothing but such lines");
});

async function onlyFile(dir: string): Promise<string> {
  const names = [];
  for await (const { name } of Deno.readDir(dir)) names.push(name);
  assertEquals(names.length, 1);
  return names[0]!;
}
