/**
 * The envelope: what a publisher of ours writes to a channel. It stays between publisher, history, broker and the node
 * that holds the socket; no client ever sees it.
 *
 *     U+0001 "uw1" kind frame                 kind "j" JSON, "t" text, "b" binary
 *     U+0001 "uw1" KIND receipt ";" frame     the same in capitals: the sender waits for a receipt
 *     U+0001 "uw1" "k" order                  an order to the user's connections: to close, to take a frame, or to say what they are
 *
 * `frame` is the finished `m` frame, which begins with `seq` and `tag` when it has a number, and whose last field is
 * always `data`. So a `userwire.v1` socket gets the end of the string and a raw socket a slice of that: no parse, no
 * stringify. What does not start with the mark comes from elsewhere (a bare `PUBLISH`) and is a payload as it stands.
 * On the channel of broadcasts it is the same, with `ttl_ms` after `ts` where the sender gave one; each node makes the
 * `b` frame of it, once for all of its sockets. The trace parent, `tp`, follows these; the Redis function writes it as well.
 */
import { base64Of, bytesOf } from "./base64.ts";
import {
  type AskOrder,
  CLOSE,
  type CloseOrder,
  type CloseReason,
  type FrameOrder,
  isCloseCode,
} from "./close_codes.ts";
import { isJson } from "./json.ts";
import { readTraceParent } from "./trace_parent.ts";

const MARK = "\u0001uw1";
const KIND_AT = MARK.length;
const FRAME_HEAD = '{"t":"m",';
const BROADCAST_HEAD = '{"t":"b",';
const REPLAY_FIELD = '"r":1,';
const ACK_FIELD = '"ack":1,';
const TOKEN_SIGN = "!";
const SEQ_FIELD = '"seq":';
const TAG_FIELD = ',"tag":"';
const GROUP_FIELD = ',"g":';
const DATA_FIELD = ',"data":';
const ENCODING_FIELD = ',"enc":"base64"';

const SMALL_A = 0x61, SMALL_B = 0x62, SMALL_J = 0x6a, SMALL_K = 0x6b, SMALL_T = 0x74;
const ZERO = 0x30, NINE = 0x39;
const CLOSING_BRACE = 0x7d;
/** Turns a small letter's code into its capital's. */
const CAPITAL = 0x20;

/** Ids of messages, and what to say of a text that is none. */
export const MESSAGE_ID = /^[\w.:-]{1,64}$/;
export const MESSAGE_ID_RULE = "must have 1 to 64 letters, digits or . _ : -";

/** A payload with its kind. `json` holds JSON text as it was given, not a parsed value. */
export type Payload =
  | { readonly kind: "json" | "text"; readonly text: string }
  | { readonly kind: "binary"; readonly bytes: Uint8Array<ArrayBuffer> };

interface EnvelopeOptions {
  /** Message id, as `MESSAGE_ID` says. */
  id: string;
  /** Unix milliseconds. */
  ts: number;
  /** Where a receipt goes when a client has the message; no semicolon in it. */
  receipt?: string | undefined;
  /** Only of a broadcast: how long its sender wants it kept, in milliseconds. */
  ttlMs?: number | undefined;
  /** The group it was sent to. */
  group?: string | undefined;
  /** As its sender gave it: what is no trace parent is left out. */
  traceparent?: string | undefined;
}

/** Characters of a message's tag. */
const TAG_LENGTH = 8;
/** An id ends within so many characters: the fields before it are short. */
const ID_WITHIN = 400;
/** And the trace parent within so many: before it stand a time and a duration as well. */
const TRACE_PARENT_WITHIN = ID_WITHIN + 150;

/** Those at its beginning that it has in common with its epoch. */
export const EPOCH_MARK_LENGTH = 4;

/** The fields of a number and its tag, which go between the two halves of an envelope. */
export function seqFields(seq: number, tag: string): string {
  return `${SEQ_FIELD}${seq}${TAG_FIELD}${tag}",`;
}

/** The envelope of the two halves that `formatEnvelope` writes. */
export function withSeq({ head, tail }: { head: string; tail: string }, seq: number, tag: string): string {
  return head + seqFields(seq, tag) + tail;
}

/** Writes the envelope in two halves, between which the history puts `seqFields`: only there is the number known. */
export function formatEnvelope(payload: Payload, options: EnvelopeOptions): { head: string; tail: string } {
  const { id, ts, receipt, ttlMs, group, traceparent } = options;
  const isBinary = payload.kind === "binary";
  const data = isBinary
    ? `"${base64Of(payload.bytes)}"`
    : payload.kind === "text"
    ? JSON.stringify(payload.text)
    : payload.text;
  const encoding = isBinary ? ENCODING_FIELD : "";
  const ttl = ttlMs === undefined ? "" : `,"ttl_ms":${ttlMs}`;
  const parent = traceparent === undefined ? undefined : readTraceParent(traceparent);
  const trace = parent === undefined ? "" : `,"tp":"${parent}"`;
  // In a string the quotes of a name are escaped, so no name looks like the field with the payload.
  const to = group === undefined ? "" : GROUP_FIELD + JSON.stringify(group);
  const kind = payload.kind.charAt(0); // "j", "t" or "b"
  const head = receipt === undefined
    ? MARK + kind + FRAME_HEAD
    : `${MARK}${kind.toUpperCase()}${receipt};${FRAME_HEAD}${ACK_FIELD}`;
  return { head, tail: `"id":"${id}","ts":${ts}${ttl}${trace}${to}${encoding}${DATA_FIELD}${data}}` };
}

/** Writes the order to close every connection of a user, or those that it says. */
export function formatCloseOrder({ code, reason, revoked }: CloseOrder): string {
  return `${MARK}k${JSON.stringify({ code, why: reason, revoked })}`;
}

/** Nodes of a version before there were other orders take every order for one to close: with this, one for nobody. */
const FOR_NOBODY = { revoked: { jti: "" } };

/** Writes the order to one connection to take a frame. */
export function formatFrameOrder({ conn, frame, receipt }: FrameOrder): string {
  return `${MARK}k${JSON.stringify({ conn, frame, receipt, ...FOR_NOBODY })}`;
}

/** Writes the order to say what one is. */
export function formatAskOrder({ asker, close }: AskOrder): string {
  return `${MARK}k${JSON.stringify({ asker, close, ...FOR_NOBODY })}`;
}

/** Whether a channel's payload is an envelope of ours: what only begins as one is a payload as it stands. */
export function isEnvelope(payload: string): boolean {
  if (payload.charCodeAt(0) !== 1 || !payload.startsWith(MARK)) return false;
  if (payload.charCodeAt(payload.length - 1) !== CLOSING_BRACE) return false;
  return isOrder(payload) || payload.startsWith(FRAME_HEAD, frameAt(payload));
}

/** Whether an envelope is an order. */
export function isOrder(envelope: string): boolean {
  return envelope.charCodeAt(KIND_AT) === SMALL_K;
}

/** The order that an envelope is; undefined when it is none, or one that this version does not know. */
export function orderOf(envelope: string): CloseOrder | FrameOrder | AskOrder | undefined {
  if (!isOrder(envelope)) return undefined;
  const { conn, frame, receipt, code, why, revoked, asker, close } = objectIn(envelope.slice(KIND_AT + 1));
  if (typeof asker === "string") {
    return { asker, close: close && { conn: close.conn, ...closeReasonOf(close.code, close.reason) } };
  }
  if (conn !== undefined) return isText(frame) && isText(receipt) ? { conn, frame, receipt } : undefined;
  return code === undefined ? undefined : { ...closeReasonOf(code, why), revoked };
}

// deno-lint-ignore no-explicit-any -- each field is looked at
function objectIn(text: string): Record<string, any> {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

/** Any program may write orders: what no WebSocket can be closed with would leave it open, and deaf. */
function closeReasonOf(code: unknown, reason: unknown): CloseReason {
  return {
    code: isCloseCode(code) ? code : CLOSE.kicked.code,
    reason: isText(reason) ? reason : CLOSE.kicked.reason,
  };
}

/** Where the receipt of an envelope goes, if its sender waits for one. */
export function receiptOf(envelope: string): string | undefined {
  if (envelope.charCodeAt(KIND_AT) >= SMALL_A) return undefined;
  return envelope.slice(KIND_AT + 1, envelope.indexOf(";"));
}

/** The id of the message in an envelope; undefined where none is found. Before it nothing holds free text. */
export function idOf(envelope: string): string | undefined {
  return /"id":"([^"]+)"/.exec(envelope.slice(0, ID_WITHIN))?.[1];
}

/**
 * What stands where a receipt goes: who waits for it, and the name of a send that is watched for being confirmed.
 * @returns Undefined for neither.
 */
export function formatReceipt(
  { waiter = "", token }: { waiter?: string | undefined; token?: string | undefined },
): string | undefined {
  const receipt = token === undefined ? waiter : waiter + TOKEN_SIGN + token;
  return receipt === "" ? undefined : receipt;
}

/** The parts of what `formatReceipt` wrote. */
export function partsOfReceipt(receipt: string): { waiter: string | undefined; token: string | undefined } {
  const [waiter, token] = receipt.split(TOKEN_SIGN) as [string, string?];
  return { waiter: waiter === "" ? undefined : waiter, token };
}

/** The sequence number in an envelope; 0 when it was sent without a history. */
export function seqOf(envelope: string): number {
  let seq = 0;
  for (let at = seqAt(envelope);; at++) {
    const digit = envelope.charCodeAt(at);
    if (!(digit >= ZERO && digit <= NINE)) return seq;
    seq = seq * 10 + digit - ZERO;
  }
}

/** The tag in an envelope that has a sequence number; "" when it was written before there were tags. */
export function tagIn(envelope: string): string {
  let at = seqAt(envelope);
  while (envelope.charCodeAt(at) <= NINE && envelope.charCodeAt(at) >= ZERO) at++;
  if (!envelope.startsWith(TAG_FIELD, at)) return "";
  at += TAG_FIELD.length;
  return envelope.slice(at, at + TAG_LENGTH);
}

/** Whether a message with this tag may be of this epoch: one without a tag may be of any. */
export function isOfEpoch(tag: string, epoch: string): boolean {
  return tag === "" || tag.startsWith(epoch.slice(0, EPOCH_MARK_LENGTH));
}

/** The `m` frame inside an envelope. */
export function frameOf(envelope: string): string {
  return envelope.slice(frameAt(envelope));
}

/** The same, marked as replayed. */
export function replayFrameOf(envelope: string): string {
  return FRAME_HEAD + REPLAY_FIELD + envelope.slice(frameAt(envelope) + FRAME_HEAD.length);
}

/** The `b` frame of a broadcast. @param frame The `m` frame that it was sent as: `frameOf`, `wrapForeign`. */
export function broadcastFrameOf(frame: string): string {
  const fields = frame.slice(FRAME_HEAD.length);
  // Who asks for receipts of a broadcast is a node, not the client's sender.
  return BROADCAST_HEAD + (fields.startsWith(ACK_FIELD) ? fields.slice(ACK_FIELD.length) : fields);
}

/** The same `b` frame, marked as replayed. */
export function replayedBroadcast(frame: string): string {
  return BROADCAST_HEAD + REPLAY_FIELD + frame.slice(BROADCAST_HEAD.length);
}

/**
 * When a message was sent, in Unix milliseconds by its sender's clock, and how long its sender wants it kept. Both stand
 * before what the sender wrote.
 */
export function timesIn(envelope: string): { ts: number; ttlMs: number | undefined } {
  const [, ts, ttlMs] = /"ts":(\d+)(?:,"ttl_ms":(\d+))?/.exec(envelope) ?? [];
  return { ts: Number(ts), ttlMs: ttlMs === undefined ? undefined : Number(ttlMs) };
}

/** The trace parent in an envelope; undefined when it has none. It is looked for only where a sender can't write. */
export function traceParentIn(envelope: string): string | undefined {
  const times = /"ts":\d+(?:,"ttl_ms":\d+)?(?:,"tp":"([\da-f-]{55})")?/;
  return times.exec(envelope.slice(0, TRACE_PARENT_WITHIN))?.[1];
}

/** The payload inside an envelope: what a raw socket gets. */
export function payloadOf(envelope: string): string | Uint8Array<ArrayBuffer> {
  const data = envelope.slice(envelope.indexOf(DATA_FIELD) + DATA_FIELD.length, -1);
  switch (envelope.charCodeAt(KIND_AT) | CAPITAL) {
    case SMALL_J:
      return data;
    case SMALL_T: // the only kind whose raw form differs from its JSON form
      return JSON.parse(data);
    case SMALL_B:
      return bytesOf(data.slice(1, -1));
    default:
      throw new TypeError("An envelope of an unknown kind has no payload");
  }
}

/** Where the digits of the sequence number begin; -1 when there is none. */
function seqAt(envelope: string): number {
  let at = frameAt(envelope) + FRAME_HEAD.length;
  if (envelope.startsWith(ACK_FIELD, at)) at += ACK_FIELD.length;
  return envelope.startsWith(SEQ_FIELD, at) ? at + SEQ_FIELD.length : -1;
}

function frameAt(envelope: string): number {
  return envelope.charCodeAt(KIND_AT) >= SMALL_A ? KIND_AT + 1 : envelope.indexOf(";") + 1;
}

/**
 * The `m` frame for a payload that was published without an envelope: no `seq` and no `id` are known. JSON
 * stays JSON, other text becomes a string, bytes become base64.
 */
export function wrapForeign(payload: string | Uint8Array, ts: number): string {
  if (typeof payload !== "string") {
    return `{"t":"m","ts":${ts}${ENCODING_FIELD}${DATA_FIELD}"${base64Of(payload)}"}`;
  }
  return `{"t":"m","ts":${ts}${DATA_FIELD}${isJson(payload) ? payload : JSON.stringify(payload)}}`;
}
