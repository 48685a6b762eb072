/**
 * A user's connections, asked of those who hold them: an order on the user's channel, which each answers where receipts go.
 * The count of who got it says how many answers there have to be. Nothing is kept of them anywhere, so nothing can be out of
 * date; who does not answer in time is counted.
 */
import type { Broker } from "../broker/broker.ts";
import type { History } from "../history/history.ts";
import type { CloseReason } from "../protocol/close_codes.ts";
import { formatAskOrder } from "../protocol/envelope.ts";
import { parsePosition } from "../protocol/position.ts";
import type { ConnectionState } from "./connection_state.ts";
import type { Receipts } from "./receipts.ts";

/** A connection as it is shown. */
export interface Connection extends ConnectionState {
  /** How many numbers of the history come after its position; missing where that is not of the history as it is now. */
  readonly behind?: number;
}

/** Who answered. */
interface Answers {
  /** How many were asked: sockets or nodes, see `counted` of the publisher. */
  readonly asked: number;
  /** How many of these have not answered in time. */
  readonly unanswered: number;
}

export interface Connections extends Answers {
  /** Those that have answered, the oldest first; those that are being opened last. */
  readonly items: Connection[];
}

/** What became of a connection that was to be closed. */
export interface ConnectionClosed extends Answers {
  /** Whether it was told to close. Where not, it may be one of those that have not answered, and closes when they do. */
  readonly closed: boolean;
}

/** Which connection is to close, and why. */
export type CloseOne = CloseReason & { readonly conn: string };

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
 * @throws {BrokerUnavailableError}
 */
export async function closeConnection(
  parts: Parts,
  close: CloseOne,
  timeoutMs = ANSWER_MS,
): Promise<ConnectionClosed> {
  const { items, ...counted } = await ask(parts, timeoutMs, close);
  return { closed: items.some(({ conn }) => conn === close.conn), ...counted };
}

async function ask(
  { broker, receipts, channel }: Parts,
  timeoutMs: number,
  close?: CloseOne,
): Promise<Answers & { items: ConnectionState[] }> {
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
