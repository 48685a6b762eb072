/** Answers that say no: RFC 9457 problem bodies, and the one table from errors to HTTP status codes. */
import {
  BrokerUnavailableError,
  ForbiddenError,
  GroupChangedError,
  GroupNotFoundError,
  GroupSendBrokenError,
  GroupTooLargeError,
  IdempotencyConflictError,
  InvalidGroupNameError,
  InvalidMessageError,
  InvalidUsernameError,
  KeysUnavailableError,
  UnauthorizedError,
  UserOfflineError,
} from "../protocol/errors.ts";

export type ProblemCode = keyof typeof PROBLEMS;

const PROBLEMS = {
  invalid_request: { status: 400, title: "The request is not valid" },
  invalid_username: { status: 400, title: "The username is not valid" },
  invalid_group: { status: 400, title: "The name of the group is not valid" },
  invalid_message: { status: 400, title: "The message is not valid" },
  invalid_handshake: { status: 400, title: "The handshake of a connection is not valid" },
  unauthorized: { status: 401, title: "Authentication required" },
  forbidden: { status: 403, title: "Forbidden" },
  origin_not_allowed: { status: 403, title: "The origin is not allowed" },
  too_slow: { status: 408, title: "The request took too long" },
  user_offline: { status: 404, title: "The user is offline" },
  epoch_changed: { status: 410, title: "The history was lost or set back" },
  idempotency_conflict: { status: 422, title: "The idempotency key was used for another message" },
  not_found: { status: 404, title: "Not found" },
  connection_not_found: { status: 404, title: "There is no such connection" },
  group_not_found: { status: 404, title: "There is no such group" },
  method_not_allowed: { status: 405, title: "Method not allowed" },
  group_changed: { status: 412, title: "The group was changed by somebody else" },
  group_too_large: { status: 413, title: "The group is too large" },
  too_large: { status: 413, title: "The body is too large" },
  unsupported_media_type: { status: 415, title: "Unsupported content type" },
  misdirected: { status: 421, title: "The host name is not served here" },
  upgrade_required: { status: 426, title: "A WebSocket handshake is required" },
  too_many_connections: { status: 429, title: "Too many connections" },
  too_many_requests: { status: 429, title: "Too many requests" },
  headers_too_large: { status: 431, title: "The headers are too large" },
  internal: { status: 500, title: "Internal server error" },
  broker_unavailable: { status: 503, title: "The broker is not available" },
  nodes_silent: { status: 503, title: "Nodes did not answer in time" },
  keys_unavailable: { status: 503, title: "The keys that verify tokens are not available" },
  draining: { status: 503, title: "The node takes no more connections" },
  out_of_files: { status: 503, title: "The node has run out of file descriptors" },
  full: { status: 503, title: "The node has reached its limit of connections" },
} as const;

/** What handshakes are refused for. */
export const HANDSHAKE_REFUSALS = [
  ...["invalid_request", "invalid_username", "invalid_handshake", "unauthorized", "forbidden", "not_found"],
  ...["origin_not_allowed", "misdirected", "headers_too_large", "too_many_connections", "too_many_requests"],
  ...["internal", "broker_unavailable", "keys_unavailable", "draining", "out_of_files", "full"],
] as const satisfies readonly ProblemCode[];

/** Seconds a client should wait where waiting helps. */
const RETRY_AFTER_S = "1";

/** An answer that says no. 429 and 503 carry `Retry-After`, 401 the way to log in. */
export class Problem extends Response {
  /**
   * @param detail What was wrong with this request and what to do, as a sentence.
   * @param more Further members of the body.
   */
  constructor(
    readonly code: ProblemCode,
    readonly detail: string,
    headers: Record<string, string>,
    readonly more: Readonly<Record<string, number | string>> = {},
  ) {
    const { status, title } = PROBLEMS[code];
    super(JSON.stringify({ type: `urn:userwire:problem:${code}`, title, status, code, detail, ...more }), {
      status,
      headers: {
        "content-type": "application/problem+json",
        ...(status === 401 && { "www-authenticate": 'Bearer realm="userwire"' }),
        ...((status === 429 || status === 503) && { "retry-after": RETRY_AFTER_S }),
        ...headers,
      },
    });
  }

  /** The id of the request, once it was said. */
  get requestId(): string | undefined {
    const { request_id: id } = this.more;
    return id === undefined ? undefined : String(id);
  }

  /** The same, which says of which request it is. */
  of(requestId: string): Problem {
    const headers = Object.fromEntries(this.headers);
    return new Problem(this.code, this.detail, headers, { ...this.more, request_id: requestId });
  }
}

/** As the constructor of `Problem`. */
export function problem(
  code: ProblemCode,
  detail: string,
  headers: Record<string, string> = {},
  more?: Readonly<Record<string, number>>,
): Problem {
  return new Problem(code, detail, headers, more);
}

/** A request that can't be answered as it is: thrown where that is seen, answered where the others are. */
export class RequestFault extends Error {
  override readonly name: string = "RequestFault";

  /** @param headers What the answer says beside its problem. */
  constructor(
    readonly code: ProblemCode,
    message: string,
    readonly headers: Record<string, string> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What a request that the broker failed has done, by the outcome of the error; as the end of a sentence. */
export type Effect = Readonly<Record<BrokerUnavailableError["outcome"], string>>;

/** Of the requests after which one has to know; who only asked, or got nothing, just asks again. */
export const EFFECT_ON_FAILURE = {
  send: { refused: "nothing was sent", unknown: "the message may or may not have been delivered" },
  close: {
    refused: "no socket was told to close",
    unknown: "sockets may or may not have been told to close",
  },
  change: { refused: "nothing was changed", unknown: "it may or may not have been changed: do it again" },
  revoke: { refused: "nothing was revoked", unknown: "it may or may not have been revoked: revoke it again" },
} as const satisfies Record<string, Effect>;

/**
 * The answer to an error, or undefined for one that is nobody's fault but ours.
 * @param effect Added where the broker failed.
 */
export function problemOf(error: unknown, effect?: Effect): Problem | undefined {
  if (error instanceof RequestFault) return problem(error.code, error.message, error.headers);
  if (error instanceof InvalidUsernameError) return problem("invalid_username", error.message);
  if (error instanceof InvalidGroupNameError) return problem("invalid_group", error.message);
  if (error instanceof GroupNotFoundError) return problem("group_not_found", error.message);
  if (error instanceof GroupChangedError) return problem("group_changed", error.message);
  if (error instanceof GroupTooLargeError) return problem("group_too_large", error.message);
  if (error instanceof GroupSendBrokenError) {
    return problem("broker_unavailable", error.message, {}, { done: error.done, of: error.of });
  }
  if (error instanceof UnauthorizedError) return problem("unauthorized", error.message);
  if (error instanceof ForbiddenError) return problem("forbidden", error.message);
  if (error instanceof InvalidMessageError) return problem("invalid_message", error.message);
  if (error instanceof UserOfflineError) return problem("user_offline", error.message);
  if (error instanceof IdempotencyConflictError) return problem("idempotency_conflict", error.message);
  if (error instanceof KeysUnavailableError) {
    return problem("keys_unavailable", error.message, { "retry-after": String(error.retryAfterS) });
  }
  if (error instanceof BrokerUnavailableError) {
    return problem("broker_unavailable", error.message + (effect ? `; ${effect[error.outcome]}` : ""));
  }
  return undefined;
}
