/**
 * What is let in no more: single tokens by their id, or all of a user's that were issued before some moment. Looked
 * up at every handshake and refresh, never cached, so every instance knows as soon as it is written, and one that
 * has just started too. In the same step the user's sockets are told: whoever comes in from then on is refused, whoever
 * came in before hears it.
 */
import { createHash } from "node:crypto";
import { channelOf, CLOSE, formatCloseOrder, RESERVED_PREFIX, type Revocation } from "../protocol.ts";
import type { Identity } from "./auth.ts";
import type { Memos } from "./memos.ts";

export class Revocations {
  readonly #memos: Memos;
  readonly #prefix: string;

  /** @param options.prefix Put before usernames, as in channels. */
  constructor(memos: Memos, options: { prefix: string }) {
    this.#memos = memos;
    this.#prefix = options.prefix;
  }

  /** As `Auth.revoke`. */
  async add(username: string, revoked: Revocation, ttlS: number): Promise<void> {
    const notice = {
      channel: channelOf(username, this.#prefix),
      payload: formatCloseOrder({ ...CLOSE.revoked, revoked }),
    };
    if ("jti" in revoked) {
      return await this.#memos.put(this.#jtiName(username, revoked.jti), "1", ttlS * 1_000, notice);
    }
    // An earlier moment takes nothing back.
    await this.#memos.raise(this.#beforeName(username), revoked.before, ttlS * 1_000, notice);
  }

  /** As `Auth.isRevoked`. */
  async has({ username, iat, jti }: Identity): Promise<boolean> {
    const names = [this.#beforeName(username)];
    if (jti !== undefined) names.push(this.#jtiName(username, jti));
    const [before, byId] = await this.#memos.read(names);
    // A token that does not say when it was issued may be as old as any.
    return byId !== undefined || (before !== undefined && (iat ?? 0) < Number(before));
  }

  #beforeName(username: string): string {
    return `${RESERVED_PREFIX}{${channelOf(username, this.#prefix)}}:revoked`;
  }

  #jtiName(username: string, jti: string): string {
    return `${this.#beforeName(username)}:${createHash("sha256").update(jti).digest("base64url")}`;
  }
}
