/**
 * The live sessions of this process: their limit, their heartbeat, their end.
 *
 * Sockets whose peer never answers our close can't be ended in Deno; they stay here as *zombies*, counted and
 * holding nothing but themselves, until the kernel gives them up.
 */
import type { Connection, ConnectionHost, ConnectionLimits, Session } from "./connection.ts";
import { messageOf } from "./errors.ts";
import type { Log } from "./log.ts";
import type { CloseReason } from "./protocol.ts";
import type { Receipts } from "./receipts.ts";

export interface ConnectionsOptions {
  node: string;
  limits: ConnectionLimits;
  /** Sockets at one time, in this process. */
  maxConnections: number;
  receipts: Receipts;
  log: Log;
}

const TICK_MS = 1_000;
/** A tick that comes later than that comes in a process that is short of time. */
const MAX_LATE_MS = 250;
/** How often clients that take no more are asked whether they do again: Deno has no event for that. */
const ROOM_TICK_MS = 50;
/** While draining, sockets are closed in steps of this length. */
const DRAIN_STEP_MS = 50;
/** A drain closes at least this many sockets a second: a few clients are no herd. */
const DRAIN_MIN_PER_SECOND = 200;

export class Connections implements ConnectionHost {
  readonly limits: ConnectionLimits;
  readonly node: string;
  readonly log: Log;
  readonly #maxConnections: number;
  readonly #live = new Set<Session>();
  readonly #zombies = new Set<Session>();
  readonly #full = new Set<Connection>();
  readonly #receipts: Receipts;
  #roomTimer: ReturnType<typeof setInterval> | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #onEmpty: (() => void) | undefined;

  constructor(options: ConnectionsOptions) {
    this.limits = options.limits;
    this.node = options.node;
    this.log = options.log;
    this.#maxConnections = options.maxConnections;
    this.#receipts = options.receipts;
  }

  /** Sessions that are not closing. */
  get size(): number {
    return this.#live.size;
  }

  /** Sockets that were asked to close and have not yet. */
  get closing(): number {
    return this.#zombies.size;
  }

  /** Whether the process holds as many sockets as it may; closing ones count, they hold memory too. */
  get isFull(): boolean {
    return this.#live.size + this.#zombies.size >= this.#maxConnections;
  }

  join(session: Session): void {
    this.#live.add(session);
    if (this.#timer !== undefined) return;
    let dueMs = performance.now() + TICK_MS;
    this.#timer = setInterval(() => {
      const lateMs = performance.now() - dueMs;
      dueMs += lateMs + TICK_MS;
      for (const session of this.#live) session.tick(lateMs > MAX_LATE_MS);
    }, TICK_MS);
  }

  onReceipt(receipt: string, connection: Connection): void {
    this.#receipts.confirm(receipt, connection.id).catch((error: unknown) => {
      // The sender's wait ends in a timeout.
      this.log.warn("receipt not confirmed", { conn: connection.id, reason: messageOf(error) });
    });
  }

  onFull(connection: Connection): void {
    this.#full.add(connection);
    this.#roomTimer ??= setInterval(() => {
      for (const connection of this.#full) if (connection.hasRoom()) this.#leaveFull(connection);
    }, ROOM_TICK_MS);
  }

  onEnd(session: Session): void {
    this.#leaveFull(session);
    if (this.#live.delete(session)) this.#zombies.add(session);
    if (this.#live.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  onSocketGone(session: Session): void {
    this.#live.delete(session);
    this.#zombies.delete(session);
    if (this.#live.size === 0 && this.#zombies.size === 0) this.#onEmpty?.();
  }

  #leaveFull(session: Session): void {
    this.#full.delete(session as Connection);
    if (this.#full.size > 0) return;
    clearInterval(this.#roomTimer);
    this.#roomTimer = undefined;
  }

  /**
   * Closes every session, spread over the window so that clients do not come back as one wave, and waits until
   * all sockets are gone or the window has passed.
   * @returns How many sockets were left behind.
   */
  async drain(reason: CloseReason, windowMs: number): Promise<number> {
    const endMs = performance.now() + windowMs;
    // The last third of the window is for peers that take their time to answer.
    const spreadMs = Math.min(windowMs * 2 / 3, this.#live.size * 1_000 / DRAIN_MIN_PER_SECOND);
    const steps = Math.max(1, Math.ceil(spreadMs / DRAIN_STEP_MS));
    const sessions = [...this.#live];
    for (let step = 0; step < steps; step++) {
      const from = Math.floor(step * sessions.length / steps);
      const to = Math.floor((step + 1) * sessions.length / steps);
      for (const session of sessions.slice(from, to)) {
        session.close(reason, { retryMs: Math.random() * Math.max(1_000, spreadMs) });
      }
      if (step + 1 < steps) await new Promise((resolve) => setTimeout(resolve, DRAIN_STEP_MS));
    }
    // Whoever joined meanwhile.
    for (const session of [...this.#live]) session.close(reason, { retryMs: Math.random() * 1_000 });
    if (this.#live.size + this.#zombies.size > 0) {
      const empty = Promise.withResolvers<void>();
      this.#onEmpty = empty.resolve;
      const timer = setTimeout(empty.resolve, Math.max(0, endMs - performance.now()));
      await empty.promise;
      clearTimeout(timer);
    }
    return this.#live.size + this.#zombies.size;
  }
}
