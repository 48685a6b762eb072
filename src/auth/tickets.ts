/**
 * Tickets: what a backend that knows its user hands to the user's browser, which can set no header on a WebSocket.
 * Random, short-lived, good for one connection; so one that ends in a proxy's log is worth nothing any more.
 * Stored by hash: whoever reads the store can't use them.
 */
import { createHash } from "node:crypto";
import { isTicket, RESERVED_PREFIX } from "../protocol.ts";
import type { Identity } from "./auth.ts";
import type { Memos } from "./memos.ts";

const TICKET_BYTES = 32;

export class Tickets {
  readonly #memos: Memos;
  readonly #prefix: string;

  /** @param options.prefix Put before names in the store, as before channels. */
  constructor(memos: Memos, options: { prefix: string }) {
    this.#memos = memos;
    this.#prefix = `${RESERVED_PREFIX}${options.prefix}ticket:`;
  }

  /** As `Auth.issueTicket`. */
  async issue(username: string, ttlS: number): Promise<string> {
    const bytes = crypto.getRandomValues(new Uint8Array(TICKET_BYTES));
    const ticket = bytes.toBase64({ alphabet: "base64url", omitPadding: true });
    const identity: Identity = { username, iat: Math.floor(Date.now() / 1_000) };
    await this.#memos.put(this.#name(ticket), JSON.stringify(identity), ttlS * 1_000);
    return ticket;
  }

  /** Whom a ticket lets in, who then has to use it up; undefined when it was used, is too old or was never one. */
  async find(ticket: string): Promise<Identity | undefined> {
    if (!isTicket(ticket)) return undefined;
    const [text] = await this.#memos.read([this.#name(ticket)]);
    return text === undefined ? undefined : { ...JSON.parse(text), ticket };
  }

  /** Whether it was still there; of many at once one hears so. */
  async useUp(ticket: string): Promise<boolean> {
    return await this.#memos.take(this.#name(ticket)) !== undefined;
  }

  #name(ticket: string): string {
    return this.#prefix + createHash("sha256").update(ticket).digest("base64url");
  }
}
