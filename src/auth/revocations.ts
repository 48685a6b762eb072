/**
 * What is let in no more: single tokens by their id, or all of a user's that were issued before some moment. Looked
 * up at every handshake and refresh, never cached, so every node knows as soon as it is written, and one that
 * has just started too. In the same step an order to close goes to the user's sockets: those that come in later
 * are refused, those that came in before get the order.
 */
import { createHash } from "node:crypto";
import { CLOSE, type Revocation } from "../protocol/close_codes.ts";
import { formatCloseOrder } from "../protocol/envelope.ts";
import { channelOf, RESERVED_PREFIX } from "../protocol/username.ts";
import { type Identity, isMeant, MAX_TICKET_TTL_S } from "./auth.ts";
import type { TtlStore } from "./ttl_store.ts";

/** Stands in an order to close where the moment will. */
const PLACE = -1;

export class Revocations {
  readonly #store: TtlStore;
  readonly #prefix: string;
  readonly #toleranceS: number;
  readonly #keepMs: number;

  /**
   * @param options.prefix Put before usernames, as in channels.
   * @param options.maxLifeS Longest life of a token, in seconds.
   * @param options.clockToleranceS How far the clocks of the signer, of Redis and of each node may be apart.
   */
  constructor(store: TtlStore, options: { prefix: string; maxLifeS: number; clockToleranceS: number }) {
    this.#store = store;
    this.#prefix = options.prefix;
    this.#toleranceS = options.clockToleranceS;
    // The youngest thing that is meant was issued when its signer's clock was ahead (once), is taken beyond its end
    // (twice), by a node whose clock is behind that of Redis, which forgets (three times).
    this.#keepMs = 1_000 * (Math.max(options.maxLifeS, MAX_TICKET_TTL_S) + 3 * options.clockToleranceS);
  }

  /** As `Auth.revoke`. */
  async add(username: string, revoked: Revocation | "now"): Promise<Revocation> {
    const channel = channelOf(username, this.#prefix);
    const order = (revoked: Revocation) => formatCloseOrder({ ...CLOSE.revoked, revoked });
    if (revoked !== "now" && "jti" in revoked) {
      const notice = { channel, payload: order(revoked) };
      await this.#store.set(this.#jtiName(username, revoked.jti), "1", this.#keepMs, notice);
      return revoked;
    }
    // An earlier moment takes nothing back.
    const moment = revoked === "now" ? { aheadS: this.#toleranceS } : { at: revoked.before };
    const [head, tail] = order({ before: PLACE }).split(String(PLACE)) as [string, string];
    const name = this.#beforeName(username);
    return { before: await this.#store.setMax(name, moment, this.#keepMs, { channel, head, tail }) };
  }

  /** As `Auth.isRevoked`. */
  async has(identity: Identity): Promise<boolean> {
    const { username, jti } = identity;
    const names = [this.#beforeName(username), ...(jti === undefined ? [] : [this.#jtiName(username, jti)])];
    const [before, byId] = await this.#store.getMany(names);
    return byId !== undefined || (before !== undefined && isMeant({ before: Number(before) }, identity));
  }

  /** Up to which moment all that was issued to a user is revoked, in Unix seconds; 0 when nothing is. */
  async momentOf(username: string): Promise<number> {
    return Number((await this.#store.getMany([this.#beforeName(username)]))[0] ?? 0);
  }

  #beforeName(username: string): string {
    return `${RESERVED_PREFIX}{${channelOf(username, this.#prefix)}}:revoked`;
  }

  #jtiName(username: string, jti: string): string {
    return `${this.#beforeName(username)}:${createHash("sha256").update(jti).digest("base64url")}`;
  }
}
