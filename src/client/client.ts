/**
 * One user's messages, each once and in order, over as many connections as it takes. Knows the position: what was
 * received, to go on from after a break, and what the application was handed, to go on from after a restart. What
 * comes twice is dropped, what is missing is reported.
 *
 * When to be connected is `Link`'s business, the pace of the application `Handover`'s.
 */
import { messageOf } from "../protocol/errors.ts";
import type { GapFrame, HiFrame, MessageFrame, ServerFrame } from "../protocol/frames.ts";
import { formatPosition, parsePosition, type Position } from "../protocol/position.ts";
import { parseUsername } from "../protocol/username.ts";
import { Acks } from "./acks.ts";
import { type Address, addressOf, socketUrl } from "./address.ts";
import { Broadcasts } from "./broadcasts.ts";
import { isHidden } from "./browser.ts";
import { Handover, type HandoverBound, type Loop } from "./handover.ts";
import { Link } from "./link.ts";
import type {
  AddressLike,
  Backoff,
  ClientEvents,
  Closed,
  ConnectOptions,
  Identity,
  Message,
  State,
} from "./options.ts";
import { holeBefore, placeAt, readMessage, type Received } from "./received.ts";
import { Inquiry } from "./refusal.ts";
import { LateRequests } from "./late_requests.ts";
import type { RequestOptions } from "./requests.ts";
import { Saving } from "./store.ts";
import { Transports } from "./transports.ts";

const DEFAULT_BACKOFF: Backoff = { baseMs: 500, maxMs: 30_000, steadyMs: 10_000 };
const DEFAULT_BUFFER: HandoverBound = { messages: 1_000, chars: 4 * 1024 * 1024 };
const DEFAULT_TIMEOUT_MS = 10_000;

type Listeners<Events> = { [Name in keyof Events]: Set<(detail: Events[Name]) => void> };

/** A user's connection to the service, kept up until it is closed. Made by `connect`. */
export class Client<Data = unknown> implements AsyncIterable<Message<Data>>, AsyncDisposable {
  /** How it ended, once it has: it is closed, its socket is gone and its position is saved. Never rejects. */
  readonly closed: Promise<Closed>;
  readonly #base: URL;
  readonly #identity: Identity;
  readonly #link: Link;
  readonly #handover: Handover<Message<Data>, Received<Data>>;
  readonly #acks: Acks;
  readonly #requests: LateRequests;
  readonly #broadcasts: Broadcasts<Data>;
  readonly #listeners: Listeners<ClientEvents<Data>> = {
    message: new Set(),
    gap: new Set(),
    broadcast: new Set(),
    broadcastGap: new Set(),
    state: new Set(),
    open: new Set(),
    bye: new Set(),
    lost: new Set(),
    error: new Set(),
  };
  readonly #saving: Saving | undefined;
  /** The position of the store is taken up, if there is one to be. Every attempt to connect waits for that. */
  #loaded: Promise<void> | undefined;
  readonly #pingS: number | undefined;
  readonly #hiddenPingS: number | undefined;
  readonly #inquiry: Inquiry;
  #received: Position | undefined;
  #handed: Position | undefined;

  /** @throws {TypeError | InvalidUsernameError} as `connect`. */
  constructor(url: AddressLike, options: ConnectOptions) {
    const { resume, resumeBroadcasts, store, backoff, buffer } = options;
    this.#base = socketUrl(url);
    this.#identity = options;
    this.#pingS = options.pingS;
    this.#hiddenPingS = options.hiddenPingS ?? options.pingS;
    if ("user" in options) parseUsername(options.user);
    this.#broadcasts = new Broadcasts({
      onBroadcast: (message) => this.#emit("broadcast", message),
      onGap: (gap) => this.#emit("broadcastGap", gap),
      onMoved: () => this.#save(),
      onError: (error) => this.#report(error),
    });
    this.#received = this.#handed = given(resume, "position");
    this.#broadcasts.position = given(resumeBroadcasts, "broadcastPosition");
    if (resume !== undefined || resumeBroadcasts !== undefined) this.#loaded = Promise.resolve();
    const { transport = "auto", WebSocket = globalThis.WebSocket } = options;
    const transports = new Transports(transport, WebSocket, (error) => this.#report(error));

    let setClosed: (closed: Closed) => void;
    this.closed = new Promise((resolve) => setClosed = resolve);
    this.#saving = store && new Saving(store, (error) => this.#report(error));
    this.#acks = new Acks((seq) => this.#link.send({ t: "ack", seq }));
    this.#requests = new LateRequests((frame) => this.#link.send(frame));
    this.#handover = new Handover({
      isListening: () => this.#listeners.message.size > 0,
      onHanded: (received) => this.#onHanded(received),
      onRoom: () => this.#link.release(),
    }, { ...DEFAULT_BUFFER, ...buffer });
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    this.#inquiry = new Inquiry((error) => this.#report(error), timeoutMs);
    this.#link = new Link({
      load: () => this.#loaded ??= this.#load(),
      address: () => this.#address(),
      open: (address) => transports.open(address),
      onOpen: (hi) => {
        transports.opened();
        this.#onOpen(hi);
      },
      onFrame: (frame, size) => this.#onFrame(frame, size),
      onLost: (lost) => {
        this.#acks.reset();
        this.#requests.lost();
        this.#emit("lost", lost);
      },
      onFailed: (address) => this.#inquiry.failed(address, transports.failed()),
      onState: (state) => {
        if (state === "offline") transports.moved();
        this.#emit("state", state);
      },
      isAsking: () => this.#requests.areOutstanding,
      onError: (error) => this.#report(error),
      onClosed: async ({ code, reason }) => {
        this.#inquiry.stop();
        this.#acks.reset();
        this.#requests.closed();
        this.#handover.end({ discard: false });
        await this.#saving?.done;
        setClosed({ code, reason });
      },
    }, {
      parse: options.parse ?? JSON.parse,
      timeoutMs,
      hiddenPingS: options.hiddenPingS,
      backoff: { ...DEFAULT_BACKOFF, ...backoff },
      hasToken: "token" in options,
    });
    // Its maker gets to listen first.
    queueMicrotask(() => this.#link.start());
  }

  get state(): State {
    return this.#link.state;
  }

  /**
   * Where the application stands: the next message it is handed is the one after. Give it as `resume` to go on from
   * here. Undefined until the first connection is open, and while the service keeps no history.
   */
  get position(): string | undefined {
    return this.#handed && formatPosition(this.#handed);
  }

  /** The same among the broadcasts: give it as `resumeBroadcasts`. */
  get broadcastPosition(): string | undefined {
    const { position } = this.#broadcasts;
    return position && formatPosition(position);
  }

  /**
   * Calls the listener with what happens from now on. Messages that came while nobody asked for any come at once.
   * What a listener throws is reported as an uncaught error and disturbs nobody else.
   * @returns Ends that.
   */
  on<Name extends keyof ClientEvents>(
    name: Name,
    listener: (detail: ClientEvents<Data>[Name]) => void,
  ): () => void {
    const listeners = this.#listeners[name];
    listeners.add(listener);
    if (name === "message") this.#handover.pump();
    return () => void listeners.delete(listener);
  }

  /**
   * The messages, for a `for await` loop, which ends when the client is closed. Leaving the loop does not close it:
   * messages then wait for the next loop or listener. Several loops share the messages.
   */
  [Symbol.asyncIterator](): Loop<Message<Data>> {
    return this.#handover.iterate();
  }

  /**
   * Asks the backend. Without a connection it waits for one; requests arrive in the order in which they were made.
   * @param op What is asked for: 1 to 64 characters.
   * @param data Any value that can be written as JSON; the whole request may have 64 KiB.
   * @returns What the backend answered; undefined when it had nothing to say.
   * @typeParam Answer What the backend answers; nothing checks it.
   * @throws {RequestError} when it was not done, or that is not known: see its `code` and `outcome`.
   * @throws {TypeError} when it can't be asked.
   */
  async request<Answer = unknown>(op: string, data?: unknown, options?: RequestOptions): Promise<Answer> {
    return await this.#requests.ask(op, data, options) as Answer;
  }

  /**
   * Disconnects until `resume`, for as long as the application is in the background: the service counts the user as
   * away at once, and keeps what is sent meanwhile, as far as its history reaches. Idempotent.
   */
  pause(): void {
    this.#acks.flush();
    this.#link.pause();
  }

  /** Connects again after `pause`, and goes on where it was. Idempotent. */
  resume(): void {
    this.#link.resume();
  }

  /** Closes it for good. What was received and not handed over is left for the next client that resumes. Idempotent. */
  close(): Promise<Closed> {
    this.#acks.flush();
    this.#link.close();
    this.#requests.closed();
    this.#handover.end({ discard: true });
    return this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // ------------------------------------------------------------------------------------------------------
  // From the server

  async #load(): Promise<void> {
    const saved = await this.#saving?.load();
    if (saved === undefined) return;
    const [own, all = ""] = saved.split(",") as [string, string?];
    this.#received = this.#handed = parsePosition(own);
    this.#broadcasts.position = parsePosition(all);
    const isRead = (this.#received || own === "") && (this.#broadcasts.position || all === "");
    if (!isRead || own + all === "") {
      this.#report(new Error(`The store has "${saved}", which is no position`));
    }
  }

  async #address(): Promise<Address> {
    const pingS = isHidden() ? this.#hiddenPingS : this.#pingS;
    const asked = () => ({ position: this.#received, all: this.#broadcasts.position, pingS });
    if ("user" in this.#identity) return addressOf(this.#base, { identity: this.#identity, ...asked() });
    let token: string;
    try {
      token = await this.#identity.token();
      if (typeof token !== "string" || token === "") {
        throw new TypeError("token() must resolve to a string that is not empty");
      }
    } catch (cause) {
      throw new Error(`Can't get a token: ${messageOf(cause)}`, { cause });
    }
    return addressOf(this.#base, { identity: { token }, ...asked() });
  }

  #onOpen(hi: HiFrame): void {
    this.#inquiry.opened();
    // Where it differs from the position asked for, a gap follows.
    if (!this.#received && hi.pos !== undefined) this.#startAt(hi.pos, hi.tag);
    this.#broadcasts.startAt(hi.all);
    this.#requests.opened(hi);
    this.#emit("state", "open");
    if (this.state === "open") this.#emit("open", hi);
  }

  #onFrame(frame: ServerFrame, size: number): void {
    if (frame.t === "m") this.#onMessage(frame, size);
    else if (frame.t === "gap") this.#onGap(frame, size);
    else if (frame.t === "b") this.#broadcasts.onMessage(frame);
    else if (frame.t === "bgap") this.#broadcasts.onGap(frame);
    else if (frame.t === "re") this.#requests.onReply(frame);
    else if (frame.t === "bye") this.#emit("bye", frame);
  }

  #onMessage(frame: MessageFrame, size: number): void {
    const { seq, tag } = frame;
    const before = this.#received;
    const urgent = frame.ack === 1;
    if (seq !== undefined && before) {
      if (seq <= before.seq) {
        // The sender of a message that the application has may still wait, for a receipt that was lost.
        const handed = this.#handed;
        const hasIt = handed?.epoch === before.epoch && seq <= handed.seq;
        if (urgent && hasIt) this.#acks.handed(handed.seq, { urgent });
        return;
      }
      if (seq > before.seq + 1) {
        this.#report(holeBefore("Message", seq, before));
      }
      this.#received = { epoch: before.epoch, seq, tag };
    }
    const position = seq === undefined ? undefined : this.#received;
    this.#push({ message: readMessage(frame), gap: undefined, position, urgent, size });
  }

  #onGap(gap: GapFrame, size: number): void {
    const position = placeAt(gap.pos, gap.tag);
    const before = this.#received;
    if (!position) return this.#report(new Error(`A gap ends at "${gap.pos}", which is no position`));
    // Within an epoch what is known to be missing is not news; a new epoch may begin anywhere.
    if (gap.why === "trimmed" && before?.epoch === position.epoch && position.seq <= before.seq) return;
    // What is held back counts in the old numbers: in the new ones it would confirm what nobody has.
    if (gap.why === "epoch") this.#acks.reset();
    this.#received = position;
    this.#push({ message: undefined, gap, position, urgent: false, size });
  }

  #push(received: Received<Data>): void {
    this.#handover.push(received);
    if (this.#handover.isFull) this.#link.hold("The application takes no more");
  }

  // ------------------------------------------------------------------------------------------------------
  // To the application

  #onHanded({ message, gap, position, urgent }: Received<Data>): void {
    if (position) this.#moveTo(position);
    if (gap) this.#emit("gap", gap);
    if (!message) return;
    this.#emit("message", message);
    // For what came over a connection that is gone, nobody waits any more; in another epoch its number is another's.
    const counts = this.state === "open" && position?.epoch === this.#received?.epoch;
    if (message.seq !== undefined && counts) this.#acks.handed(message.seq, { urgent });
  }

  #startAt(text: string, tag: string | undefined): void {
    const position = placeAt(text, tag);
    if (!position) return this.#report(new Error(`The server stands at "${text}", which is no position`));
    this.#received = position;
    this.#moveTo(position);
  }

  #moveTo(position: Position): void {
    this.#handed = position;
    this.#save();
  }

  /** Both positions, behind a comma that of the broadcasts. */
  #save(): void {
    const { position = "", broadcastPosition: all } = this;
    this.#saving?.save(all === undefined ? position : `${position},${all}`);
  }

  #report(error: Error): void {
    if (this.#listeners.error.size > 0) this.#emit("error", error);
    else console.warn("userwire:", error);
  }

  #emit<Name extends keyof ClientEvents>(name: Name, detail: ClientEvents<Data>[Name]): void {
    for (const listener of [...this.#listeners[name]]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** @throws {TypeError} when it is no position. @param name The property that gives one. */
function given(text: string | undefined, name: string): Position | undefined {
  const position = text === undefined ? undefined : parsePosition(text);
  if (text === undefined || position) return position;
  throw new TypeError(`Can't resume from "${text}": give what "${name}" was`);
}
