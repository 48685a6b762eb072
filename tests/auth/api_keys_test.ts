/** API keys: how they are made, what each scope and pattern lets a caller do, and that they change without a restart. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { fileURLToPath } from "node:url";
import { KeyRing, newKey, parseKeyLines } from "../../src/auth/keys.ts";
import { SETTINGS } from "../../src/config/settings.ts";
import { command, Terminal } from "../../testkit/cli_terminal.ts";
import { call, CLOSED, KEY, SECRET, tokenFor } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { Service } from "../../testkit/service.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** Every call that needs a key, with the scope it needs. */
const CALLS: [request: string, scope: string, body?: unknown][] = [
  ["POST /v1/users/team-a/messages", "send", 1],
  ["POST /v1/messages", "send", { items: [{ to: "team-a", data: 1 }, { to: ["team-b"], data: 1 }] }],
  ["GET /v1/users/team-a", "read"],
  ["GET /v1/users/team-a/messages", "read"],
  ["POST /v1/users/online", "read", { users: ["team-a", "team-b"] }],
  ["DELETE /v1/users/team-a/connections", "admin"],
  ["GET /v1/users/team-a/connections", "read"],
  ["POST /v1/tickets", "tickets", { user: "team-a" }],
  ["POST /v1/users/team-a/revocations", "admin", { jti: "x" }],
];

Deno.test("A call needs a key with its scope: none is 401, another scope 403", async (t) => {
  const keys = Object.fromEntries(
    ["send", "read", "tickets", "groups", "admin"].map((
      scope,
    ) => [scope, newKey(scope, { scopes: [scope] })]),
  );
  await using service = await Service.start({
    USERWIRE_API_KEYS: Object.values(keys).map(({ line }) => line).join(","),
  });
  for (const [request, needed, body] of CALLS) {
    await t.step(request, async () => {
      const without = await call(service, request, { key: undefined, body });
      assertEquals([without.status, without.body.code], [401, "unauthorized"]);
      assertMatch(without.headers.get("www-authenticate")!, /^Bearer/);
      const wrong = await call(service, request, { key: `${keys[needed]!.key}x`, body });
      assertEquals(wrong.status, 401);
      for (const [scope, { key }] of Object.entries(keys)) {
        const { status, body: answer } = await call(service, request, { key, body });
        // Nobody who makes tickets with this one today is to lose them.
        const isEnough = scope === needed || needed === "tickets" && scope === "admin";
        if (isEnough) assert(status < 300, JSON.stringify(answer));
        else {
          assertEquals([status, answer.code], [403, "forbidden"]);
          assertMatch(answer.detail, new RegExp(`"${scope}" lacks the scope "${needed}"`));
        }
      }
    });
  }
  // These need none: whoever balances the load has no key.
  for (const path of ["/healthz", "/readyz", "/", "/openapi.json"]) {
    const { status, body } = await call(service, `GET ${path}`, { key: undefined });
    assertEquals(status, 200, path);
    if (path === "/readyz") assertEquals(body.open, false);
  }
});

Deno.test("A key with a pattern addresses no other user, wherever the name stands", async (t) => {
  const { key, line } = newKey("team", { scopes: ["send", "read", "admin"], users: "team-*" });
  await using service = await Service.start({ USERWIRE_API_KEYS: line });
  for (const [request, , body] of CALLS) {
    await t.step(request, async () => {
      assert((await call(service, request, { key, body })).status < 300);
      // Only the last name is a stranger's, where there are several.
      const [mine, theirs] = JSON.stringify(body ?? "").includes("team-b")
        ? ["team-b", "bob"]
        : ["team-a", "bob"];
      const other = JSON.parse(JSON.stringify(body ?? null).replace(mine!, theirs!));
      const { status, body: answer } = await call(service, request.replace("team-a", "bob"), {
        key,
        ...(body !== undefined && { body: other }),
      });
      assertEquals([status, answer.code], [403, "forbidden"]);
      assertMatch(answer.detail, /may not address the user "bob"/);
    });
  }
  for (const name of ["Team-a", "xteam-a", "te%61m", "team%2Da%2F..%2Fbob"]) {
    const { status } = await call(service, `GET /v1/users/${name}`, { key });
    assertEquals(status, name.startsWith("team") ? 200 : 403, name);
  }
});

Deno.test("A pattern matches whole names; a star stands for any text, also for none", () => {
  const matches = (users: string, name: string, fold = false) => {
    const { key, line } = newKey("k", { scopes: ["send"], users });
    return new KeyRing(parseKeyLines(line).keys, { fold }).authorize(key, "send").mayAddress(name);
  };
  const yes = [["*", "a"], ["a", "a"], ["a*", "a"], ["a*", "abc"], ["*c", "abc"], ["a*c", "ac"], [
    "a*b*c",
    "a-b-b-c",
  ]];
  const no = [["a", "ab"], ["a", "ba"], ["a*", "ba"], ["*c", "cb"], ["a*a", "a"], ["a*b*c", "acb"], [
    "A*",
    "ab",
  ]];
  const literal = [["a.c", "abc"], ["a+", "aa"], ["[a]", "a"], ["a?c", "abc"]];
  for (const [users, name] of yes) assert(matches(users!, name!), `${users} ${name}`);
  for (const [users, name] of [...no, ...literal]) assert(!matches(users!, name!), `${users} ${name}`);
  for (const odd of ["a,b:c", "ü%", "a\nb"]) {
    assert(matches(`${odd}*`, `${odd}!`), "the line keeps what could end it");
  }
  assert(matches("Team-*", "tEAM-x", true), "where case does not count, it does not count here");
});

Deno.test("Only a key with the pattern * for users may address all of them, whatever groups it has", () => {
  const mayAddressAll = (users: string) => {
    const { key, line } = newKey("k", { scopes: ["broadcast"], users });
    return new KeyRing(parseKeyLines(line).keys, { fold: false }).authorize(key, "broadcast").mayAddressAll;
  };
  for (const users of ["*", "**", "*|@team-*", "@team-*|user-*|*"]) assert(mayAddressAll(users), users);
  for (const users of ["user-*", "@*", "user-*|@*", "*-*"]) assert(!mayAddressAll(users), users);
});

Deno.test("Without keys but with tokens configured the API says what to set, and sockets work", async () => {
  await using service = await Service.start({ USERWIRE_JWT_SECRET: SECRET });
  const { status, body } = await call(service, "GET /v1/users/alice");
  assertEquals(status, 401);
  assertMatch(body.detail, /set USERWIRE_API_KEYS/);
  await using _alice = await openClient(service.socketUrl(), {
    headers: { authorization: `Bearer ${await tokenFor("alice")}` },
  });
});

Deno.test("Several keys work at once, and a file of them is read again without dropping a socket", async () => {
  const old = newKey("backend", { scopes: ["read"] }), fresh = newKey("backend", { scopes: ["read"] });
  const file = await Deno.makeTempFile({ prefix: "userwire-keys-" });
  try {
    await Deno.writeTextFile(file, `# who may call\n${old.line}\n\n`);
    await using service = await Service.start({ ...CLOSED, USERWIRE_API_KEYS_FILE: file });
    await using alice = await openClient(service.socketUrl(), {
      headers: { authorization: `Bearer ${await tokenFor("alice")}` },
    });
    const statuses = async () => {
      const all = [KEY.key, old.key, fresh.key].map((key) => call(service, "GET /v1/users/alice", { key }));
      return (await Promise.all(all)).map(({ status }) => status);
    };
    assertEquals(await statuses(), [200, 200, 401]);
    await Deno.writeTextFile(file, `${old.line}\n${fresh.line}\n`);
    service.server.reload();
    assertEquals(await statuses(), [200, 200, 200]);
    await Deno.writeTextFile(file, `${fresh.line}\n`);
    service.server.reload();
    assertEquals(await statuses(), [200, 401, 200]);
    // What can't be read changes nothing, and is said without being shown.
    await Deno.writeTextFile(file, "hunter2\n");
    service.server.reload();
    assertEquals(await statuses(), [200, 401, 200]);
    const errors = service.log.records.filter(({ level }) => level === "error");
    assertEquals(errors.length, 1);
    assertMatch(JSON.stringify(errors), /line 1 must be as/);
    assert(!JSON.stringify(errors).includes("hunter2"));
    assertEquals(alice.socket.readyState, WebSocket.OPEN);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("SIGHUP makes a service read its keys again", async () => {
  const key = newKey("late", { scopes: ["read"] });
  using dir = new TempFolder("hup");
  await Deno.writeTextFile(`${dir}/keys`, "");
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "-A", fileURLToPath(new URL("../../main.ts", import.meta.url))],
    env: {
      PORT: "0",
      USERWIRE_API_KEYS_FILE: `${dir}/keys`,
      LOG_DIR: `${dir}/logs`,
      LOG_FORMAT: "json",
      USERWIRE_DRAIN_S: "0",
    },
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let output = "";
  const reading = (async () => {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) output += text;
  })();
  try {
    await until(() => /"listening"/.test(output), "the service to listen", 20_000);
    const url = /"url":"([^"]+)"/.exec(output)![1]!;
    const status = async () => {
      const response = await fetch(`${url}v1/users/alice`, {
        headers: { authorization: `Bearer ${key.key}` },
      });
      await response.body?.cancel();
      return response.status;
    };
    assertEquals(await status(), 401, "no keys yet is not open mode");
    await Deno.writeTextFile(`${dir}/keys`, key.line);
    child.kill("SIGHUP");
    await until(async () => await status() === 200, "the key to be known");
  } finally {
    try {
      child.kill("SIGTERM");
    } catch {
      // It had ended by itself.
    }
    await child.status;
    await reading;
  }
});

Deno.test("newKey makes keys that nobody can guess, and lines that hold only their hash", () => {
  const one = newKey("shop", { scopes: ["send", "read", "send"], users: "a,b:*" });
  const other = newKey("shop", { scopes: ["send"] });
  assertMatch(one.key, /^uw_shop_[A-Za-z0-9_-]{43}$/);
  assert(one.key !== other.key);
  assertMatch(one.line, /^shop:send\+read:a%2Cb%3A\*:[0-9a-f]{64}$/);
  assert(!one.line.includes(one.key.slice(8)));
  const { keys, faults } = parseKeyLines(`${one.line},${other.line}\n# comment\n`, { commas: true });
  assertEquals([keys.length, faults], [2, []]);
  assertEquals([keys[0]!.name, [...keys[0]!.scopes], keys[0]!.users], ["shop", ["send", "read"], ["a,b:*"]]);
  for (
    const [name, scopes, says] of [["", "send", /name/], ["a b", "send", /name/], ["a", "", /none|""/], [
      "a",
      "root",
      /"root"/,
    ]] as const
  ) {
    assertThrows(
      () => newKey(name, { scopes: scopes === "" ? [] : [scopes] }),
      TypeError,
      undefined,
      String(says),
    );
  }
  for (
    const line of [
      "x",
      "a:send:*:abc",
      `a:root:*:${"0".repeat(64)}`,
      `a::*:${"0".repeat(64)}`,
      `a:send:%:${"0".repeat(64)}`,
      one.key,
    ]
  ) {
    const { keys, faults } = parseKeyLines(line);
    assertEquals([keys.length, faults.length], [0, 1], line);
    assert(!faults[0]!.includes(line) || line === "x");
  }
});

Deno.test("A line that begins with # names no key, whatever stands in it", () => {
  const [one, two, three] = ["one", "two", "three"].map((name) => newKey(name, { scopes: ["send"] }).line);
  const text = `# retired: ${one}, ${two}\r\n  # keys of the shop, made 2026-11\r\n\r\n${three}\r\n`;
  for (const commas of [false, true]) {
    const { keys, faults } = parseKeyLines(text, { commas });
    assertEquals([keys.map(({ name }) => name), faults], [["three"], []]);
  }
  // In a file a comma ends nothing, and is in no key.
  const { keys, faults } = parseKeyLines(`${one},${two}`);
  assertEquals([keys, faults.length], [[], 1]);
  assertEquals(parseKeyLines(`${one},${two}`, { commas: true }).keys.length, 2);
});

Deno.test("What is no key is named by its line in a file, by its place in a variable, and not without end", () => {
  const { line } = newKey("one", { scopes: ["send"] });
  const where = (text: string, commas: boolean) =>
    parseKeyLines(text, { commas }).faults.map((fault) => fault.replace(/ must be.*/, ""));
  assertEquals(where(`# one, two\n\n${line}\nx, y\n`, false), ["line 4"]);
  assertEquals(where(`# one, two\n\n${line},x\n\n,${line},y\n`, true), ["key 2", "key 4"]);
  const many = parseKeyLines("root:x:0:0:root:/root:/bin/bash\n".repeat(31)).faults;
  assertEquals([many.length, many[4]?.slice(0, 7)], [6, "line 5 "]);
  assertMatch(many[5]!, /^26 more lines/);
});

Deno.test("userwire key new prints a key and its line, which open the API; commands take the key and the token", async () => {
  const terminal = new Terminal();
  assertEquals(
    await terminal.run(["key", "new", "ops", "--scopes", "send,read,admin", "--json"]),
    0,
    terminal.stderr,
  );
  const { key, line } = JSON.parse(terminal.stdout);
  await using service = await Service.start({ USERWIRE_API_KEYS: line, USERWIRE_JWT_SECRET: SECRET });
  const url = service.server.url;

  const bare = new Terminal();
  assertEquals(await bare.run(["who", "alice"], { USERWIRE_URL: url }), 1);
  assertMatch(bare.stderr, /answered 401: This call needs an API key/);
  assertEquals(await command(service, ["who", "alice", "--key", key]), "alice: offline\n");

  // With a token, and with a key alone, which fetches a ticket.
  for (const env of [{ USERWIRE_TOKEN: await tokenFor("alice") }, { USERWIRE_KEY: key }]) {
    const listening = new Terminal();
    const listen = listening.run(["listen", "alice", "--count", "1"], { USERWIRE_URL: url, ...env });
    await listening.until("Listening as alice");
    assertEquals(await command(service, ["send", "alice", "hi", "--key", key]), "sent to 1 socket\n");
    assertEquals(await listen, 0, listening.stderr);
    assertEquals(listening.stdout, "hi\n");
    await service.isEmpty();
  }
  const wrong = new Terminal();
  assertEquals(await wrong.run(["key", "new", "ops", "--scopes", "root"]), 2);
  assertMatch(wrong.stderr, /Scopes must be send, broadcast, read, tickets, groups, admin/);
});

Deno.test("The page and the document can be turned off, or put behind a key", async () => {
  const statuses = async (env: Record<string, string>, headers: Record<string, string> = {}) => {
    await using service = await Service.start({ USERWIRE_API_KEYS: KEY.line, ...env });
    const paths = ["/", "/page.js", "/openapi.json", "/client.js", "/healthz"];
    const answers = paths.map((path) => call(service, `GET ${path}`, { key: undefined, headers }));
    return (await Promise.all(answers)).map(({ status }) => status);
  };
  const byKey = { USERWIRE_PAGE: "key", USERWIRE_OPENAPI: "key" };
  const basic = `Basic ${btoa(`anyone:${KEY.key}`)}`;
  assertEquals(await statuses({}), [200, 200, 200, 200, 200]);
  assertEquals(await statuses({ USERWIRE_PAGE: "off", USERWIRE_OPENAPI: "off" }), [404, 404, 404, 200, 200]);
  assertEquals(await statuses(byKey), [401, 401, 401, 200, 200]);
  assertEquals(await statuses(byKey, { authorization: `Bearer ${KEY.key}` }), [200, 200, 200, 200, 200]);
  // As a browser asks for it.
  assertEquals(await statuses(byKey, { authorization: basic }), [200, 200, 401, 200, 200]);
  assertEquals(await statuses(byKey, { authorization: `${basic}x` }), [401, 401, 401, 200, 200]);
});

Deno.test("The settings that hold secrets are known as such, and no others", () => {
  const secret = Object.values(SETTINGS).filter(({ kind }) => kind.isSecret).map(({ env }) => env);
  assertEquals(secret, [
    "REDIS_URL",
    "REDIS_SENTINEL_PASSWORD",
    "USERWIRE_API_KEYS",
    "USERWIRE_JWT_SECRET",
    "USERWIRE_JWT_PUBLIC_KEY",
    "USERWIRE_JWKS_URL",
    "USERWIRE_WEBHOOK_URL",
    "USERWIRE_WEBHOOK_SECRETS",
  ]);
});
