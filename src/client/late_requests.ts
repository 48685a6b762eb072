/** The application's requests, whose file is loaded with the first of them: most clients make none. */
import { RequestError } from "../protocol/errors.ts";
import type { HiFrame, ReplyFrame, RequestFrame } from "../protocol/frames.ts";
import type { RequestOptions, Requests } from "./requests.ts";

export class LateRequests {
  readonly #send: (frame: RequestFrame) => boolean;
  #requests: Requests | undefined;
  #loading: Promise<Requests> | undefined;
  #hi: HiFrame | undefined;
  #isClosed = false;

  /** @param send Sends a frame; false when there is no connection. */
  constructor(send: (frame: RequestFrame) => boolean) {
    this.#send = send;
  }

  /** Whether an answer is on its way, perhaps. */
  get areOutstanding(): boolean {
    return this.#requests?.areOutstanding ?? false;
  }

  /** @throws {TypeError} when it can't be asked. @throws {RequestError} as `Client.request`. */
  async ask(op: string, data: unknown, options?: RequestOptions): Promise<unknown> {
    // Those that are made meanwhile wait for the same promise, and so keep their order.
    this.#loading ??= this.#load();
    return await (await this.#loading).ask(op, data, options);
  }

  /** A connection has opened. */
  opened(hi: HiFrame): void {
    this.#hi = hi;
    this.#requests?.opened(hi);
  }

  /** It has ended. */
  lost(): void {
    this.#hi = undefined;
    this.#requests?.lost();
  }

  /** There will be none any more. */
  closed(): void {
    this.#isClosed = true;
    this.#requests?.closed();
  }

  onReply(frame: ReplyFrame): void {
    this.#requests?.onReply(frame);
  }

  async #load(): Promise<Requests> {
    try {
      const { Requests } = await import("./requests.ts");
      const requests = new Requests(this.#send, RequestError);
      if (this.#hi) requests.opened(this.#hi);
      if (this.#isClosed) requests.closed();
      return this.#requests = requests;
    } catch (cause) {
      this.#loading = undefined;
      const message = "The client's file for requests can't be loaded: ask again later";
      throw Object.assign(new RequestError(message, "unavailable"), { cause });
    }
  }
}
