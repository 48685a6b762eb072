/**
 * The contract of who is let in. Two questions that have nothing to do with each other: who a *socket* is, shown by
 * a token or a ticket, and who *calls the API*, shown by a key. The room owns keys, tokens, tickets and revocations, and
 * where those are kept. It knows nothing of HTTP, sessions or sockets: a revocation reaches these as an order on a channel.
 *
 * - Neither keys nor a way to verify tokens configured: *open mode*. Every client may be and do anything.
 * - Keys only: sockets come in with tickets. Tokens only: the API answers nobody but says what to configure.
 * - What can't be checked is not let in: while the store of tickets and revocations is away, calls reject with
 *   `BrokerUnavailableError`.
 * - No error of these calls holds any part of a key, a token or a ticket.
 */
import { ForbiddenError } from "../protocol/errors.ts";
import type { Revocation } from "../protocol/close_codes.ts";
import type { Credential } from "../protocol/credentials.ts";

/** Characters that a token's id may have: a longer one could not be revoked. */
export const MAX_TOKEN_ID_LENGTH = 256;

/** Seconds that a ticket may be good for. */
export const MAX_TICKET_TTL_S = 3_600;

/**
 * What a key allows: `send` messages, `broadcast` them to everybody, `read` presence and history, `tickets` making them,
 * `groups` changing who is in which, `admin` closing and revoking, and tickets and broadcasts too.
 */
export type Scope = "send" | "broadcast" | "read" | "tickets" | "groups" | "admin";

/** Who a socket is, and for how long that holds. */
export interface Identity {
  readonly username: string;
  /** Unix seconds at which the token ends, as it says itself; missing for a ticket. */
  readonly exp?: number;
  /** Unix seconds up to which it is taken: `exp`, and how far the signer's clock may be off. */
  readonly takenUntil?: number;
  /** Unix seconds at which the token or ticket was made; of a ticket with fractions. */
  readonly iat?: number;
  /** Id of the token. */
  readonly jti?: string;
  /** The ticket it was shown by, which is to be used up; missing where it may be used again. */
  readonly ticket?: string;
  /** Sockets the user may have, where the token says so. */
  readonly maxConnections?: number;
}

/** Who calls the API. */
export interface Caller {
  /** Name of the key. */
  readonly name: string;
  mayAddress(username: string): boolean;
  mayAddressGroup(group: string): boolean;
  /** Whether there is no user whom it may not address. */
  readonly mayAddressAll: boolean;
}

/** @throws {ForbiddenError} when the caller may not address the group. */
export function assertMayAddressGroup(caller: Caller, group: string): void {
  if (caller.mayAddressGroup(group)) return;
  throw new ForbiddenError(
    `The key "${caller.name}" may not address the group ${
      JSON.stringify(group)
    }: only those that a pattern of its ` +
      'line says which begins with "@"',
  );
}

/** @throws {ForbiddenError} when there may be users whom the caller may not address. */
export function assertMayAddressAll(caller: Caller): void {
  if (caller.mayAddressAll) return;
  throw new ForbiddenError(
    `The key "${caller.name}" may not address every user: a broadcast needs one whose pattern is "*"`,
  );
}

/** @throws {ForbiddenError} when the caller may not address one of them. */
export function assertMayAddress(caller: Caller, usernames: readonly string[]): void {
  const stranger = usernames.find((username) => !caller.mayAddress(username));
  if (stranger === undefined) return;
  throw new ForbiddenError(`The key "${caller.name}" may not address the user ${JSON.stringify(stranger)}`);
}

/** Whether a revocation is meant for this identity. */
export function isMeant(revocation: Revocation, { iat, jti }: Pick<Identity, "iat" | "jti">): boolean {
  // What does not say when it was issued may be as old as any.
  // And when it was revoked no number may be: who else writes to Redis lets nobody in.
  return "jti" in revocation ? jti === revocation.jti : !((iat ?? 0) >= revocation.before);
}

export interface Auth {
  /** Whether nobody has to show anything. */
  readonly isOpen: boolean;
  /** Whether a socket may come in with a token. */
  readonly takesTokens: boolean;

  /**
   * Who shows this. Does not look at revocations: ask `isRevoked` once the user's orders to close are heard, so that
   * none slips in between. Does not use a ticket up: that is `redeem`.
   * @throws {UnauthorizedError | BrokerUnavailableError}
   * @throws {KeysUnavailableError} when the keys that verify tokens are not known yet.
   */
  authenticate(credential: Credential): Promise<Identity>;

  /**
   * Uses a ticket up: of many who show it one gets past this. The last step before a socket is let in, so that a
   * client that is refused for another reason may come again with the same ticket.
   * @throws {UnauthorizedError | BrokerUnavailableError}
   */
  redeem(ticket: string): Promise<void>;

  /**
   * Who calls with this key.
   * @throws {UnauthorizedError} when there is no such key.
   * @throws {ForbiddenError} when the key does not allow it.
   */
  authorize(key: string | undefined, scope: Scope | "any"): Caller;

  /**
   * A ticket with which one connection gets in as this user, within the time given.
   * @param options.reuse Any number of connections get in with it within that time. @default false
   * @throws {BrokerUnavailableError}
   */
  issueTicket(username: string, ttlS: number, options?: { reuse?: boolean }): Promise<string>;

  /**
   * Lets in no more what is revoked, on every node, and orders the sockets that it let in to close: one step, so
   * neither is done without the other. A socket that can't hear the order asks `isRevoked` once it can again.
   * Remembered for as long as anything that is meant could be taken otherwise.
   * @param revocation "now" for all that was issued until now, by any clock within the tolerance.
   * @returns What was written: of "now" the moment that it has become.
   * @throws {BrokerUnavailableError}
   */
  revoke(username: string, revocation: Revocation | "now"): Promise<Revocation>;

  /**
   * Whether what let this identity in has been revoked.
   * @throws {BrokerUnavailableError}
   */
  isRevoked(identity: Identity): Promise<boolean>;

  /**
   * Reads the keys again.
   * @returns How many there are.
   * @throws {ConfigError} and keeps those it had.
   */
  reload(): number;
}
