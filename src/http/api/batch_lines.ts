/**
 * `POST /v1/messages` with lines of JSON: as many items as one likes up to 100,000, each sent as soon as it is read, and one
 * result a line in the same order. Each item stands for itself: one that is wrong has a result that says so, and the next ones
 * are sent.
 *
 * Most clients send all of a body before they read the answer. So results wait for them, up to `MAX_UNREAD_BYTES`; only beyond
 * that no more of the body is read until some are taken. A client that takes none for the time of a body is given up.
 */
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers";
import type { Deadlines } from "../../async/deadlines.ts";
import { assertMayAddress, type Caller } from "../../auth/auth.ts";
import { InvalidMessageError, messageOf } from "../../protocol/errors.ts";
import type { Line as SendLine } from "../../async/turns.ts";
import { isJson } from "../../protocol/json.ts";
import type { ManySendOptions } from "../../publisher/send.ts";
import { isJsonInSlices, Slices, SMALL_JSON } from "../json_text.ts";
import { type Line, linesOf } from "../lines.ts";
import { EFFECT_ON_FAILURE, problem, problemOf, RequestFault } from "../problem.ts";
import { type Item, readItem } from "./batch_items.ts";
import { resultOf } from "./batch_result.ts";
import type { Api } from "./call.ts";
import { traceparentOf } from "./shapes.ts";

export const NDJSON = "application/x-ndjson";

export const MAX_LINES = 100_000;
/**
 * Sends under way at one time, and the bytes of their lines. Little more than `Turns` lets go to Redis: each one that waits
 * is looked at by every collection of garbage, which took a quarter of all time with 1,000.
 */
const MAX_PENDING = 250;
const MAX_PENDING_BYTES = 2 * 1024 * 1024;
/** Results that a client has not read yet: more than 100,000 of the usual size. */
const MAX_UNREAD_BYTES = 16 * 1024 * 1024;
/** Calls of this kind at one time. */
const MAX_CALLS = 16;
/** A line holds one item: the largest payload, however it is escaped, and a list of users. */
const MIN_LINE_BYTES = 1024 * 1024;

interface Limits {
  /** @default MAX_LINES */
  readonly maxLines?: number;
  /** Of results that one client has not read yet. @default MAX_UNREAD_BYTES */
  readonly maxUnreadBytes?: number;
}

/** The calls that are under way. */
export class LineCalls {
  readonly #limits: Required<Limits>;
  #open = 0;

  constructor(limits: Limits = {}) {
    this.#limits = { maxLines: MAX_LINES, maxUnreadBytes: MAX_UNREAD_BYTES, ...limits };
  }

  /** Answers one. @param key By which it may be repeated. */
  answer(request: Request, api: Api, caller: Caller, key: string | null): Response {
    const { body, headers } = request;
    if (body === null || headers.get("content-length") === "0") {
      throw new InvalidMessageError("The body is empty: it must hold a line for each message");
    }
    if (this.#open >= MAX_CALLS) {
      return problem(
        "too_many_requests",
        `${MAX_CALLS} calls with lines are under way: try again when one has ended`,
      );
    }
    this.#open++;
    const call = new LineCall(api, caller, { key, ...traceparentOf(request) }, this.#limits);
    call.run(body).catch((error: unknown) => {
      api.log.error("request failed", { reason: messageOf(error) });
    }).finally(() => this.#open--);
    return new Response(call.results, { headers: { "content-type": NDJSON } });
  }
}

interface Pending {
  readonly bytes: number;
  readonly result: Promise<void>;
  /** The result as a line, once it is there. */
  text?: string;
}

type Begun = { readonly result: Promise<unknown> };
const NO_JSON = "The line is not JSON";

class LineCall {
  readonly results: ReadableStream<Uint8Array>;
  readonly #api: Api;
  readonly #caller: Caller;
  readonly #key: string | null;
  readonly #trace: { traceparent?: string };
  readonly #deadlines: Deadlines;
  readonly #limits: Required<Limits>;
  readonly #leaving = new AbortController();
  readonly #line: SendLine;
  readonly #slices = new Slices();
  readonly #itemOptions: Parameters<typeof readItem>[2];
  readonly #pending: Pending[] = [];
  readonly #encoder = new TextEncoder();
  #pendingBytes = 0;
  #isDue = false;
  #number = 0;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #onTaken: () => void = () => {};

  constructor(
    api: Api,
    caller: Caller,
    { key, ...trace }: { key: string | null; traceparent?: string },
    limits: Required<Limits>,
  ) {
    this.#api = api;
    this.#caller = caller;
    this.#key = key;
    this.#trace = trace;
    this.#deadlines = api.bodies.bulk.deadlines;
    this.#limits = limits;
    const { publisher, maxBodyBytes: maxDataBytes } = api;
    this.#line = publisher.line();
    this.#itemOptions = { maxDataBytes, publisher, slices: this.#slices };
    this.results = new ReadableStream({
      start: (controller) => void (this.#controller = controller),
      pull: () => this.#onTaken(),
      cancel: () => {
        this.#leaving.abort();
        this.#onTaken();
      },
    }, { highWaterMark: limits.maxUnreadBytes, size: ({ byteLength }) => byteLength });
  }

  /** Sends what comes, until the body ends or nobody is there any more. */
  async run(body: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const { signal } = this.#leaving;
    const maxBytes = Math.max(MIN_LINE_BYTES, 2 * this.#api.maxBodyBytes);
    try {
      for await (const lines of linesOf(body, { maxBytes, deadlines: this.#deadlines, signal })) {
        if (!await this.#sendAll(lines)) break;
      }
    } catch (error) {
      if (!(error instanceof RequestFault)) throw error;
      // Whose sender has left reads no answer; one that stands still may do so.
      this.#refuse(error);
    }
    while (this.#pending.length > 0) await this.#first();
    await this.#taken(this.#limits.maxUnreadBytes);
    if (!this.#isLeft) this.#controller.close();
  }

  /** @returns False when no more are to be sent. */
  async #sendAll(lines: readonly Line[]): Promise<boolean> {
    const { maxLines } = this.#limits;
    for (const line of lines) {
      if (typeof line === "string" && line.trim() === "") continue;
      if (this.#isLeft) return false;
      if (++this.#number > maxLines) {
        const limit =
          `A call may have at most ${maxLines} lines: this one and what comes after it was not sent`;
        this.#refuse(new RequestFault("too_large", limit));
        return false;
      }
      const bytes = line instanceof Error ? 0 : line.length;
      while (
        this.#pending.length >= MAX_PENDING ||
        this.#pending.length > 0 && this.#pendingBytes + bytes > MAX_PENDING_BYTES
      ) {
        await this.#first();
      }
      if (this.#controller.desiredSize! < 1) await this.#taken(1);
      const begun = this.#begin(line);
      this.#add(bytes, begun instanceof Promise ? (await begun).result : begun.result);
      const turn = this.#slices.after(bytes);
      if (turn) await turn;
    }
    return true;
  }

  #refuse(error: Error): void {
    this.#add(0, Promise.resolve(this.#failed(error)));
  }

  /** The result of an item that could not be sent. */
  #failed(error: Error): { error: { code: string; detail: string } } {
    const answer = problemOf(error, EFFECT_ON_FAILURE.send);
    if (answer) return { error: { code: answer.code, detail: answer.detail } };
    this.#api.log.error("request failed", { reason: error.message, stack: error.stack });
    return { error: { code: "internal", detail: "The log of this node says more" } };
  }

  #add(bytes: number, result: Promise<unknown>): void {
    const pending: Pending = {
      bytes,
      result: result.then((value) => {
        pending.text = `${JSON.stringify(value)}\n`;
        this.#handOutSoon();
      }),
    };
    this.#pending.push(pending);
    this.#pendingBytes += bytes;
  }

  /**
   * Checks and sends one item: at once, unless it is large. When it is on its way there is a result, which says what becomes
   * of it, and never rejects.
   */
  #begin(line: Line): Begun | Promise<Begun> {
    try {
      if (line instanceof Error) throw line;
      const json = line.trim();
      if (json.length > SMALL_JSON) return this.#beginLarge(json);
      if (!isJson(json)) throw new InvalidMessageError(NO_JSON);
      return this.#send(readItem(json, "line", this.#itemOptions) as Item, json);
    } catch (error) {
      return { result: Promise.resolve(this.#failed(error as Error)) };
    }
  }

  async #beginLarge(json: string): Promise<Begun> {
    try {
      if (!await isJsonInSlices(json)) throw new InvalidMessageError(NO_JSON);
      return this.#send(await readItem(json, "line", this.#itemOptions), json);
    } catch (error) {
      return { result: Promise.resolve(this.#failed(error as Error)) };
    }
  }

  #send(item: Item, json: string): Begun {
    const { publisher, maxFanoutBytes } = this.#api;
    const { users, payload, id, ttlMs, expectOnline } = item;
    assertMayAddress(this.#caller, users);
    if (users.length * json.length > maxFanoutBytes) {
      const size = `this one has ${users.length * json.length}`;
      const limit =
        `A line may send at most ${maxFanoutBytes} bytes, counted once for each of its users: ${size}. Name `;
      throw new RequestFault("too_large", `${limit}fewer, or raise USERWIRE_MAX_FANOUT_BYTES`);
    }
    const options: ManySendOptions & { line: SendLine } = { id, line: this.#line };
    if (this.#trace.traceparent !== undefined) options.traceparent = this.#trace.traceparent;
    if (ttlMs !== undefined) options.ttlMs = ttlMs;
    if (expectOnline) options.expectOnline = true;
    if (this.#key !== null) {
      options.idempotency = {
        // As that of a batch, so that the same key for both is found out.
        key: `call ${this.#caller.name} ${this.#key} ${this.#number - 1}`,
        fingerprint: createHash("sha256").update(json).digest("base64url"),
      };
    }
    const sending = publisher.sendToAll(users, payload, options);
    const result = sending.then((outcomes) => resultOf(item, outcomes, publisher.counted));
    return { result: result.catch((error: Error) => this.#failed(error)) };
  }

  /** Resolves when the first of those under way is done. */
  async #first(): Promise<void> {
    await this.#pending[0]!.result;
    this.#handOut();
  }

  /** Those that are done within one turn of the event loop go out together. */
  #handOutSoon(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      this.#handOut();
    });
  }

  #handOut(): void {
    let text = "";
    while (this.#pending[0]?.text !== undefined) {
      const { bytes, text: next } = this.#pending.shift()!;
      this.#pendingBytes -= bytes;
      text += next;
    }
    if (text !== "" && !this.#isLeft) this.#controller.enqueue(this.#encoder.encode(text));
  }

  /** Whether nobody is there any more who reads results. */
  get #isLeft(): boolean {
    return this.#leaving.signal.aborted;
  }

  /** Waits until there is so much room for results, as long as some are taken now and then. */
  async #taken(room: number): Promise<void> {
    while (!this.#isLeft && this.#controller.desiredSize! < room) {
      const taken = new Promise<void>((resolve) => this.#onTaken = resolve);
      try {
        await this.#deadlines.within(taken, {
          late: () => new Error("The client does not read its results"),
        });
      } catch (error) {
        this.#controller.error(error);
        this.#leaving.abort();
      }
    }
  }
}
