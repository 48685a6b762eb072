/**
 * A user's connections, asked of those who hold them: an order on the user's channel, which each answers where receipts go.
 * The count of who got it says how many answers there have to be. Nothing is kept of them anywhere, so nothing can be out of
 * date; who does not answer in time is counted.
 */
import type { Broker } from "../broker/broker.ts";
import type { History } from "../history/history.ts";
import type { Mode } from "../metrics/metrics.ts";
import type { CloseReason } from "../protocol/close_codes.ts";
import { formatAskOrder } from "../protocol/envelope.ts";
import { parsePosition } from "../protocol/position.ts";
import type { Receipts } from "./receipts.ts";

/** What a connection says of itself. */
export interface ConnectionState {
  /** Its id. */
  readonly conn: string;
  /** Name of the node that holds it. */
  readonly node: string;
  /** Since when it has been open, as ISO 8601 writes it; missing while it is being opened. */
  readonly since?: string;
  /** What it is, as metrics and logs call it. */
  readonly mode: Mode;
  readonly transport: "websocket" | "sse";
  /** Bytes on the node that the client has not taken, about. */
  readonly buffered: number;
  /** How far it has come in the user's history, as `hi.pos`; missing where it has no place there. */
  readonly position?: string;
  /** When its token ends, in Unix seconds; missing without an end. */
  readonly exp?: number;
}

/** A connection as it is shown. */
export interface Connection extends ConnectionState {
  /** How many numbers of the history come after its position; missing where that is not of the history as it is now. */
  readonly behind?: number;
}

export interface Connections {
  /** Those that have answered, the oldest first; those that are being opened last. */
  readonly items: Connection[];
  /** How many were asked: sockets or nodes, see `counted` of the publisher. */
  readonly asked: number;
  /** How many of these have not answered in time. */
  readonly unanswered: number;
}

/** How long the answers are waited for, in milliseconds, unless who asks says. */
const ANSWER_MS = 2_000;

interface Parts {
  readonly broker: Pick<Broker, "publish">;
  readonly receipts: Pick<Receipts, "wait">;
  readonly channel: string;
}

/**
 * Asks for all connections of a user.
 * @param parts.history Undefined when none is kept.
 * @throws {BrokerUnavailableError}
 */
export async function findConnections(
  parts: Parts & { readonly history: Pick<History, "since"> | undefined },
  timeoutMs = ANSWER_MS,
): Promise<Connections> {
  // Before they are asked: what is sent in between leaves nobody behind who is not.
  const page = await parts.history?.since(parts.channel, undefined, 0, { peek: true });
  const { items, ...counted } = await ask(parts, timeoutMs);
  return { items: items.map((state) => ({ ...state, ...behind(state, page) })), ...counted };
}

/**
 * Closes one of a user's connections.
 * @returns Whether it was told to close; where not, how many may hold it, as they have not answered.
 * @throws {BrokerUnavailableError}
 */
export async function closeConnection(
  parts: Parts,
  close: CloseReason & { readonly conn: string },
  timeoutMs = ANSWER_MS,
): Promise<Omit<Connections, "items"> & { readonly closed: boolean }> {
  const { items, ...counted } = await ask(parts, timeoutMs, close);
  return { closed: items.some(({ conn }) => conn === close.conn), ...counted };
}

async function ask(
  { broker, receipts, channel }: Parts,
  timeoutMs: number,
  close?: CloseReason & { readonly conn: string },
): Promise<{ items: ConnectionState[]; asked: number; unanswered: number }> {
  using wait = await receipts.wait();
  const order = formatAskOrder({ asker: wait.receipt, close });
  const asked = await broker.publish(channel, order, { onlyIfHeard: true });
  const { states, answers } = await wait.presented({ asked, until: close?.conn, timeoutMs });
  return { items: states.toSorted(byAge), asked, unanswered: Math.max(0, asked - answers) };
}

function byAge({ since: a = "~" }: ConnectionState, { since: b = "~" }: ConnectionState): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function behind(
  { position }: ConnectionState,
  page: { readonly epoch: string; readonly last: number } | undefined,
): { behind?: number } {
  const place = position === undefined ? undefined : parsePosition(position);
  if (!place || place.epoch !== page?.epoch) return {};
  return { behind: Math.max(0, page.last - place.seq) };
}
