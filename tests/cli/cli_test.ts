/**
 * The command line in this process: `send`, `who`, and what all commands share. `listen` is in
 * `cli_listen_test.ts`, what only a process of its own shows in `cli_process_test.ts`.
 */
import { assertEquals, assertMatch, assertNotMatch, assertStringIncludes } from "@std/assert";
import { CLOSED } from "../../testkit/closed.ts";
import { command, serveOther, Terminal } from "../../testkit/cli_terminal.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

// ---------------------------------------------------------------------------------------------------------
// group

Deno.test("group makes, shows and deletes a group, and send @ sends to it", async () => {
  await using service = await Service.start();
  await using _alice = await openClient(service.socketUrl("alice"));
  assertEquals(
    await command(service, ["group", "add", "team", "alice", "bob"]),
    "team: 2 added, 2 users now\n",
  );
  assertEquals(await command(service, ["group", "add", "@team", "carol"]), "team: 1 added, 3 users now\n");
  assertEquals(
    await command(service, ["group", "remove", "team", "carol"]),
    "team: 1 removed, 2 users now\n",
  );
  assertEquals(
    await command(service, ["group", "show", "team"]),
    "team: 2 users, 1 online (1 socket)\nalice: 1 socket\nbob: offline\n",
  );
  const shown = JSON.parse(await command(service, ["group", "show", "team", "--json"]));
  assertEquals([shown.users, shown.items], [2, [{ user: "alice", sockets: 1 }, { user: "bob", sockets: 0 }]]);
  assertEquals(
    await command(service, ["send", "@team", "hi"]),
    "sent to 1 socket of 1 user; kept for 0; not seen for a day: 1\n",
  );
  assertEquals(JSON.parse(await command(service, ["send", "@team", "hi", "--json"])).users, 1);
  assertEquals(await command(service, ["group", "delete", "team"]), "team: deleted, it had 2 users\n");
  const faults: [args: string[], code: number, says: RegExp][] = [
    [["send", "@team", "hi"], 1, /404: There is no group "team"/],
    [["group", "show", "team"], 1, /404/],
    [["group", "add", "team"], 2, /missing required argument 'user'/],
    [["group", "add", "a b", "alice"], 2, /name of a group must not hold white space/],
    [["send", "@", "hi"], 2, /name of a group must not be empty/],
  ];
  for (const [args, code, says] of faults) {
    const io = new Terminal();
    assertEquals(await io.run(args, { USERWIRE_URL: service.server.url }), code, args.join(" "));
    assertMatch(io.stderr, says);
  }
});

// ---------------------------------------------------------------------------------------------------------
// send

Deno.test("send says how many sockets it reached, and that a user is offline", async () => {
  await using service = await Service.start();
  await using _first = await openClient(service.socketUrl("alice"));
  assertEquals(await command(service, ["send", "alice", "hi"]), "sent to 1 socket\n");
  await using _second = await openClient(service.socketUrl("alice"));
  assertEquals(await command(service, ["send", "alice", "hi"]), "sent to 2 sockets\n");
  assertEquals(await command(service, ["send", "bob", "hi"]), "bob is offline (0 sockets)\n");
  const answer = JSON.parse(await command(service, ["send", "alice", "hi", "--json"]));
  assertEquals(answer.sockets, 2);
  assertEquals(typeof answer.id, "string");
});

Deno.test("send sends JSON as JSON, other text as text, and bytes as bytes", async () => {
  await using service = await Service.start();
  await using alice = await openClient(
    service.socketUrl("al/i%"),
    "userwire.v1",
  );
  assertEquals((await alice.nextJson()).t, "hi");
  const sends: [args: string[], input: string | Uint8Array<ArrayBuffer>, data: unknown][] = [
    [[`{"a": [1, "é"]}`], "", { a: [1, "é"] }],
    [["42"], "", 42],
    [["42", "--text"], "", "42"],
    [["hello, you"], "", "hello, you"],
    [["-"], "two\nlines\n", "two\nlines"],
    [["-"], `{"a":1}\r\n`, { a: 1 }],
    [[], "piped", "piped"],
    [["--binary"], new Uint8Array([0, 255, 10]), new Uint8Array([0, 255, 10]).toBase64()],
  ];
  for (const [args, input, data] of sends) {
    await command(service, ["send", "al/i%", ...args], new Terminal({ input }));
    const frame = await alice.nextJson();
    assertEquals(frame.data, data, args.join(" "));
    assertEquals(frame.enc, args.includes("--binary") ? "base64" : undefined);
  }
});

Deno.test("send refuses what makes no sense with exit code 2, and sends nothing", async () => {
  const faults: [args: string[], io: Terminal, stderr: RegExp][] = [
    [["alice"], new Terminal({ isInteractive: true }), /^error: there is no payload: give one, or - /],
    [["alice", "x", "--binary"], new Terminal(), /^error: --binary reads standard input/],
    [
      ["alice", "--text", "--binary"],
      new Terminal(),
      /^error: option '--text' cannot be used with option '--binary'/,
    ],
    [
      ["alice", "-"],
      new Terminal({ input: new Uint8Array([255]) }),
      /^error: Standard input is not UTF-8 text/,
    ],
    [["..", "x"], new Terminal(), /^error: A username must not be one or two dots/],
    [["a b", "x"], new Terminal(), /^error: A username must not hold white space/],
    [[], new Terminal(), /^error: missing required argument 'user'/],
    [["alice", "x", "y"], new Terminal(), /^error: too many arguments for 'send'/],
    [
      ["alice", "x", "--url", "localhost:8765"],
      new Terminal(),
      /\n {2}--url must be an http:.* but is "localhost:8765"/,
    ],
  ];
  for (const [args, io, stderr] of faults) {
    // Were one of them sent, it would fail with code 1.
    assertEquals(await io.run(["send", ...args], { USERWIRE_URL: "http://127.0.0.1:1" }), 2, args.join(" "));
    assertMatch(io.stderr, stderr);
    assertEquals(io.stdout, "");
  }
});

Deno.test("send passes on why the service refused, in one sentence, with exit code 1", async () => {
  await using service = await Service.start({ USERWIRE_MAX_BODY_BYTES: "8" });
  const io = new Terminal();
  assertEquals(await io.run(["send", "alice", "nine bytes", "--url", service.server.url]), 1);
  assertMatch(io.stderr, /^error: The service at http:\/\/127\.0\.0\.1:\d+ answered 413: .*\n$/);
  assertNotMatch(io.stderr, /[{}]/);
});

Deno.test("send says when no service can be reached, on one line, with exit code 1", async () => {
  using port = OwnPort.take();
  const io = new Terminal();
  assertEquals(await io.run(["send", "alice", "hi"], { USERWIRE_URL: `http://127.0.0.1:${port}` }), 1);
  assertMatch(
    io.stderr,
    /^error: Can't reach a service at http:\/\/127\.0\.0\.1:\d+: .*Connection refused \(start .*\n$/,
  );
  assertEquals(io.stderr.trimEnd().split("\n").length, 1);

  const debug = new Terminal();
  await debug.run(["send", "alice", "hi"], { USERWIRE_URL: `http://127.0.0.1:${port}`, LOG_LEVEL: "debug" });
  assertMatch(debug.stderr, /^error: Error: Can't reach .*\n {4}at /);
});

Deno.test("send and who say when the other side is not Userwire", async () => {
  for (const answer of ["<html>", "[]", "{}", `{"sockets":"2"}`, `{"alice":"2"}`]) {
    await using other = serveOther(() => new Response(answer));
    for (
      const args of answer === "{}" ? [["send", "alice", "x"]] : [["send", "alice", "x"], ["who", "alice"]]
    ) {
      const io = new Terminal();
      assertEquals(await io.run([...args, "--url", other.url]), 1, answer);
      assertMatch(io.stderr, /did not answer as Userwire does: check --url\n$/);
    }
  }
  await using proxy = serveOther(() =>
    new Response("<html>", { status: 502, headers: { "retry-after": "7" } })
  );
  const io = new Terminal();
  assertEquals(await io.run(["who", "alice", "--url", proxy.url]), 1);
  assertMatch(io.stderr, /answered 502: Bad Gateway \(try again in 7 s\)\n$/);
});

Deno.test("Commands that showed nothing to a service that wants to see something say with what to show it", async () => {
  await using service = await Service.start(CLOSED);
  const env = { USERWIRE_URL: service.server.url };
  for (const args of [["send", "alice", "hi"], ["who", "alice"]]) {
    const io = new Terminal();
    assertEquals(await io.run(args, env), 1);
    assertMatch(io.stderr, / answered 401: .* \(give a key with --key or USERWIRE_KEY\)\n$/);
  }
  const listen = new Terminal();
  assertEquals(await listen.run(["listen", "alice"], env), 1);
  assertMatch(
    listen.stderr,
    / answered 401: .* \(give a token with --token .* with --key or USERWIRE_KEY\)\n$/,
  );
  // Who did show something knows how.
  const wrong = new Terminal();
  assertEquals(await wrong.run(["send", "alice", "hi"], { ...env, USERWIRE_KEY: "wrong" }), 1);
  assertMatch(wrong.stderr, / answered 401: The API key is not known here: [^()]*\n$/);
});

Deno.test("send keeps the path of --url, which wins over USERWIRE_URL", async () => {
  const paths: string[] = [];
  await using other = serveOther((request) => {
    paths.push(new URL(request.url).pathname);
    return Response.json({ sockets: 1 });
  });
  const env = { USERWIRE_URL: "http://127.0.0.1:1" };
  assertEquals(await new Terminal().run(["send", "alice", "x", "--url", `${other.url}/push`], env), 0);
  assertEquals(paths, ["/push/v1/users/alice/messages"]);
});

// ---------------------------------------------------------------------------------------------------------
// who

Deno.test("connections shows and closes a user's, nodes shows the nodes", async () => {
  await using service = await Service.start({ USERWIRE_NODE: "n1" });
  const alice = await openClient(service.socketUrl("a/b"), "userwire.v1");
  const { conn } = await alice.nextJson();
  assertMatch(
    await command(service, ["connections", "a/b"]),
    RegExp(`^${conn}: v1 on n1 since 20[^ ]+Z, 0 messages behind\n$`),
  );
  const { items } = JSON.parse(await command(service, ["connections", "a/b", "--json"]));
  assertEquals(items[0].conn, conn);
  assertMatch(await command(service, ["nodes"]), /^n1: \d+\.\d+\.\d+\S*, 1 socket, in memory\n$/);
  assertEquals(JSON.parse(await command(service, ["nodes", "--json"])).items.length, 1);
  assertEquals(await command(service, ["connections", "a/b", "--close", String(conn)]), `${conn}: closed\n`);
  assertEquals((await alice.closed).code, 4403);
  assertEquals(await command(service, ["connections", "bob"]), "offline\n");
  const io = new Terminal();
  assertEquals(await io.run(["connections", "bob", "--close", "x/y", "--url", service.server.url]), 1);
  assertMatch(io.stderr, / answered 404: The user has no such connection/);
});

Deno.test("connections says how many did not answer", async () => {
  const answer = { items: [], nodes: 2, unanswered: 1 };
  await using other = serveOther(() => Response.json(answer));
  const io = new Terminal();
  assertEquals(await io.run(["connections", "alice", "--url", other.url]), 0);
  assertEquals(io.stdout, "not complete: 1 node did not answer\n");
});

Deno.test("who prints one line for each user, in the order asked", async () => {
  await using service = await Service.start();
  await using _first = await openClient(service.socketUrl("alice"));
  await using _second = await openClient(service.socketUrl("alice"));
  await using _third = await openClient(service.socketUrl("7"));
  assertEquals(
    await command(service, ["who", "toString", "alice", "__proto__", "7"]),
    "toString: offline\nalice: 2 sockets\n__proto__: offline\n7: 1 socket\n",
  );
  assertEquals(JSON.parse(await command(service, ["who", "alice", "bob", "--json"])), { alice: 2, bob: 0 });
});

Deno.test("who finds users of a service that folds usernames", async () => {
  await using service = await Service.start({ USERWIRE_USERNAME_CASE: "lower" });
  await using _alice = await openClient(service.socketUrl("ALICE"));
  assertEquals(await command(service, ["who", "Alice"]), "Alice: 1 socket\n");
});

// ---------------------------------------------------------------------------------------------------------
// All of them

Deno.test("run prints help with an example for every command, and suggests what was meant", async () => {
  for (const name of ["serve", "send", "broadcast", "listen", "who"]) {
    const io = new Terminal();
    assertEquals(await io.run([name, "--help"]), 0);
    assertStringIncludes(io.stdout, `\nExample:\n  $ userwire ${name} `);
  }
  const top = new Terminal();
  assertEquals(await top.run(["--help"]), 0);
  assertMatch(top.stdout, / {2}serve .*\n {2}send .*\n {2}broadcast .*\n {2}listen .*\n {2}who /);

  const mistaken = new Terminal();
  assertEquals(await mistaken.run(["lisen", "alice"]), 2);
  assertEquals(mistaken.stderr, "error: unknown command 'lisen'\n(Did you mean listen?)\n");
});

Deno.test("run says by its exit code what standard error does not take", async () => {
  for (
    const [args, code] of [[["serve", "--port", "x"], 2], [["send", "..", "hi"], 2], [
      ["key", "new"],
      2,
    ]] as const
  ) {
    const io = new Terminal();
    io.err = () => {
      throw new Error("No space left on device");
    };
    assertEquals(await io.run(args), code);
  }
});

Deno.test("key new says what of its command line can't be used, with exit code 2", async () => {
  const faults: [args: string[], stderr: RegExp][] = [
    [["a b", "--scopes", "send"], /^error: A key's name must have /],
    [
      ["shop", "--scopes", "send,root"],
      /^error: Scopes must be send, broadcast, read, tickets, groups, admin, .* "root"\n$/,
    ],
    [["shop", "--scopes", "send", "--users", ""], /^error: No pattern of usernames or groups may be empty/],
    [["shop"], /^error: required option '--scopes <list>' not specified\n$/],
  ];
  for (const [args, stderr] of faults) {
    const io = new Terminal();
    assertEquals(await io.run(["key", "new", ...args]), 2, args.join(" "));
    assertMatch(io.stderr, stderr);
    assertEquals(io.stdout, "");
  }
});

Deno.test("run takes options without a command as those of serve, and reports all their faults at once", async () => {
  const io = new Terminal();
  assertEquals(await io.run(["--port", "x", "--open=maybe", "--drain-s=1"], { LOG_LEVEL: "loud" }), 2);
  assertMatch(
    io.stderr,
    /^error: 3 settings can't be used:\n {2}--port must be .*\n {2}LOG_LEVEL must be .*\n {2}--open must be .*\n$/,
  );
  const unknown = new Terminal();
  assertEquals(await unknown.run(["--prot", "1"]), 2);
  assertEquals(unknown.stderr, "error: unknown option '--prot'\n(Did you mean --port?)\n");
});
