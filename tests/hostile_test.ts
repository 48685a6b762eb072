/**
 * Hostile clients, all against a service in a process of its own, while an honest user is sent to all the time: the
 * process lives, the honest user gets every message in time, and afterwards no socket is left. The numbers are
 * smaller than those of a real attack, so that a busy machine with two cores is done in a minute.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { call, CLOSED, KEY, protocolsFor, tokenFor } from "./support/closed.ts";
import { Bell, until, withDeadline } from "./support/deadline.ts";
import { encodeFrame, OPCODE, RawSocket } from "./support/raw_socket.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";
import { Service } from "./support/service.ts";
import { openClient, type WsClient } from "./support/ws_client.ts";

/** How long a message to the honest user may take while others do their worst, in milliseconds. */
const SERVED_WITHIN_MS = 2_000;

/** A service in a process of its own. */
class Victim implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  readonly #dir: string;
  readonly #bell = new Bell();
  output = "";
  url = "";

  private constructor(child: Deno.ChildProcess, dir: string) {
    this.#child = child;
    this.#dir = dir;
    const read = async () => {
      for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
        this.output += text;
        this.#bell.ring();
      }
    };
    this.#reading = read();
  }

  static async start(env: Record<string, string> = {}): Promise<Victim> {
    const dir = await Deno.makeTempDir({ prefix: "userwire-victim-" });
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-check", "-A", new URL("../main.ts", import.meta.url).pathname],
      env: {
        ...CLOSED,
        PORT: "0",
        LOG_DIR: dir,
        LOG_FORMAT: "json",
        USERWIRE_DRAIN_S: "0",
        USERWIRE_IDENTITY_TIMEOUT_S: "1",
        ...env,
      },
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const victim = new Victim(child, dir);
    await victim.#bell.until(() => /"url":"([^"]+)"/.test(victim.output), "the service to listen", 20_000);
    victim.url = /"url":"([^"]+)"/.exec(victim.output)![1]!;
    return victim;
  }

  get socketUrl(): string {
    return `${this.url.replace("http", "ws")}ws`;
  }

  /** Resident memory, in bytes; undefined where the system does not say. */
  async memory(): Promise<number | undefined> {
    const status = await Deno.readTextFile(`/proc/${this.#child.pid}/status`).catch(() => "");
    const kib = /VmRSS:\s+(\d+)/.exec(status)?.[1];
    return kib === undefined ? undefined : Number(kib) * 1_024;
  }

  async connections(): Promise<number> {
    return (await (await fetch(`${this.url}readyz`)).json()).connections;
  }

  /** Sends to a user; fails unless somebody got it. */
  async send(user: string, data: number): Promise<void> {
    const response = await fetch(`${this.url}v1/users/${user}/messages`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY.key}`, "content-type": "application/json" },
      body: String(data),
    });
    assertEquals((await response.json()).sockets, 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    const { code } = await withDeadline(this.#child.status, 20_000, "the service to end");
    await this.#reading;
    await Deno.remove(this.#dir, { recursive: true });
    assertEquals(code, 0, "it ends as it should");
  }
}

/** Sends to an honest user until it is told to stop; remembers how long each message took. */
class Honest {
  readonly tookMs: number[] = [];
  #isOver = false;
  #running: Promise<void>;

  constructor(victim: Victim, client: WsClient) {
    this.#running = (async () => {
      for (let i = 0; !this.#isOver; i++) {
        const startMs = performance.now();
        await victim.send("honest", i);
        assertEquals((await client.nextJson(SERVED_WITHIN_MS)).data, i);
        this.tookMs.push(performance.now() - startMs);
        // Others want to do their worst meanwhile.
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
    this.#running.catch(() => {});
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#running;
    assert(this.tookMs.length > 0);
  }
}

type Attack = (victim: Victim) => Promise<void>;

const hang = async (sockets: RawSocket[]) => {
  for (const socket of sockets) await socket.closeAbruptly();
};

const ATTACKS: Record<string, Attack> = {
  "1,000 requests that never end (slowloris)": async (victim) => {
    const sockets = [];
    for (let i = 0; i < 1_000; i++) {
      const socket = await RawSocket.dial(victim.url);
      socket.sendBytes("GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nSec-Web");
      sockets.push(socket);
    }
    for (const socket of sockets) socket.sendBytes("Socket-Key: ");
    await hang(sockets);
  },
  "more sockets from one address than it may have": async (victim) => {
    const headers = { "X-Forwarded-For": "6.6.6.6" };
    const sockets = await Promise.all(
      Array.from({ length: 300 }, () => RawSocket.open(victim.socketUrl, { headers })),
    );
    const opened = sockets.filter(({ answer }) => answer.status === 101).length;
    assert(opened <= 100, `${opened} were let in`);
    assertEquals(sockets.filter(({ answer }) => answer.status === 429).length, 300 - opened);
    await hang(sockets);
  },
  "sockets that never say who they are": async (victim) => {
    const sockets = await Promise.all(Array.from({ length: 50 }, () => RawSocket.open(victim.socketUrl)));
    for (const socket of sockets) assertEquals((await socket.readClose(10_000)).code, 4408);
    await hang(sockets);
  },
  "64 MiB in fragments of one message": async (victim) => {
    await using socket = await RawSocket.open(victim.socketUrl, {
      headers: { Authorization: `Bearer ${await tokenFor("mallory")}` },
    });
    const part = encodeFrame({ opcode: OPCODE.continuation, fin: false, payload: new Uint8Array(65_536) });
    socket.send({ opcode: OPCODE.binary, fin: false, payload: "x" });
    for (let i = 0; i < 1_024; i++) socket.sendBytes(part);
    socket.send({ opcode: OPCODE.continuation, payload: "x" });
    await until(() => /"code":1009/.test(victim.output), "the log to say why", 20_000);
  },
  "a frame that claims to be huge": async (victim) => {
    await using socket = await RawSocket.open(victim.socketUrl);
    socket.send({ opcode: OPCODE.binary, payload: "x", claimedLength: 2 ** 40 });
    await withDeadline(socket.ended, 10_000, "the connection to end");
  },
  "headers without end": async (victim) => {
    const bombs = [
      `X: ${"x".repeat(1_000_000)}\r\n`,
      Array.from({ length: 5_000 }, (_, i) => `X-${i}: y\r\n`).join(""),
      `Cookie: ${"a=b; ".repeat(40_000)}\r\n`,
    ];
    for (const bomb of bombs) {
      await using socket = await RawSocket.dial(victim.url);
      socket.sendBytes(`GET / HTTP/1.1\r\nHost: localhost\r\n${bomb}\r\n`);
      // An answer, or a reset while the rest was still on its way.
      const status = await socket.readAnswer().then(({ status }) => status, () => 0);
      assert([0, 400, 431].includes(status), String(status));
    }
    await using socket = await RawSocket.dial(victim.url);
    socket.sendBytes(`GET /${"x".repeat(100_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    const status = await socket.readAnswer().then(({ status }) => status, () => 0);
    assert([0, 400, 414].includes(status), String(status));
  },
  "frames that break RFC 6455": async (victim) => {
    const bad = [
      { opcode: OPCODE.text, payload: "x", reserved: 7 },
      { opcode: 0xb, payload: "x" },
      { opcode: 0x3, payload: "x" },
      { opcode: OPCODE.ping, payload: "x".repeat(126) },
      { opcode: OPCODE.ping, payload: "x", fin: false },
      { opcode: OPCODE.continuation, payload: "x" },
      { opcode: OPCODE.text, payload: new Uint8Array([0xc3, 0x28]) },
      { opcode: OPCODE.close, payload: new Uint8Array([0x03]) },
      { opcode: OPCODE.close, payload: new Uint8Array([0x03, 0xed]) },
    ];
    for (let round = 0; round < 5; round++) {
      for (const frame of bad) {
        await using socket = await RawSocket.open(victim.socketUrl);
        socket.send(frame);
        await withDeadline(socket.ended, 10_000, `the end after ${JSON.stringify(frame)}`);
      }
    }
  },
  "subprotocols that are none": async (victim) => {
    const offers = [
      "userwire.bearer.",
      "userwire.v1,userwire.bearer.%%%",
      "userwire.v1, userwire.bearer." + "A".repeat(20_000),
      ",,,,",
      "a".repeat(8_000),
      "userwire.v1,".repeat(2_000),
      '"userwire.v1"',
      "userwire.v1\t;x",
    ];
    for (const offer of offers) {
      await using socket = await RawSocket.open(victim.socketUrl, {
        headers: { "Sec-WebSocket-Protocol": offer },
      });
      const { status } = socket.answer;
      assert([101, 400, 401].includes(status), `${offer.slice(0, 40)} got ${status}`);
    }
  },
  "1,000 keys and tickets that are made up": async (victim) => {
    for (let i = 0; i < 20; i++) {
      await Promise.all(Array.from({ length: 50 }, async (_, j) => {
        const headers = { authorization: `Bearer uw_tests_${crypto.randomUUID()}` };
        const response = await fetch(`${victim.url}v1/users/honest`, { headers });
        await response.body?.cancel();
        assertEquals(response.status, 401);
        if (j % 10 !== 0) return;
        await using socket = await RawSocket.open(`${victim.socketUrl}?ticket=${crypto.randomUUID()}`);
        assertEquals(socket.answer.status, 401);
      }));
    }
  },
};

Deno.test("Hostile clients harm nobody else", async (t) => {
  await using victim = await Victim.start({
    USERWIRE_TRUSTED_PROXIES: "127.0.0.1",
    USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "100",
  });
  await using client = await openClient(
    victim.socketUrl,
    protocolsFor(await tokenFor("honest", { lifeS: 600 })),
  );
  assertEquals((await client.nextJson()).user, "honest");
  const before = await victim.memory();
  for (const [what, attack] of Object.entries(ATTACKS)) {
    await t.step(what, async () => {
      const honest = new Honest(victim, client);
      try {
        await attack(victim);
      } finally {
        await honest.stop();
      }
      await until(async () => await victim.connections() === 1, "only the honest socket to be left", 15_000);
      assertEquals(client.socket.readyState, WebSocket.OPEN);
    });
  }
  assert(!/unexpected error|"level":"error"/i.test(victim.output), "nothing was unexpected");
  const after = await victim.memory();
  if (before !== undefined && after !== undefined) {
    assert(after < before + 300 * 1024 ** 2, `${before} bytes before, ${after} after`);
  }
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
      "/src/config.ts",
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
  await using victim = await Victim.start();
  const names = ['"\\n"level":"error', "<script>", "\u202egnp.exe", "a\\u000ab", "%0aERROR", "é\u0301"];
  for (const name of names) {
    await using client = await openClient(victim.socketUrl, protocolsFor(await tokenFor(name)));
    assertEquals((await client.nextJson()).user, name);
  }
  await until(() => victim.output.split("connection closed").length > names.length, "the lines");
  for (const line of victim.output.trim().split("\n")) {
    assertMatch(line, /^\{.*\}$/);
    JSON.parse(line);
    // deno-lint-ignore no-control-regex -- control characters are exactly what must not be there
    assert(!/[\u0000-\u001f\u007f-\u009f]/.test(line), line);
  }
});
