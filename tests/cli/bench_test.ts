/** `userwire bench`, in this process, on real services, and on relays that are wrong in known numbers. */
import { assert, assertEquals, assertGreaterOrEqual, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { CLOSED, KEY, SECRET } from "../../testkit/closed.ts";
import { type Faults, FaultyRelay } from "../../testkit/faulty_relay.ts";
import { nodesTest } from "../../testkit/nodes.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { Service } from "../../testkit/service.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";

const { onRedis } = nodesTest("Bench");

/** Runs it to its end; what it prints as JSON, and its exit code. */
async function bench(urls: string, args: readonly string[], io = new Terminal()) {
  const code = await io.run(["bench", "--url", urls, "--json", ...args]);
  assert(io.stdout !== "", io.stderr);
  return { code, ...JSON.parse(io.stdout) };
}

/** Runs it where nothing can be measured; what it says. */
async function refusalOf(urls: string, args: readonly string[] = [], patienceMs = 10_000): Promise<string> {
  const io = new Terminal({ patienceMs });
  const code = await io.run([
    "bench",
    "--url",
    urls,
    "--users",
    "20",
    "--seconds",
    "1",
    "--rate",
    "50",
    ...args,
  ]);
  assertEquals([code, io.stdout], [2, ""]);
  return io.stderr;
}

function urlsOf(...services: Service[]): string {
  return services.map(({ server }) => server.url).join(",");
}

onRedis("loads two nodes and accounts for every message", async ({ here, there }) => {
  const found = await bench(urlsOf(here, there), ["--users", "50", "--rate", "200", "--seconds", "2"]);
  const { code, lost, duplicated, disordered, misdelivered, dropped, unsent, nodes, refused } = found;
  assertEquals({ code, lost, duplicated, disordered, misdelivered, dropped, unsent, nodes, refused }, {
    ...{ code: 0, lost: 0, duplicated: 0, disordered: 0, misdelivered: 0, dropped: 0, unsent: 0 },
    ...{ nodes: 2, refused: [] },
  });
  const { connected, sent, accepted, delivered, unheard, interrupted } = found;
  assertEquals({ connected, sent, accepted, delivered, unheard, interrupted }, {
    ...{ connected: 50, sent: 400, accepted: 400, delivered: 400, unheard: 0, interrupted: false },
  });
  assert(found.p50_ms > 0 && found.p50_ms <= found.p99_ms && found.p99_ms <= found.max_ms, `${found.p50_ms}`);
  assert(found.connects_per_s > 0 && found.connects_per_s <= 410, `${found.connects_per_s}`);
  await here.isEmpty();
  await there.isEmpty();
});

onRedis(
  "goes on with the others when a node is killed, and tells what that cost",
  async ({ here, there }) => {
    const proxy = await TcpProxy.start(Number(new URL(there.server.url).port));
    const io = new Terminal({ isErrTerminal: true });
    const urls = `${here.server.url},${proxy.through(there.server.url)}`;
    const running = bench(urls, ["--users", "10", "--rate", "200", "--seconds", "3"], io);
    await io.until("messages arrived");
    proxy.cut();
    await proxy[Symbol.asyncDispose]();
    const { code, dropped, sent, delivered, lost, lost_with_connection, refused, unsent } = await running;
    assertEquals([code, dropped, unsent], [1, 5, 0]);
    assertEquals(lost, lost_with_connection);
    const failed = refused.reduce((sum: number, { count }: { count: number }) => sum + count, 0);
    // Each lane loses one send at most: the next takes it to the node that is left.
    assert(failed <= 64, `${failed} sends failed`);
    assertEquals(sent, 600);
    assert(
      delivered + lost <= sent && delivered + lost >= sent - failed,
      `${delivered} + ${lost}, ${failed}`,
    );
  },
);

Deno.test("bench finds exactly what a relay loses, doubles and mixes up", async () => {
  await using service = await Service.start();
  await using relay = new FaultyRelay(service.server.url, { lose: 3, double: 5, late: 7 });
  const { code, lost, duplicated, disordered, delivered, sent } = await bench(
    relay.url,
    ["--users", "10", "--rate", "200", "--seconds", "1"],
  );
  assertEquals({ code, lost, duplicated, disordered, delivered, sent }, {
    ...{ code: 1, lost: 10, duplicated: 10, disordered: 10, delivered: 190, sent: 200 },
  });
});

/** What a load of two sends at a time finds behind a relay. */
async function through(faults: Faults, args: readonly string[], io?: Terminal) {
  await using service = await Service.start();
  await using relay = new FaultyRelay(service.server.url, faults);
  return await bench(relay.url, ["--users", "10", "--seconds", "2", "--in-flight", "2", ...args], io);
}

Deno.test("bench counts a standstill for every message that was due meanwhile", async () => {
  // Two sends are on their way then; by their own times alone the 160 others would be fast.
  const found = await through({ stall: { from: 100, ms: 800 } }, ["--rate", "200"]);
  assertEquals([found.code, found.lost], [0, 0]);
  assertGreaterOrEqual(found.p90_ms, 300);
  assertGreaterOrEqual(found.p99_ms, 600);
});

Deno.test("bench says when it is itself the limit", async () => {
  await using service = await Service.start();
  const io = new Terminal({ isErrTerminal: true });
  const running = io.run(
    ["bench", "--users", "10", "--rate", "100", "--seconds", "2", "--url", service.server.url],
  );
  await io.until("messages arrived");
  const endMs = performance.now() + 400;
  while (performance.now() < endMs); // nothing else runs in this process
  assertEquals(await running, 0);
  assertMatch(io.stdout, /! This bench itself is the limit: .* % of a core and was \d+\.\d ms late \(p99\)/);
});

Deno.test("bench with --rate max sends as many as are answered, raw too", async () => {
  await using service = await Service.start();
  const args = ["--users", "5", "--rate", "max", "--seconds", "1", "--mode", "raw", "--payload", "1000"];
  const { code, sent, delivered, lost, rate } = await bench(service.server.url, args);
  assertEquals([code, lost, rate, delivered], [0, 0, null, sent]);
  assert(sent > 5, `${sent}`);
});

Deno.test("bench keeps to a rate that is below the number of its connections", async () => {
  await using service = await Service.start();
  const args = ["--users", "30", "--rate", "5", "--seconds", "2"];
  const { code, sent, delivered } = await bench(service.server.url, args);
  assertEquals({ code, sent, delivered }, { code: 0, sent: 10, delivered: 10 });
});

Deno.test("bench gets tickets with its key, for names that the key allows", async () => {
  const key = newKey("load", { scopes: ["tickets", "send"], users: "try-*" });
  await using service = await Service.start({ USERWIRE_JWT_SECRET: SECRET, USERWIRE_API_KEYS: key.line });
  const args = ["--users", "20", "--rate", "100", "--seconds", "1", "--key", key.key];
  for (const mode of ["framed", "raw"]) {
    const found = await bench(service.server.url, [...args, "--prefix", "try-", "--mode", mode]);
    assertEquals([found.code, found.connected, found.delivered], [0, 20, 100]);
  }
  assertMatch(await refusalOf(service.server.url, ["--key", key.key]), /answered 403: /);
});

Deno.test("bench says what to do when its key is missing, wrong or too weak", async () => {
  const weak = newKey("weak", { scopes: ["tickets"] });
  await using service = await Service.start({
    USERWIRE_JWT_SECRET: SECRET,
    USERWIRE_API_KEYS: `${KEY.line},${weak.line}`,
  });
  const { url } = service.server;
  assertMatch(
    await refusalOf(url),
    /answered 401: .* \(give a key of the scopes tickets and send with --key\)\n$/,
  );
  assertMatch(await refusalOf(url, ["--key", newKey("x", { scopes: ["send"] }).key]), /answered 401: .*/);
  assertMatch(
    await refusalOf(url, ["--key", weak.key]),
    /error: Sends were answered with 403: .*send.* \(sends need a key of the scope send/,
  );
});

Deno.test("bench can't be used with addresses and numbers that are none", async () => {
  await using service = await Service.start(CLOSED);
  const { url } = service.server;
  assertMatch(
    await refusalOf("ftp://x"),
    /--url must be an http:\/\/ or https:\/\/ address, but is "ftp:\/\/x"/,
  );
  assertMatch(await refusalOf(`${url},`), /has a comma too much: take it out/);
  for (const args of [["--users", "0"], ["--rate", "fast"], ["--seconds", "0.5"], ["--payload", "10"]]) {
    assertMatch(await refusalOf(url, args), /is invalid\. It must be a whole number from \d+ to \d+\./);
  }
  assertMatch(await refusalOf(url, ["--prefix", "a b"]), /It may have letters, digits/);
  using port = OwnPort.take();
  assertMatch(
    await refusalOf(`http://127.0.0.1:${port}`),
    /error: Can't reach a service at \S+: Connection refused \(start one/,
  );
});

Deno.test("bench gives up a service that takes the connection and never answers", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = listener.accept();
  assertMatch(
    await refusalOf(`http://127.0.0.1:${listener.addr.port}`, [], 200),
    /error: Can't reach a service at \S+: no answer in 0\.2 s \(/,
  );
  (await accepted).close();
});

Deno.test("bench names the limit of the service that it met", async () => {
  // The first user is waited for; of those that come together after it, who is refused may hear of it before others that
  // are let in.
  await using full = await Service.start({ USERWIRE_MAX_CONNECTIONS: "1" });
  assertMatch(
    await refusalOf(full.server.url),
    /answered 503: .*USERWIRE_MAX_CONNECTIONS.* \(1 of 20 users were connected: take fewer --users, or raise/,
  );
  await using small = await Service.start({ USERWIRE_MAX_BODY_BYTES: "1024" });
  assertMatch(
    await refusalOf(small.server.url, ["--payload", "2000"]),
    /answered with 413: .* \(take a smaller/,
  );
});

Deno.test("bench waits where handshakes come too fast for the service, and says so", async () => {
  await using service = await Service.start({ USERWIRE_UPGRADES_PER_SECOND: "20" });
  const io = new Terminal({ isErrTerminal: true });
  const args = ["--users", "60", "--connect-rate", "10000", "--rate", "60", "--seconds", "1"];
  // They come in one moment, however long they take: so many as the service takes in two seconds are let in.
  const clock = new StandingClock();
  const running = io.run(["bench", "--url", service.server.url, ...args]);
  await io.until("40 of 60 users connected").finally(() => clock[Symbol.dispose]());
  assertEquals(await running, 0, io.stderr);
  assertMatch(io.stdout, /^users {5}60 of 60 connected to 1 address, /);
  assertMatch(io.stdout, /\n! \d+ handshakes? had to be tried again: lower --connect-rate\.\n/);
});

Deno.test("bench prints what it has at Ctrl+C, while it sends and while users come", async () => {
  await using service = await Service.start();
  const sending = new Terminal({ isErrTerminal: true });
  const args = ["--users", "10", "--rate", "100", "--seconds", "600"];
  const found = bench(service.server.url, args, sending);
  await sending.until("messages arrived");
  sending.interrupt();
  const { code, interrupted, sent, delivered, lost, seconds, unsent } = await found;
  assertEquals({ code, interrupted, lost, unsent }, { code: 0, interrupted: true, lost: 0, unsent: 0 });
  assertEquals(sent, delivered);
  assert(seconds < 60 && sent > 0, `${sent} in ${seconds} s`);

  const coming = new Terminal({ isErrTerminal: true });
  const running = coming.run(["bench", "--url", service.server.url, "--users", "10", "--connect-rate", "1"]);
  await coming.until("1 of 10 users connected");
  coming.interrupt();
  assertEquals(await running, 0);
  assertMatch(coming.stdout, /^users {5}[1-9] of 10 connected to 1 address\n! It was interrupted: /);
  await service.isEmpty();
});

Deno.test("bench waits for no answers after Ctrl+C, and takes no message for lost whose send had none", async () => {
  await using service = await Service.start();
  await using proxy = await TcpProxy.start(Number(new URL(service.server.url).port));
  proxy.hold((said) => said.startsWith("POST"));
  const io = new Terminal({ isErrTerminal: true, patienceMs: 600_000 });
  const args = ["--users", "10", "--rate", "500", "--seconds", "600", "--in-flight", "5"];
  const running = bench(proxy.through(service.server.url), args, io);
  await io.until(", 5 messages arrived");
  io.interrupt();
  const { code, lost, sent, accepted, delivered, refused } = await running;
  assertEquals({ code, lost, accepted, delivered, refused }, {
    ...{ code: 0, lost: 0, accepted: 0, delivered: 5 },
    refused: [{ status: 0, code: "", reason: "no answer until the end", count: sent }],
  });
});

Deno.test("bench ends well when nobody reads its progress", async () => {
  await using service = await Service.start();
  const io = new Terminal();
  io.err = () => {
    throw new Deno.errors.BrokenPipe("Broken pipe");
  };
  const { code, delivered } = await bench(
    service.server.url,
    ["--users", "5", "--rate", "50", "--seconds", "1"],
    io,
  );
  assertEquals([code, delivered], [0, 50]);
});

Deno.test("bench draws its progress in a terminal only, and leaves none of it there", async () => {
  await using service = await Service.start();
  const args = ["bench", "--url", service.server.url, "--users", "5", "--rate", "50", "--seconds", "2"];
  const terminal = new Terminal({ isErrTerminal: true });
  assertEquals(await terminal.run(args), 0);
  assert(terminal.stderr.startsWith("\r\x1b[K[...."));
  assertMatch(terminal.stderr, /\[#{2,}\.+\] [01] of 2 s, \d+ messages arrived, p99 \d+\.\d ms/);
  assert(terminal.stderr.endsWith("\r\x1b[K"));
  for (
    const [io, env] of [[new Terminal(), {}], [new Terminal({ isErrTerminal: true }), {
      TERM: "dumb",
    }]] as const
  ) {
    assertEquals(await io.run(args, { ...env }), 0);
    assertMatch(io.stderr, /^0 of 5 users connected\n[01] of 2 s, \d+ messages arrived, p99 \d+\.\d ms\n/);
    assert(!io.stdout.includes("\x1b"));
    assertMatch(io.stdout, /\n {2,}< \d+(\.\d)? ms {2}#+ +\d+\n/);
  }
});
