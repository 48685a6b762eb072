/** What clients may send without end, by the state their socket is in; each as bytes for `flooder.ts`. */
import { protocolsFor, tokenFor } from "../../../testkit/closed.ts";
import { withDeadline } from "../../../testkit/deadline.ts";
import { encodeFrame, OPCODE } from "../../../testkit/raw_socket.ts";
import type { Flood } from "./flooder.ts";

/** Whose socket it is and what has come before. */
export type Who = "nameless" | "refused" | "raw" | "v1";

const FRAMES: Readonly<Record<string, readonly [opcode: number, payload: string | Uint8Array]>> = {
  "text of one byte": [OPCODE.text, "x"],
  "empty text": [OPCODE.text, ""],
  "empty binary": [OPCODE.binary, ""],
  "ping as text": [OPCODE.text, "ping"],
  "p": [OPCODE.text, '{"t":"p"}'],
  "acknowledgements": [OPCODE.text, '{"t":"ack","seq":1}'],
  "tokens": [OPCODE.text, '{"t":"auth","id":"x","token":"e30.e30.e30"}'],
  "frames of an unknown type": [OPCODE.text, '{"t":"x"}'],
  "broken JSON": [OPCODE.text, '{"t":'],
  "binary of 64 KiB": [OPCODE.binary, new Uint8Array(65_536)],
  "binary of 8 MiB": [OPCODE.binary, new Uint8Array(8 * 2 ** 20)],
};

export const FLOODS: readonly string[] = Object.keys(FRAMES);

/** What Deno keeps to itself: no frame of these reaches a service, which so can't count them. */
const UNSEEN: Readonly<Record<string, Uint8Array>> = {
  pings: encodeFrame({ opcode: OPCODE.ping, payload: "x" }),
  pongs: encodeFrame({ opcode: OPCODE.pong, payload: "x" }),
  "empty fragments": encodeFrame({ opcode: OPCODE.continuation, fin: false, payload: "" }),
};

export const UNSEEN_FLOODS: readonly string[] = Object.keys(UNSEEN);

/** Bytes are written in pieces of about that size. */
const PIECE = 16_384;

/** @param options.closed Whether the service takes tokens only. */
export async function floodOf(
  name: string,
  who: Who,
  options: { socketUrl: string; closed: boolean; ms: number; again?: boolean },
): Promise<Flood> {
  const url = new URL(options.socketUrl);
  const [opcode, payload] = FRAMES[name] ?? [];
  const frame = UNSEEN[name] ?? encodeFrame({ opcode: opcode!, payload: payload! });
  const isKnown = who === "raw" || who === "v1";
  let headers = "";
  if (isKnown && options.closed) {
    const token = await tokenFor("mallory");
    headers = who === "raw"
      ? `Authorization: Bearer ${token}\r\n`
      : `Sec-WebSocket-Protocol: ${protocolsFor(token).join(", ")}\r\n`;
  } else if (isKnown) {
    url.searchParams.set("username", "mallory");
    if (who === "v1") headers = "Sec-WebSocket-Protocol: userwire.v1\r\n";
  }
  return {
    hostname: url.hostname,
    port: Number(url.port),
    handshake: `GET ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\nConnection: Upgrade\r\n` +
      `Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${
        btoa("sixteen bytes ..")
      }\r\n` +
      `X-Forwarded-For: 6.6.6.6\r\n${headers}\r\n`,
    first: who === "refused"
      ? encodeFrame({ opcode: OPCODE.binary, payload: new Uint8Array(65_537) })
      : name === "empty fragments"
      ? encodeFrame({ opcode: OPCODE.binary, fin: false, payload: "" })
      : new Uint8Array(0),
    bytes: repeated(frame, Math.max(1, Math.floor(PIECE / frame.length))),
    ms: options.ms,
    again: options.again ?? false,
  };
}

/** Floods side by side, each in a thread. @returns When each connection was cut, in milliseconds. */
export async function flood(floods: readonly Flood[]): Promise<number[]> {
  const cuts: number[] = [];
  await Promise.all(floods.map(async (what) => {
    const worker = new Worker(new URL("./flooder.ts", import.meta.url), { type: "module" });
    const over = new Promise<void>((resolve) => {
      worker.onmessage = ({ data }) => data === "over" ? resolve() : cuts.push(data.cutMs);
    });
    worker.postMessage(what);
    try {
      await withDeadline(over, what.ms + 30_000, "the flood to end");
    } finally {
      worker.terminate();
    }
  }));
  return cuts;
}

function repeated(bytes: Uint8Array, times: number): Uint8Array {
  const all = new Uint8Array(bytes.length * times);
  for (let i = 0; i < times; i++) all.set(bytes, i * bytes.length);
  return all;
}

/** Three at once, so that every kind of frame comes, sent by clients of this kind and by others. */
export function triosOf(whos: readonly Who[]): (readonly (readonly [name: string, who: Who])[])[] {
  return whos.map((who, i) => [0, 1, 2].map((j) => [FLOODS[(3 * i + j) % FLOODS.length]!, who] as const));
}
