/**
 * The contract of requests, by which a client asks the backend, and what bounds them in a process. The room owns who
 * answers, within which time, and how an answer that is none is called; in which order a connection asks is in
 * `session/request_line.ts`.
 *
 * A request is handed to its responder once, and never again: whoever wants it repeated says so in the client, which
 * asks with the same id. What a responder promises: it never rejects, answers within its time, and stops when the signal
 * fires, as far as it can.
 */
import type { Metrics, RequestOutcome } from "../metrics/metrics.ts";
import type { CloseReason } from "../protocol/close_codes.ts";

/** What a client asks. */
export interface ClientRequest {
  /** Names it, among those of the user. */
  readonly id: string;
  readonly user: string;
  /** Id of the connection. */
  readonly conn: string;
  readonly op: string;
  /** JSON; undefined when the client gave nothing. */
  readonly json: string | undefined;
}

/** What came of it. */
export type Answer =
  | {
    readonly outcome: "answered";
    /** JSON; undefined when there is nothing to say. */
    readonly json: string | undefined;
  }
  | {
    readonly outcome: Exclude<RequestOutcome, "answered">;
    /** For programs. */
    readonly code: string;
    /** For people: a sentence. */
    readonly err: string;
    readonly retryMs?: number | undefined;
    /** It may have been carried out all the same. */
    readonly isUncertain?: boolean;
    /** Closes the client's connection. */
    readonly close?: CloseReason | undefined;
  };

/** Who answers. */
export interface Responder {
  respond(request: ClientRequest, signal: AbortSignal): Promise<Answer>;
}

/** A process has so many under way; a backend that hangs must not fill its memory. */
export const MAX_UNDER_WAY = 200;
/** A request has so many bytes at most, the whole frame. */
export const MAX_REQUEST_BYTES: number = 64 * 1024;
/** The reason of a Close frame has 123 bytes, and a character up to three. */
const MAX_REASON_CHARS = 40;
/** When to ask again where too many are under way, in milliseconds. */
const BUSY_MS = 1_000;

/** Too much is asked at one time. @param where As the end of "Too many requests are under way". */
export function busy(where: string): Answer {
  return {
    outcome: "busy",
    code: "busy",
    err: `Too many requests are under way ${where}: wait for an answer`,
    retryMs: BUSY_MS,
  };
}

/** How who answers may close a connection; undefined when the code is none for applications. */
export function closeReasonOf(code: number, reason: string): CloseReason | undefined {
  if (!Number.isInteger(code) || code < 4_000 || code > 4_999) return undefined;
  return { code, reason: reason.slice(0, MAX_REASON_CHARS) };
}

/** The requests of one process. */
export class Requests {
  readonly #responder: Responder;
  readonly #metrics: Pick<Metrics, "requests">;
  #underWay = 0;

  constructor(responder: Responder, metrics: Pick<Metrics, "requests">) {
    this.#responder = responder;
    this.#metrics = metrics;
  }

  /**
   * Has it answered. Never rejects.
   * @param signal Fires when nobody waits for the answer any more.
   */
  async ask(request: ClientRequest, signal: AbortSignal): Promise<Answer> {
    if (this.#underWay >= MAX_UNDER_WAY) return this.note(busy("in this process"));
    this.#underWay++;
    const answer = await this.#responder.respond(request, signal);
    this.#underWay--;
    if (signal.aborted) this.#metrics.requests.gone++;
    else this.note(answer);
    return answer;
  }

  /** Counts an answer that a client is given. */
  note(answer: Answer): Answer {
    this.#metrics.requests[answer.outcome]++;
    return answer;
  }
}
