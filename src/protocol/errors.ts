/**
 * The errors that a caller is expected to catch; everything else is a built-in class. They become an HTTP status in
 * `http/problem.ts`, a close code in `session/open_session.ts` and `session/pending_session.ts`.
 */

/** The settings can't be used. Lists every fault found, so that one start shows them all. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";

  /** @param faults One sentence per fault: what is wrong and what to do. */
  constructor(readonly faults: readonly string[]) {
    super(faults.join("\n"));
  }
}

/** What is made; or undefined, and the faults of its `ConfigError` join those there are. */
export function orFaults<T>(make: () => T, faults: string[]): T | undefined {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    faults.push(...error.faults);
    return undefined;
  }
}

/** A username that can't name a user. */
export class InvalidUsernameError extends Error {
  override readonly name = "InvalidUsernameError";
}

/** A message that can't be sent: its payload is not what its type says, or it is too big. */
export class InvalidMessageError extends Error {
  override readonly name = "InvalidMessageError";
}

/** The user has no socket, and the message was only for one who has. */
export class UserOfflineError extends Error {
  override readonly name = "UserOfflineError";
}

/** A name that can't name a group. */
export class InvalidGroupNameError extends Error {
  override readonly name = "InvalidGroupNameError";
}

/** No group of this name is known: it was never made, has lost its last member, or was lost with the data of Redis. */
export class GroupNotFoundError extends Error {
  override readonly name = "GroupNotFoundError";
}

/** A group has, or would have, more members than one may have. */
export class GroupTooLargeError extends Error {
  override readonly name = "GroupTooLargeError";
}

/** A group is not in the version that the caller has seen. */
export class GroupChangedError extends Error {
  override readonly name = "GroupChangedError";
}

/** An idempotency key was used before, for another message. */
export class IdempotencyConflictError extends Error {
  override readonly name = "IdempotencyConflictError";
}

/** Nobody knows who this is: the key, token or ticket is missing, not valid, or not valid any more. */
export class UnauthorizedError extends Error {
  override readonly name = "UnauthorizedError";
}

/** It is known who this is, and that is not enough. */
export class ForbiddenError extends Error {
  override readonly name = "ForbiddenError";
}

/** Why the service lets no connection of a client open, which goes on trying. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";

  /**
   * @param code As in the service's problem bodies, such as `origin_not_allowed`, `unauthorized`,
   *   `too_many_connections`; `upgrade_required` when it would let the client in, and what lies between does not;
   *   `not_userwire` when something else answers.
   * @param status The HTTP status; undefined where the browser hides it.
   */
  constructor(message: string, readonly code: string, readonly status: number | undefined) {
    super(message);
  }
}

/**
 * A request of a client that was not done, or of which that is not known. Who answers requests in the process of the
 * service throws it to refuse one.
 */
export class RequestError extends Error {
  override readonly name = "RequestError";
  /** `refused`: it was not carried out. `unknown`: it may or may not have been. */
  readonly outcome: "refused" | "unknown";
  /** When it is worth asking again, in milliseconds from now. */
  readonly retryMs: number | undefined;
  /** From who answers: closes the client's connection with this code, 4000 to 4999. */
  readonly close: number | undefined;

  /**
   * @param code What the backend says, such as `forbidden`; or of the service: `busy`, `timeout`, `unavailable`,
   *   `bad_answer`, `refused`, `too_large`, `unsupported`; or of the client library: `lost`, `closed`.
   */
  constructor(
    message: string,
    readonly code: string,
    options: {
      outcome?: "refused" | "unknown" | undefined;
      retryMs?: number | undefined;
      close?: number | undefined;
    } = {},
  ) {
    super(message);
    this.outcome = options.outcome ?? "refused";
    this.retryMs = options.retryMs;
    this.close = options.close;
  }
}

/** A frame that breaks the protocol. */
export class InvalidFrameError extends Error {
  override readonly name = "InvalidFrameError";
}

/**
 * The broker can't be reached, or did not answer in time. When `outcome` is "unknown" the command had been
 * written: it may or may not have been carried out.
 */
export class BrokerUnavailableError extends Error {
  override readonly name = "BrokerUnavailableError";
  readonly outcome: "refused" | "unknown";

  constructor(message: string, options: { outcome?: "refused" | "unknown"; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.outcome = options.outcome ?? "refused";
  }
}

/** A send to a group broke off between two of its members. */
export class GroupSendBrokenError extends BrokerUnavailableError {
  /**
   * @param done Members that are done with, whatever became of the message for them: at least so many.
   * @param of Members that the group had when the send began.
   */
  constructor(
    message: string,
    readonly done: number,
    readonly of: number,
    options: { cause?: unknown } = {},
  ) {
    super(message, { outcome: done > 0 ? "unknown" : outcomeOf(options.cause), cause: options.cause });
  }
}

function outcomeOf(cause: unknown): "refused" | "unknown" {
  return cause instanceof BrokerUnavailableError ? cause.outcome : "unknown";
}

/** The keys that verify tokens are not known yet: who shows one now may be let in later with the same. */
export class KeysUnavailableError extends Error {
  override readonly name = "KeysUnavailableError";
  /** Seconds after which it is worth trying again. */
  readonly retryAfterS: number;

  constructor(message: string, options: { retryAfterS?: number } = {}) {
    super(message);
    this.retryAfterS = options.retryAfterS ?? 1;
  }
}

/** What was thrown, as one line of text. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
