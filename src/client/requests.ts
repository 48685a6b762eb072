/**
 * The application's requests to the backend, each until it is answered or its time is over. They go out in the order in
 * which they were made, never more at a time or in a second than the service takes. What was sent over a connection that
 * broke may or may not have been done: then only those are sent again whose maker said so.
 *
 * Loaded with the first request, as a file of its own: it takes its errors from whoever loads it, that there is one class of
 * them, which `instanceof` knows.
 */
import type { RequestError } from "../protocol/errors.ts";
import type { HiFrame, ReplyFrame, RequestFrame } from "../protocol/frames.ts";

/** How a request is made. */
export interface RequestOptions {
  /** How long to wait for the answer, in milliseconds, waiting for a connection included. @default 10_000 */
  readonly timeoutMs?: number | undefined;
  /**
   * Sends it again, with the same id, after a connection broke, and while the backend or the service can't answer: at
   * least once, where the backend drops what it has had. @default false: at most once
   */
  readonly retry?: boolean | undefined;
}

const DEFAULT_TIMEOUT_MS = 10_000;
/** So many may be unanswered, as the service has it; the others wait here. */
const MAX_OUTSTANDING = 16;
/** So many may wait. */
const MAX_WAITING = 1_000;
/** The service takes so many bytes. */
const MAX_BYTES = 65_536;
const MAX_OP_CHARS = 64;
/** Who sends more frames in a second than the service takes is closed for good: so many at once, then one by one. */
const SPACING_MS = 25;
const BURST_MS = 16 * SPACING_MS;
/** When to try again, where the service does not say. */
const RETRY_MS = 1_000;
/** No timer counts further. */
const LONGEST_MS = 2 ** 31 - 1;
/** Another try may end otherwise. */
const PASSING: ReadonlySet<string> = new Set(["busy", "unavailable", "timeout"]);

interface Asked {
  readonly frame: RequestFrame;
  readonly endAt: number;
  readonly retry: boolean;
  readonly resolve: (data: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: ReturnType<typeof setTimeout>;
  /** It may be sent when its turn comes. */
  isWaiting: boolean;
  /** It has been on its way at least once. */
  wasSent: boolean;
  /** After a failure, until it is time to send it again. */
  pause: ReturnType<typeof setTimeout> | undefined;
}

export class Requests {
  readonly #send: (frame: RequestFrame) => boolean;
  readonly #Fault: typeof RequestError;
  readonly #asked = new Map<string, Asked>();
  /** Ids of what was sent over this connection and not answered; also when its time is over: it takes its place there. */
  readonly #sent = new Set<string>();
  #hi: HiFrame | undefined;
  /** Up to when the frames that were sent are paid for, on the clock of `performance.now()`. */
  #paidMs = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  /** @param send Sends a frame; false when there is no connection. */
  constructor(send: (frame: RequestFrame) => boolean, Fault: typeof RequestError) {
    this.#send = send;
    this.#Fault = Fault;
  }

  /** Whether an answer is on its way, perhaps. */
  get areOutstanding(): boolean {
    return this.#sent.size > 0;
  }

  /** @throws {TypeError} when it can't be asked. @throws {RequestError} as `Client.request`. */
  ask(op: string, data: unknown, options: RequestOptions = {}): Promise<unknown> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, retry = false } = options;
    check(op, data, timeoutMs);
    if (this.#isClosed) throw new this.#Fault("The client is closed", "closed");
    if (this.#hi && this.#hi.req !== 1) throw this.#unsupported();
    if (this.#asked.size >= MAX_WAITING) {
      throw new this.#Fault(`${MAX_WAITING} requests wait for an answer: wait for one`, "busy");
    }
    return new Promise((resolve, reject) => {
      const frame: RequestFrame = { t: "req", id: newId(), op, ...(data !== undefined && { data }) };
      const asked: Asked = {
        ...{ frame, retry, resolve, reject, isWaiting: true, wasSent: false, pause: undefined },
        endAt: performance.now() + timeoutMs,
        timer: setTimeout(() => this.#onTimeout(asked, timeoutMs), Math.min(timeoutMs, LONGEST_MS)),
      };
      this.#asked.set(frame.id, asked);
      this.#pump();
    });
  }

  /** A connection has opened. */
  opened(hi: HiFrame): void {
    this.#hi = hi;
    if (hi.req === 1) return this.#pump();
    for (const asked of this.#asked.values()) this.#fail(asked, this.#unsupported());
  }

  /** It has ended. */
  lost(): void {
    this.#hi = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const id of this.#sent) {
      const asked = this.#asked.get(id);
      if (asked?.retry) asked.isWaiting = true;
      else if (asked) {
        this.#fail(asked, this.#doubtful("The connection broke before the answer came", "lost"));
      }
    }
    this.#sent.clear();
  }

  /** There will be none any more. */
  closed(): void {
    this.#isClosed = true;
    for (const asked of this.#asked.values()) {
      const outcome = asked.wasSent ? "unknown" : "refused";
      this.#fail(asked, new this.#Fault("The client is closed", "closed", { outcome }));
    }
  }

  onReply({ id, ok, data, code = "refused", err = "", retry_ms, outcome }: ReplyFrame): void {
    if (!this.#sent.delete(id)) return;
    const asked = this.#asked.get(id);
    if (asked && ok) {
      this.#forget(asked);
      asked.resolve(data);
    } else if (asked?.retry && PASSING.has(code)) {
      asked.pause = setTimeout(() => {
        asked.isWaiting = true;
        this.#pump();
      }, Math.min(retry_ms ?? RETRY_MS, LONGEST_MS));
    } else if (asked) {
      this.#fail(asked, new this.#Fault(err, code, { outcome, retryMs: retry_ms }));
    }
    this.#pump();
  }

  /** Sends what waits, as far as it may go out now. */
  #pump(): void {
    if (!this.#hi || this.#timer !== undefined) return;
    for (const asked of this.#asked.values()) {
      if (this.#sent.size >= MAX_OUTSTANDING) return;
      if (!asked.isWaiting) continue;
      const now = performance.now();
      const paidMs = Math.max(this.#paidMs, now - BURST_MS) + SPACING_MS;
      if (paidMs > now) {
        this.#timer = setTimeout(() => {
          this.#timer = undefined;
          this.#pump();
        }, paidMs - now);
        return;
      }
      this.#paidMs = paidMs;
      this.#sendOne(asked, now);
    }
  }

  #sendOne(asked: Asked, now: number): void {
    // What nobody waits for any more must not begin in the service either.
    const leftMs = Math.min(LONGEST_MS, Math.max(1, Math.round(asked.endAt - now)));
    const frame = { ...asked.frame, timeout_ms: leftMs };
    const most = Math.min(this.#hi!.max, MAX_BYTES);
    const bytes = new TextEncoder().encode(JSON.stringify(frame)).length;
    if (bytes > most) {
      const message = `The request has ${bytes} bytes, and the service takes ${most}`;
      this.#fail(asked, new this.#Fault(message, "too_large"));
    } else if (this.#send(frame)) {
      this.#sent.add(frame.id);
      asked.isWaiting = false;
      asked.wasSent = true;
    }
  }

  #onTimeout(asked: Asked, timeoutMs: number): void {
    const message = `There was no answer within ${timeoutMs} ms`;
    this.#fail(
      asked,
      asked.wasSent ? this.#doubtful(message, "timeout") : new this.#Fault(message, "timeout"),
    );
    this.#pump();
  }

  #unsupported(): RequestError {
    return new this.#Fault("The service takes no requests", "unsupported");
  }

  #doubtful(message: string, code: string): RequestError {
    return new this.#Fault(message, code, { outcome: "unknown" });
  }

  #fail(asked: Asked, error: RequestError): void {
    this.#forget(asked);
    asked.reject(error);
  }

  #forget({ frame, timer, pause }: Asked): void {
    clearTimeout(timer);
    clearTimeout(pause);
    this.#asked.delete(frame.id);
  }
}

function check(op: unknown, data: unknown, timeoutMs: unknown): void {
  if (typeof op !== "string" || op === "" || op.length > MAX_OP_CHARS) {
    throw new TypeError(`What is asked for must be a string of 1 to ${MAX_OP_CHARS} characters`);
  }
  if (typeof timeoutMs !== "number" || !(timeoutMs > 0)) {
    throw new TypeError("timeoutMs must be a number above 0");
  }
  if (data !== undefined && JSON.stringify(data) === undefined) {
    throw new TypeError("What is sent must be a value that can be written as JSON");
  }
}

/**
 * 128 random bits. `crypto.randomUUID` is missing in pages without https, and all of it in React Native: an id that others
 * could guess is no secret either, only one that comes twice would do harm.
 */
function newId(): string {
  const bytes = new Uint8Array(16).map(() => Math.random() * 256);
  (globalThis as { crypto?: Pick<Crypto, "getRandomValues"> }).crypto?.getRandomValues(bytes);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
