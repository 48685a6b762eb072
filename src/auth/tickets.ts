/**
 * Tickets: what a backend that knows its user hands to the user's browser, which can set no header on a WebSocket.
 * Random, short-lived, good for one connection; so one that ends in a proxy's log is worth nothing any more. Only for a
 * browser's `EventSource`, which repeats its address, can one be made that is good until its time is up.
 * Stored by hash: a reader of the store can't use them.
 */
import { createHash, randomBytes } from "node:crypto";
import { isTicket } from "../protocol/credentials.ts";
import { RESERVED_PREFIX } from "../protocol/username.ts";
import type { Identity } from "./auth.ts";
import type { TtlStore } from "./ttl_store.ts";

const TICKET_BYTES = 32;

/** What is stored under a ticket's hash. */
interface Stored {
  readonly username: string;
  readonly iat: number;
  /** Whether it is not used up. */
  readonly reuse?: true;
}

export class Tickets {
  readonly #store: TtlStore;
  readonly #prefix: string;

  /**
   * @param options.prefix Put before names in the store, as before channels.
   */
  constructor(store: TtlStore, options: { prefix: string }) {
    this.#store = store;
    this.#prefix = `${RESERVED_PREFIX}${options.prefix}ticket:`;
  }

  /**
   * As `Auth.issueTicket`.
   * @param options.after What was issued before that is revoked, in Unix seconds: the ticket counts as issued then at the
   *   earliest, or it would be revoked before its buyer has it.
   */
  async issue(
    username: string,
    ttlS: number,
    { after = 0, reuse = false }: { after?: number; reuse?: boolean } = {},
  ): Promise<string> {
    const ticket = randomBytes(TICKET_BYTES).toString("base64url");
    const name = this.#name(ticket);
    // By the clock that revocations go by.
    const iat = Math.max(after, await this.#store.now(name));
    const stored: Stored = { username, iat, ...(reuse && { reuse }) };
    await this.#store.setUnique(name, JSON.stringify(stored), ttlS * 1_000);
    return ticket;
  }

  /** Whom a ticket lets in, who then has to use it up; undefined when it was used, is too old or was never one. */
  async find(ticket: string): Promise<Identity | undefined> {
    if (!isTicket(ticket)) return undefined;
    const text = await this.#store.getUnique(this.#name(ticket));
    const stored = text === undefined ? undefined : storedIn(text);
    if (!stored) return undefined;
    const { username, iat, reuse } = stored;
    return { username, iat, ...(!reuse && { ticket }) };
  }

  /** Whether it was still there; of many at once one hears so. */
  async redeem(ticket: string): Promise<boolean> {
    const text = await this.#store.takeUnique(this.#name(ticket));
    return text !== undefined && storedIn(text) !== undefined;
  }

  #name(ticket: string): string {
    return `${this.#prefix}{${createHash("sha256").update(ticket).digest("base64url")}}`;
  }
}

/** Undefined where something else was put in its place: who else writes to the store lets nobody in by that. */
function storedIn(text: string): Stored | undefined {
  try {
    const stored = JSON.parse(text) as Partial<Stored> | null;
    return typeof stored?.username === "string" && typeof stored.iat === "number"
      ? stored as Stored
      : undefined;
  } catch {
    return undefined;
  }
}
