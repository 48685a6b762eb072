/** The log's lines on the console. Owns the lines that wait and the timer for them; knows nothing of files. */
import { formatJson, formatPretty, type LogLine, trouble } from "./format.ts";

/**
 * How long lines wait to be written together, in milliseconds: each write is a system call that wakes the reader, and with
 * a thousand sockets coming and going in a second these calls cost a tenth of all.
 */
const TOGETHER_MS = 10;
/**
 * Most characters of lines that are written together: what is no longer than PIPE_BUF, 4,096 bytes on Linux, a pipe takes
 * as a whole, so that the lines of several processes stay lines.
 */
const TOGETHER_CHARS = 4_000;

/**
 * The console: standard output, and standard error for warnings and errors, in the order they came. A line that it
 * refuses, as a file on a full disk and a closed terminal do, is dropped; the first time is reported.
 */
export class Terminal {
  /** Lines that it refused, since it was opened. */
  lost = 0;
  readonly #format: "pretty" | "json";
  readonly #onTrouble: (line: LogLine) => void;
  // Asked once: it is a call of the kernel, and a socket writes two lines.
  readonly #colours = {
    output: !Deno.noColor && Deno.stdout.isTerminal(),
    error: !Deno.noColor && Deno.stderr.isTerminal(),
  };

  #waiting: string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hasFailed = false;

  /** @param onTrouble Gets what there is to say when the console refuses its first line. */
  constructor(format: "pretty" | "json", onTrouble: (line: LogLine) => void) {
    this.#format = format;
    this.#onTrouble = onTrouble;
  }

  /** Writes warnings and errors at once, the rest a moment later. Never throws. */
  show(line: LogLine): void {
    const isTrouble = line.level === "warn" || line.level === "error";
    const colour = isTrouble ? this.#colours.error : this.#colours.output;
    const text = this.#format === "json" ? formatJson(line) : formatPretty(line, colour);
    if (isTrouble) {
      this.flush();
      this.#write("error", text);
    } else {
      this.#waiting.push(text);
      this.#timer ??= setTimeout(() => this.flush(), TOGETHER_MS);
    }
  }

  /** Writes what waits. Never throws. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting.length === 0) return;
    const lines = this.#waiting;
    this.#waiting = [];
    let text = "";
    for (const line of lines) {
      if (text !== "" && text.length + line.length >= TOGETHER_CHARS) {
        this.#write("log", text);
        text = "";
      }
      text += text === "" ? line : `\n${line}`;
    }
    this.#write("log", text);
  }

  #write(method: "log" | "error", text: string): void {
    try {
      console[method](text);
    } catch (error) {
      this.lost += text.split("\n").length;
      if (this.#hasFailed) return;
      this.#hasFailed = true;
      this.#onTrouble(trouble("console can't be written", { error }));
    }
  }
}
