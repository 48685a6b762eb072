/**
 * The requests of one connection, one after the other: the next begins when the one before is answered, so that they
 * arrive in the order in which the client made them. Who answers, and what bounds the process, is in `requests/`.
 */
import { Buffer } from "node:buffer";
import type { CloseReason } from "../protocol/close_codes.ts";
import { formatAnswer, formatFrame, type ReadRequest } from "../protocol/frames.ts";
import { type Answer, busy, MAX_REQUEST_BYTES, type Requests } from "../requests/requests.ts";

/** Whose requests they are. */
export interface RequestLineOwner {
  readonly id: string;
  readonly username: string;
  /** Whether the client takes what it is given. */
  readonly takesMore: boolean;
  /** It does not: `resume` when it does again. */
  onFull(): void;
  /** Writes an answer. */
  reply(frame: string): void;
  close(reason: CloseReason): void;
}

/** So many of a connection may be unanswered. */
export const MAX_OUTSTANDING = 16;

interface Waiting {
  readonly request: ReadRequest;
  /** On the clock of `performance.now()`. */
  readonly endMs: number;
}

export class RequestLine {
  readonly #owner: RequestLineOwner;
  readonly #requests: Requests;
  readonly #waiting: Waiting[] = [];
  readonly #gone = new AbortController();
  #isAsking = false;
  #isPaused = false;

  constructor(owner: RequestLineOwner, requests: Requests) {
    this.#owner = owner;
    this.#requests = requests;
  }

  /** Whether it waits for the client to take the answers that it was given. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** @param frame The text of its frame. */
  take(request: ReadRequest, frame: string): void {
    const outstanding = this.#waiting.length + Number(this.#isAsking);
    if (Buffer.byteLength(frame) > MAX_REQUEST_BYTES) this.#answer(request, this.#requests.note(TOO_LARGE));
    else if (outstanding >= MAX_OUTSTANDING) {
      this.#answer(request, this.#requests.note(busy("on this connection")));
    } else {
      this.#waiting.push({ request, endMs: performance.now() + (request.timeout_ms ?? Infinity) });
      this.#next();
    }
  }

  /** The client takes more again. */
  resume(): void {
    this.#isPaused = false;
    this.#next();
  }

  /** The connection is gone: what waits is not begun, and what is under way is broken off. */
  stop(): void {
    this.#waiting.length = 0;
    this.#gone.abort();
  }

  #next(): void {
    if (this.#isAsking || this.#isPaused || this.#waiting.length === 0) return;
    if (this.#owner.takesMore) return void this.#ask(this.#waiting.shift()!);
    // Its answers would pile up here.
    this.#isPaused = true;
    this.#owner.onFull();
  }

  async #ask({ request, endMs }: Waiting): Promise<void> {
    this.#isAsking = true;
    const { id, op, json } = request;
    const { id: conn, username: user } = this.#owner;
    const answer = performance.now() >= endMs
      ? this.#requests.note(TOO_LATE)
      : await this.#requests.ask({ id, user, conn, op, json }, this.#gone.signal);
    this.#isAsking = false;
    if (this.#gone.signal.aborted) return;
    this.#answer(request, answer);
    if (answer.outcome !== "answered" && answer.close) this.#owner.close(answer.close);
    else this.#next();
  }

  #answer({ id }: ReadRequest, answer: Answer): void {
    if (answer.outcome === "answered") return this.#owner.reply(formatAnswer(id, answer.json));
    const { code, err, retryMs, isUncertain } = answer;
    this.#owner.reply(formatFrame({
      ...{ t: "re", id, ok: false, code, err },
      ...(retryMs !== undefined && { retry_ms: retryMs }),
      ...(isUncertain && { outcome: "unknown" }),
    }));
  }
}

const TOO_LARGE: Answer = {
  outcome: "too_large",
  code: "too_large",
  err: `A request may have ${MAX_REQUEST_BYTES} bytes, its whole frame`,
};
const TOO_LATE: Answer = {
  outcome: "timeout",
  code: "timeout",
  err: "Its time was over before its turn came: those before it took too long",
};
