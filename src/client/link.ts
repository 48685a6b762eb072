/**
 * Keeps one client connected: when to have a socket, when to wait, when to stop. Holds at most one session and at
 * most one timer, and knows nothing about messages.
 *
 *     connecting ──▶ open ──▶ waiting ──▶ connecting …     a rule for every ending
 *          ├──────────┼──────▶ offline ──▶ connecting      the browser says so
 *          └──────────┴──────▶ paused ──▶ connecting       the application says so
 *                                 any ──▶ closed           for good
 *
 * The rule is that of the protocol: 1000 and 44xx stop, everything else comes back, after the `retry_ms` of a
 * `bye`, else with full jitter. The one exception is an expired token, which is exchanged once.
 */
import { messageOf } from "../protocol/errors.ts";
import { shouldReconnect } from "../protocol/close_codes.ts";
import type { ClientFrame, HiFrame, ServerFrame } from "../protocol/frames.ts";
import type { Address } from "./address.ts";
import type { Backoff, Lost, State } from "./options.ts";
import { isHidden, isOffline, listenToBrowser } from "./browser.ts";
import { Retry } from "./retry.ts";
import { type Ending, Session, type SessionOptions, type Socket } from "./session.ts";

export interface LinkHost {
  /** Resolves when it is known where to go on. Asked first in every attempt: one that is not told fails. */
  load(): Promise<void>;
  /** What to connect to next. */
  address(): Promise<Address>;
  /** Begins to connect. @throws whatever the constructor of a socket throws. */
  open(address: Address): Socket | Promise<Socket>;
  onOpen(hi: HiFrame): void;
  /** Every other frame. */
  onFrame(frame: ServerFrame, size: number): void;
  onLost(lost: Lost): void;
  /** A handshake has failed, and nobody said why. */
  onFailed(address: Address): void;
  /** Whether an answer is on its way over this connection, perhaps. */
  isAsking(): boolean;
  onState(state: State): void;
  onError(error: Error): void;
  /** It is closed and the socket is gone. Called once. */
  onClosed(ending: Pick<Ending, "code" | "reason">): void;
}

export interface LinkOptions extends SessionOptions {
  readonly backoff: Backoff;
  /** Whether `address` gets a new token when it is asked again. */
  readonly hasToken: boolean;
  /** What a hidden page asks for in place of the service's ping, in seconds. */
  readonly hiddenPingS: number | undefined;
}

const ABNORMAL = 1006;
/** Codes from here on are the service's own. */
const PRIVATE_CODES = 4000;
const TOKEN_REFUSED = 4401;
const TOKEN_EXPIRED = "token_expired";

export class Link {
  readonly #host: LinkHost;
  readonly #options: LinkOptions;
  #state: State = "connecting";
  #session: Session | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Counts what was begun: what an attempt waited for is of no use when something else has begun. */
  #turn = 0;
  readonly #retry: Retry;
  #isOffline = false;
  #hasStarted = false;
  #stopListening: () => void = () => {};
  #isHeld = false;
  #isPaused = false;
  /** Of the last attempt. */
  #address: Address | undefined;
  /** Whether the service keeps what is sent while there is no connection. */
  #canResume = false;
  /** A token has expired and no connection has been steady since. */
  #isRefreshing = false;

  constructor(host: LinkHost, options: LinkOptions) {
    this.#host = host;
    this.#options = options;
    this.#retry = new Retry(options.backoff);
  }

  get state(): State {
    return this.#state;
  }

  /** Begins, unless it was closed before. */
  start(): void {
    if (this.#state === "closed") return;
    this.#stopListening = listenToBrowser({
      onOffline: () => this.#onOffline(),
      onOnline: () => this.#onOnline(),
      onVisibility: () => this.#onVisibility(),
    });
    // The browser tells of changes only. The first attempt is made all the same: its word may be wrong.
    this.#isOffline = isOffline();
    this.#hasStarted = true;
    if (this.#isPaused) this.#wait();
    else void this.#connect();
  }

  /** Sends a frame; false when there is no open connection. */
  send(frame: ClientFrame): boolean {
    // A listener of the end of a connection still finds the state that it had.
    if (this.#state !== "open" || !this.#session) return false;
    this.#session.send(frame);
    return true;
  }

  /** Gives up the connection until `release`: the application takes no more. */
  hold(reason: string): void {
    this.#isHeld = true;
    this.#session?.drop(reason);
  }

  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    if (this.#state === "waiting") void this.#connect();
    else if (this.#state === "offline") this.#wait();
  }

  /** Gives up the connection until `resume`: the application wants none. */
  pause(): void {
    if (this.#isPaused || this.#state === "closed") return;
    this.#isPaused = true;
    if (this.#hasStarted) this.#drop("paused");
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (this.#state !== "paused") return;
    this.#retry.reset();
    if (this.#isHeld || this.#isOffline) this.#wait();
    else void this.#connect();
  }

  /** Closes for good. Does nothing when that has happened. */
  close(): void {
    if (this.#state === "closed") return;
    this.#leave();
    this.#host.onState("closed");
    if (this.#session) this.#session.close();
    else this.#host.onClosed({ code: 1000, reason: "" });
  }

  async #connect(): Promise<void> {
    clearTimeout(this.#timer);
    const turn = ++this.#turn;
    this.#enter("connecting");
    if (turn !== this.#turn) return;
    try {
      await this.#inTime(this.#host.load(), "Can't load the position: the store");
      if (turn !== this.#turn) return;
      const address = await this.#inTime(this.#host.address(), "Can't get a token: token()");
      if (turn !== this.#turn) return;
      clearTimeout(this.#timer);
      const opening = this.#host.open(address);
      const socket = opening instanceof Promise
        ? await this.#inTime(opening, "Can't load server-sent events: the server")
        : opening;
      if (turn !== this.#turn) return socket.close();
      clearTimeout(this.#timer);
      this.#address = address;
      this.#session = new Session(socket, {
        onFrame: (frame, size) => this.#onFrame(frame, size),
        onError: (error) => this.#host.onError(error),
        onEnd: (ending) => this.#onEnd(ending),
      }, this.#options);
    } catch (cause) {
      if (turn !== this.#turn) return;
      const error = cause instanceof Error ? cause : new Error(messageOf(cause));
      this.#host.onError(error);
      if (turn !== this.#turn) return;
      this.#onEnd({ code: ABNORMAL, reason: error.message, retryMs: undefined, openMs: undefined });
    }
  }

  /** Passes on what comes before the time of this step is up. Whatever ends the attempt clears the timer. */
  #inTime<Value>(promise: Promise<Value>, whose: string): Promise<Value> {
    const { timeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      clearTimeout(this.#timer);
      const giveUp = () => reject(new Error(`${whose} has not answered for ${timeoutMs / 1_000} s`));
      this.#timer = setTimeout(giveUp, timeoutMs);
      promise.then(resolve, reject);
    });
  }

  #onFrame(frame: ServerFrame, size: number): void {
    if (frame.t !== "hi") return this.#host.onFrame(frame, size);
    this.#state = "open";
    this.#canResume = frame.pos !== undefined;
    this.#host.onOpen(frame);
  }

  #onEnd(ending: Ending): void {
    // Without `hi` it never was the service that closed it: some proxies open a socket, and close it at once.
    const hasFailed = this.#session !== undefined && ending.openMs === undefined &&
      ending.code < PRIVATE_CODES;
    this.#session = undefined;
    if (this.#state === "closed") return this.#host.onClosed(ending);
    const { code, reason, openMs } = ending;
    if (openMs !== undefined && openMs >= this.#options.backoff.steadyMs) {
      this.#retry.reset();
      this.#isRefreshing = false;
    }
    const isFinal = this.#isFinal(ending);
    if (isFinal) this.#leave();
    const hasNoTime = isFinal || this.#isHeld || this.#isPaused || this.#isOffline;
    if (hasFailed && !hasNoTime) this.#host.onFailed(this.#address!);
    const retryMs = hasNoTime ? undefined : this.#retry.plan(ending.retryMs);
    // A listener may close, pause or resume: what such a call has decided is left alone.
    const turn = ++this.#turn;
    this.#host.onLost({ code, reason, opened: openMs !== undefined, retryMs });
    if (isFinal) {
      this.#host.onState("closed");
      this.#host.onClosed(ending);
    } else if (turn === this.#turn) {
      this.#wait();
    }
  }

  /** Whether the client is to stay away; says yes to the second expired token in a row. */
  #isFinal({ code, reason, openMs }: Ending): boolean {
    if (shouldReconnect(code) || (code < PRIVATE_CODES && openMs === undefined)) return false;
    if (code !== TOKEN_REFUSED || reason !== TOKEN_EXPIRED || !this.#options.hasToken) return true;
    const isSecond = this.#isRefreshing;
    this.#isRefreshing = true;
    return isSecond;
  }

  /** Waits for the time of the next attempt, or for what makes one worth while. */
  #wait(): void {
    clearTimeout(this.#timer);
    if (!this.#isHeld && !this.#isPaused) {
      // A hidden page's timers are slow, and nobody looks; a browser's word on the network may be wrong. Both are
      // reasons to try rarely, not never.
      const leastMs = this.#isOffline || isHidden() ? this.#options.backoff.maxMs : 0;
      this.#timer = setTimeout(() => void this.#connect(), Math.max(this.#retry.leftMs, leastMs));
    }
    this.#enter(this.#isPaused ? "paused" : this.#isOffline ? "offline" : "waiting");
  }

  /** Lets go of the connection, or of the attempt to have one. */
  #drop(reason: string): void {
    this.#turn++;
    if (this.#session) this.#session.drop(reason);
    else this.#wait();
  }

  #enter(state: State): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#host.onState(state);
  }

  /** Lets go of everything but the socket. */
  #leave(): void {
    this.#turn++;
    this.#state = "closed";
    clearTimeout(this.#timer);
    this.#stopListening();
  }

  #onOffline(): void {
    this.#isOffline = true;
    this.#drop("offline");
  }

  #onOnline(): void {
    this.#isOffline = false;
    if (this.#state !== "offline") return;
    // The network was at fault, not the server; still, a whole office may come back at this moment.
    this.#retry.reset();
    this.#retry.plan(undefined);
    this.#wait();
  }

  #onVisibility(): void {
    if (this.#state === "waiting" && !isHidden()) this.#wait();
    if (isHidden() && this.#wantsHiddenPing) {
      this.#session!.drop("hidden");
      this.#retry.reset();
      // A listener may have closed or paused it.
      if (this.#state === "waiting") void this.#connect();
    }
  }

  get #wantsHiddenPing(): boolean {
    // How often the server gives a sign of life is settled in the handshake. Where what is sent meanwhile would be lost,
    // a connection is worth more than a battery.
    const { hiddenPingS } = this.#options;
    const isNew = hiddenPingS !== undefined && this.#address?.pingS !== hiddenPingS;
    return isNew && this.#state === "open" && this.#canResume && !this.#host.isAsking();
  }
}
