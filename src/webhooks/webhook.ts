/**
 * One request to the backend: signed, bounded in time and in the size of the answer, to the address that the setting names
 * and nowhere else.
 */
import type { Spans } from "../metrics/spans.ts";
import { messageOf } from "../protocol/errors.ts";
import { sign } from "../protocol/signature.ts";

/** What the backend answered to one. */
export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  /** Undefined when it was too large. */
  readonly body: string | undefined;
}

/** Why there is no answer. */
export interface Unanswered {
  readonly reason: string;
  readonly isTimeout?: true;
}

/** How telling an event ended. */
export type Delivery =
  | {
    readonly outcome: "delivered";
    readonly status: number;
    readonly body: string;
    readonly headers: Headers;
  }
  /** The backend answered, and does not want this one. */
  | {
    readonly outcome: "refused";
    readonly status: number;
    readonly reason: string;
    readonly body: string;
    readonly headers: Headers;
  }
  /** Nothing answers, or not in time, or it says that it can't now: it is the same for all. */
  | { readonly outcome: "failed" } & Unanswered;

export interface WebhookOptions {
  /** https, or loopback. */
  readonly url: string;
  /** `whsec_…`, one or two. */
  readonly secrets: readonly string[];
  readonly timeoutMs: number;
  readonly userAgent: string;
  /** Connections that are kept for the next ones. @default 8 */
  readonly maxIdle?: number;
  /** Where Deno exports spans, it writes the header with the trace parent itself. */
  readonly spans?: Pick<Spans, "within"> | undefined;
}

export interface Message {
  readonly id: string;
  readonly type: string;
  /** In Unix milliseconds. */
  readonly atMs: number;
  /** JSON. */
  readonly data: string;
  /** The span that it comes from. */
  readonly traceparent?: string | undefined;
}

/** An answer may have so many bytes. */
export const MAX_ANSWER_BYTES: number = 64 * 1024;
const MAX_IDLE = 8;
const TOO_LARGE = `it answered more than ${MAX_ANSWER_BYTES} bytes`;
/** Answers below 500 that say "not now" and not "not this". 410 is "no more": then nothing else is wanted either. */
const NOT_NOW: ReadonlySet<number> = new Set([401, 403, 404, 408, 410, 425, 429]);

export class Webhook implements Disposable {
  readonly #options: WebhookOptions;
  readonly #client: Deno.HttpClient;
  readonly #closing = new AbortController();

  constructor(options: WebhookOptions) {
    this.#options = options;
    this.#client = Deno.createHttpClient({ poolMaxIdlePerHost: options.maxIdle ?? MAX_IDLE });
  }

  /** Tells an event. Never rejects. */
  async post(message: Message): Promise<Delivery> {
    const reply = await this.send(message);
    return "status" in reply ? deliveryOf(reply) : { outcome: "failed", ...reply };
  }

  /**
   * Sends one. Never rejects.
   * @param signal Breaks it off.
   */
  async send(message: Message, signal?: AbortSignal): Promise<Answered | Unanswered> {
    const { url, secrets, timeoutMs, userAgent, spans } = this.#options;
    const { id, type, atMs, data, traceparent } = message;
    const head = JSON.stringify({ type, timestamp: new Date(atMs).toISOString() });
    const body = `${head.slice(0, -1)},"data":${data}}`;
    const timestampS = Math.floor(Date.now() / 1_000);
    const timeout = AbortSignal.timeout(timeoutMs);
    const signals = [timeout, this.#closing.signal, ...(signal ? [signal] : [])];
    try {
      const init = {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "user-agent": userAgent,
          "webhook-id": id,
          "webhook-timestamp": String(timestampS),
          "webhook-signature": await sign(secrets, id, timestampS, body),
          ...(traceparent !== undefined && !spans && { traceparent }),
        },
        body,
        // An answer must not choose where the next request goes.
        redirect: "manual" as const,
        signal: AbortSignal.any(signals),
        client: this.#client,
      };
      const response = traceparent !== undefined && spans
        ? await spans.within(traceparent, () => fetch(url, init))
        : await fetch(url, init);
      const { status, headers } = response;
      return { status, headers, body: await textOf(response) };
    } catch (error) {
      if (timeout.aborted) return { reason: `no answer within ${timeoutMs} ms`, isTimeout: true };
      // What lies beneath says which: nobody there, a certificate, a name that is not found.
      const cause = error instanceof Error ? error.cause : undefined;
      return { reason: cause === undefined ? messageOf(error) : `${messageOf(error)}: ${messageOf(cause)}` };
    }
  }

  [Symbol.dispose](): void {
    this.#closing.abort();
    this.#client.close();
  }
}

function deliveryOf({ status, headers, body }: Answered): Delivery {
  if (body === undefined) {
    return { outcome: "refused", status, headers, body: "", reason: TOO_LARGE };
  }
  if (status >= 200 && status < 300) return { outcome: "delivered", status, body, headers };
  if (status < 400) {
    return { outcome: "failed", reason: `it answered ${status}: redirects are not followed` };
  }
  if (status >= 500 || NOT_NOW.has(status)) return { outcome: "failed", reason: `it answered ${status}` };
  return { outcome: "refused", status, body, headers, reason: `it answered ${status}` };
}

/** @returns Undefined when there is too much of it. */
async function textOf(response: Response): Promise<string | undefined> {
  let text = "";
  let bytes = 0;
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    // Leaving the loop cancels the rest.
    if (bytes > MAX_ANSWER_BYTES) return undefined;
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
