/**
 * How far a load is, on standard error: one line that is written over in a terminal, and elsewhere a line when something
 * begins, and every ten seconds.
 */
import type { Load } from "../load/load.ts";
import type { Shell } from "./shell.ts";

const TERMINAL_MS = 200;
const LINES_MS = 10_000;
const BAR = 24;
/** Back to the first column, and clear to the end of the line. */
const CLEAR = "\r\x1b[K";

export class Progress implements Disposable {
  readonly #load: Load;
  readonly #shell: Shell;
  readonly #isTerminal: boolean;
  readonly #timer: ReturnType<typeof setInterval>;
  #hasEnded = false;

  constructor(load: Load, shell: Shell) {
    this.#load = load;
    this.#shell = shell;
    this.#isTerminal = shell.io.isErrTerminal === true && shell.env.TERM !== "dumb";
    this.#timer = setInterval(() => this.#show(), this.#isTerminal ? TERMINAL_MS : LINES_MS);
    this.#show();
  }

  /** Leaves nothing of it in a terminal. */
  end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearInterval(this.#timer);
    if (this.#isTerminal) this.#shell.io.err(CLEAR);
  }

  [Symbol.dispose](): void {
    this.end();
  }

  #show(): void {
    const { progress, plan } = this.#load;
    const { connected, sentS, delivered, p99Ms } = progress;
    const { users, seconds } = plan;
    const [part, text] = sentS === undefined
      ? [connected / users, `${connected} of ${users} users connected`]
      : [
        Math.min(1, sentS / seconds),
        sentS < seconds
          ? `${Math.floor(sentS)} of ${seconds} s, ${delivered} messages arrived, p99 ${p99Ms.toFixed(1)} ms`
          : `${delivered} messages arrived, waiting for the rest`,
      ];
    const { err, columns } = this.#shell.io;
    if (!this.#isTerminal) return err.call(this.#shell.io, `${text}\n`);
    const full = Math.round(part * BAR);
    const line = `[${"#".repeat(full)}${".".repeat(BAR - full)}] ${text}`;
    err.call(this.#shell.io, `${CLEAR}${line.slice(0, Math.min(columns, 80) - 1)}`);
  }
}
