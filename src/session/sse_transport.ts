/**
 * A response that does not end, of server-sent events, as a transport. It carries frames one way; those of the client
 * come in requests of their own (`frame_post.ts`).
 *
 * Deno asks for more (`pull`) when the last chunk has gone to the kernel but for little, so what waits here is what the
 * client has not taken. It tells at once when a client is gone, and of one that is told to go that it has taken the
 * rest. It can't cut one that does not read: not even an error frees that connection. A client that is gone without a
 * word is found by nothing but the end of time that each stream has: it sends nothing that could be missed.
 */
import { CLOSE, type CloseReason, shouldReconnect } from "../protocol/close_codes.ts";
import { COMMENT, EventWriter, retryField } from "../protocol/event_stream.ts";
import { formatFrame, PING_FRAME } from "../protocol/frames.ts";
import type { CloseOptions, Transport, TransportEvents } from "./transport.ts";

/** Seconds after which a stream ends, and its client comes back; less a random part, so that not all do so together. */
const LIFE_S = 300;
const LIFE_SPREAD_S = 30;
/** Ticks after which a response of which Deno has asked nothing has lost its client. */
const OPEN_TICKS = 3;
/** Characters that are handed over together. */
const CHUNK = 16_384;
/** When a browser comes back after the connection broke, in milliseconds: from here on, so much longer at most. */
const RETRY_MS = 1_000;
/** The same for one that is to stay away: browsers know no other way to say so. */
const NEVER_MS = 86_400_000;

const encoder = new TextEncoder();

/** Nobody has taken the transport over yet, or it is gone. */
const NOBODY: TransportEvents = { opened() {}, frame() {}, flooded() {}, expired() {}, gone() {} };

type Controller = ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;

export class SseTransport implements Transport, UnderlyingDefaultSource<Uint8Array<ArrayBuffer>> {
  events: TransportEvents = NOBODY;
  readonly mode = "sse";
  readonly isFramed = true;
  readonly #maxChars: number;
  readonly #writer = new EventWriter();
  #state: Transport["state"] = "unanswered";
  #controller: Controller | undefined;
  /** Whether Deno has asked for more than it got. */
  #isAsked = false;
  /** Events that the client has not taken. */
  #waiting: string[] = [];
  #chars = 0;
  #hasTaken = false;
  #stuckTicks = 0;
  #ticksLeft = Math.ceil(LIFE_S - Math.random() * LIFE_SPREAD_S);
  #code: number | undefined;

  /** @param maxChars May wait at most, but for a single event that is larger. */
  constructor(maxChars: number) {
    this.#maxChars = maxChars;
  }

  get state(): Transport["state"] {
    return this.#state;
  }

  get hasRoom(): boolean {
    return this.#chars <= this.#maxChars / 2;
  }

  get buffered(): number {
    return this.#chars;
  }

  /**
   * The body of the answer, from now on.
   * @param completed Resolves or rejects when the client has taken it, or is gone.
   */
  answer(completed: Promise<void>): ReadableStream<Uint8Array<ArrayBuffer>> {
    this.#state = "opening";
    this.#wait(retryField(RETRY_MS * (1 + Math.random())));
    const leave = () => this.#leave(this.#code ?? 0);
    completed.then(leave, leave);
    // Nothing is kept in the stream itself: what is there counts as taken.
    return new ReadableStream(this, { highWaterMark: 0 });
  }

  write(frame: string): boolean {
    if (this.#chars > 0 && this.#chars + frame.length > this.#maxChars) return false;
    this.#push(this.#writer.event(frame));
    return true;
  }

  send(frame: string): void {
    this.#push(frame === PING_FRAME ? COMMENT : this.#writer.event(frame));
  }

  tick(isLate: boolean): number {
    if (this.#state === "opening" && !isLate && ++this.#stuckTicks >= OPEN_TICKS) {
      this.close(CLOSE.overloaded);
    }
    if (this.#state !== "open") return 0;
    if (--this.#ticksLeft <= 0) {
      this.events.expired();
      return 0;
    }
    if (this.#chars === 0 || this.#hasTaken) this.#stuckTicks = 0;
    // A process that was stopped has written nothing either.
    else if (!isLate) this.#stuckTicks++;
    this.#hasTaken = false;
    return this.#stuckTicks;
  }

  close({ code, reason }: CloseReason, { retryMs }: CloseOptions = {}): void {
    const before = this.#state;
    if (before === "closed") return;
    this.#state = "closed";
    this.#code = code;
    if (before === "unanswered") return this.#leave(undefined);
    // What a client that reads no more has not taken is not kept for it.
    if (this.#stuckTicks > 0) this.#drop();
    const retry = retryMs === undefined ? {} : { retry_ms: Math.round(retryMs) };
    const bye = this.#writer.event(formatFrame({ t: "bye", code, why: reason, ...retry }));
    const backMs = retryMs ?? (shouldReconnect(code) ? undefined : NEVER_MS);
    this.#push(backMs === undefined ? bye : bye + retryField(backMs));
    // One that is not open yet may never be, and Deno would not say so.
    if (before === "opening") this.#leave(undefined);
  }

  // ------------------------------------------------------------------------------------------------------
  // From the stream

  pull(controller: Controller): void {
    this.#controller = controller;
    this.#isAsked = this.#hasTaken = true;
    if (this.#state === "opening") {
      this.#state = "open";
      this.#stuckTicks = 0;
      this.events.opened();
    }
    this.#handOver();
  }

  cancel(): void {
    this.#leave(this.#code ?? 0);
  }

  // ------------------------------------------------------------------------------------------------------

  #push(event: string): void {
    this.#wait(event);
    this.#handOver();
  }

  #wait(event: string): void {
    this.#waiting.push(event);
    this.#chars += event.length;
  }

  /** Gives what waits to the one who asked, some of it, whole events; ends the stream when that was the last. */
  #handOver(): void {
    const controller = this.#controller;
    if (!controller) return;
    if (this.#isAsked && this.#waiting.length > 0) {
      let count = 0;
      for (let chars = 0; count < this.#waiting.length && chars < CHUNK; count++) {
        chars += this.#waiting[count]!.length;
      }
      const chunk = this.#waiting.splice(0, count).join("");
      this.#chars -= chunk.length;
      this.#isAsked = false;
      controller.enqueue(encoder.encode(chunk));
    }
    // Deno writes at once, and may find that the client has left: then all is over already.
    if (this.#state !== "closed" || this.#waiting.length > 0 || !this.#controller) return;
    this.#controller = undefined;
    controller.close();
  }

  #drop(): void {
    this.#waiting = [];
    this.#chars = 0;
  }

  #leave(code: number | undefined): void {
    this.#state = "closed";
    const { events } = this;
    this.events = NOBODY;
    this.#controller = undefined;
    // One that never opened may do so yet, and then gets to know why it can't stay.
    if (code !== undefined) this.#drop();
    events.gone(code);
  }
}
