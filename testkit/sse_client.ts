/**
 * A client of `GET /v1/events` that reads what comes, byte by byte, and knows nothing of positions: what it repeats it was
 * given. `Deno`'s own `EventSource` and a browser's are what applications use; this one shows what they hide.
 */
import { Bell } from "./deadline.ts";

export interface SseEvent {
  readonly event: string;
  readonly id: string | undefined;
  /** What stands in `data`, parsed. */
  readonly frame: Record<string, unknown>;
}

export class SseClient implements AsyncDisposable {
  readonly response: Response;
  readonly events: SseEvent[] = [];
  /** All that came. */
  text = "";
  /** The last `retry`. */
  retryMs: number | undefined;
  hasEnded = false;
  readonly #aborter: AbortController;
  readonly #bell = new Bell();
  readonly #reading: Promise<void>;
  #unread = "";

  private constructor(response: Response, aborter: AbortController) {
    this.response = response;
    this.#aborter = aborter;
    this.#reading = this.#read();
  }

  /** Resolves when the answer begins, whatever its status. @param url As a socket's, or of a stream. */
  static async open(
    url: string | URL,
    { headers = {}, client }: { headers?: Record<string, string>; client?: Deno.HttpClient } = {},
  ): Promise<SseClient> {
    const aborter = new AbortController();
    const response = await fetch(streamUrl(url), {
      headers,
      signal: aborter.signal,
      ...(client && { client }),
    });
    return new SseClient(response, aborter);
  }

  /** Id of the last event that has one. */
  get lastId(): string | undefined {
    return this.events.findLast(({ id }) => id !== undefined)?.id;
  }

  /** What messages said. */
  get data(): unknown[] {
    return this.of("m").map(({ data }) => data);
  }

  /** The frames of a type. */
  of(type: string): Record<string, unknown>[] {
    return this.events.filter(({ event }) => event === type).map(({ frame }) => frame);
  }

  /** The first frame of a type, as soon as it is there. */
  async next(type: string): Promise<Record<string, unknown>> {
    await this.until(() => this.of(type).length > 0, `a frame "${type}"`);
    return this.of(type)[0]!;
  }

  /** Id of the connection. */
  async conn(): Promise<string> {
    return String((await this.next("hi")).conn);
  }

  async until(isSo: () => boolean, what: string): Promise<void> {
    await this.#bell.until(
      isSo,
      what,
      undefined,
      () => `what came is ${JSON.stringify(this.text.slice(-500))}`,
    );
  }

  /** Resolves when the server has ended the stream. */
  async ended(): Promise<void> {
    await this.until(() => this.hasEnded, "the end of the stream");
  }

  /** The problem that it got in place of a stream. */
  async problem(): Promise<{ status: number; code: string; detail: string }> {
    await this.ended();
    const { code, detail } = JSON.parse(this.text);
    return { status: this.response.status, code, detail };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#aborter.abort();
    await this.#reading;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const chunk of this.response.body ?? []) this.#take(decoder.decode(chunk, { stream: true }));
    } catch (error) {
      if (!this.#aborter.signal.aborted) this.text += String(error);
    }
    this.hasEnded = true;
    this.#bell.ring();
  }

  #take(text: string): void {
    this.text += text;
    this.#unread += text;
    const blocks = this.#unread.split("\n\n");
    this.#unread = blocks.pop()!;
    for (const block of blocks) {
      const fields = block.split("\n").map((line) =>
        /^(\w*): ([^]*)$/.exec(line)!.slice(1) as [string, string]
      );
      const of = (name: string) => fields.filter(([field]) => field === name).map(([, value]) => value);
      const [retry] = of("retry");
      if (retry !== undefined) this.retryMs = Number(retry);
      const data = of("data");
      if (data.length === 0) continue;
      const [event, id] = [of("event")[0]!, of("id")[0]];
      this.events.push({ event, id, frame: JSON.parse(data.join("\n")) });
    }
    this.#bell.ring();
  }
}

/** Where the stream is, of a service whose sockets are there. */
export function streamUrl(url: string | URL): URL {
  const stream = new URL(String(url).replace(/^ws/, "http"));
  if (stream.pathname === "/ws") stream.pathname = "/v1/events";
  return stream;
}

/** Sends a frame as the client of a connection. */
export async function post(
  url: string | URL,
  conn: string,
  frame: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; code: string | undefined }> {
  const target = streamUrl(url);
  target.pathname += `/${conn}`;
  const response = await fetch(target, {
    method: "POST",
    headers: { "content-type": "text/plain", ...headers },
    body: typeof frame === "string" ? frame : JSON.stringify(frame),
  });
  const text = await response.text();
  return { status: response.status, code: text === "" ? undefined : JSON.parse(text).code };
}
