/**
 * The frames of the subprotocol `userwire.v1`, as they are sent and read. `docs/protocol.md` describes them.
 *
 * This room owns what crosses a boundary as text: frames, usernames, positions, credentials, close codes, the envelope
 * between publisher and node, and the errors that callers catch. It promises that every reader either understands a
 * text or throws an error that says why in a sentence. All of it is pure, and imports nothing of ours: no socket, no Redis,
 * no settings. Clients share all but the envelope.
 */
import { InvalidFrameError } from "./errors.ts";
import { parseObject } from "./json.ts";
import { memberOf } from "./json_parts.ts";

/** The subprotocol of framed sockets. A socket that offers none is raw. */
export const SUBPROTOCOL = "userwire.v1";

/** Version number in `hi`. */
export const PROTOCOL_VERSION = 1;

/** First frame on every `userwire.v1` socket. */
export interface HiFrame {
  t: "hi";
  v: number;
  /** Id of this connection. */
  conn: string;
  user: string;
  /** Name of the node. */
  node: string;
  /** Position before the first message that follows, while a history is kept: `<epoch>.<seq>`. */
  pos?: string;
  /** What proves it, when that is known: to resume from it give `<pos>.<tag>`. */
  tag?: string;
  /** Position before the first broadcast that follows, while a history is kept: `<epoch>.<number>`. */
  all?: string;
  /** Whether the position asked for was taken up. */
  resumed: boolean;
  /** At most so many messages are replayed before live ones; gaps may take the place of some. */
  replay: number;
  /** Seconds of silence after which the server sends `p`. */
  ping: number;
  /** Largest frame a client may send, in bytes. */
  max: number;
  /** Unix seconds at which the token ends. */
  exp?: number;
  /** 1 when requests (`req`) are taken. */
  req?: 1;
}

/** A message. `seq` only while a history is kept, `id` only when one of our publishers sent it. */
export interface MessageFrame {
  t: "m";
  seq?: number;
  /** Some characters that are this message's alone: to resume after it give `<epoch>.<seq>.<tag>`. */
  tag?: string;
  id?: string;
  /** Unix milliseconds of the send, or of the arrival when the message had no envelope. */
  ts: number;
  /** The span that its sender named as that of the send: `traceparent` of W3C Trace Context. */
  tp?: string;
  /** The group that it was sent to. */
  g?: string;
  /** Set when `data` is bytes in base64. */
  enc?: "base64";
  data: unknown;
  /** 1 on replay. */
  r?: 1;
  /** 1 when the sender waits for a receipt: acknowledge at once. */
  ack?: 1;
}

/**
 * What cannot be delivered. `trimmed`: the messages `from` to `to` have left the history. `epoch`: the history
 * itself was lost or set back; everything after `from - 1` of the old epoch may be missing, and nobody knows how
 * much that is.
 */
export type GapFrame =
  | { t: "gap"; from: number; to: number; count: number; why: "trimmed"; pos: string; tag?: string }
  /** `pos` and `tag` are the position after the gap, as in `hi`. */
  | { t: "gap"; from: number; to: null; count: null; why: "epoch"; pos: string; tag?: string };

/** A broadcast: a message to everybody who is connected, numbered apart from the user's own. */
export interface BroadcastFrame extends Omit<MessageFrame, "t" | "ack"> {
  t: "b";
  /** How long its sender wants it kept, in milliseconds, where the sender has said so. */
  ttl_ms?: number;
}

/** Broadcasts that cannot be delivered; as `GapFrame`, in the numbers of broadcasts. */
export type BroadcastGapFrame =
  & { t: "bgap"; from: number; pos: string; tag?: string }
  & ({ to: number; count: number; why: "trimmed" } | { to: null; count: null; why: "epoch" });

/** Answer to a client's `req` or `auth`. */
export interface ReplyFrame {
  t: "re";
  id: string;
  ok: boolean;
  data?: unknown;
  err?: string;
  /** Of a `req` that is not ok: which kind of error it is. */
  code?: string;
  /** When it is worth asking again, in milliseconds from now. */
  retry_ms?: number;
  /** Set when the request may have been carried out all the same. */
  outcome?: "unknown";
}

/** A client asks the backend. */
export interface RequestFrame {
  t: "req";
  /** 1 to 64 of letters, digits, `_` and `-`: comes back in `re`, and is a part of the id that the backend gets. */
  id: string;
  /** What is asked for: 1 to 64 characters. */
  op: string;
  /** Any JSON value. */
  data?: unknown;
  /** After so many milliseconds nobody waits for the answer, and what has not begun does not begin. */
  timeout_ms?: number;
}

/** Last frame before the server closes. */
export interface ByeFrame {
  t: "bye";
  code: number;
  why: string;
  /** When to come back, in milliseconds from now. */
  retry_ms?: number;
}

/** Frames the server sends. `p` is a sign of life. */
export type ServerFrame =
  | HiFrame
  | MessageFrame
  | GapFrame
  | BroadcastFrame
  | BroadcastGapFrame
  | ReplyFrame
  | ByeFrame
  | { t: "p" };

/** Frames a client sends. Other types are ignored. */
export type ClientFrame = ControlFrame | RequestFrame;

type ControlFrame = { t: "ack"; seq: number } | { t: "auth"; token: string; id?: string } | { t: "p" };

/** A request as it was read: its data as it stands in the frame. */
export type ReadRequest = Omit<RequestFrame, "data"> & { readonly json: string | undefined };

/** Characters of the id of an `auth` that come back in `re`. */
const MAX_AUTH_ID = 64;
const REQUEST_ID = /^[A-Za-z0-9_-]{1,64}$/;
const MAX_OP = 64;

/** The frame `p`, written once. */
export const PING_FRAME = '{"t":"p"}';

/** Writes a frame; `t` comes first because every frame literal starts with it. */
export function formatFrame(frame: ServerFrame | ClientFrame): string {
  return JSON.stringify(frame);
}

/**
 * Reads a frame from a client.
 * @returns Undefined for a frame of an unknown type, which a newer client may send.
 * @throws {InvalidFrameError} when it is not a JSON object with a string `t`, or a field has the wrong type.
 */
export function parseClientFrame(text: string): ControlFrame | ReadRequest | undefined {
  const frame = parseObject(text);
  switch (frame.t) {
    case "p":
      return { t: "p" };
    case "ack": {
      const seq = frame.seq as number;
      if (Number.isSafeInteger(seq) && seq >= 0) return { t: "ack", seq };
      throw new InvalidFrameError('Frame "ack" needs "seq", a whole number from 0 on');
    }
    case "auth": {
      const { token, id } = frame;
      if (typeof token !== "string") throw new InvalidFrameError('Frame "auth" needs "token", a string');
      return { t: "auth", token, ...(typeof id === "string" && { id: id.slice(0, MAX_AUTH_ID) }) };
    }
    case "req":
      return readRequest(frame, text);
    default:
      if (typeof frame.t === "string") return undefined;
      throw new InvalidFrameError('A frame needs "t", a string that names its type');
  }
}

function readRequest({ id, op, timeout_ms }: Record<string, unknown>, text: string): ReadRequest {
  if (typeof id !== "string" || !REQUEST_ID.test(id)) {
    throw new InvalidFrameError('Frame "req" needs "id": 1 to 64 of letters, digits, _ and -');
  }
  if (typeof op !== "string" || op === "" || op.length > MAX_OP) {
    throw new InvalidFrameError(`Frame "req" needs "op": 1 to ${MAX_OP} characters`);
  }
  if (timeout_ms === undefined) return { t: "req", id, op, json: memberOf(text, "data") };
  if (typeof timeout_ms !== "number" || !(timeout_ms > 0)) {
    throw new InvalidFrameError('In frame "req" "timeout_ms" must be a number above 0');
  }
  return { t: "req", id, op, json: memberOf(text, "data"), timeout_ms };
}

/**
 * Writes the answer to a request that was done.
 * @param json The answer, known to be JSON; undefined when there is nothing to say.
 */
export function formatAnswer(id: string, json: string | undefined): string {
  const head = JSON.stringify({ t: "re", id, ok: true } satisfies ReplyFrame);
  // On one line, whatever carries it: in JSON only white space can be a line's end.
  return json === undefined ? head : `${head.slice(0, -1)},"data":${json.replaceAll(/[\r\n]+/g, " ")}}`;
}
