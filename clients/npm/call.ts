/**
 * Calls of a service's HTTP API: repeats what may be repeated, and makes one kind of error of everything that can go
 * wrong on the way. Knows nothing of what is called.
 */
import { backoffMs } from "../../src/async/backoff.ts";
import { messageOf } from "../../src/protocol/errors.ts";

/** Where a service is, and how patient its caller. */
export interface ServerOptions {
  /** Address of the service, such as `https://push.example.com`. */
  readonly url: string | { readonly href: string };
  /** An API key, made with `userwire key new`; a service in open mode needs none. */
  readonly key?: string | undefined;
  /** How long one attempt may take, in milliseconds. @default 10_000 */
  readonly timeoutMs?: number | undefined;
  /** How often a call is repeated when the service or the network fails. @default 3 */
  readonly retries?: number | undefined;
  /** The longest wait between two attempts, in milliseconds, also when the service asks for more. @default 10_000 */
  readonly maxWaitMs?: number | undefined;
  /** What calls are made with. @default the global `fetch` */
  readonly fetch?: Fetch | undefined;
}

/** `fetch`, as far as it is used here. */
export type Fetch = (url: string, init: FetchInit) => Promise<Answer>;

/** What a call is made of. */
export interface FetchInit {
  method: string;
  headers: Record<string, string>;
  body?: string | Uint8Array<ArrayBuffer>;
  redirect: "manual";
  // deno-lint-ignore no-explicit-any -- an AbortSignal, which not every program that is type-checked knows
  signal: any;
}

/** What a call is answered with. */
export interface Answer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  text(): Promise<string>;
}

/** A call that was refused, or that came to nothing. */
export class UserwireError extends Error {
  override readonly name = "UserwireError";
  /** As in the service's problem bodies, such as `unauthorized`; `unreachable` and `not_userwire` where none came. */
  readonly code: string;
  /** The HTTP status; undefined when there was no answer. */
  readonly status: number | undefined;
  /** Whether it is certain that nothing was done, or may have been. */
  readonly outcome: "refused" | "unknown";

  constructor(
    message: string,
    { code, status, outcome, cause }: Pick<UserwireError, "code" | "status" | "outcome"> & {
      cause?: unknown;
    },
  ) {
    super(message, { cause });
    this.code = code;
    this.status = status;
    this.outcome = outcome;
  }
}

export interface Call {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array<ArrayBuffer> | undefined;
  /** How much longer than usual an attempt may take, in milliseconds. */
  readonly extraMs?: number | undefined;
}

/** Of a proxy or a node that is away; what else is refused would be again. */
const RETRIED: ReadonlySet<number> = new Set([429, 502, 503, 504]);
const BACKOFF_BASE_MS = 200;

export class Caller {
  readonly #base: string;
  readonly #options: { timeoutMs: number; retries: number; maxWaitMs: number; fetch: Fetch };
  readonly #headers: Readonly<Record<string, string>>;

  /** @throws {TypeError} when the address or the key can't be one. */
  constructor({ url, key, timeoutMs, retries, maxWaitMs, fetch }: ServerOptions) {
    this.#base = baseOf(typeof url === "string" ? url : url?.href);
    // Keys are read from files, which end with a new line.
    const bare = key?.trim();
    if (bare === "" || (bare !== undefined && !/^[\x21-\x7e]+$/.test(bare))) {
      throw new TypeError(
        "The key must be what `userwire key new` printed: it has no spaces and is not empty",
      );
    }
    this.#headers = bare === undefined ? {} : { authorization: `Bearer ${bare}` };
    this.#options = {
      timeoutMs: timeoutMs ?? 10_000,
      retries: retries ?? 3,
      maxWaitMs: maxWaitMs ?? 10_000,
      fetch: fetch ?? (globalThis.fetch as unknown as Fetch),
    };
  }

  /**
   * Repeats a call that may be repeated until it is answered, or there were too many attempts. All calls may be: they
   * carry an idempotency key, or do no more the second time than the first.
   * @returns The answer's body, and what its headers say beside.
   * @throws {UserwireError}
   */
  async call<Body>(call: Call): Promise<{ body: Body; headers: Answer["headers"] }> {
    const { retries, maxWaitMs } = this.#options;
    /** Whether an attempt may have reached its end without an answer. */
    let isUnknown = false;
    for (let failures = 0;; failures++) {
      const answer = await this.#attempt<Body>(call);
      if ("body" in answer) return answer;
      const { error, retryAfterMs, mayHaveDone } = answer;
      isUnknown ||= mayHaveDone;
      if (retryAfterMs === undefined || failures >= retries) {
        const { message, code, status, cause } = error;
        throw new UserwireError(message, { code, status, outcome: isUnknown ? "unknown" : "refused", cause });
      }
      const waitMs = Math.min(
        maxWaitMs,
        retryAfterMs + backoffMs(failures, { baseMs: BACKOFF_BASE_MS, maxMs: maxWaitMs }),
      );
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  async #attempt<Body>({ method, path, headers, body, extraMs = 0 }: Call): Promise<
    | { body: Body; headers: Answer["headers"] }
    | { error: UserwireError; retryAfterMs: number | undefined; mayHaveDone: boolean }
  > {
    const { fetch, timeoutMs } = this.#options;
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), timeoutMs + extraMs);
    let answer: Answer;
    let text: string;
    try {
      answer = await fetch(this.#base + path, {
        method,
        headers: { ...this.#headers, ...headers },
        ...(body !== undefined && { body }),
        redirect: "manual",
        signal: limit.signal,
      });
      text = await answer.text();
    } catch (cause) {
      const why = limit.signal.aborted
        ? `no answer came for ${(timeoutMs + extraMs) / 1_000} s`
        : reasonOf(cause);
      const error = failed(`${this.#base} can't be reached: ${why}`, "unreachable", undefined, cause);
      return { error, retryAfterMs: 0, mayHaveDone: !isUnsent(cause) };
    } finally {
      clearTimeout(timer);
    }
    const { status } = answer;
    const said = parse(text);
    if (status >= 200 && status < 300 && said !== undefined) {
      return { body: said as Body, headers: answer.headers };
    }
    const { code, detail } = (said ?? {}) as { code?: string; detail?: string };
    const error = code === undefined ? this.#strange(answer) : failed(`${detail}`, code, status);
    const isWorthIt = RETRIED.has(status);
    return {
      error,
      retryAfterMs: isWorthIt ? 1_000 * (Number(answer.headers.get("retry-after")) || 0) : undefined,
      // A service that says so with a problem says itself what was done; a proxy does not know.
      mayHaveDone: code === undefined ? status >= 500 : /may or may not/.test(`${detail}`),
    };
  }

  #strange({ status, headers }: Answer): UserwireError {
    const target = headers.get("location");
    const what = status >= 300 && status < 400 && target !== null
      ? `it sends to ${target}: give that as the address`
      : `it answers with ${status} and ${
        headers.get("content-type") ?? "no content type"
      }: is it a proxy's answer, or another server?`;
    return failed(`No Userwire answers at ${this.#base}; ${what}`, "not_userwire", status);
  }
}

function failed(message: string, code: string, status?: number, cause?: unknown): UserwireError {
  return new UserwireError(message, { code, status, outcome: "refused", cause });
}

/** The address without a slash at its end. @throws {TypeError} */
function baseOf(url: string | undefined): string {
  let parsed: URL;
  try {
    parsed = new URL(url!);
  } catch (cause) {
    throw new TypeError(`"url" must be the address of the service, such as "https://push.example.com"`, {
      cause,
    });
  }
  if (!/^https?:$/.test(parsed.protocol)) {
    throw new TypeError(`"url" must begin with http:// or https://, not ${parsed.protocol}//`);
  }
  if (parsed.username !== "" || parsed.search !== "" || parsed.hash !== "") {
    throw new TypeError(`"url" must be an address without a user, "?" and "#"; a key is given as "key"`);
  }
  return parsed.href.replace(/\/+$/, "");
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Node keeps why in the cause. */
function reasonOf(error: unknown): string {
  const { cause } = Object(error);
  return messageOf(cause ?? error);
}

/** Whether no byte of the call left: there was no connection. */
function isUnsent(error: unknown): boolean {
  return /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|\(Connect\)|unable to connect/i.test(
    `${Object(Object(error).cause).code} ${messageOf(error)} ${reasonOf(error)}`,
  );
}
