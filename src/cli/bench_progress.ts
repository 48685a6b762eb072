/**
 * How far a load is, on standard error: one line that is written over in a terminal, and elsewhere a line when
 * something begins, and every ten seconds.
 */
import type { Load } from "../load/load.ts";
import type { Shell } from "./shell.ts";

const LOOK_MS = 200;
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
  /** What the last line was about, and when the next one is due. */
  #about = "";
  #dueMs = 0;

  constructor(load: Load, shell: Shell) {
    this.#load = load;
    this.#shell = shell;
    this.#isTerminal = shell.io.isErrTerminal === true && shell.env.TERM !== "dumb";
    this.#timer = setInterval(() => this.#show(), LOOK_MS);
    this.#show();
  }

  /** Leaves nothing of it in a terminal. */
  end(): void {
    if (this.#hasEnded) return;
    this.#stop();
    if (this.#isTerminal) this.#write(CLEAR);
  }

  [Symbol.dispose](): void {
    this.end();
  }

  #show(): void {
    const { progress, plan } = this.#load;
    const { connected, sentS, delivered, p99Ms } = progress;
    const { users, seconds } = plan;
    if (sentS === undefined) {
      this.#line("connecting", connected / users, `${connected} of ${users} users connected`);
    } else if (sentS < seconds) {
      const text = `${Math.floor(sentS)} of ${seconds} s, ${delivered} messages arrived, p99 ${
        p99Ms.toFixed(1)
      } ms`;
      this.#line("sending", sentS / seconds, text);
    } else {
      this.#line("waiting", 1, `${delivered} messages arrived, waiting for the rest`);
    }
  }

  #line(about: string, part: number, text: string): void {
    if (this.#isTerminal) {
      const full = Math.round(part * BAR);
      const line = `[${"#".repeat(full)}${".".repeat(BAR - full)}] ${text}`;
      return this.#write(CLEAR + line.slice(0, Math.min(this.#shell.io.columns, 80) - 1));
    }
    const nowMs = performance.now();
    if (about === this.#about && nowMs < this.#dueMs) return;
    this.#about = about;
    this.#dueMs = nowMs + LINES_MS;
    this.#write(`${text}\n`);
  }

  #write(text: string): void {
    try {
      this.#shell.io.err(text);
    } catch {
      // Nobody reads it any more: the result is what counts.
      this.#stop();
    }
  }

  #stop(): void {
    this.#hasEnded = true;
    clearInterval(this.#timer);
  }
}
