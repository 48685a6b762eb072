/**
 * The command line in this process: `run` with a terminal that remembers, against a real service on a free port,
 * or against a server that misbehaves where a real one would not. Processes are in `cli_process_test.ts`.
 */
import { assert, assertEquals, assertMatch, assertNotMatch, assertStringIncludes } from "@std/assert";
import { run } from "../src/cli/cli.ts";
import type { Io } from "../src/cli/shell.ts";
import { loadConfig } from "../src/config.ts";
import { silentLog } from "../src/log.ts";
import { type Server, startServer } from "../src/server.ts";
import { Bell, withDeadline } from "./support/deadline.ts";
import { openClient } from "./support/ws_client.ts";

/** Runs a command and remembers what it writes. */
class Terminal implements Io {
  readonly columns = 100;
  readonly isInteractive: boolean;
  stdout = "";
  stderr = "";
  readonly #stop = new AbortController();
  readonly #bell = new Bell();
  readonly #input: Uint8Array<ArrayBuffer>;

  constructor(options: { input?: string | Uint8Array<ArrayBuffer>; isInteractive?: boolean } = {}) {
    const { input = "", isInteractive = false } = options;
    this.#input = typeof input === "string" ? new TextEncoder().encode(input) : input;
    this.isInteractive = isInteractive;
  }

  get stop(): AbortSignal {
    return this.#stop.signal;
  }

  out(text: string): void {
    this.stdout += text;
    this.#bell.ring();
  }

  err(text: string): void {
    this.stderr += text;
    this.#bell.ring();
  }

  input(): Promise<Uint8Array<ArrayBuffer>> {
    return Promise.resolve(this.#input);
  }

  /** What Ctrl+C does. */
  interrupt(): void {
    this.#stop.abort();
  }

  run(args: readonly string[], env: Record<string, string> = {}): Promise<number> {
    return withDeadline(run(args, env, this), 15_000, `userwire ${args.join(" ")}`);
  }

  until(text: string): Promise<void> {
    return this.#bell.until(() => this.stdout.includes(text) || this.stderr.includes(text), `"${text}"`, 10_000);
  }
}

/** A service in this process, which closes with the test. */
async function openService(env: Record<string, string> = {}): Promise<Server & AsyncDisposable> {
  const config = loadConfig({ env: { PORT: "0", USERWIRE_DRAIN_S: "0", ...env } });
  const server = await startServer(config, { log: silentLog });
  return Object.assign(server, { [Symbol.asyncDispose]: () => server.shutdown() });
}

/** Runs a command against the service. */
async function command(service: { url: string }, args: string[], io = new Terminal()): Promise<string> {
  const code = await io.run(args, { USERWIRE_URL: service.url });
  assertEquals(code, 0, io.stderr);
  return io.stdout;
}

/** A server that is not ours. It closes with the test. */
function serveOther(handler: (request: Request) => Response): { url: string } & AsyncDisposable {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, handler);
  return { url: `http://127.0.0.1:${server.addr.port}`, [Symbol.asyncDispose]: () => server.shutdown() };
}

/** A server whose sockets do as the nth step says. */
function serveSockets(...steps: ((socket: WebSocket) => void)[]): { url: string } & AsyncDisposable {
  return serveOther((request) => {
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "userwire.v1" });
    const step = steps.shift();
    socket.onopen = () => {
      socket.send(`{"t":"hi","v":1,"conn":"c","user":"alice","node":"n","resumed":false,"replay":0,"ping":25,"max":1}`);
      step?.(socket);
    };
    return response;
  });
}

// ---------------------------------------------------------------------------------------------------------
// send

Deno.test("send says how many sockets it reached, and that a user is offline", async () => {
  await using service = await openService();
  await using _first = await openClient(`${service.url.replace("http", "ws")}ws?username=alice`);
  assertEquals(await command(service, ["send", "alice", "hi"]), "sent to 1 socket\n");
  await using _second = await openClient(`${service.url.replace("http", "ws")}ws?username=alice`);
  assertEquals(await command(service, ["send", "alice", "hi"]), "sent to 2 sockets\n");
  assertEquals(await command(service, ["send", "bob", "hi"]), "bob is offline (0 sockets)\n");
  const answer = JSON.parse(await command(service, ["send", "alice", "hi", "--json"]));
  assertEquals(answer.sockets, 2);
  assertEquals(typeof answer.id, "string");
});

Deno.test("send sends JSON as JSON, other text as text, and bytes as bytes", async () => {
  await using service = await openService();
  await using alice = await openClient(`${service.url.replace("http", "ws")}ws?username=al%2Fi%25`, "userwire.v1");
  assertEquals((await alice.nextJson()).t, "hi");
  const sends: [args: string[], input: string | Uint8Array<ArrayBuffer>, data: unknown][] = [
    [[`{"a": [1, "é"]}`], "", { a: [1, "é"] }],
    [["42"], "", 42],
    [["42", "--text"], "", "42"],
    [["hello, you"], "", "hello, you"],
    [[""], "", ""],
    [["-"], "two\nlines\n", "two\nlines"],
    [["-"], `{"a":1}\r\n`, { a: 1 }],
    [[], "piped", "piped"],
    [["--binary"], new Uint8Array([0, 255, 10]), new Uint8Array([0, 255, 10]).toBase64()],
    [["-", "--binary"], new Uint8Array(), ""],
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
    [["alice", "--text", "--binary"], new Terminal(), /^error: option '--text' cannot be used with option '--binary'/],
    [["alice", "-"], new Terminal({ input: new Uint8Array([255]) }), /^error: Standard input is not UTF-8 text/],
    [["..", "x"], new Terminal(), /^error: A message can't be addressed to ".."/],
    [["a b", "x"], new Terminal(), /^error: A username must not hold white space/],
    [[], new Terminal(), /^error: missing required argument 'user'/],
    [["alice", "x", "y"], new Terminal(), /^error: too many arguments for 'send'/],
    [["alice", "x", "--url", "localhost:8765"], new Terminal(), /\n  --url must be an http:.* but is "localhost:8765"/],
  ];
  for (const [args, io, stderr] of faults) {
    // Were one of them sent, it would fail with code 1.
    assertEquals(await io.run(["send", ...args], { USERWIRE_URL: "http://127.0.0.1:1" }), 2, args.join(" "));
    assertMatch(io.stderr, stderr);
    assertEquals(io.stdout, "");
  }
});

Deno.test("send passes on why the service refused, in one sentence, with exit code 1", async () => {
  await using service = await openService({ USERWIRE_MAX_BODY_BYTES: "8" });
  const io = new Terminal();
  assertEquals(await io.run(["send", "alice", "nine bytes", "--url", service.url]), 1);
  assertMatch(io.stderr, /^error: The service at http:\/\/127\.0\.0\.1:\d+ answered 413: .*\n$/);
  assertNotMatch(io.stderr, /[{}]/);
});

Deno.test("send says when no service can be reached, on one line, with exit code 1", async () => {
  const { port } = await openClosedPort();
  const io = new Terminal();
  assertEquals(await io.run(["send", "alice", "hi"], { USERWIRE_URL: `http://127.0.0.1:${port}` }), 1);
  assertMatch(io.stderr, /^error: Can't reach a service at http:\/\/127\.0\.0\.1:\d+: .*Connection refused \(start .*\n$/);
  assertEquals(io.stderr.trimEnd().split("\n").length, 1);

  const debug = new Terminal();
  await debug.run(["send", "alice", "hi"], { USERWIRE_URL: `http://127.0.0.1:${port}`, LOG_LEVEL: "debug" });
  assertMatch(debug.stderr, /^error: Error: Can't reach .*\n    at /);
});

/** A port on which nobody listens. */
function openClosedPort(): { port: number } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return { port: listener.addr.port };
}

Deno.test("send and who say when the other side is not Userwire", async () => {
  for (const answer of ["<html>", "[]", "{}", `{"sockets":"2"}`, `{"alice":"2"}`]) {
    await using other = serveOther(() => new Response(answer));
    for (const args of answer === "{}" ? [["send", "alice", "x"]] : [["send", "alice", "x"], ["who", "alice"]]) {
      const io = new Terminal();
      assertEquals(await io.run([...args, "--url", other.url]), 1, answer);
      assertMatch(io.stderr, /did not answer as Userwire does: check --url\n$/);
    }
  }
  await using proxy = serveOther(() => new Response("<html>", { status: 502, headers: { "retry-after": "7" } }));
  const io = new Terminal();
  assertEquals(await io.run(["who", "alice", "--url", proxy.url]), 1);
  assertMatch(io.stderr, /answered 502: Bad Gateway \(try again in 7 s\)\n$/);
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

Deno.test("who prints one line for each user, in the order asked", async () => {
  await using service = await openService();
  await using _first = await openClient(`${service.url.replace("http", "ws")}ws?username=alice`);
  await using _second = await openClient(`${service.url.replace("http", "ws")}ws?username=alice`);
  await using _third = await openClient(`${service.url.replace("http", "ws")}ws?username=7`);
  assertEquals(
    await command(service, ["who", "toString", "alice", "__proto__", "7"]),
    "toString: offline\nalice: 2 sockets\n__proto__: offline\n7: 1 socket\n",
  );
  assertEquals(JSON.parse(await command(service, ["who", "alice", "bob", "--json"])), { alice: 2, bob: 0 });
});

Deno.test("who finds users of a service that folds usernames", async () => {
  await using service = await openService({ USERWIRE_USERNAME_CASE: "lower" });
  await using _alice = await openClient(`${service.url.replace("http", "ws")}ws?username=ALICE`);
  assertEquals(await command(service, ["who", "Alice"]), "Alice: 1 socket\n");
});
