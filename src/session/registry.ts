/**
 * The live sessions of this process: their limit, their heartbeat, their end.
 *
 * Sockets whose peer never answers our close can't be ended in Deno; they stay here as *zombies*, counted and
 * holding nothing but themselves, until the kernel gives them up.
 */
import type { Auth, Identity } from "../auth/auth.ts";
import type { Connection, ConnectionHost, ConnectionLimits, Session } from "./session.ts";
import { messageOf, UnauthorizedError } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { CloseReason } from "../protocol/close_codes.ts";
import type { Receipts } from "../publisher/receipts.ts";

export interface ConnectionsOptions {
  node: string;
  limits: ConnectionLimits;
  /** Sockets at one time, in this process. */
  maxConnections: number;
  auth: Auth;
  receipts: Receipts;
  metrics: Metrics;
  log: Log;
  /** A client there floods. */
  onFlood(place: string): void;
  /** Whether one did, not long ago. */
  hasFlooded(place: string): boolean;
}

const TICK_MS = 1_000;
/** How often it is said that somebody else publishes on our users' channels. */
const FOREIGN_AGAIN_MS = 3_600_000;
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
  readonly metrics: Metrics;
  readonly log: Log;
  readonly #maxConnections: number;
  readonly #live = new Set<Session>();
  readonly #zombies = new Set<Session>();
  readonly #full = new Set<Connection>();
  readonly #auth: Auth;
  readonly #receipts: Receipts;
  /** Sessions that are not closing, oldest first. */
  readonly #byUser = new Map<string, Set<Session>>();
  /** Where the client of each session is, and how many sockets each place has. */
  readonly #places = new Map<Session, string>();
  readonly #byPlace = new Map<string, number>();
  readonly #floods: Pick<ConnectionsOptions, "onFlood" | "hasFlooded">;
  #lost = 0;
  #roomTimer: ReturnType<typeof setInterval> | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #foreignSaidMs = -Infinity;
  readonly #onGone = new Set<() => void>();

  constructor(options: ConnectionsOptions) {
    this.limits = options.limits;
    this.node = options.node;
    this.metrics = options.metrics;
    this.log = options.log;
    this.#maxConnections = options.maxConnections;
    this.#auth = options.auth;
    this.#receipts = options.receipts;
    this.#floods = options;
  }

  /** Sessions that are not closing. */
  get size(): number {
    return this.#live.size;
  }

  /** Sockets that were asked to close and have not yet. */
  get closing(): number {
    return this.#zombies.size;
  }

  /** Sockets whose client left while they were being opened: they hold a descriptor, for good. */
  get lost(): number {
    return this.#lost;
  }

  /** Whether the process holds as many sockets as it may; closing and lost ones count, they hold memory too. */
  get isFull(): boolean {
    return this.#live.size + this.#zombies.size + this.#lost >= this.#maxConnections;
  }

  /** Sessions of a user in this process that are not closing, oldest first. */
  ofUser(username: string): readonly Session[] {
    return [...this.#byUser.get(username) ?? []];
  }

  /** How many those are. */
  countOf(username: string): number {
    return this.#byUser.get(username)?.size ?? 0;
  }

  /** Sockets of a place; closing and lost ones count. */
  countAt(place: string): number {
    return this.#byPlace.get(place) ?? 0;
  }

  /** @param place Where its client is: `addressKey` of its address. */
  join(session: Session, place: string): void {
    this.#live.add(session);
    this.#places.set(session, place);
    this.#byPlace.set(place, this.countAt(place) + 1);
    const { username } = session;
    if (username !== undefined) {
      const sessions = this.#byUser.get(username);
      if (sessions) sessions.add(session);
      else this.#byUser.set(username, new Set([session]));
    }
    if (this.#timer !== undefined) return;
    let dueMs = performance.now() + TICK_MS;
    this.#timer = setInterval(() => {
      const lateMs = performance.now() - dueMs;
      dueMs += lateMs + TICK_MS;
      for (const session of this.#live) session.tick(lateMs > MAX_LATE_MS);
    }, TICK_MS);
  }

  async authenticate(token: string): Promise<Identity> {
    const identity = await this.#auth.authenticate({ kind: "token", text: token });
    if (await this.isRevoked(identity)) {
      throw new UnauthorizedError("The token has been revoked: get a new one");
    }
    return identity;
  }

  isRevoked(identity: Identity): Promise<boolean> {
    return this.#auth.isRevoked(identity);
  }

  onReceipt(receipt: string, connection: Connection): void {
    this.#receipts.confirm(receipt, connection.id).catch((error: unknown) => {
      // The sender's wait ends in a timeout.
      this.log.warn("receipt not confirmed", { conn: connection.id, reason: messageOf(error) });
    });
  }

  /** Lets every session compare its position with the history. */
  verify(): void {
    for (const session of this.#live) session.verify?.();
  }

  onForeign({ username }: Connection): void {
    const nowMs = performance.now();
    if (nowMs - this.#foreignSaidMs < FOREIGN_AGAIN_MS) return;
    this.#foreignSaidMs = nowMs;
    this.log.warn("messages of another installation", {
      user: username,
      reason:
        "Another installation publishes on the same channels: give each a USERWIRE_CHANNEL_PREFIX of its own",
    });
  }

  onHanded(receipt: string): void {
    this.#receipts.handed(receipt).catch((error: unknown) => {
      // As above.
      this.log.warn("number of sockets not reported to the sender", { reason: messageOf(error) });
    });
  }

  onFull(connection: Connection): void {
    this.#full.add(connection);
    this.#roomTimer ??= setInterval(() => {
      for (const connection of this.#full) if (connection.hasRoom()) this.#leaveFull(connection);
    }, ROOM_TICK_MS);
  }

  onFlood(session: Session): void {
    const place = this.#places.get(session);
    if (place !== undefined) this.#floods.onFlood(place);
  }

  isPatient(session: Session): boolean {
    const place = this.#places.get(session);
    return place === undefined || !this.#floods.hasFlooded(place);
  }

  onEnd(session: Session): void {
    this.#leaveFull(session);
    if (this.#live.delete(session)) this.#zombies.add(session);
    const { username } = session;
    const sessions = username === undefined ? undefined : this.#byUser.get(username);
    if (sessions?.delete(session) && sessions.size === 0) this.#byUser.delete(username!);
    if (this.#live.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  /** A socket is lost, because of a client there: it counts for as long as the process lives. */
  lose(place: string): void {
    this.#lost++;
    this.#byPlace.set(place, this.countAt(place) + 1);
  }

  onSocketGone(session: Session): void {
    this.#live.delete(session);
    this.#zombies.delete(session);
    const place = this.#places.get(session);
    if (place !== undefined) {
      this.#places.delete(session);
      const left = this.countAt(place) - 1;
      if (left > 0) this.#byPlace.set(place, left);
      else this.#byPlace.delete(place);
    }
    for (const look of this.#onGone) look();
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
    await this.#closeAll(reason, windowMs);
    // Whoever joined meanwhile.
    for (const session of [...this.#live]) session.close(reason, { retryMs: Math.random() * 1_000 });
    await this.#whenGone(() => this.#live.size + this.#zombies.size === 0, endMs);
    return this.#live.size + this.#zombies.size;
  }

  /** As `drain`, but only for the sessions that there are now; those that join meanwhile stay. */
  async sendAway(reason: CloseReason, windowMs: number): Promise<void> {
    const endMs = performance.now() + windowMs;
    const sessions = [...this.#live, ...this.#zombies];
    await this.#closeAll(reason, windowMs);
    const isLeft = (session: Session) => this.#live.has(session) || this.#zombies.has(session);
    let gone = 0;
    await this.#whenGone(() => {
      while (gone < sessions.length && !isLeft(sessions[gone]!)) gone++;
      return gone === sessions.length;
    }, endMs);
  }

  /** Closes the sessions that there are now, within two thirds of the window: then peers may take their time to answer. */
  async #closeAll(reason: CloseReason, windowMs: number): Promise<void> {
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
  }

  /** Waits until it is so, which only a socket that goes can bring about, but not beyond the time given. */
  async #whenGone(isGone: () => boolean, endMs: number): Promise<void> {
    if (isGone()) return;
    const over = Promise.withResolvers<void>();
    const look = () => isGone() && over.resolve();
    this.#onGone.add(look);
    const timer = setTimeout(over.resolve, Math.max(0, endMs - performance.now()));
    await over.promise;
    clearTimeout(timer);
    this.#onGone.delete(look);
  }
}
