/**
 * One user's connection to the service, as the application sees it: puts together what keeps it (`Link`), what comes over it
 * (`Messages`, `Broadcasts`, requests), and where its position outlives the program.
 */
import { messageOf } from "../protocol/errors.ts";
import type { HiFrame, ServerFrame } from "../protocol/frames.ts";
import { formatPosition, parsePosition, type Position } from "../protocol/position.ts";
import { checkUsername } from "../protocol/username.ts";
import { type Address, addressOf, socketUrl } from "./address.ts";
import { Broadcasts } from "./broadcasts.ts";
import { isHidden } from "./browser.ts";
import { Emitter } from "./emitter.ts";
import type { HandoverBound, Loop } from "./handover.ts";
import { LateRequests } from "./late_requests.ts";
import { Link } from "./link.ts";
import { Messages } from "./messages.ts";
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
import { Inquiry } from "./refusal.ts";
import type { RequestOptions } from "./requests.ts";
import { Saving } from "./store.ts";
import { Transports } from "./transports.ts";

const DEFAULT_BACKOFF: Backoff = { baseMs: 500, maxMs: 30_000, steadyMs: 10_000 };
const DEFAULT_BUFFER: HandoverBound = { messages: 1_000, chars: 4 * 1024 * 1024 };
const DEFAULT_TIMEOUT_MS = 10_000;

/** A user's connection to the service, kept up until it is closed. Made by `connect`. */
export class Client<Data = unknown> implements AsyncIterable<Message<Data>>, AsyncDisposable {
  /** How it ended, once it has: it is closed, its socket is gone and its position is saved. Never rejects. */
  readonly closed: Promise<Closed>;
  readonly #base: string;
  readonly #options: ConnectOptions;
  readonly #events = new Emitter<ClientEvents<Data>>();
  readonly #link: Link;
  readonly #messages: Messages<Data>;
  readonly #broadcasts: Broadcasts<Data>;
  readonly #requests: LateRequests;
  readonly #saving: Saving | undefined;
  /** The position of the store is taken up, if there is one to be. Every attempt to connect waits for that. */
  #loaded: Promise<void> | undefined;
  readonly #inquiry: Inquiry;

  /** @throws {TypeError | InvalidUsernameError} as `connect`. */
  constructor(url: AddressLike, options: ConnectOptions) {
    const { resume, resumeBroadcasts, store, transport = "auto", WebSocket = globalThis.WebSocket } = options;
    this.#base = socketUrl(url);
    this.#options = options;
    if ("user" in options) checkUsername(options.user);
    const onError = (error: Error) => this.#report(error);
    this.#messages = this.#openMessages(onError);
    this.#broadcasts = new Broadcasts({
      onBroadcast: (message) => this.#events.emit("broadcast", message),
      onGap: (gap) => this.#events.emit("broadcastGap", gap),
      onMoved: () => this.#save(),
      onError,
    });
    this.#messages.resumeFrom(given(resume, "position"));
    this.#broadcasts.position = given(resumeBroadcasts, "broadcastPosition");
    if (resume !== undefined || resumeBroadcasts !== undefined) this.#loaded = Promise.resolve();
    this.#saving = store && new Saving(store, onError);
    this.#requests = new LateRequests((frame) => this.#link.send(frame));
    this.#inquiry = new Inquiry(onError, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    let setClosed: (closed: Closed) => void;
    this.closed = new Promise((resolve) => setClosed = resolve);
    this.#link = this.#openLink(
      new Transports(transport, WebSocket, onError),
      onError,
      (closed) => setClosed(closed),
    );
    // Its maker gets to listen first.
    queueMicrotask(() => this.#link.start());
  }

  #openMessages(onError: (error: Error) => void): Messages<Data> {
    return new Messages<Data>({
      isListening: () => this.#events.has("message"),
      isOpen: () => this.state === "open",
      onMessage: (message) => this.#events.emit("message", message),
      onGap: (gap) => this.#events.emit("gap", gap),
      onMoved: () => this.#save(),
      onFull: () => this.#link.hold("The application takes no more"),
      onRoom: () => this.#link.release(),
      acknowledge: (seq) => this.#link.send({ t: "ack", seq }),
      onError,
    }, { ...DEFAULT_BUFFER, ...this.#options.buffer });
  }

  #openLink(
    transports: Transports,
    onError: (error: Error) => void,
    setClosed: (closed: Closed) => void,
  ): Link {
    const { parse = JSON.parse, timeoutMs = DEFAULT_TIMEOUT_MS, hiddenPingS, backoff } = this.#options;
    return new Link({
      load: () => this.#loaded ??= this.#load(),
      address: () => this.#address(),
      open: (address) => transports.open(address),
      onOpen: (hi) => {
        transports.opened();
        this.#onOpen(hi);
      },
      onFrame: (frame, size) => this.#onFrame(frame, size),
      onLost: (lost) => {
        this.#messages.acks.reset();
        this.#requests.lost();
        this.#events.emit("lost", lost);
      },
      onFailed: (address) => this.#inquiry.failed(address, transports.failed()),
      onState: (state) => {
        if (state === "offline") transports.moved();
        this.#events.emit("state", state);
      },
      isAsking: () => this.#requests.areOutstanding,
      onError,
      onClosed: async ({ code, reason }) => {
        this.#inquiry.stop();
        this.#messages.acks.reset();
        this.#requests.closed();
        this.#messages.end({ discard: false });
        await this.#saving?.done;
        setClosed({ code, reason });
      },
    }, {
      ...{ parse, timeoutMs, hiddenPingS },
      backoff: { ...DEFAULT_BACKOFF, ...backoff },
      hasToken: "token" in this.#options,
    });
  }

  get state(): State {
    return this.#link.state;
  }

  /**
   * Where the application stands: the next message it is handed is the one after. Give it as `resume` to go on from
   * here. Undefined until the first connection is open, and while the service keeps no history.
   */
  get position(): string | undefined {
    const { handed } = this.#messages;
    return handed && formatPosition(handed);
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
    const end = this.#events.on(name, listener);
    if (name === "message") this.#messages.pump();
    return end;
  }

  /**
   * The messages, for a `for await` loop, which ends when the client is closed. Leaving the loop does not close it:
   * messages then wait for the next loop or listener. Several loops share the messages.
   */
  [Symbol.asyncIterator](): Loop<Message<Data>> {
    return this.#messages.iterate();
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
    this.#messages.acks.flush();
    this.#link.pause();
  }

  /** Connects again after `pause`, and goes on where it was. Idempotent. */
  resume(): void {
    this.#link.resume();
  }

  /** Closes it for good. What was received and not handed over is left for the next client that resumes. Idempotent. */
  close(): Promise<Closed> {
    this.#messages.acks.flush();
    this.#link.close();
    this.#requests.closed();
    this.#messages.end({ discard: true });
    return this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #load(): Promise<void> {
    const saved = await this.#saving?.load();
    if (saved === undefined) return;
    const [own, all = ""] = saved.split(",") as [string, string?];
    this.#messages.resumeFrom(parsePosition(own));
    this.#broadcasts.position = parsePosition(all);
    const isRead = (this.#messages.received || own === "") && (this.#broadcasts.position || all === "");
    if (!isRead || own + all === "") {
      this.#report(new Error(`The store has "${saved}", which is no position`));
    }
  }

  async #address(): Promise<Address> {
    const options = this.#options;
    const identity = "user" in options ? options : { token: await tokenOf(options) };
    const { received: position } = this.#messages;
    const pingS = isHidden() ? options.hiddenPingS ?? options.pingS : options.pingS;
    return addressOf(this.#base, { identity, position, all: this.#broadcasts.position, pingS });
  }

  #onOpen(hi: HiFrame): void {
    this.#inquiry.opened();
    this.#messages.startAt(hi.pos, hi.tag);
    this.#broadcasts.startAt(hi.all);
    this.#requests.opened(hi);
    this.#events.emit("state", "open");
    if (this.state === "open") this.#events.emit("open", hi);
  }

  #onFrame(frame: ServerFrame, size: number): void {
    if (frame.t === "m") this.#messages.onMessage(frame, size);
    else if (frame.t === "gap") this.#messages.onGap(frame, size);
    else if (frame.t === "b") this.#broadcasts.onMessage(frame);
    else if (frame.t === "bgap") this.#broadcasts.onGap(frame);
    else if (frame.t === "re") this.#requests.onReply(frame);
    else if (frame.t === "bye") this.#events.emit("bye", frame);
  }

  /** Both positions, behind a comma that of the broadcasts. */
  #save(): void {
    const { position = "", broadcastPosition: all } = this;
    this.#saving?.save(all === undefined ? position : `${position},${all}`);
  }

  #report(error: Error): void {
    if (this.#events.has("error")) this.#events.emit("error", error);
    else console.warn("userwire:", error);
  }
}

async function tokenOf({ token }: Extract<Identity, { token: unknown }>): Promise<string> {
  try {
    const given = await token();
    if (typeof given === "string" && given !== "") return given;
    throw new TypeError("token() must resolve to a string that is not empty");
  } catch (cause) {
    throw new Error(`Can't get a token: ${messageOf(cause)}`, { cause });
  }
}

/** @throws {TypeError} when it is no position. @param name The property that gives one. */
function given(text: string | undefined, name: string): Position | undefined {
  const position = text === undefined ? undefined : parsePosition(text);
  if (text === undefined || position) return position;
  throw new TypeError(`Can't resume from "${text}": give what "${name}" was`);
}
