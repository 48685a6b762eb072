/** `userwire doctor --url`: what clients meet at an address, behind balancers and proxies with one fault each. */
import { assertEquals, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import type { Finding } from "../../src/doctor/finding.ts";
import { serveOther, Terminal } from "../../testkit/cli_terminal.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldTimeouts, HeldTimers } from "../../testkit/held_timers.ts";
import { Service } from "../../testkit/service.ts";

async function doctor(url: string, args: string[] = [], options: { patienceMs?: number } = {}) {
  const io = new Terminal(options);
  const code = await io.run(["doctor", "--json", "--url", url, "--idle", "0", ...args]);
  assertEquals(io.stderr, "");
  const { findings } = JSON.parse(io.stdout) as { findings: Finding[] };
  const wrong = findings.filter(({ state }) => state !== "ok");
  return {
    code,
    findings,
    wrong: wrong.map(({ check, state, says, remedy }) => `${state} ${check}: ${says} → ${remedy}`),
  };
}

/** A proxy that speaks plain HTTP only, as one that was not told of WebSockets does. */
function plainProxy(service: Service) {
  const target = service.server.url;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname, search } = new URL(request.url);
    const headers = new Headers(request.headers);
    for (const name of ["upgrade", "connection", "host"]) headers.delete(name);
    const body = request.method === "POST" ? await request.bytes() : null;
    return await fetch(new URL(pathname + search, target), { method: request.method, headers, body });
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, [Symbol.asyncDispose]: () => server.shutdown() };
}

Deno.test("At an address where all is well there are only ✓, with a message that went from end to end", async () => {
  await using service = await Service.start({ USERWIRE_PING_S: "1" });
  const { code, findings, wrong } = await doctor(service.server.url, ["--idle", "20"]);
  assertEquals([code, wrong], [0, []]);
  assertEquals(findings.map(({ check }) => check), ["service", "upgrade", "subprotocol", "message", "idle"]);
  assertMatch(findings[3]!.says, /^from end to end in \d+ ms$/);
  assertMatch(findings[4]!.says, /lives through \d+ s of silence/);
});

Deno.test("Through an address with a key: a ticket lets in, and without a right to send that is said", async () => {
  const admin = newKey("ops", { scopes: ["tickets", "send"] });
  const reader = newKey("reader", { scopes: ["tickets"] });
  await using service = await Service.start({ USERWIRE_API_KEYS: `${admin.line},${reader.line}` });
  assertEquals((await doctor(service.server.url, ["--key", admin.key])).code, 0);
  const { code, wrong } = await doctor(service.server.url, ["--key", reader.key]);
  assertEquals([code, wrong.length], [1, 1]);
  assertMatch(wrong[0]!, /^warning message: none was tried: .*403.* → give a key of scope send/);
  const none = await doctor(service.server.url);
  assertEquals([none.code, none.wrong.length], [2, 1]);
  assertMatch(none.wrong[0]!, /^fault upgrade: no WebSocket opens: .*answered 401/);
});

Deno.test("Nobody there, somebody else there, and a node that is not ready are told apart", async () => {
  await using other = serveOther(() => new Response("<html>welcome to nginx"));
  await using json = serveOther(() => Response.json({ hello: 1 }));
  for (const { url } of [other, json]) {
    const { code, wrong } = await doctor(url);
    assertEquals([code, wrong.length], [2, 1]);
    assertMatch(wrong[0]!, /^fault service: .*: what answers is not Userwire → see that the address/);
  }
  await other[Symbol.asyncDispose]();
  const gone = await doctor(other.url);
  assertMatch(gone.wrong[0]!, /^fault service: .*[Cc]onnection refused → see that the address is right/);

  await using service = await Service.start();
  service.server.app.draining.start();
  const { code, wrong } = await doctor(service.server.url);
  assertEquals(code, 2);
  assertMatch(wrong[0]!, /^fault readiness: the node is not ready: The node is draining/);
  assertMatch(wrong[1]!, /^fault upgrade: .*503/);
});

Deno.test("A proxy that passes no upgrade on is found, and told what to pass", async () => {
  await using service = await Service.start();
  await using proxy = plainProxy(service);
  const { code, wrong } = await doctor(proxy.url);
  assertEquals([code, wrong.length], [2, 1]);
  assertMatch(
    wrong[0]!,
    /^fault upgrade: no WebSocket opens: .*426.* → let the proxy .* pass Upgrade and Connection on/,
  );
});

Deno.test("Pages of a host that the node does not know may not connect, which is told from a broken upgrade", async () => {
  await using service = await Service.start();
  const { code, wrong } = await doctor(service.server.url, ["--origin", "https://app.example.com"]);
  assertEquals([code, wrong.length], [2, 1]);
  assertMatch(
    wrong[0]!,
    /^fault origin: pages of https:\/\/app\.example\.com may not connect → .*Host header.*ALLOWED_ORIGINS/,
  );
});

Deno.test("What answers a handshake without the subprotocol, or without a first frame, is no node", async () => {
  const sockets: WebSocket[] = [];
  const answer = (protocol: string | undefined) => (request: Request) => {
    if (!request.headers.has("upgrade")) return Response.json({ ready: true, node: "n" });
    const { socket, response } = Deno.upgradeWebSocket(request, protocol === undefined ? {} : { protocol });
    sockets.push(socket);
    return response;
  };
  {
    await using bare = serveOther(answer(undefined));
    const { wrong } = await doctor(bare.url, [], { patienceMs: 1_000 });
    assertEquals(wrong.length, 1, wrong.join("\n"));
    assertMatch(wrong[0]!, /^fault (subprotocol: the answer does not choose userwire\.v1|upgrade: )/);
  }
  await using mute = serveOther(answer("userwire.v1"));
  const { wrong } = await doctor(mute.url, [], { patienceMs: 1_000 });
  assertMatch(wrong[0]!, /^fault subprotocol: no first frame came → .*buffer/);
});

/** A balancer that leads calls to one node and sockets to another. @param onPassed Hears of each frame that was passed on. */
function balancer(calls: Service, sockets: Service, onPassed = (_frame: string, _socket: WebSocket) => {}) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname, search } = new URL(request.url);
    if (!request.headers.has("upgrade")) {
      const body = request.method === "POST" ? await request.bytes() : null;
      const headers = { "content-type": request.headers.get("content-type") ?? "text/plain" };
      return await fetch(new URL(pathname + search, calls.server.url), {
        method: request.method,
        headers,
        body,
      });
    }
    const inner = new WebSocket(
      new URL(pathname + search, sockets.server.url.replace("http", "ws")),
      "userwire.v1",
    );
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "userwire.v1" });
    socket.onopen = () =>
      inner.onmessage = ({ data }) => {
        socket.send(data);
        onPassed(data, socket);
      };
    socket.onclose = () => inner.close();
    return response;
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, [Symbol.asyncDispose]: () => server.shutdown() };
}

Deno.test("Nodes that do not share a Redis are found: what one is sent does not reach the other's socket", async () => {
  await using one = await Service.start();
  await using two = await Service.start();
  await using both = balancer(one, two);
  // The time is up for the message alone, and when that is waited for: no other answer comes too late.
  using times = new HeldTimers(700);
  using _held = new HeldTimeouts();
  const looking = doctor(both.url, [], { patienceMs: 700 });
  await until(
    () => one.logged("message sent").length === 1 && times.count === 1,
    "the message to be waited for",
  );
  times.run();
  const { code, wrong } = await looking;
  assertEquals([code, wrong.length], [2, 1], wrong.join("\n"));
  assertMatch(wrong[0]!, /^fault message: what was sent did not come → .*same Redis/);
  await two.isEmpty();
});

Deno.test("A proxy that cuts silent sockets is told by how long they lived; a short look says that it was short", async () => {
  await using service = await Service.start({ USERWIRE_PING_S: "30" });
  // From the message on the socket is silent.
  await using cutting = balancer(
    service,
    service,
    (frame, socket) => frame.includes('"t":"m"') && socket.close(),
  );
  const { code, wrong } = await doctor(cutting.url, ["--idle", "30"]);
  assertEquals([code, wrong.length], [2, 1], wrong.join("\n"));
  assertMatch(
    wrong[0]!,
    /^fault idle: the socket was cut after \d s of silence, .*\(30 s\) → raise the idle timeout of the proxy/,
  );
  const short = await doctor(service.server.url, ["--idle", "1"]);
  assertEquals(short.code, 1);
  assertMatch(
    short.wrong[0]!,
    /^warning idle: nothing came within 1 s; .* after 30 s → wait longer with --idle/,
  );
});
