/**
 * Nothing leaks. Every process that a test starts through `ProcessService` is searched when it ends. Here a real one
 * with every kind of secret, at the most talkative level, goes through what works and what fails; then everything it
 * wrote and answered is searched for each secret, whole and in part.
 */
import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { newKey } from "../../src/auth/keys.ts";
import { protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { secretsIn } from "../../testkit/secrets.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { openPatiently } from "../../testkit/ws_client.ts";

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));

redisTest("No secret and no payload appears in a log, on the console or in an answer", async () => {
  const random = () => crypto.randomUUID().replaceAll("-", "");
  const password = `redis${random()}`, secret = `secret${random()}`, payload = `payload${random()}`;
  const key = newKey("tests", { scopes: ["send", "read", "admin"] }),
    weak = newKey("weak", { scopes: ["read"] });
  const token = await tokenFor("alice", { jti: `jti${random()}` }, { secret });
  const forged = await tokenFor("alice", {}, { secret: `other${random()}` });
  const expired = await tokenFor("alice", { lifeS: -100 }, { secret });
  const wrongKey = `uw_tests_${random()}`;

  await using redis = await RedisServer.start({ password });
  using folder = new TempFolder("leak");
  const dir = folder.path;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "-A", MAIN],
    env: {
      PORT: "0",
      REDIS_URL: redis.url,
      LOG_LEVEL: "debug",
      LOG_DIR: dir,
      LOG_FORMAT: "json",
      USERWIRE_API_KEYS: `${key.line},${weak.line}`,
      USERWIRE_JWT_SECRET: secret,
      USERWIRE_TOKEN_IN_QUERY: "true",
      USERWIRE_REDIS_TIMEOUT_MS: "500",
      USERWIRE_DRAIN_S: "1",
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let written = "";
  const readings = [child.stdout, child.stderr].map(async (stream) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) written += text;
  });
  let answered = "";
  const tickets: string[] = [];
  try {
    await until(() => /"listening"/.test(written), "the service to listen", 20_000);
    const url = /"url":"([^"]+)"/.exec(written)![1]!;
    const ws = url.replace("http", "ws");

    const ask = async (method: string, path: string, authorization?: string, body?: string) => {
      const response = await fetch(url + path, {
        method,
        headers: { "content-type": "application/json", ...(authorization && { authorization }) },
        ...(body !== undefined && { body }),
      });
      const text = await response.text();
      const heads = [...response.headers].flat().join(" ");
      if (path === "v1/tickets" && response.ok) tickets.push(JSON.parse(text).ticket);
      // The history is there to give payloads back, and a ticket is what was asked for.
      else answered += method === "GET" && path.endsWith("/messages") ? heads : `${heads} ${text}`;
      return response.status;
    };
    const shake = async (query: string, headers: Record<string, string> = {}) => {
      await using socket = await RawSocket.open(`${ws}ws${query}`, { headers });
      answered += JSON.stringify([socket.answer.body, ...socket.answer.headers]);
      return socket.answer.status;
    };

    const gone: string[] = [];
    const goThrough = async () => {
      for (
        const shown of [
          `Bearer ${key.key}`,
          `Bearer ${weak.key}`,
          `Bearer ${wrongKey}`,
          `Basic ${btoa(`x:${wrongKey}`)}`,
          undefined,
        ]
      ) {
        await ask("POST", "v1/users/alice/messages", shown, JSON.stringify(payload));
        await ask("POST", "v1/users/alice/messages", shown, `{"broken": "${payload}`);
        await ask("POST", "v1/users/a%20b/messages", shown, JSON.stringify(payload));
        await ask(
          "POST",
          "v1/messages",
          shown,
          JSON.stringify({ items: [{ to: "alice", data: payload, x: payload }] }),
        );
        await ask("GET", "v1/users/alice/messages", shown);
        await ask("POST", "v1/tickets", shown, '{"user":"alice"}');
        await ask("POST", "v1/users/alice/revocations", shown, '{"issued_before":1}');
        await ask("GET", `nothing?token=${token}&key=${key.key}`, shown);
        await ask("GET", "openapi.json", shown);
        await ask("GET", "readyz", shown);
      }
      for (const text of [token, forged, expired, `${token}x`]) {
        await shake("", { Authorization: `Bearer ${text}` });
        await shake("", { "Sec-WebSocket-Protocol": protocolsFor(text).join() });
        await shake(`?token=${text}`);
        await shake(`?ticket=${text}`);
        await shake(`?username=bob&token=${text}`);
        await using socket = await RawSocket.open(`${ws}ws`);
        if (socket.answer.status !== 101) continue;
        socket.sendTexts([JSON.stringify({ token: text }), payload]);
        // A token that is good keeps its socket.
        if (text !== token) answered += JSON.stringify(await socket.readClose());
      }
      for (const ticket of tickets.splice(0, 2)) {
        await shake(`?ticket=${ticket}`);
        await shake(`?ticket=${ticket}`);
        gone.push(ticket);
      }
    };
    await goThrough();
    {
      // On a busy machine a Redis that is well may take longer than this service waits.
      await using alice = await openPatiently(`${ws}ws`, protocolsFor(token));
      await alice.nextJson();
      for (const text of [token, forged]) {
        alice.send(JSON.stringify({ t: "auth", token: text }));
        let frame: Record<string, unknown>;
        do frame = await alice.nextJson(); while (frame.t !== "re");
        answered += JSON.stringify(frame);
      }
      const send = () => ask("POST", "v1/users/alice/messages", `Bearer ${key.key}`, JSON.stringify(payload));
      await until(async () => await send() === 200, "a send to reach alice");
      alice.send(`{"t": broken ${payload}`);
      await alice.closed;
      answered += JSON.stringify(alice.waiting.filter((frame) => !String(frame).startsWith('{"t":"m"')));
    }
    // And once more while Redis is away, which is where errors are longest.
    await redis.stop();
    await goThrough();
    tickets.push(...gone);
  } finally {
    child.kill("SIGTERM");
    await withDeadline(child.status, 20_000, "the service to end");
    await Promise.all(readings);
  }
  for await (const { name } of Deno.readDir(dir)) written += await Deno.readTextFile(`${dir}/${name}`);

  assert(written.includes("connection opened") && written.includes("redis unavailable"), "it did talk");
  assert(answered.length > 10_000 && tickets.length > 0);
  const signatures = [token, forged, expired].map((text) => text.split(".")[2]!);
  const needles = [password, secret, payload, key.key, weak.key, wrongKey, ...signatures, ...tickets];
  const hashes = [key, weak].map(({ line }) => line.split(":").at(-1)!);
  for (const needle of [...needles, ...hashes, ...needles.map((text) => text.slice(-24))]) {
    assertEquals(written.indexOf(needle), -1, `written: …${around(written, needle)}…`);
    assertEquals(answered.indexOf(needle), -1, `answered: …${around(answered, needle)}…`);
  }
});

Deno.test("secretsIn finds every kind of secret, and nothing in a harmless line", async () => {
  const key = newKey("tests", { scopes: ["read"] });
  const env = {
    USERWIRE_JWT_SECRET: "correct horse battery staple, and more",
    USERWIRE_API_KEYS: key.line,
    REDIS_URL: "redis://user:p%40ss@localhost",
  };
  const find = secretsIn(env);
  const cases: [text: string, what: string][] = [
    [`secret ${env.USERWIRE_JWT_SECRET}`, "USERWIRE_JWT_SECRET"],
    [`p@ss`, "the password of Redis"],
    [key.line.split(":").at(-1)!, "the hash of an API key"],
    [`x ${key.key} y`, "an API key"],
    [`"Bearer ${await tokenFor("alice")}"`, "a token"],
    [`GET /ws?ticket=${"a".repeat(43)}`, "a ticket"],
  ];
  for (const [text, what] of cases) assertEquals(find(text), [what]);
  assertEquals(find('{"event":"listening","url":"http://127.0.0.1:8765/","node":"host:8765"}'), []);
});

function around(text: string, needle: string): string {
  const at = text.indexOf(needle);
  return text.slice(Math.max(0, at - 200), at + 20);
}
