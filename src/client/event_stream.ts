/**
 * A connection by server-sent events with the face of a socket: frames come in one response that does not end, and go out
 * in a request each, one after the other. Read by `fetch`, not by a browser's `EventSource`: that can show no token, hides
 * why it is refused, and passes over the comments that are signs of life.
 */
import { messageOf } from "../protocol/errors.ts";
import { PING_FRAME } from "../protocol/frames.ts";
import { type Address, partsOf } from "./address.ts";
import type { Socket } from "./session.ts";

type Listener = ((event: Record<string, unknown>) => void) | null;

const ABNORMAL = 1006;
const CONN = /"conn":"([^"]+)"/;
/** The service can't take a frame just now, as while Redis is away: it is sent again so many times, so much later in milliseconds. */
const UNAVAILABLE = 503;
const MAX_TRIES = 10;
const RETRY_MS = 1_000;
/** What a sender can do nothing about: the connection has ended, and its node does not know it any more. */
const GONE = 404;

export class EventStream implements Socket {
  onmessage: Listener = null;
  onclose: Listener = null;
  onerror: Listener = null;
  readonly #path: string;
  readonly #query: string;
  readonly #headers: Record<string, string>;
  readonly #onError: (error: Error) => void;
  readonly #aborter = new AbortController();
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #conn = "";
  #sending: Promise<void> = Promise.resolve();
  #hasTold = false;

  /** @param onError Told once why frames are not taken, when the connection stays. */
  constructor({ url, token }: Address, onError: (error: Error) => void) {
    const [path, query] = partsOf(url.replace(/^ws/, "http"));
    this.#path = path.replace(/(\/ws)?\/?$/, "/v1/events");
    this.#query = query && `?${query}`;
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    this.#onError = onError;
    this.#read().catch(messageOf).then((reason) => this.#end(ABNORMAL, reason));
  }

  send(data: string): void {
    this.#sending = this.#sending.then(() => this.#post(data));
  }

  close(code = 1000, reason = ""): void {
    this.#leave();
    // A socket's `close` does not come before the call has returned either.
    queueMicrotask(() => this.#end(code, reason));
  }

  /** @returns Why it has ended. */
  async #read(): Promise<string> {
    const { body, status, headers } = await this.#fetch("", {});
    const type = headers.get("content-type") ?? "no content type";
    if (status === 200 && !body) return "This platform can't read a response while it comes";
    if (status !== 200 || !body || !type.startsWith("text/event-stream")) {
      void body?.cancel();
      return `The stream was answered with ${status}, ${type}`;
    }
    const reader = this.#reader = body.getReader();
    const decoder = new TextDecoder();
    for (let unread = "";;) {
      const { value, done } = await reader.read();
      if (done) return "";
      const events = (unread + decoder.decode(value, { stream: true })).split("\n\n");
      unread = events.pop()!;
      for (const event of events) this.#take(event);
    }
  }

  #take(event: string): void {
    const lines = event.split("\n");
    const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
    if (this.#conn === "") this.#conn = CONN.exec(data)?.[1] ?? "";
    if (data !== "") this.onmessage?.({ data });
    else if (lines[0]!.startsWith(":")) this.onmessage?.({ data: PING_FRAME });
  }

  async #post(body: string): Promise<void> {
    const to = `/${this.#conn}`;
    try {
      let response = await this.#fetch(to, { method: "POST", body });
      for (let tries = 1; response.status === UNAVAILABLE && tries < MAX_TRIES; tries++) {
        await response.body?.cancel();
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        if (this.#aborter.signal.aborted) return;
        response = await this.#fetch(to, { method: "POST", body });
      }
      const text = await response.text();
      if (response.ok) return;
      if (response.status === GONE) return this.#give("The service knows the connection no more");
      if (!this.#hasTold) this.#onError(new Error(`The service takes no frames: ${response.status} ${text}`));
      this.#hasTold = true;
    } catch (error) {
      this.#give(messageOf(error));
    }
  }

  #give(reason: string): void {
    this.#leave();
    this.#end(ABNORMAL, reason);
  }

  #leave(): void {
    // Deno keeps the connection of a body whose request is aborted until it collects garbage, and the service goes on
    // counting the client.
    this.#reader?.cancel().catch(() => {});
    this.#aborter.abort();
  }

  #fetch(to: string, init: { method?: string; body?: string }): Promise<Response> {
    const { signal } = this.#aborter;
    const headers = { accept: "text/event-stream", ...this.#headers };
    // A frame that was sent just before the end is still to arrive.
    const until = init.body === undefined ? { signal } : {};
    return fetch(this.#path + to + this.#query, {
      ...init,
      ...until,
      headers,
      cache: "no-store",
      credentials: "omit",
    });
  }

  #end(code: number, reason: string): void {
    const { onclose } = this;
    this.onclose = this.onmessage = null;
    onclose?.({ code, reason });
  }
}
