/** What hostile clients do, as many of them as are asked for. Each attack also checks how it is answered. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { protocolsFor, tokenFor } from "../../../testkit/closed.ts";
import { withDeadline } from "../../../testkit/deadline.ts";
import { encodeFrame, OPCODE, RawSocket } from "../../../testkit/raw_socket.ts";
import type { Attack, Target } from "./siege.ts";

export interface Sizes {
  readonly halfOpen: number;
  readonly halfOpenPerSecond: number;
  readonly fromOneAddress: number;
  readonly fromOneAddressPerSecond: number;
  /** Sockets that one address may have there. */
  readonly maxPerAddress: number;
  readonly fragmentsMib: number;
  readonly fragmentsMibPerSecond: number;
  readonly silent: number;
  readonly rounds: number;
  readonly guesses: number;
}

/** How many connections are opened at one time. */
const AT_ONCE = 100;
/** How long what was opened is held, so that honest users feel it. */
const HOLD_MS = 2_000;

const encoder = new TextEncoder();

export function attacksOf(sizes: Sizes): Readonly<Record<string, Attack>> {
  const { halfOpen, fromOneAddress, maxPerAddress, fragmentsMib, silent, rounds, guesses } = sizes;
  const { halfOpenPerSecond, fromOneAddressPerSecond, fragmentsMibPerSecond } = sizes;
  return {
    async [`${halfOpen} upgrades that never end (slowloris)`]({ url }) {
      const { hostname, port } = new URL(url);
      const connections: Deno.Conn[] = [];
      try {
        await inTurns(halfOpen, async () => {
          const connection = await Deno.connect({ hostname, port: Number(port) });
          connections.push(connection);
          await connection.write(
            encoder.encode("GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"),
          );
        }, halfOpenPerSecond);
        await pause();
        // And on, one header a time.
        for (const connection of connections) await connection.write(encoder.encode("X: y\r\n"));
        await pause();
      } finally {
        for (const connection of connections) connection.close();
      }
    },

    async [`${fromOneAddress} sockets from one address`](service) {
      const headers = { "X-Forwarded-For": "6.6.6.6" };
      const sockets: RawSocket[] = [];
      try {
        await inTurns(fromOneAddress, async () => {
          sockets.push(await RawSocket.open(service.socketUrl(), { headers }));
        }, fromOneAddressPerSecond);
        const count = (status: number) => sockets.filter(({ answer }) => answer.status === status).length;
        assert(count(101) > 0 && count(101) <= maxPerAddress, `${count(101)} were let in`);
        assertEquals(count(101) + count(429), fromOneAddress, "the others were refused");
      } finally {
        for (const socket of sockets) await socket.closeAbruptly();
      }
    },

    async [`${silent} sockets that never say who they are`](service) {
      const sockets: RawSocket[] = [];
      await inTurns(silent, async () => {
        sockets.push(
          await RawSocket.open(service.socketUrl(), { headers: { "X-Forwarded-For": "6.6.6.7" } }),
        );
      });
      for (const socket of sockets) {
        assertEquals((await socket.readClose(30_000)).code, 4408);
        await socket.closeAbruptly();
      }
    },

    async [`${fragmentsMib} MiB in fragments of one message`](service) {
      const { length } = service.records;
      const connection = await openAs("mallory", service);
      try {
        try {
          await sendFragments(connection, fragmentsMib, fragmentsMibPerSecond);
          await write(connection, encodeFrame({ opcode: OPCODE.continuation, payload: "x" }));
        } catch (error) {
          if (!(error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe)) {
            throw error;
          }
        }
        const ended = (async () => {
          while (ending() === undefined) await pause(50);
        })();
        await withDeadline(ended, 60_000, "the log to say how that ended");
        // Fragments are no sign of life: where they take longer than a client may be silent, that comes first.
        const { code, why } = ending()!;
        assert(code === 1009 || code === 1001 && `${why}`.startsWith("silence"), `${code} ${why}`);
      } finally {
        connection.close();
      }
      function ending() {
        return service.records.slice(length).find(({ event, user }) =>
          event === "connection closed" && user === "mallory"
        );
      }
    },

    async "headers without end, and frames that claim to be huge"(service) {
      const bombs = [
        `X: ${"x".repeat(1_000_000)}\r\n`,
        Array.from({ length: 5_000 }, (_, i) => `X-${i}: y\r\n`).join(""),
        `Cookie: ${"a=b; ".repeat(40_000)}\r\n`,
      ];
      for (let round = 0; round < rounds; round++) {
        for (const bomb of bombs) {
          await using socket = await RawSocket.dial(service.url);
          socket.sendBytes(`GET / HTTP/1.1\r\nHost: localhost\r\n${bomb}\r\n`);
          await assertRefused(socket, [400, 431]);
        }
        await using address = await RawSocket.dial(service.url);
        address.sendBytes(`GET /${"x".repeat(100_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
        await assertRefused(address, [400, 414]);
        await using frame = await RawSocket.open(service.socketUrl());
        frame.send({ opcode: OPCODE.binary, payload: "x", claimedLength: 2 ** 40 });
        await withDeadline(frame.ended, 10_000, "the connection to end");
      }
    },

    async "frames that break RFC 6455"(service) {
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
      for (let round = 0; round < rounds; round++) {
        for (const frame of bad) {
          await using socket = await RawSocket.open(service.socketUrl());
          socket.send(frame);
          await withDeadline(socket.ended, 10_000, `the end after ${JSON.stringify(frame)}`);
        }
        // Deno takes frames without a mask; what is in them is read all the same, and is no frame of ours. From somebody who
        // has no hurry: who has to say who it is may be too late on a busy machine.
        const protocols = protocolsFor(await tokenFor("mallory")).join(", ");
        await using unmasked = await RawSocket.open(service.socketUrl(), {
          headers: { "Sec-WebSocket-Protocol": protocols },
        });
        unmasked.send({ opcode: OPCODE.text, payload: "x", masked: false });
        assertEquals((await unmasked.readClose(10_000)).code, 4400, "a frame without a mask");
      }
    },

    async "subprotocols that are none"(service) {
      const offers = [
        "userwire.bearer.",
        "userwire.v1,userwire.bearer.%%%",
        `userwire.v1, userwire.bearer.${"A".repeat(20_000)}`,
        ",,,,",
        "a".repeat(8_000),
        "userwire.v1,".repeat(2_000),
        '"userwire.v1"',
        "userwire.v1\t;x",
      ];
      for (let round = 0; round < rounds; round++) {
        for (const offer of offers) {
          await using socket = await RawSocket.open(service.socketUrl(), {
            headers: { "Sec-WebSocket-Protocol": offer },
          });
          const { status } = socket.answer;
          assert([101, 400, 401].includes(status), `${offer.slice(0, 40)} got ${status}`);
        }
      }
    },

    async [`${guesses} keys and tickets that are made up`](service) {
      await inTurns(guesses, async (i) => {
        if (i % 10 === 0) {
          await using socket = await RawSocket.open(`${service.socketUrl()}?ticket=${crypto.randomUUID()}`, {
            headers: { "X-Forwarded-For": `6.7.${i % 256}.1` },
          });
          assertEquals(socket.answer.status, 401);
          return;
        }
        const headers = { authorization: `Bearer uw_tests_${crypto.randomUUID()}` };
        const response = await fetch(`${service.url}v1/users/honest0`, { headers });
        await response.body?.cancel();
        assertEquals(response.status, 401);
      });
    },
  };
}

/**
 * As many fragments, of which a proxy lets no more than a few MiB through: it hangs up.
 * @param opcode Of the message: text or binary.
 */
export function fragmentsAtProxy(mib: number, mibPerSecond: number, opcode: number): Attack {
  return async (target) => {
    const connection = await openAs("mallory", target);
    try {
      let sentMib = 0;
      const sending = sendFragments(connection, mib, mibPerSecond, { opcode, onSent: () => sentMib++ });
      await assertRejects(() => sending, Error);
      assert(sentMib < MAX_MIB_ON_THE_WAY, `${sentMib} MiB were taken`);
    } finally {
      connection.close();
    }
  };
}

/** What buffers of kernels and proxies may take before a sender notices that nobody reads any more. */
const MAX_MIB_ON_THE_WAY = 16;

/** A socket of the user's, of which only the way to the service is used. */
async function openAs(username: string, target: Target): Promise<Deno.TcpConn> {
  const url = new URL(target.socketUrl());
  const connection = await Deno.connect({ hostname: url.hostname, port: Number(url.port) });
  await write(
    connection,
    encoder.encode(
      `GET ${url.pathname} HTTP/1.1\r\nHost: ${url.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${btoa("sixteen bytes ..")}\r\n` +
        `Authorization: Bearer ${await tokenFor(username)}\r\n\r\n`,
    ),
  );
  await connection.read(new Uint8Array(4_096)); // the answer to the handshake
  return connection;
}

/** A fragment of 1 MiB: to write it takes longer than to send it. */
let part: Uint8Array | undefined;

/** Begins a message and goes on with it, 1 MiB a fragment; does not end it. */
async function sendFragments(
  connection: Deno.TcpConn,
  mib: number,
  mibPerSecond: number,
  { opcode = OPCODE.binary as number, onSent = () => {} } = {},
): Promise<void> {
  part ??= encodeFrame({ opcode: OPCODE.continuation, fin: false, payload: new Uint8Array(2 ** 20) });
  await write(connection, encodeFrame({ opcode, fin: false, payload: "x" }));
  await inTurns(
    mib,
    async () => {
      await write(connection, part!);
      onSent();
    },
    mibPerSecond,
    1,
  );
}

async function write(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  while (bytes.length > 0) bytes = bytes.subarray(await connection.write(bytes));
}

/** Does it so many times, some at once, and no faster than asked for. */
async function inTurns(
  count: number,
  act: (i: number) => Promise<void>,
  perSecond = Infinity,
  atOnce = AT_ONCE,
): Promise<void> {
  const startMs = performance.now();
  let next = 0;
  const work = async () => {
    while (next < count) {
      const i = next++;
      const earlyMs = startMs + i / perSecond * 1_000 - performance.now();
      if (earlyMs > 1) await pause(earlyMs);
      await act(i);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}

function pause(ms = HOLD_MS): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** An answer with one of these, or a reset while the rest was still on its way. */
async function assertRefused(socket: RawSocket, statuses: number[]): Promise<void> {
  const status = await socket.readAnswer().then(({ status }) => status, () => 0);
  assert([0, ...statuses].includes(status), String(status));
}
