/** One of the processes that have to be there, whichever it is just now: restarted when it ends, replaced when asked for. */
import { backoffMs } from "../async/backoff.ts";
import { sleep } from "../async/sleep.ts";
import type { Log, LogFields } from "../log/log.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Child, Ending } from "./child.ts";

/** Pause before a process that ended is started again. */
const RESTART = { baseMs: 200, maxMs: 30_000, jitter: 0.5 };
/** One that has listened for so long ended for a new reason, in milliseconds: how long it took to start says nothing. */
const STABLE_MS = 10_000;
/** How long a new process may take to be ready, in a rolling restart. */
const READY_MS = 60_000;
/** From one look to the next one at whether a process answers, in milliseconds. */
const LOOK_MS = 10_000;
/**
 * How long it is waited for each time. One that hangs takes its part of the connections all the same, and no client of it
 * is answered; but a busy machine makes a process slow, and to kill it then would make it worse.
 */
const SILENT_MS = 30_000;
/** Looks in a row without an answer: after the machine itself stood still the first may come too early. */
const SILENT_LOOKS = 2;

interface PostOptions {
  readonly log: Log;
  /** Resolves when all are to end. */
  readonly ending: Promise<void>;
  isEnding(): boolean;
  /** @throws when it can't be started. */
  spawn(): Child;
  /** How long an answer is waited for before a process is taken for hung, in milliseconds. @default 30000 */
  readonly silentMs?: number;
}

/** Where one process has to be: another takes its place when it ends. */
export class Post {
  readonly #options: PostOptions;
  #child: Child | undefined;
  /** Since when that listens, on the clock of `performance.now()`. */
  #upMs = Infinity;
  /** Processes in a row that did not live long. */
  #failures = 0;

  constructor(options: PostOptions) {
    this.#options = options;
  }

  /** @throws when it can't be started. */
  start(): Child {
    const child = this.#options.spawn();
    this.take(child);
    return child;
  }

  /** The process is its own from now on. */
  take(child: Child): void {
    this.#child = child;
    this.#upMs = Infinity;
    void child.isUp().then((isUp) => {
      if (!isUp || child !== this.#child) return;
      this.#upMs = performance.now();
      void this.#watch(child);
    });
    void child.ended.then((ending) => this.#onEnd(child, ending));
  }

  /**
   * Starts a new process, and when it is ready ends the old one.
   * @param endMs How long the old one may take to end.
   * @returns Why the old one stays; undefined when it is replaced.
   */
  async replace(endMs: number): Promise<string | undefined> {
    const { spawn, isEnding, log } = this.#options;
    let fresh: Child;
    try {
      fresh = spawn();
    } catch (error) {
      return messageOf(error);
    }
    if (!await fresh.isReady(READY_MS) || isEnding()) {
      const fault = fresh.hasEnded ? "the new process has ended" : "the new process did not become ready";
      fresh.order("drain");
      await endWithin(fresh, endMs, log);
      return fault;
    }
    const old = this.#child;
    this.#failures = 0;
    this.take(fresh);
    if (old && !old.hasEnded) {
      old.order("drain");
      await endWithin(old, endMs, log);
    }
    return undefined;
  }

  /** Kills the process when it hangs: its end is what brings another one. */
  async #watch(child: Child): Promise<void> {
    const { log, ending, isEnding, silentMs = SILENT_MS } = this.#options;
    for (let silent = 0; silent < SILENT_LOOKS;) {
      if (silent === 0) await sleep(Math.min(LOOK_MS, silentMs), child.ended, ending);
      if (child !== this.#child || child.hasEnded || isEnding()) return;
      silent = await child.hangs(silentMs) ? silent + 1 : 0;
    }
    // While it was waited for, it may have been told to end.
    if (child !== this.#child || child.hasEnded || isEnding()) return;
    log.warn("process killed", { process: child.place.number, pid: child.pid });
    child.kill();
  }

  async #onEnd(child: Child, { code, signal }: Ending): Promise<void> {
    const { log, ending, isEnding } = this.#options;
    // It was replaced.
    if (child !== this.#child) return;
    if (performance.now() - this.#upMs >= STABLE_MS) this.#failures = 0;
    const { pid, place: { number } } = child;
    let fields: LogFields = { pid, code, ...(signal !== null && { signal }) };
    // A rolling restart may put another into its place meanwhile.
    while (child === this.#child && !isEnding()) {
      const pauseMs = Math.round(backoffMs(this.#failures++, RESTART));
      log.error("process ended: it is started again", { process: number, ...fields, after_ms: pauseMs });
      await sleep(pauseMs, ending);
      if (child !== this.#child || isEnding()) return;
      try {
        this.start();
      } catch (error) {
        fields = { reason: messageOf(error) };
      }
    }
  }
}

/** Waits for a process to end; kills it when that takes too long. */
export async function endWithin(child: Child, ms: number, log: Log): Promise<void> {
  await sleep(ms, child.ended);
  if (child.hasEnded) return;
  log.warn("process killed", { process: child.place.number, pid: child.pid });
  child.kill();
  await child.ended;
}
