/** `userwire listen`, in this process, against a real service or sockets that do as they are told. */
import { assertEquals, assertMatch, assertNotMatch, assertStringIncludes } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { CLOSED, KEY, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { command, serveOther, Terminal } from "../../testkit/cli_terminal.ts";
import { stretched } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const HI =
  `{"t":"hi","v":1,"conn":"c","user":"alice","node":"n","resumed":false,"replay":0,"ping":25,"max":1}`;

/** A server whose sockets do as the nth step says, after their `hi`. */
function serveSockets(...steps: ((socket: WebSocket) => void)[]): { url: string } & AsyncDisposable {
  return serveMute(...steps.map((step) => (socket: WebSocket) => {
    socket.send(HI);
    step(socket);
  }));
}

/** A server whose sockets say nothing unless the nth step does. */
function serveMute(...steps: ((socket: WebSocket) => void)[]): { url: string } & AsyncDisposable {
  return serveOther((request) => {
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "userwire.v1" });
    const step = steps.shift();
    socket.onopen = () => step?.(socket);
    return response;
  });
}

Deno.test("listen prints each payload on a line, and stops after --count messages", async () => {
  await using service = await Service.start();
  const io = new Terminal();
  const listening = io.run(["listen", "alice", "--count", "6"], { USERWIRE_URL: service.server.url });
  await io.until("Listening as alice");
  const payloads: [args: string[], input?: string | Uint8Array<ArrayBuffer>][] = [
    [["hi"]],
    [[`{"big": 12345678901234567890,\r\n "data": "\u009b"}`]],
    [["-", "--text"], "two\nlines"],
    [["\u001b[31mred"]],
    [["tab\there"]],
    [["--binary"], new Uint8Array([0, 255])],
    [["one too many"]],
  ];
  for (const [args, input = ""] of payloads) {
    await command(service, ["send", "alice", ...args], new Terminal({ input }));
  }
  assertEquals(await listening, 0);
  assertEquals(io.stdout.split("\n"), [
    "hi",
    `{"big": 12345678901234567890,  "data": "\\u009b"}`,
    `"two\\nlines"`,
    `"\\u001b[31mred"`,
    "tab\there",
    "AP8=",
    "",
  ]);
  assertMatch(io.stderr, /^Listening as alice on node \S+\n$/);
});

Deno.test("listen acknowledges what it has printed, to whoever waits for that", async () => {
  await using service = await Service.start();
  const io = new Terminal();
  const listening = io.run(["listen", "alice", "--count", "2"], { USERWIRE_URL: service.server.url });
  await io.until("Listening as alice");
  for (const n of [1, 2]) {
    const response = await service.fetch("/v1/users/alice/messages?wait=ack&timeout=10000", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: String(n),
    });
    const { sockets, acked } = await response.json();
    assertEquals([sockets, acked], [1, 1], `message ${n}`);
  }
  assertEquals(await listening, 0);
  assertEquals(io.stdout, "1\n2\n");
});

Deno.test("listen --json prints whole frames, of messages and of gaps", async () => {
  const gap = `{"t":"gap","from":3,"to":5,"count":3,"why":"trimmed","pos":"Zk3vQ9aB.5"}`;
  const message = `{"t":"m","seq":6,"id":"x","ts":1,"data":{"a":\n1}}`;
  await using server = serveSockets((socket) =>
    ['{"t":"p"}', gap, '{"t":"new"}', message].forEach((m) => socket.send(m))
  );
  const json = new Terminal();
  assertEquals(await json.run(["listen", "alice", "--json", "--count", "1", "--url", server.url]), 0);
  assertEquals(json.stdout, `${gap}\n${message.replace("\n", " ")}\n`);
});

Deno.test("listen says on standard error which messages are lost", async () => {
  await using server = serveSockets((socket) => {
    socket.send(`{"t":"gap","from":3,"to":5,"count":3,"why":"trimmed","pos":"Zk3vQ9aB.5"}`);
    socket.send(`{"t":"gap","from":6,"to":null,"count":null,"why":"epoch","pos":"Yk3vQ9aB.0"}`);
    socket.send(`{"t":"bgap","from":1,"to":2,"count":2,"why":"trimmed","pos":"Ak3vQ9aB.2"}`);
    socket.send(`{"t":"b","seq":3,"ts":1,"data":12345678901234567890}`);
    socket.send(`{"t":"m","ts":1,"data":"after"}`);
  });
  const io = new Terminal();
  assertEquals(await io.run(["listen", "alice", "--count", "2", "--url", server.url]), 0);
  assertEquals(io.stdout, "12345678901234567890\nafter\n", "broadcasts arrive, too");
  assertStringIncludes(io.stderr, "Broadcasts 1 to 2 are lost: trimmed\n");
  assertStringIncludes(io.stderr, "Messages 3 to 5 are lost: trimmed\n");
  assertStringIncludes(io.stderr, "Messages from 6 on may be lost: epoch\n");
});

Deno.test("listen ends with exit code 0 when it is interrupted, connected or waiting", async () => {
  await using service = await Service.start();
  const connected = new Terminal();
  const first = connected.run(["listen", "alice", "--url", service.server.url]);
  await connected.until("Listening");
  connected.interrupt();
  assertEquals(await first, 0);

  await using server = serveSockets((socket) => {
    socket.send(`{"t":"bye","code":1013,"why":"overloaded","retry_ms":3600000}`);
    socket.close(1013, "overloaded");
  });
  const waiting = new Terminal();
  const second = waiting.run(["listen", "alice", "--url", server.url]);
  await waiting.until("The connection ended: 1013 overloaded; connecting again in 3600.0 s");
  waiting.interrupt();
  assertEquals(await second, 0);
});

Deno.test("listen connects again when the service was restarted", async () => {
  using port = OwnPort.take();
  const before = await Service.start({ USERWIRE_DRAIN_S: "0", PORT: `${port}` });
  const io = new Terminal();
  const listening = io.run(["listen", "alice", "--count", "2", "--url", before.server.url]);
  await io.until("Listening");
  await command(before, ["send", "alice", "before"]);
  await io.until("before");
  await before.server.shutdown();
  await io.until("The connection ended: 1012 restart; connecting again in ");

  await using after = await Service.start({ PORT: `${port}`, USERWIRE_NODE: "after" });
  await io.until("Listening as alice on node after");
  await command(after, ["send", "alice", "after"]);
  assertEquals(await listening, 0);
  assertEquals(io.stdout, "before\nafter\n");
});

Deno.test("listen with a key connects again too, when there was nobody to give it a ticket for a while", async () => {
  using port = OwnPort.take();
  const env = { ...CLOSED, USERWIRE_DRAIN_S: "0", PORT: `${port}` };
  const before = await Service.start(env);
  const io = new Terminal();
  const { url } = before.server;
  const listening = io.run(["listen", "alice", "--count", "1", "--url", url, "--key", KEY.key]);
  await io.until("Listening");
  await before.server.shutdown();
  await io.until("The connection ended: Can't reach a service at ");

  await using _after = await Service.start({ ...env, USERWIRE_NODE: "after" });
  await io.until("Listening as alice on node after");
  await new Terminal().run(["send", "alice", "after", "--url", url, "--key", KEY.key]);
  assertEquals(await listening, 0);
  assertEquals(io.stdout, "after\n");
});

Deno.test("listen with a key gives up when the key is taken no more", async () => {
  using port = OwnPort.take();
  const env = { ...CLOSED, USERWIRE_DRAIN_S: "0", PORT: `${port}` };
  const before = await Service.start(env);
  const io = new Terminal();
  const listening = io.run(["listen", "alice", "--url", before.server.url, "--key", KEY.key]);
  await io.until("Listening");
  await before.server.shutdown();
  await using _after = await Service.start({
    ...env,
    USERWIRE_API_KEYS: newKey("other", { scopes: ["admin"] }).line,
  });
  assertEquals(await listening, 1);
  assertMatch(io.stderr, /\nerror: The service at \S+ answered 401: .*\n$/);
});

Deno.test("listen connects again when the connection breaks or the service falls silent", async () => {
  await using server = serveSockets(
    // The promise of a sign of life every 50 ms, which is not kept.
    (socket) => socket.send(`{"t":"hi","user":"alice","node":"silent","ping":0.05}`),
    (socket) => socket.close(1011, "server error"),
    (socket) => socket.send(`{"t":"m","ts":1,"data":"at last"}`),
  );
  const io = new Terminal({ patienceMs: stretched(1_000) });
  assertEquals(await io.run(["listen", "alice", "--count", "1", "--url", server.url]), 0);
  assertEquals(io.stdout, "at last\n");
  assertMatch(
    io.stderr,
    /The connection ended: The server was silent for \d+ s; connecting again in 0\.[0-5] s/,
  );
  assertMatch(io.stderr, /The connection ended: 1011 server error; connecting again in [01]\.\d s/);
});

Deno.test("listen goes on after the message it has printed last, so that none is missing or comes twice", async () => {
  const resumed: (string | null)[] = [];
  await using server = serveOther((request) => {
    resumed.push(new URL(request.url).searchParams.get("resume"));
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "userwire.v1" });
    socket.onopen = () => {
      socket.send(`{"t":"hi","user":"alice","node":"n","ping":25,"pos":"Zk3vQ9aB.6"}`);
      socket.send(`{"t":"m","seq":7,"ts":1,"data":"seven"}`);
      if (resumed.length === 1) socket.close(1012, "restart");
      else socket.send(`{"t":"m","seq":8,"ts":1,"data":"eight"}`);
    };
    return response;
  });
  const io = new Terminal();
  assertEquals(await io.run(["listen", "alice", "--count", "2", "--url", server.url]), 0);
  assertEquals(resumed, [null, "Zk3vQ9aB.7"]);
  assertEquals(io.stdout, "seven\neight\n");
});

Deno.test("listen does not connect again after a close code that means stop, nor with --once", async () => {
  await using server = serveSockets(
    (socket) => socket.close(4409, "replaced by a newer connection"),
    (socket) => socket.close(1012, "restart"),
    (socket) => socket.close(1000),
  );
  const replaced = new Terminal();
  assertEquals(await replaced.run(["listen", "alice", "--url", server.url]), 1);
  assertMatch(replaced.stderr, /\nerror: The connection ended: 4409 replaced by a newer connection\n$/);
  const once = new Terminal();
  assertEquals(await once.run(["listen", "alice", "--once", "--url", server.url]), 1);
  assertMatch(once.stderr, /\nerror: The connection ended: 1012 restart\n$/);
  assertEquals(await new Terminal().run(["listen", "alice", "--url", server.url]), 0);
});

Deno.test("listen fails with exit code 1 when the first connection does not come about, and says why", async () => {
  await using service = await Service.start({ USERWIRE_MAX_CONNECTIONS: "1" });
  await using _alice = await openClient(service.socketUrl("alice"));
  const refused = new Terminal();
  assertEquals(await refused.run(["listen", "bob", "--url", service.server.url]), 1);
  assertMatch(
    refused.stderr,
    /^error: The service at .* answered 503: .*USERWIRE_MAX_CONNECTIONS \(try again in 1 s\)\n$/,
  );

  using port = OwnPort.take();
  const absent = new Terminal();
  assertEquals(await absent.run(["listen", "bob", "--url", `http://127.0.0.1:${port}`]), 1);
  assertMatch(absent.stderr, /^error: Can't reach a service at .*Connection refused/);

  await using raw = serveOther((request) => Deno.upgradeWebSocket(request).response);
  const other = new Terminal();
  assertEquals(await other.run(["listen", "bob", "--url", raw.url]), 1);
  assertMatch(other.stderr, /^error: .* does not speak userwire\.v1\n$/);
});

Deno.test("listen says why a user with all the sockets it may have is refused, by key, by token and by name", async () => {
  const shown: [env: Record<string, string>, args: string[], protocols: string[]][] = [
    [CLOSED, ["--key", KEY.key], protocolsFor(await tokenFor("alice"))],
    [CLOSED, ["--token", await tokenFor("alice")], protocolsFor(await tokenFor("alice"))],
    [{}, [], ["userwire.v1"]],
  ];
  for (const [env, args, protocols] of shown) {
    await using service = await Service.start({ ...env, USERWIRE_MAX_CONNECTIONS_PER_USER: "1" });
    await using alice = await openClient(service.socketUrl("alice"), protocols);
    assertEquals((await alice.nextJson()).t, "hi");
    const io = new Terminal();
    assertEquals(await io.run(["listen", "alice", "--url", service.server.url, ...args]), 1);
    assertMatch(
      io.stderr,
      /^error: The service at \S+ answered 429: .*USERWIRE_MAX_CONNECTIONS_PER_USER.*\n$/,
    );
  }
});

Deno.test("listen, send and who give up a service that takes the connection and never answers", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const taken: Deno.Conn[] = [];
  const taking = (async () => {
    for await (const conn of listener) taken.push(conn);
  })();
  const url = `http://127.0.0.1:${listener.addr.port}`;
  for (const args of [["listen", "alice"], ["send", "alice", "hi"], ["who", "alice"]]) {
    const io = new Terminal({ patienceMs: 50 });
    assertEquals(await io.run([...args, "--url", url]), 1);
    assertEquals(
      io.stderr,
      `error: Can't reach a service at ${url}: no answer in 0.05 s ` +
        `(start one with "userwire serve", or say with --url where it is)\n`,
    );
  }
  listener.close();
  await taking;
  for (const conn of taken) conn.close();
});

Deno.test("listen gives up a service whose socket opens and never says hi", async () => {
  await using server = serveMute();
  const io = new Terminal({ patienceMs: 50 });
  assertEquals(await io.run(["listen", "alice", "--url", server.url]), 1);
  assertMatch(io.stderr, /^error: Can't reach a service at \S+: no answer in 0\.05 s \(.*\)\n$/);
});

Deno.test("listen connects again when a service that did answer does so no more for a while", async () => {
  await using server = serveMute(
    (socket) => {
      socket.send(HI);
      socket.close(1012, "restart");
    },
    () => {},
    (socket) => {
      socket.send(HI);
      socket.send(`{"t":"m","ts":1,"data":"at last"}`);
    },
  );
  const io = new Terminal({ patienceMs: stretched(1_000) });
  assertEquals(await io.run(["listen", "alice", "--count", "1", "--url", server.url]), 0);
  assertEquals(io.stdout, "at last\n");
  assertMatch(io.stderr, /The connection ended: no answer in \d+ s; connecting again in [01]\.\d s\n/);
});

Deno.test("listen refuses a count that is none with exit code 2", async () => {
  for (const count of ["0", "-1", "x", "1.5"]) {
    const io = new Terminal();
    assertEquals(await io.run(["listen", "alice", `--count=${count}`]), 2);
    assertStringIncludes(io.stderr, `'${count}' is invalid. It must be a whole number from 1 on`);
  }
});

Deno.test("listen ends quietly when nobody reads its output any more", async () => {
  await using service = await Service.start();
  const io = new Terminal();
  io.out = () => {
    throw new Deno.errors.BrokenPipe("Broken pipe");
  };
  const listening = io.run(["listen", "alice", "--url", service.server.url]);
  await io.until("Listening");
  await command(service, ["send", "alice", "hi"]);
  assertEquals(await listening, 0);
  assertNotMatch(io.stderr, /error/);
});
