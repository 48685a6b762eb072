/**
 * How many sockets there may be, and how fast they may come: of one client address before anything is known about
 * who it is, of one user once that is known. Counts the sockets of this process; a user's are then counted over all
 * instances too, see `isOverQuota`.
 */
import { addressKey, AddressRanges, clientAddress } from "../net/addresses.ts";
import type { Identity } from "../auth/auth.ts";
import type { Connections } from "../session/registry.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { problem } from "./problem.ts";

export interface AdmissionLimits {
  /** Sockets of one user; 0 is no limit. */
  maxConnectionsPerUser: number;
  /** What one too many does. */
  onTooMany: "refuse" | "replace";
  /** Sockets of one client address; 0 is no limit. */
  maxConnectionsPerAddress: number;
  /** Handshakes of one client address; 0 is no limit. */
  upgradesPerSecond: number;
  trustedProxies: readonly string[];
}

/** Seconds of its rate that a client may use up at once. */
const BURST_S = 2;
/** Clients whose rate is remembered. With more of them the longest unseen is forgotten, and starts anew. */
const MAX_BUCKETS = 20_000;

interface Bucket {
  /** Handshakes left. */
  left: number;
  atMs: number;
}

export class Admission {
  readonly #connections: Connections;
  readonly #limits: AdmissionLimits;
  readonly #trusted: AddressRanges;
  /** In the order in which they were last used. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(connections: Connections, limits: AdmissionLimits) {
    this.#connections = connections;
    this.#limits = limits;
    this.#trusted = new AddressRanges(limits.trustedProxies);
  }

  /**
   * Where the client of a request is.
   * @param peer Address at the other end of its connection.
   */
  placeOf(request: Request, peer: string): string {
    return addressKey(clientAddress(peer, request.headers.get("x-forwarded-for"), this.#trusted));
  }

  /** The refusal of a handshake from there; undefined when it may go on. */
  refuse(place: string): Response | undefined {
    if (!this.#takeFrom(place)) {
      return problem("too_many_requests", "Too many handshakes come from this address: slow down");
    }
    return this.noRoom(place);
  }

  /**
   * The refusal of one more socket from there, as long as this process or the address has all it may. Holds only until
   * somebody else joins: asked again right before that.
   */
  noRoom(place: string): Response | undefined {
    if (this.#connections.isFull) {
      return problem(
        "full",
        "The instance holds as many sockets as it may: try another, or raise USERWIRE_MAX_CONNECTIONS",
      );
    }
    const { maxConnectionsPerAddress: max } = this.#limits;
    if (max > 0 && this.#connections.countAt(place) >= max) {
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

  /** Whether the user has, in this process, all the sockets it may, and a further one is refused. */
  isFull(identity: Identity): boolean {
    return this.#limits.onTooMany === "refuse" &&
      this.#connections.countOf(identity.username) >= this.quotaOf(identity);
  }

  /** Whether the user's sockets of all instances, the new one counted, are too many. */
  isOverQuota(identity: Identity, sockets: number): boolean {
    return this.#limits.onTooMany === "refuse" && sockets > this.quotaOf(identity);
  }

  /** Makes room for the newest socket of a user by closing the oldest, in this process. */
  makeRoom(identity: Identity): void {
    if (this.#limits.onTooMany !== "replace") return;
    const sessions = this.#connections.ofUser(identity.username);
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

  #takeFrom(place: string): boolean {
    const { upgradesPerSecond: rate } = this.#limits;
    if (rate === 0) return true;
    const nowMs = performance.now();
    const bucket = this.#buckets.get(place) ?? { left: rate * BURST_S, atMs: nowMs };
    bucket.left = Math.min(rate * BURST_S, bucket.left + (nowMs - bucket.atMs) / 1_000 * rate);
    bucket.atMs = nowMs;
    this.#buckets.delete(place);
    this.#buckets.set(place, bucket);
    if (this.#buckets.size > MAX_BUCKETS) {
      const [oldest] = this.#buckets.keys();
      this.#buckets.delete(oldest!);
    }
    if (bucket.left < 1) return false;
    bucket.left--;
    return true;
  }
}
