/** Why connections end: close codes and reasons; and orders to connections, to close among them. */

/**
 * Why a connection ends. A client may apply one rule blindly: 1000 and 44xx mean stop, everything else means
 * come back, after `retry_ms` if a `bye` frame gave it.
 */
export const CLOSE = {
  /** The node restarts or is stopped. */
  restart: { code: 1012, reason: "restart" },
  /** No stream of server-sent events lasts for ever: the client comes back at once, and goes on where it was. */
  outlived: { code: 1012, reason: "connect again" },
  tooBig: { code: 1009, reason: "frame too big" },
  overloaded: { code: 1013, reason: "overloaded or broker unavailable" },
  protocol: { code: 4400, reason: "protocol violation" },
  unauthorized: { code: 4401, reason: "token or ticket not valid" },
  /** The one reason after which a client gets a new token, once, and comes back. */
  tokenExpired: { code: 4401, reason: "token_expired" },
  revoked: { code: 4401, reason: "revoked" },
  forbidden: { code: 4403, reason: "forbidden" },
  kicked: { code: 4403, reason: "kicked" },
  noIdentity: { code: 4408, reason: "no identity in time" },
  replaced: { code: 4409, reason: "replaced by a newer connection" },
  tooFast: { code: 4429, reason: "too many frames" },
  tooMuch: { code: 4429, reason: "too many bytes" },
  tooMany: { code: 4429, reason: "too many connections" },
  slow: { code: 4508, reason: "slow reader" },
} as const satisfies Record<string, CloseReason>;

export interface CloseReason {
  readonly code: number;
  /** Short text, also the label in logs; at most 123 bytes, the limit of a Close frame (RFC 6455, 5.5). */
  readonly reason: string;
}

/** An order to close a user's connections. */
export interface CloseOrder extends CloseReason {
  /** Set when it is meant only for those that were let in by what has been revoked. */
  readonly revoked?: Revocation;
}

/** An order to one of a user's connections to take a frame of its client, which came by another way. */
export interface FrameOrder {
  /** Id of the connection. */
  readonly conn: string;
  readonly frame: string;
  /** Where to say that it was taken. */
  readonly receipt: string;
}

/** A question to all of a user's connections: each says what it is, and one of them may be told to close. */
export interface AskOrder {
  /** Where to answer. */
  readonly asker: string;
  readonly close?: CloseReason & { readonly conn: string } | undefined;
}

/** What is let in no more: one token by its id (`jti`), or all issued before a time in Unix seconds. */
export type Revocation = { readonly jti: string } | { readonly before: number };

/** Whether connections may be closed with it by an order: the other codes have meanings of their own (RFC 6455, 7.4). */
export function isCloseCode(code: unknown): code is number {
  return code === 1000 || code === CLOSE.restart.code ||
    Number.isInteger(code) && code as number >= 3000 && code as number < 5000;
}

/** Whether a client should come back after this code. */
export function shouldReconnect(code: number): boolean {
  return code !== 1000 && !(code >= 4400 && code < 4500);
}
