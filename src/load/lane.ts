/**
 * One kept-alive connection for sends: a request at a time, in order. It is made again when it ends, at the next place
 * when its own can't be reached; no send is made twice.
 */
import { Attempt } from "../async/attempt.ts";
import type { Deadlines } from "../async/deadlines.ts";
import { sleep } from "../async/sleep.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Histogram } from "./histogram.ts";
import { headIn, MAX_ANSWER_BYTES, type Refusal, refusalIn, sizeOf } from "./http_answer.ts";
import { dial, type Place, type Stream, writeAll } from "./stream.ts";

export interface LaneOptions {
  readonly places: readonly Place[];
  /** Which of them is its own. */
  readonly first: number;
  /** Further lines of each request's head. */
  readonly head: string;
  readonly deadlines: Deadlines;
  readonly times: Histogram | undefined;
}

export interface LaneMessage {
  readonly user: number;
  readonly sequence: number;
  readonly username: string;
  /** ASCII. */
  readonly payload: string;
}

/** After a place could not be reached. */
const PAUSE_MS = 100;
const encoder = new TextEncoder();

export class Lane {
  /** Told what became of each send: the status of a success, or why not. */
  report: (message: LaneMessage, answer: number | Refusal) => void = () => {};
  readonly #options: LaneOptions;
  readonly #queue: LaneMessage[] = [];
  #place: number;
  #stream: Stream | undefined;
  /** Taken from the queue, and not reported. */
  #current: LaneMessage | undefined;
  /** The request on its way. */
  #waiting: { readonly stream: Stream; readonly answer: PromiseWithResolvers<number | Refusal> } | undefined;
  #isBusy = false;
  #isClosed = false;
  readonly #closing = Promise.withResolvers<void>();

  constructor(options: LaneOptions) {
    this.#options = options;
    this.#place = options.first;
  }

  /** @throws when no connection comes about in time. */
  async connect(): Promise<Stream> {
    const { deadlines, places } = this.#options;
    const attempt = new Attempt(deadlines, { late: () => noAnswer(deadlines), signal: undefined });
    let stream;
    try {
      stream = await attempt.step(dial(places[this.#place]!), (tooLate) => tooLate.close());
    } finally {
      attempt.end();
    }
    if (this.#isClosed) {
      stream.close();
      throw new Error("it was given up");
    }
    this.#stream = stream;
    void this.#read(stream);
    return stream;
  }

  send(message: LaneMessage): void {
    this.#queue.push(message);
    if (!this.#isBusy) void this.#run();
  }

  /** Ends it; what was not answered is reported so. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closing.resolve();
    this.#stream?.close();
    const left = this.#queue.splice(0);
    if (this.#current) left.unshift(this.#current);
    for (const message of left) {
      this.report(message, { status: 0, code: "", reason: "no answer until the end" });
    }
  }

  async #run(): Promise<void> {
    this.#isBusy = true;
    while ((this.#current = this.#queue.shift()) !== undefined) {
      const answer = await this.#post(this.#current).catch(refused);
      if (this.#isClosed) return;
      this.report(this.#current, answer);
    }
    this.#isBusy = false;
  }

  async #post(message: LaneMessage): Promise<number | Refusal> {
    const stream = this.#stream ?? await this.#connectSomewhere();
    const { deadlines, times } = this.#options;
    const answer = Promise.withResolvers<number | Refusal>();
    this.#waiting = { stream, answer };
    const startMs = performance.now();
    const deadline = deadlines.set(() => {
      answer.reject(noAnswer(deadlines));
      this.#drop(stream);
    });
    try {
      // What rejects is told by the answer, which is the first to know.
      writeAll(stream, encoder.encode(this.#requestOf(message))).catch(answer.reject);
      const answered = await answer.promise;
      // To refuse is quicker, and would make the others look so.
      if (typeof answered === "number") times?.add(performance.now() - startMs);
      return answered;
    } finally {
      deadlines.clear(deadline);
    }
  }

  #requestOf({ username, payload }: LaneMessage): string {
    const { places, head } = this.#options;
    const { base, host } = places[this.#place]!;
    return `POST ${base}/v1/users/${username}/messages HTTP/1.1\r\nHost: ${host}\r\n${head}` +
      `Content-Type: application/json\r\nContent-Length: ${payload.length}\r\n\r\n${payload}`;
  }

  async #connectSomewhere(): Promise<Stream> {
    try {
      return await this.connect();
    } catch (error) {
      this.#place = (this.#place + 1) % this.#options.places.length;
      // Else nothing would be as fast as a node that is away.
      await sleep(PAUSE_MS, this.#closing.promise);
      throw error;
    }
  }

  /** Takes answers, and notices when the server ends the connection in between. */
  async #read(stream: Stream): Promise<void> {
    let buffer: Uint8Array = new Uint8Array(2_048);
    try {
      for (let end = 0;;) {
        if (end === buffer.length) buffer = grown(buffer);
        const count = await stream.read(buffer.subarray(end));
        if (count === null || count === 0) throw new Error("the connection ended before the answer");
        end += count;
        const bytes = buffer.subarray(0, end);
        const head = headIn(bytes);
        if (head === undefined || sizeOf(head, bytes) === undefined) continue;
        const { status, isLast } = head;
        if (isLast) this.#drop(stream);
        const isWell = status === 200 || status === 202;
        this.#waiting?.answer.resolve(isWell ? status : refusalIn(status, bytes.subarray(head.end)));
        end = 0;
      }
    } catch (error) {
      this.#drop(stream);
      if (this.#waiting?.stream === stream) this.#waiting.answer.reject(error);
    }
  }

  #drop(stream: Stream): void {
    stream.close();
    if (this.#stream === stream) this.#stream = undefined;
  }
}

function grown(buffer: Uint8Array): Uint8Array {
  if (buffer.length >= MAX_ANSWER_BYTES) throw new Error("the answer is too long");
  const bigger = new Uint8Array(buffer.length * 2);
  bigger.set(buffer);
  return bigger;
}

function refused(error: unknown): Refusal {
  return { status: 0, code: "", reason: messageOf(error) };
}

function noAnswer({ limitMs }: Deadlines): Error {
  return new Error(`no answer in ${limitMs / 1_000} s`);
}
