/**
 * The wire, without any I/O: usernames and channels, the envelope on a channel, the frames of `userwire.v1`,
 * subprotocols, close codes and limits. Shared by the server, the command line and clients.
 *
 * The envelope is what a publisher of ours writes to a channel:
 *
 *     U+0001 "uw1" kind frame                 kind "j" JSON, "t" text, "b" binary
 *     U+0001 "uw1" KIND receipt ";" frame     the same in capitals: the sender waits for a receipt
 *     U+0001 "uw1" "k" close                  an order to close the user's connections
 *
 * `frame` is the finished `m` frame, which begins with `seq` and `tag` when it has a number, and whose last field is always `data`. So a `userwire.v1` socket gets the end of
 * the string and a raw socket a slice of that: no parse, no stringify. A payload that does not start with the mark
 * comes from elsewhere (a bare `PUBLISH`) and is a payload as it stands.
 */
import { InvalidFrameError, InvalidUsernameError } from "./errors.ts";

/** The subprotocol of framed sockets. A socket that offers none is raw. */
export const SUBPROTOCOL = "userwire.v1";

/** Version number in `hi`. */
export const PROTOCOL_VERSION = 1;

export const MAX_USERNAME_BYTES = 128;

/** Names that start with this are the service's own keys and channels, never a user's. */
export const RESERVED_PREFIX = "userwire:";

// ---------------------------------------------------------------------------------------------------------
// Usernames

const encoder = new TextEncoder();
// deno-lint-ignore no-control-regex -- control characters are exactly what is refused
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\s{}]/u;
// deno-lint-ignore no-control-regex -- all of ASCII
const ASCII = /^[\u0000-\u007f]*$/;

/** With what Redis' own channels begin: `__keyevent@0__:set`, `__sentinel__:hello`, `__redis__:invalidate`. */
const REDIS_PREFIX = "__";

/** Which names an installation takes. */
export interface NameRules {
  /** Lower-case names first, as the setting `USERWIRE_USERNAME_CASE=lower` asks. @default false */
  readonly fold?: boolean;
  /** Names are channels of a Redis as they stand, without a prefix: none may be one of Redis' own. @default false */
  readonly bare?: boolean;
}

/**
 * Checks a username and returns it. Usernames are compared byte for byte; no Unicode normalisation.
 * @throws {InvalidUsernameError}
 */
export function parseUsername(text: unknown, rules: NameRules = {}): string {
  if (typeof text !== "string") throw new InvalidUsernameError("A username must be a string");
  const username = rules.fold ? foldCase(text) : text;
  if (username === "") throw new InvalidUsernameError("A username must not be empty");
  if (!username.isWellFormed()) {
    throw new InvalidUsernameError("A username must be valid Unicode: it holds half of a surrogate pair");
  }
  // Decoders put U+FFFD in place of broken bytes: names that were broken in different ways would become one user.
  if (username.includes("\ufffd")) {
    throw new InvalidUsernameError("A username must be valid Unicode: it could not be read as UTF-8");
  }
  // A UTF-16 unit takes at most three bytes, so short names need no encoding to be measured.
  if (username.length * 3 > MAX_USERNAME_BYTES) {
    const bytes = encoder.encode(username).length;
    if (bytes > MAX_USERNAME_BYTES) {
      throw new InvalidUsernameError(
        `A username must have at most ${MAX_USERNAME_BYTES} bytes: this one has ${bytes}`,
      );
    }
  }
  if (FORBIDDEN.test(username)) {
    throw new InvalidUsernameError("A username must not hold white space, control characters or braces");
  }
  if (username === "." || username === "..") {
    throw new InvalidUsernameError("A username must not be one or two dots: no URL could hold it");
  }
  if (username.startsWith(RESERVED_PREFIX)) {
    throw new InvalidUsernameError(
      `A username must not start with "${RESERVED_PREFIX}": such names are reserved`,
    );
  }
  if (rules.bare && username.startsWith(REDIS_PREFIX)) {
    throw new InvalidUsernameError(
      `A username must not start with "${REDIS_PREFIX}": such channels are those of Redis itself; ` +
        "with USERWIRE_CHANNEL_PREFIX set they are free",
    );
  }
  return username;
}

/**
 * The text in lower case. A letter is refused when another capital has the same lower case, as the Kelvin sign has
 * that of K, or when it becomes several characters, as the dotted İ does: two users would become one.
 * @throws {InvalidUsernameError}
 */
function foldCase(text: string): string {
  if (!ASCII.test(text)) {
    for (const letter of text) {
      const small = letter.toLowerCase();
      if (small === letter) continue;
      const capital = small.toUpperCase();
      // A small letter whose capital is written in several characters, such as ß, has this one capital only.
      const isOnlyCapital = capital === letter || [...capital].length > 1;
      if ([...small].length === 1 && isOnlyCapital) continue;
      const code = letter.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
      throw new InvalidUsernameError(
        `A username must not hold U+${code} where letter case does not count: its lower case is that of another ` +
          "letter too",
      );
    }
  }
  return text.toLowerCase();
}

/** The channel of a user: the prefix of the installation, then the username as it is. */
export function channelOf(username: string, prefix = ""): string {
  return prefix + username;
}

// ---------------------------------------------------------------------------------------------------------
// The envelope

const MARK = "\u0001uw1";
const KIND_AT = MARK.length;
const FRAME_HEAD = '{"t":"m",';
const ACK_FIELD = '"ack":1,';
const SEQ_FIELD = '"seq":';
const TAG_FIELD = ',"tag":"';
const DATA_FIELD = ',"data":';
const ENCODING_FIELD = ',"enc":"base64"';

const SMALL_A = 0x61, SMALL_B = 0x62, SMALL_J = 0x6a, SMALL_K = 0x6b, SMALL_T = 0x74;
const ZERO = 0x30, NINE = 0x39;
/** Turns a small letter's code into its capital's. */
const CAPITAL = 0x20;

/** What kind of payload a message carries. */
export type PayloadKind = "json" | "text" | "binary";

/** A payload with its kind. `json` holds JSON text as it was given, not a parsed value. */
export type Payload =
  | { readonly kind: "json" | "text"; readonly text: string }
  | { readonly kind: "binary"; readonly bytes: Uint8Array<ArrayBuffer> };

export interface EnvelopeOptions {
  /** Message id: letters, digits, and `._:-` only. */
  id: string;
  /** Unix milliseconds. */
  ts: number;
  /** Where a receipt goes when a client has the message; no semicolon in it. */
  receipt?: string | undefined;
}

/** Characters of a message's tag. */
const TAG_LENGTH = 8;
/** Those at its beginning that it has in common with its epoch. */
export const EPOCH_MARK_LENGTH = 4;

/** What an inbox puts between the two halves of an envelope. */
export function stampOf(seq: number, tag: string): string {
  return `${SEQ_FIELD}${seq}${TAG_FIELD}${tag}",`;
}

/** Writes the envelope in two halves, between which an inbox puts `stampOf`. */
export function formatEnvelope(payload: Payload, options: EnvelopeOptions): { head: string; tail: string } {
  const { id, ts, receipt } = options;
  let kind = "j", encoding = "", data: string;
  switch (payload.kind) {
    case "json":
      data = payload.text;
      break;
    case "text":
      kind = "t";
      data = JSON.stringify(payload.text);
      break;
    case "binary":
      kind = "b";
      encoding = ENCODING_FIELD;
      data = `"${payload.bytes.toBase64()}"`;
  }
  const head = receipt === undefined
    ? MARK + kind + FRAME_HEAD
    : `${MARK}${kind.toUpperCase()}${receipt};${FRAME_HEAD}${ACK_FIELD}`;
  return { head, tail: `"id":"${id}","ts":${ts}${encoding}${DATA_FIELD}${data}}` };
}

/** Writes the order to close every connection of a user, or those that it says. */
export function formatCloseOrder(order: CloseOrder): string {
  return `${MARK}k${JSON.stringify(order)}`;
}

/** Whether a channel's payload is an envelope of ours. */
export function isEnvelope(payload: string): boolean {
  return payload.charCodeAt(0) === 1 && payload.startsWith(MARK);
}

/** The order to close that an envelope is, if it is one. */
export function closeOrderOf(envelope: string): CloseOrder | undefined {
  if (envelope.charCodeAt(KIND_AT) !== SMALL_K) return undefined;
  return JSON.parse(envelope.slice(KIND_AT + 1));
}

/** Where the receipt of an envelope goes, if its sender waits for one. */
export function receiptOf(envelope: string): string | undefined {
  if (envelope.charCodeAt(KIND_AT) >= SMALL_A) return undefined;
  return envelope.slice(KIND_AT + 1, envelope.indexOf(";"));
}

/** The sequence number in an envelope; 0 when it was sent without an inbox. */
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
  return `${FRAME_HEAD}"r":1,${envelope.slice(frameAt(envelope) + FRAME_HEAD.length)}`;
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
      return Uint8Array.fromBase64(data.slice(1, -1));
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
    return `{"t":"m","ts":${ts}${ENCODING_FIELD}${DATA_FIELD}"${payload.toBase64()}"}`;
  }
  return `{"t":"m","ts":${ts}${DATA_FIELD}${isJson(payload) ? payload : JSON.stringify(payload)}}`;
}

/** Whether the text is one JSON value. */
export function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// ---------------------------------------------------------------------------------------------------------
// Frames from the server

/** First frame on every `userwire.v1` socket. */
export interface HiFrame {
  t: "hi";
  v: number;
  /** Id of this connection. */
  conn: string;
  user: string;
  /** Name of the instance. */
  node: string;
  /** Position before the first message that follows, while the inbox is on: `<epoch>.<seq>`. */
  pos?: string;
  /** What proves it, when that is known: to resume from it give `<pos>.<tag>`. */
  tag?: string;
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
}

/** A message. `seq` only while the inbox is on, `id` only when one of our publishers sent it. */
export interface MessageFrame {
  t: "m";
  seq?: number;
  /** Some characters that are this message's alone: to resume after it give `<epoch>.<seq>.<tag>`. */
  tag?: string;
  id?: string;
  /** Unix milliseconds of the send, or of the arrival when the message had no envelope. */
  ts: number;
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

/** Answer to a client's request. */
export interface ReplyFrame {
  t: "re";
  id: string;
  ok: boolean;
  data?: unknown;
  err?: string;
}

/** Sign of life. */
export interface PingFrame {
  t: "p";
}

/** Last frame before the server closes. */
export interface ByeFrame {
  t: "bye";
  code: number;
  why: string;
  /** When to come back, in milliseconds from now. */
  retry_ms?: number;
}

export type ServerFrame = HiFrame | MessageFrame | GapFrame | ReplyFrame | PingFrame | ByeFrame;

/** Frames a client sends. Other types are ignored. */
export type ClientFrame =
  | { t: "ack"; seq: number }
  | { t: "auth"; token: string; id?: string }
  | { t: "p" };

/** Characters of a request's id that come back in `re`. */
const MAX_REQUEST_ID = 64;

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
export function parseClientFrame(text: string): ClientFrame | undefined {
  const frame = parseObject(text);
  switch (frame.t) {
    case "p":
      return { t: "p" };
    case "ack":
      if (!Number.isSafeInteger(frame.seq) || (frame.seq as number) < 0) {
        throw new InvalidFrameError('Frame "ack" needs "seq", a whole number from 0 on');
      }
      return { t: "ack", seq: frame.seq as number };
    case "auth":
      if (typeof frame.token !== "string") {
        throw new InvalidFrameError('Frame "auth" needs "token", a string');
      }
      return {
        t: "auth",
        token: frame.token,
        ...(typeof frame.id === "string" && { id: frame.id.slice(0, MAX_REQUEST_ID) }),
      };
    default:
      if (typeof frame.t !== "string") {
        throw new InvalidFrameError('A frame needs "t", a string that names its type');
      }
      return undefined;
  }
}

/**
 * Reads a frame from the server. For clients.
 * @throws {InvalidFrameError}
 */
export function parseServerFrame(text: string): ServerFrame | undefined {
  const frame = parseObject(text);
  if (typeof frame.t !== "string") {
    throw new InvalidFrameError('A frame needs "t", a string that names its type');
  }
  return SERVER_FRAMES.has(frame.t) ? frame as unknown as ServerFrame : undefined;
}

const SERVER_FRAMES: ReadonlySet<string> = new Set(["hi", "m", "gap", "re", "p", "bye"]);

/**
 * Reads the first frame of a raw socket, which says who the client is: `{"user_name": "alice"}`.
 * @throws {InvalidFrameError | InvalidUsernameError}
 */
export function parseIdentityFrame(text: string, rules: NameRules = {}): string {
  const frame = parseObject(text);
  if (frame.user_name === undefined) {
    throw new InvalidFrameError('The first frame must be {"user_name": "…"}');
  }
  return parseUsername(frame.user_name, rules);
}

/** What a client shows to be let in. */
export type Credential =
  | { readonly kind: "token"; readonly text: string }
  /** Good for one connection. */
  | { readonly kind: "ticket"; readonly text: string };

/** Tickets look like no token: 32 random bytes in base64url, where a token has dots. */
const TICKET = /^[A-Za-z0-9_-]{43}$/;

/** What a text is that was shown where a token is expected: a ticket may stand there too. */
export function credentialOf(text: string): Credential {
  return { kind: isTicket(text) ? "ticket" : "token", text };
}

export function isTicket(text: string): boolean {
  return TICKET.test(text);
}

/**
 * Reads the first frame of a raw socket that shows who the client is: `{"token": "…"}` or `{"ticket": "…"}`.
 * @returns Undefined when it holds neither.
 * @throws {InvalidFrameError}
 */
export function parseCredentialFrame(text: string): Credential | undefined {
  const { token, ticket } = parseObject(text);
  if (typeof token === "string") return credentialOf(token);
  return typeof ticket === "string" ? { kind: "ticket", text: ticket } : undefined;
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InvalidFrameError("A frame must be JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InvalidFrameError("A frame must be a JSON object");
  }
  return value as Record<string, unknown>;
}

// ---------------------------------------------------------------------------------------------------------
// Positions

/** Where a reader stands: the last message it has, inside an epoch. */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
  /** Tag of that message, by which it is known that the number was not given out a second time. */
  readonly tag?: string | undefined;
}

/** Writes where a position is, without its proof: `<epoch>.<seq>`. */
export function formatPlace({ epoch, seq }: Position): string {
  return `${epoch}.${seq}`;
}

/** Writes a position: `<epoch>.<seq>.<tag>`, or without a tag where there is none. */
export function formatPosition(position: Position): string {
  return position.tag ? `${formatPlace(position)}.${position.tag}` : formatPlace(position);
}

/** Reads a position, with or without a tag; undefined when it is none. */
export function parsePosition(text: string): Position | undefined {
  const match = /^([A-Za-z0-9_-]{1,32})\.(\d{1,15})(?:\.([A-Za-z0-9_-]{8}))?$/.exec(text);
  if (!match) return undefined;
  const [, epoch, seq, tag] = match;
  return { epoch: epoch!, seq: Number(seq), ...(tag !== undefined && { tag }) };
}

// ---------------------------------------------------------------------------------------------------------
// Subprotocols

/** What precedes a token, in base64url, that is offered as if it were a subprotocol: browsers send no other header. */
export const BEARER_SUBPROTOCOL = "userwire.bearer.";

/** The subprotocols a client offers, from its `Sec-WebSocket-Protocol` header, with or without spaces. */
export function parseOffer(header: string | null): string[] {
  return header === null ? [] : header.split(",").map((name) => name.trim()).filter((name) => name !== "");
}

// ---------------------------------------------------------------------------------------------------------
// Close codes

/**
 * Why a connection ends. A client may apply one rule blindly: 1000 and 44xx mean stop, everything else means
 * come back, after `retry_ms` if a `bye` frame gave it.
 */
export const CLOSE = {
  /** The instance restarts or is stopped. */
  restart: { code: 1012, why: "restart" },
  tooBig: { code: 1009, why: "frame too big" },
  overloaded: { code: 1013, why: "overloaded or broker unavailable" },
  protocol: { code: 4400, why: "protocol violation" },
  unauthorized: { code: 4401, why: "token or ticket not valid" },
  /** The one reason after which a client gets a new token, once, and comes back. */
  tokenExpired: { code: 4401, why: "token_expired" },
  revoked: { code: 4401, why: "revoked" },
  forbidden: { code: 4403, why: "forbidden" },
  kicked: { code: 4403, why: "kicked" },
  noIdentity: { code: 4408, why: "no identity in time" },
  replaced: { code: 4409, why: "replaced by a newer connection" },
  tooFast: { code: 4429, why: "too many frames" },
  tooMuch: { code: 4429, why: "too many bytes" },
  tooMany: { code: 4429, why: "too many connections" },
  slow: { code: 4508, why: "slow reader" },
} as const satisfies Record<string, CloseReason>;

export interface CloseReason {
  readonly code: number;
  /** Short text, also the label in logs; at most 123 bytes, the limit of a Close frame (RFC 6455, 5.5). */
  readonly why: string;
}

/** An order to close a user's connections. */
export interface CloseOrder extends CloseReason {
  /** Set when it is meant only for those that were let in by what has been revoked. */
  readonly revoked?: Revocation;
}

/** What is let in no more: one token by its id (`jti`), or all issued before a time in Unix seconds. */
export type Revocation = { readonly jti: string } | { readonly before: number };

/** Whether a client should come back after this code. */
export function shouldReconnect(code: number): boolean {
  return code !== 1000 && !(code >= 4400 && code < 4500);
}
