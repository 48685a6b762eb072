/**
 * How many sockets there may be, and how fast they may come: of one client address before anything is known about
 * who it is, of one user once that is known. Counts the sockets of this process; a user's are then counted over all
 * nodes too, see `isOverQuota`.
 */
import type { Identity } from "../auth/auth.ts";
import type { Config } from "../config/settings.ts";
import { addressKey, AddressRanges, clientAddress } from "../net/addresses.ts";
import type { UserLimit } from "../session/open_session.ts";
import type { Registry } from "../session/registry.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { problem } from "./problem.ts";

/** The limits that are settings; of the numbers 0 is no limit. */
type Limits = Pick<
  Config,
  "maxConnectionsPerUser" | "onTooMany" | "maxConnectionsPerAddress" | "upgradesPerSecond" | "trustedProxies"
>;

/** Seconds of its rate that a client may use up at once. */
const BURST_S = 2;
/** Clients whose rate is remembered. With more of them the longest unseen is forgotten, and starts anew. */
const MAX_BUCKETS = 20_000;

export class ConnectionLimits implements UserLimit {
  readonly #registry: Registry;
  readonly #limits: Limits;
  readonly #trusted: AddressRanges;
  /** Handshakes that each address had left at a moment, in the order in which they were last used. */
  readonly #buckets = new Map<string, { left: number; atMs: number }>();

  constructor(registry: Registry, limits: Limits) {
    this.#registry = registry;
    this.#limits = limits;
    this.#trusted = new AddressRanges(limits.trustedProxies);
  }

  /**
   * Where the client of a request is.
   * @param peer Address at the other end of its connection.
   */
  addressKeyOf(request: Request, peer: string): string {
    return addressKey(clientAddress(peer, request.headers.get("x-forwarded-for"), this.#trusted));
  }

  /** The refusal of a handshake from there; undefined when it may go on. */
  refuse(addressKey: string): Response | undefined {
    if (!this.#takeFrom(addressKey)) {
      return problem("too_many_requests", "Too many handshakes come from this address: slow down");
    }
    return this.noRoom(addressKey);
  }

  /**
   * The refusal of one more socket from there, as long as this process or the address has all it may. Holds only until
   * somebody else joins: asked again right before that.
   */
  noRoom(addressKey: string): Response | undefined {
    if (this.#registry.isFull) {
      return problem(
        "full",
        "The node holds as many sockets as it may: try another, or raise USERWIRE_MAX_CONNECTIONS",
      );
    }
    const { maxConnectionsPerAddress: max } = this.#limits;
    if (max > 0 && this.#registry.countAt(addressKey) >= max) {
      return problem(
        "too_many_connections",
        "This address holds as many sockets as it may: close some, or raise USERWIRE_MAX_CONNECTIONS_PER_ADDRESS; " +
          "behind a proxy set USERWIRE_TRUSTED_PROXIES",
      );
    }
    return undefined;
  }

  /** Sockets that the user may have; Infinity without a limit. */
  quotaOf(identity: Identity): number {
    return identity.maxConnections ?? (this.#limits.maxConnectionsPerUser || Infinity);
  }

  /** Whether so many sockets of the user, the new one counted, are too many. */
  isOverQuota(identity: Identity, sockets: number): boolean {
    return this.#limits.onTooMany === "refuse" && sockets > this.quotaOf(identity);
  }

  /** Makes room for the newest socket of a user by closing the oldest, in this process. */
  makeRoom(identity: Identity): void {
    if (this.#limits.onTooMany !== "replace") return;
    const sessions = this.#registry.ofUser(identity.username);
    const excess = Math.max(0, sessions.length - this.quotaOf(identity));
    for (const session of sessions.slice(0, excess)) session.close(CLOSE.replaced);
  }

  /** The answer to a user who has all the sockets it may. */
  tooMany(identity: Identity): Response {
    return problem(
      "too_many_connections",
      `This user holds ${this.quotaOf(identity)} sockets, which is all it may: close one, or raise ` +
        "USERWIRE_MAX_CONNECTIONS_PER_USER",
    );
  }

  #takeFrom(addressKey: string): boolean {
    const { upgradesPerSecond: rate } = this.#limits;
    if (rate === 0) return true;
    const nowMs = performance.now();
    const bucket = this.#buckets.get(addressKey) ?? { left: rate * BURST_S, atMs: nowMs };
    bucket.left = Math.min(rate * BURST_S, bucket.left + (nowMs - bucket.atMs) / 1_000 * rate);
    bucket.atMs = nowMs;
    this.#buckets.delete(addressKey);
    this.#buckets.set(addressKey, bucket);
    if (this.#buckets.size > MAX_BUCKETS) {
      const [oldest] = this.#buckets.keys();
      this.#buckets.delete(oldest!);
    }
    if (bucket.left < 1) return false;
    bucket.left--;
    return true;
  }
}
