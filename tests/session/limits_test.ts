/**
 * Limits: of a client address, of handshakes, of bytes and of headers; and whose address counts behind a proxy. Those of a
 * user are in `user_limits_test.ts`. The address of a test's client is always 127.0.0.1, so others come by `X-Forwarded-For` from a trusted proxy.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { addressKey, AddressRanges, clientAddress, isLoopback, isRange } from "../../src/net/addresses.ts";
import type { Registry } from "../../src/session/registry.ts";
import { ConnectionLimits } from "../../src/http/connection_limits.ts";
import { ask, assertRefused } from "../../testkit/bad_input.ts";
import { call, CLOSED, tokenFor } from "../../testkit/closed.ts";
import { OPCODE, RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { until } from "../../testkit/deadline.ts";
import { openClient } from "../../testkit/ws_client.ts";

const PROXIED = { USERWIRE_TRUSTED_PROXIES: "127.0.0.1" };

async function statusFrom(service: Service, address: string, sockets?: RawSocket[]): Promise<number> {
  const socket = await RawSocket.open(service.socketUrl("alice"), {
    headers: { "X-Forwarded-For": address },
  });
  if (sockets && socket.answer.status === 101) sockets.push(socket);
  else await socket.closeAbruptly();
  return socket.answer.status;
}

Deno.test("An address has so many sockets and no more; of IPv6 the first 64 bits are one address", async () => {
  await using service = await Service.start({ ...PROXIED, USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "2" });
  const sockets: RawSocket[] = [];
  const statuses = async (...addresses: string[]) => {
    const found = [];
    for (const address of addresses) found.push(await statusFrom(service, address, sockets));
    return found;
  };
  assertEquals(await statuses("1.2.3.4", "1.2.3.4", "1.2.3.4", "1.2.3.5"), [101, 101, 429, 101]);
  assertEquals(await statuses("2001:db8::1", "2001:db8:0:0:ffff::2", "2001:db8::3", "2001:db8:0:1::1"), [
    101,
    101,
    429,
    101,
  ]);
  assertEquals(
    await statuses("::ffff:1.2.3.4", "1.2.3.4:5678"),
    [429, 429],
    "the same address, written otherwise",
  );
  // One that has not said who it is counts too.
  await using _silent = await RawSocket.open(service.socketUrl(), {
    headers: { "X-Forwarded-For": "1.2.3.5" },
  });
  assertEquals(await statuses("1.2.3.5"), [429]);
  for (const socket of sockets) await socket.closeAbruptly();
  await until(
    () => service.server.app.connections.countAt(addressKey("1.2.3.4")) === 0,
    "the address to be free",
  );
  assertEquals(await statusFrom(service, "1.2.3.4"), 101);
});

const PLACES = [["USERWIRE_MAX_CONNECTIONS", 503], ["USERWIRE_MAX_CONNECTIONS_PER_ADDRESS", 429]] as const;

for (const [setting, status] of PLACES) {
  for (const who of ["with tokens", "without a word who they are"]) {
    Deno.test(`Of many that come at once ${who} no more get in than ${setting} says`, async () => {
      await using service = await Service.start({ ...CLOSED, [setting]: "5" });
      const sockets = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
        const socket = await RawSocket.dial(service.socketUrl());
        const headers = {
          Authorization: who === "with tokens" ? `Bearer ${await tokenFor(`user${i}`)}` : null,
        };
        return { socket, headers };
      }));
      for (const { socket, headers } of sockets) socket.sendHandshake({ headers });
      const statuses = await Promise.all(
        sockets.map(async ({ socket }) => (await socket.readAnswer()).status),
      );
      for (const { socket } of sockets) await socket.closeAbruptly();
      assertEquals(statuses.sort(), [...Array(5).fill(101), ...Array(35).fill(status)]);
      // Those that were kept out stand in nobody's way.
      await service.isEmpty();
      await using _late = await openClient(service.socketUrl());
    });
  }

  Deno.test(`A socket takes a place of ${setting} until it is gone, and one that is lost for good`, async () => {
    await using service = await Service.start({ [setting]: "3" });
    const { connections } = service.server.app;
    const statusOf = async (username?: string) => {
      await using socket = await RawSocket.open(service.socketUrl(username));
      return socket.answer.status;
    };
    await using _live = await openClient(service.socketUrl("alice"));
    connections.lose(addressKey("127.0.0.1"));
    // It has been told to close and does not answer.
    await using closing = await RawSocket.open(service.socketUrl("bob"));
    closing.send({ opcode: OPCODE.binary, payload: new Uint8Array(65_537) });
    assertEquals((await closing.readClose()).code, 1009);
    assertEquals([connections.size, connections.closing, connections.lost], [1, 1, 1]);
    assertEquals([await statusOf("carol"), await statusOf()], [status, status]);
    await closing.closeAbruptly();
    await until(() => connections.closing === 0, "the socket to be gone");
    await using _carol = await openClient(service.socketUrl("carol"));
    assertEquals([await statusOf("dave"), await statusOf()], [status, status]);
  });
}

/** Addresses that come in turn, and nobody has a socket. */
function limitsAt(upgradesPerSecond: number): ConnectionLimits {
  const nobody = { isFull: false, countAt: () => 0 } as unknown as Registry;
  return new ConnectionLimits(nobody, {
    maxConnectionsPerUser: 0,
    onTooMany: "refuse",
    maxConnectionsPerAddress: 0,
    upgradesPerSecond,
    trustedProxies: [],
  });
}

Deno.test("Of handshakes an address has the rate again each second, and no more after a rest than a burst", () => {
  using clock = new StandingClock();
  const limits = limitsAt(5);
  /** How many get in at this moment. */
  const burst = () => {
    let count = 0;
    while (count < 100 && !limits.refuse("a")) count++;
    return count;
  };
  assertEquals(burst(), 10);
  for (const [ms, count] of [[0, 0], [1_000, 5], [1_000, 5], [400, 2], [60_000, 10]] as const) {
    clock.pass(ms);
    assertEquals(burst(), count, `after ${ms} ms`);
  }
});

Deno.test("Of 20,000 addresses it is remembered how fast they came, and then the longest unseen is forgotten", () => {
  using _clock = new StandingClock();
  const limits = limitsAt(1);
  const isRefused = (addressKey: string) => limits.refuse(addressKey) !== undefined;
  const othersCome = (name: string, count: number) => {
    for (let i = 0; i < count; i++) assert(!isRefused(`${name} ${i}`));
  };
  assertEquals([isRefused("a"), isRefused("a"), isRefused("a")], [false, false, true]);
  othersCome("first", 10_000);
  assert(isRefused("a"));
  othersCome("second", 19_999);
  assert(isRefused("a"), "whoever was seen later is not the one to be forgotten");
  othersCome("third", 20_000);
  assert(!isRefused("a"));
});

Deno.test("Handshakes of an address are limited per second, whatever becomes of them; others are not held up", async () => {
  await using service = await Service.start({ ...CLOSED, ...PROXIED, USERWIRE_UPGRADES_PER_SECOND: "5" });
  {
    using clock = new StandingClock();
    const statuses = [];
    for (let i = 0; i < 12; i++) statuses.push(await statusFrom(service, "1.2.3.4"));
    // Twice the rate in a burst, all refused for want of a token.
    assertEquals(statuses, [...Array(10).fill(401), 429, 429]);
    assertEquals(await statusFrom(service, "1.2.3.5"), 401);
    clock.pass(200);
    assertEquals([await statusFrom(service, "1.2.3.4"), await statusFrom(service, "1.2.3.4")], [401, 429]);
  }
});

Deno.test("A client that sends too many bytes a second is closed with 4429", async () => {
  await using service = await Service.start({ USERWIRE_MAX_BYTES_PER_SECOND: "10000" });
  for (const protocol of [null, "userwire.v1"]) {
    await using socket = await RawSocket.open(service.socketUrl("alice"), {
      headers: { "Sec-WebSocket-Protocol": protocol },
    });
    // More than fits into two seconds, in case one ends meanwhile.
    socket.sendTexts(Array(30).fill(JSON.stringify({ t: "x", pad: "x".repeat(980) })));
    assertEquals(await socket.readClose(), { code: 4429, reason: "too many bytes" });
  }
});

Deno.test("X-Forwarded-For counts only from a trusted proxy, and there the last stranger in it", () => {
  const trusted = new AddressRanges(["10.0.0.0/8", "127.0.0.1", "fd00::/8"]);
  const cases: [peer: string, header: string | null, client: string][] = [
    ["1.2.3.4", null, "1.2.3.4"],
    ["1.2.3.4", "5.6.7.8", "1.2.3.4"], // anybody can write a header
    ["127.0.0.1", null, "127.0.0.1"],
    ["127.0.0.1", "5.6.7.8", "5.6.7.8"],
    ["10.1.2.3", "9.9.9.9, 5.6.7.8", "5.6.7.8"], // the first one is what the client made up
    ["10.1.2.3", "9.9.9.9, 5.6.7.8, 10.0.0.1", "5.6.7.8"],
    ["10.1.2.3", "10.0.0.2, 10.0.0.1", "10.0.0.2"],
    ["fd00::1", "[2001:db8::7]:443", "2001:db8::7"],
    ["127.0.0.1", "5.6.7.8:1234", "5.6.7.8"],
    ["::ffff:127.0.0.1", "5.6.7.8", "5.6.7.8"],
    ["10.1.2.3", "5.6.7.8, unknown", "10.1.2.3"],
    ["10.1.2.3", "", "10.1.2.3"],
    ["10.1.2.3", "5.6.7.8, <script>, 10.0.0.1", "10.0.0.1"],
  ];
  for (const [peer, header, client] of cases) {
    assertEquals(clientAddress(peer, header, trusted), client, `${peer} ${header}`);
  }
});

Deno.test("Addresses and ranges are read as they are written, and nothing else is one", () => {
  const yes = [
    ["10.0.0.0/8", "10.255.0.1"],
    ["1.2.3.4", "1.2.3.4"],
    ["0.0.0.0/0", "9.9.9.9"],
    ["fd00::/8", "fdff::1"],
    ["::1", "0:0:0:0:0:0:0:1"],
    ["10.0.0.0/8", "::ffff:10.1.1.1"],
    ["fe80::/10", "fe80::1%eth0"],
  ];
  const no = [["10.0.0.0/8", "11.0.0.1"], ["1.2.3.4", "1.2.3.5"], ["0.0.0.0/0", "::1"], [
    "2001:db8::/33",
    "2001:db8:8000::",
  ]];
  for (const [range, address] of yes) {
    assert(new AddressRanges([range!]).has(address!), `${range} ${address}`);
  }
  for (const [range, address] of no) {
    assert(!new AddressRanges([range!]).has(address!), `${range} ${address}`);
  }
  for (
    const junk of [
      "",
      "1.2.3",
      "1.2.3.256",
      "1.2.3.4.5",
      ":",
      "::g",
      "1::2::3",
      "localhost",
      "::1]/@x",
      "1.2.3.4/33",
      "::/129",
      "1.2.3.4/8/8",
      "1.2.3.4/x",
    ]
  ) {
    assert(!isRange(junk), junk);
  }
  for (
    const host of [
      "localhost",
      "LOCALHOST",
      "a.localhost",
      "127.0.0.1",
      "127.9.9.9",
      "::1",
      "::ffff:127.0.0.1",
    ]
  ) assert(isLoopback(host), host);
  for (const host of ["localhost.example", "127.0.0.1.example", "0.0.0.0", "::", "128.0.0.1", ""]) {
    assert(!isLoopback(host), host);
  }
});

Deno.test("A body above the limit is refused before it is read, on every call that takes one", async () => {
  await using service = await Service.start({ ...CLOSED, USERWIRE_MAX_BODY_BYTES: "1000" });
  const big = "x".repeat(2_000);
  for (
    const request of ["POST /v1/users/alice/messages", "POST /v1/tickets", "POST /v1/users/alice/revocations"]
  ) {
    assertEquals((await call(service, request, { body: { big } })).status, 413, request);
    // And to a stranger nothing is said about it.
    assertEquals((await call(service, request, { body: { big }, key: undefined })).status, 401, request);
  }
});

// ---------------------------------------------------------------------------------------------------------
// Headers

/** Requests of each kind, with the headers they need and the status they get. */
const REQUESTS: Record<string, { line: string; headers?: string[]; body?: string; status: number }> = {
  "a call": { line: "GET /v1/users/alice", status: 200 },
  "a send": {
    line: "POST /v1/users/alice/messages",
    headers: ["Content-Type: text/plain", "Content-Length: 1"],
    body: "x",
    status: 202,
  },
  "the page": { line: "GET /", status: 200 },
  "a health check": { line: "GET /healthz", status: 200 },
  "what is not there": { line: "GET /nothing", status: 404 },
  "a handshake": {
    line: "GET /ws?username=alice",
    headers: [
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      `Sec-WebSocket-Key: ${"A".repeat(22)}==`,
    ],
    status: 101,
  },
};

/** So many headers that make the lines have so many bytes in all. */
function padded(lines: readonly string[], bytes: number, count: number): string[] {
  const padding = Array.from({ length: count }, (_, i) => `X-Secret-${i}: `);
  const missing = bytes - [...lines, ...padding].reduce((sum, line) => sum + line.length + 2, 0);
  padding[0] += "s".repeat(missing);
  return [...lines, ...padding];
}

for (const maxBytes of [1_024, 16_384]) {
  Deno.test(`Headers may have the ${maxBytes} bytes of USERWIRE_MAX_HEADER_BYTES, and not one more`, async (t) => {
    await using service = await Service.start({ USERWIRE_MAX_HEADER_BYTES: String(maxBytes) });
    for (const [what, { line, headers = [], body = "", status }] of Object.entries(REQUESTS)) {
      for (const count of [1, 50]) {
        await t.step(`${what}, ${count} large or many small`, async () => {
          const askWith = (bytes: number) => {
            const lines = padded(["Host: localhost", ...headers], bytes, count);
            return ask(service, [`${line} HTTP/1.1`, ...lines, "", body].join("\r\n"));
          };
          assertEquals((await askWith(maxBytes)).status, status);
          const refused = { status: 431, code: "headers_too_large" };
          assertRefused(await askWith(maxBytes + 1), {
            ...refused,
            says: new RegExp(`${maxBytes + 1} bytes .* ${maxBytes}: .* USERWIRE_MAX_HEADER_BYTES`),
          });
          assertRefused(await askWith(50_000), { ...refused, says: /50000/ });
        });
      }
    }
    await service.isEmpty();
    const metrics = await (await service.fetch("/metrics")).text();
    assertMatch(metrics, /^userwire_handshakes_refused_total\{code="headers_too_large"\} 4$/m);
    assert(!JSON.stringify(service.log.records).includes("sss"), "the log holds nothing of headers");
  });
}

Deno.test("A header given several times counts as one, its values joined", async () => {
  await using service = await Service.start({ USERWIRE_MAX_HEADER_BYTES: "1024" });
  const statusOf = async (...values: string[]) => {
    const lines = ["GET /healthz HTTP/1.1", "Host: localhost", ...values.map((value) => `X: ${value}`)];
    return (await ask(service, [...lines, "", ""].join("\r\n"))).status;
  };
  const room = 1024 - ["Host: localhost\r\n", "X: \r\n", "y, y, "].join("").length;
  assertEquals(await statusOf("y", "y", "z".repeat(room)), 200);
  assertEquals(await statusOf("y", "y", "z".repeat(room + 1)), 431);
});

Deno.test("By default headers may be as large as Deno takes them, which refuses larger and more ones itself", async () => {
  await using service = await Service.start();
  const statusOf = async (...headers: string[]) =>
    (await ask(service, ["GET /healthz HTTP/1.1", "Host: localhost", ...headers, "", ""].join("\r\n")))
      .status;
  const many = (count: number) => Array.from({ length: count }, (_, i) => `X-${i}: y`);
  assertEquals(await statusOf(`X: ${"y".repeat(65_000)}`), 200);
  assertEquals(
    await statusOf(`X: ${"y".repeat(65_536)}`),
    400,
    "then the setting's default needs no counting",
  );
  assertEquals(await statusOf(...many(127)), 200);
  assertEquals(await statusOf(...many(128)), 400, "with Host it is one more than 128");
});
