/**
 * The settings of `deploy/haproxy.cfg` in a real HAProxy: an endless message ends there, honest users behind the same
 * HAProxy notice nothing of it, and what the service may decide itself it gets to see, byte for byte.
 */
import { assert, assertEquals } from "@std/assert";
import { fragmentsAtProxy } from "../programs/hostile/attacks.ts";
import { isEndured, Siege } from "../programs/hostile/siege.ts";
import { CLOSED, KEY } from "../../testkit/closed.ts";
import { Bell, withDeadline } from "../../testkit/deadline.ts";
import { startHaProxy } from "../../testkit/ha_proxy.ts";
import { findHaProxy, findRedisServer, HAPROXY_MISSING } from "../../testkit/programs.ts";
import { encodeFrame, OPCODE, RawSocket } from "../../testkit/raw_socket.ts";
import { endureRollingRestart } from "../../testkit/rolling_restart.ts";
import { Service } from "../../testkit/service.ts";

const ignore = findHaProxy() === undefined;
if (ignore) console.warn(HAPROXY_MISSING);

const MIB = 2 ** 20;
/** As in `hostile_test.ts`: what a message takes on a busy machine is no measure below this many milliseconds. */
const TRIES = 3;
const FLOOR_MS = 1_000;
const MAX_GROWTH_MIB = 50;

Deno.test({
  name: "Behind HAProxy messages in endless fragments are cut off, and harm nobody else",
  ignore: ignore || Deno.build.os !== "linux", // which says how much memory a process has
  async fn() {
    await using siege = await Siege.begin({}, { behindProxy: true, windows: 1 });
    for (const opcode of [OPCODE.text, OPCODE.binary]) {
      // One after the other, for as long as one window at least.
      const once = fragmentsAtProxy(64, Infinity, opcode);
      const attack = async (target: Parameters<typeof once>[0]) => {
        for (let i = 0; i < 20; i++) await once(target);
      };
      let findings = await siege.endure(attack);
      for (let i = 1; i < TRIES && !isEndured(findings, FLOOR_MS); i++) findings = await siege.endure(attack);
      const [before, after] = findings.memory;
      assert(isEndured(findings, FLOOR_MS) && after - before < MAX_GROWTH_MIB, JSON.stringify(findings));
    }
    assertEquals(siege.service.records.filter(({ level }) => level === "error"), []);
  },
});

Deno.test({
  name: "HAProxy passes messages of up to 1 MiB on as they are, in frames of any form",
  ignore,
  async fn() {
    await using service = await Service.start({ USERWIRE_MAX_FRAME_BYTES: `${2 * MIB}` });
    await using proxy = await startHaProxy([service.server.url]);
    const url = `${proxy.url.replace("http:", "ws:")}ws?username=alice`;
    const ping = { opcode: OPCODE.ping, payload: "!" };

    await using alice = await RawSocket.open(url);
    assertEquals(alice.answer.status, 101);
    const isAlive = async () => {
      alice.sendText("ping");
      // Only a proxy that has counted right has seen this frame begin where it does.
      assertEquals(await alice.readText(), "pong");
    };
    for (const length of [0, 1, 125, 126, 127, 65_535, 65_536, MIB]) {
      alice.send({ opcode: OPCODE.binary, payload: new Uint8Array(length) });
      await isAlive();
    }
    // The head of a frame may come in any number of packets.
    for (
      const byte of encodeFrame({ opcode: OPCODE.binary, payload: new Uint8Array(70_000) }).subarray(0, 14)
    ) {
      alice.sendBytes(Uint8Array.of(byte));
    }
    alice.sendBytes(new Uint8Array(70_000));
    await isAlive();
    // 1 MiB in fragments, with control frames in between.
    alice.send({ opcode: OPCODE.binary, payload: new Uint8Array(MIB / 2), fin: false });
    alice.send(ping);
    alice.send({ opcode: OPCODE.continuation, payload: new Uint8Array(MIB / 2), fin: false });
    alice.send(ping);
    alice.send({ opcode: OPCODE.continuation });
    await isAlive();
    assertEquals((await service.send("alice", "x".repeat(60_000))).body.sockets, 1);
    assertEquals((await alice.readText()).length, 60_000, "the other way nothing is counted");
  },
});

Deno.test({
  name:
    "HAProxy ends connections with more than 1 MiB in a message, and leaves smaller excess to the service",
  ignore,
  async fn() {
    await using service = await Service.start();
    await using proxy = await startHaProxy([service.server.url]);
    const url = `${proxy.url.replace("http:", "ws:")}ws?username=alice`;
    const half = { payload: new Uint8Array(MIB / 2), fin: false };
    const tooMuch: Parameters<RawSocket["send"]>[0][][] = [
      [{ opcode: OPCODE.binary, payload: "x", claimedLength: MIB + 1 }],
      [{ opcode: OPCODE.text, payload: "x", claimedLength: 2 ** 40 }],
      [{ opcode: OPCODE.binary, ...half }, { opcode: OPCODE.continuation, ...half }, {
        opcode: OPCODE.continuation,
        payload: "x",
      }],
    ];
    for (const frames of tooMuch) {
      await using socket = await RawSocket.open(url);
      for (const frame of frames) socket.send(frame);
      await socket.ended;
    }
    await using socket = await RawSocket.open(url);
    socket.send({ opcode: OPCODE.binary, payload: new Uint8Array(70_000) });
    assertEquals((await socket.readClose()).code, 1009);
  },
});

Deno.test({
  name: "HAProxy says how and where it was called itself, whatever the caller says about that",
  ignore,
  async fn() {
    await using service = await Service.start({ ...CLOSED, USERWIRE_TRUSTED_PROXIES: "127.0.0.1" });
    await using proxy = await startHaProxy([service.server.url]);
    const response = await fetch(`${proxy.url}v1/tickets`, {
      method: "POST",
      headers: {
        "authorization": `Bearer ${KEY.key}`,
        "content-type": "application/json",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "evil.example",
      },
      body: '{"user":"alice"}',
    });
    const { ticket, url } = await response.json();
    assertEquals(url, `${proxy.url.replace("http:", "ws:")}ws?ticket=${ticket}`);
  },
});

Deno.test({
  name: "HAProxy ends a request whose head does not come to its end",
  ignore,
  async fn() {
    await using service = await Service.start();
    await using proxy = await startHaProxy([service.server.url]);
    using client = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(proxy.url).port) });
    const start = "GET /ws?username=alice HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX-Slow: ";
    await client.write(new TextEncoder().encode(start));
    // The settings give it ten seconds.
    const answer = await withDeadline(new Response(client.readable).text(), 20_000, "HAProxy to hang up");
    assertEquals(answer.split("\r\n", 1)[0], "HTTP/1.1 408 Request Time-out");
    assertEquals(service.server.app.connections.size, 0);
  },
});

Deno.test({
  name: "HAProxy takes a send that a node answers 503 to another one, as large as it may be",
  ignore,
  async fn() {
    // Ready at every check, and yet about to end at every send.
    await using ending = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
      await request.bytes();
      return new Response(null, { status: request.method === "GET" ? 200 : 503 });
    });
    await using service = await Service.start();
    await using proxy = await startHaProxy([`http://127.0.0.1:${ending.addr.port}`, service.server.url]);
    const sent = [];
    for (let i = 0; i < 20; i++) {
      const response = await fetch(`${proxy.url}v1/users/alice/messages`, {
        method: "POST",
        headers: { "content-type": "text/plain" },
        body: "x".repeat(65_536),
      });
      await response.body?.cancel();
      sent.push(response.status);
    }
    assertEquals(sent, Array(20).fill(202));
  },
});

Deno.test({
  name: "HAProxy asks another node also when the body of a send comes later than its head",
  ignore,
  async fn() {
    const met = new Bell();
    let refused = 0;
    const answer = (status: number) => async (request: Request) => {
      if (request.method === "GET") return new Response();
      if (status === 503) refused++;
      met.ring();
      if (status === 202) await request.text();
      return new Response(null, { status });
    };
    const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
    // Its health says nothing yet of what it answers.
    await using draining = Deno.serve(options, answer(503));
    await using ready = Deno.serve(options, answer(202));
    const urls = [draining, ready].map(({ addr }) => `http://127.0.0.1:${addr.port}/`);
    await using proxy = await startHaProxy(urls);
    const { hostname, port } = new URL(proxy.url);
    const body = `"${"x".repeat(60_000)}"`;
    const head = `POST /v1/users/alice/messages HTTP/1.1\r\nHost: ${hostname}:${port}\r\n` +
      `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
    const answers: string[] = [];
    for (let i = 0; i < 10; i++) {
      using connection = await Deno.connect({ hostname, port: Number(port) });
      const before = refused;
      await connection.write(new TextEncoder().encode(head));
      // A proxy that does not wait for the body asks a node at once; one that does asks none before it has come.
      await met.until(() => refused > before, "the node that refuses to be asked", 100).catch(() => {});
      await connection.write(new TextEncoder().encode(body)).catch(() => {});
      const text = await withDeadline(new Response(connection.readable).text(), 20_000, "the answer");
      answers.push(text.split("\r\n")[0]!);
    }
    assertEquals(answers, Array(10).fill("HTTP/1.1 202 Accepted"));
    assert(refused > 0, "some were refused first");
  },
});

Deno.test({
  name: "Behind HAProxy a rolling restart of two nodes fails no send and no handshake, and loses nothing",
  ignore: ignore || findRedisServer() === undefined,
  async fn() {
    await endureRollingRestart(startHaProxy, { until: "seen", nodes: 2, clients: 50, perSecond: 60 });
  },
});
