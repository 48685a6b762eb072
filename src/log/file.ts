/**
 * The log's file: lines of JSON, rotated by size, or every day too. It lives as long as the app, survives a full disk and
 * a folder that was deleted or can't be renamed in, says on the console when trouble starts and ends, and counts the lines
 * that may be lost. Owns the file, its buffer and the days before; two processes must not write one file.
 */
import { RotatingFileHandler } from "@std/log";
import type { Terminal } from "./console.ts";
import { formatJson, type LogLine, trouble } from "./format.ts";

/** So large that a busy server writes a few times a second, not once per handful of lines: each write waits for the disk. */
const BUFFER_BYTES = 256 * 1024;

/** Warnings and errors per flush interval that do not wait for the timer: a storm of them must not hold up the sockets. */
const URGENT_PER_INTERVAL = 10;

/** A rotating file that can be closed while the disk is full, without an exception that would spoil the exit code. */
class RotatingFile extends RotatingFileHandler {
  override destroy(): void {
    try {
      super.destroy();
    } catch {
      // The flush before has reported it already.
    }
  }
}

export class LogFile {
  /** Lines that may be lost, since it was opened. */
  lost = 0;
  readonly #terminal: Terminal;
  readonly #dir: string;
  readonly #path: string;
  readonly #file: RotatingFile;
  readonly #days: DayFiles | undefined;
  /** Records since the last flush. */
  #waiting = 0;
  /** Of these, the ones that were not yet told of. */
  #untold = 0;
  #urgent = 0;
  #isClosed = false;
  #isFailing = false;
  /** The buffer is full, and the disk takes none of it. */
  #isFull = false;
  /** The handler lost its open file in a rotation that went wrong. */
  #isStale = false;

  constructor(
    terminal: Terminal,
    options: { dir: string; name: string; maxBytes: number; maxFiles: number; isDaily: boolean },
  ) {
    const { dir, name, maxFiles } = options;
    this.#terminal = terminal;
    this.#dir = dir;
    this.#path = `${dir}/${name}.log`;
    if (options.isDaily) this.#days = new DayFiles(dir, name, maxFiles - 1);
    this.#file = new RotatingFile("DEBUG", {
      filename: this.#path,
      maxBytes: options.maxBytes,
      maxBackupCount: maxFiles - 1,
      bufferSize: BUFFER_BYTES,
    });
  }

  /** @throws what the file system throws. */
  open(): void {
    Deno.mkdirSync(this.#dir, { recursive: true });
    this.#days?.begin(new Date().toISOString());
    this.#file.setup();
  }

  show(line: LogLine): void {
    if (this.#isClosed) return;
    // The timer tries again. If each line did, a full disk would hold up the sockets.
    if (this.#isFull) {
      this.#lose(1);
      return;
    }
    if (this.#days?.isOver(line.time)) this.#turn(this.#days, line.time);
    try {
      this.#file.log(formatJson(line));
      this.#waiting++;
    } catch (error) {
      this.#isFull = true;
      this.#lose(1);
      this.#fail(error);
      return;
    }
    const isTrouble = line.level === "warn" || line.level === "error";
    if (isTrouble && this.#urgent < URGENT_PER_INTERVAL) {
      this.#urgent++;
      this.flush();
    }
  }

  tick(): void {
    this.#urgent = 0;
    this.flush();
  }

  flush(): void {
    if (this.#isClosed || this.#waiting === 0 && !this.#isFailing) return;
    try {
      if (this.#isStale || !exists(this.#path)) this.#reopen();
      this.#file.flush();
      this.#waiting = 0;
      this.#isFull = false;
      if (this.#isFailing) this.#recover();
    } catch (error) {
      this.#fail(error);
    }
  }

  destroy(): void {
    this.flush();
    this.#isClosed = true;
    this.#file.destroy();
  }

  /** Begins the file of a new day. As long as the disk takes nothing the old one waits for what is buffered. */
  #turn(days: DayFiles, time: string): void {
    this.flush();
    if (this.#isFailing) return;
    try {
      this.#file.destroy();
      days.begin(time);
    } catch (error) {
      this.#fail(error);
    }
    try {
      this.#file.setup();
    } catch (error) {
      this.#isStale = true;
      this.#fail(error);
    }
  }

  /** What was buffered goes to the file that is no longer there. */
  #reopen(): void {
    this.#file.destroy();
    this.open();
    this.#isStale = false;
    this.#isFailing = true;
    this.#lose(this.#waiting);
    this.#waiting = 0;
  }

  #lose(lines: number): void {
    this.lost += lines;
    this.#untold += lines;
  }

  #fail(error: unknown): void {
    if (error instanceof Deno.errors.BadResource) this.#isStale = true;
    if (this.#isFailing) return;
    this.#isFailing = true;
    this.#terminal.show(trouble("log file can't be written", { file: this.#path, error }));
  }

  #recover(): void {
    const line = trouble("log file writable again", { file: this.#path, lost_at_most: this.#untold });
    this.#file.log(formatJson(line));
    this.#file.flush();
    this.#isFailing = false;
    this.#untold = 0;
    this.#terminal.show(line);
  }
}

/** The files of the days before: the current one is named after its day when that is over. */
class DayFiles {
  readonly #dir: string;
  readonly #name: string;
  readonly #maxFiles: number;
  /** Of the current file, such as "2026-11-27". */
  #day = "";

  constructor(dir: string, name: string, maxFiles: number) {
    this.#dir = dir;
    this.#name = name;
    this.#maxFiles = maxFiles;
  }

  /** @param time As in a line, which begins with its day. */
  isOver(time: string): boolean {
    return !time.startsWith(this.#day);
  }

  /**
   * Puts a file of another day away, and those beyond the number to be kept.
   * @throws what the file system throws. The day counts as begun all the same: the next line does not try again.
   */
  begin(time: string): void {
    const path = `${this.#dir}/${this.#name}.log`;
    // At a start the last write says of which day the file is.
    const day = this.#day || (exists(path) && Deno.statSync(path).mtime?.toISOString().slice(0, 10)) || "";
    this.#day = time.slice(0, 10);
    if (day !== "" && day !== this.#day && exists(path)) {
      const free = (n: number): string => {
        const target = `${this.#dir}/${this.#name}.${day}${n > 1 ? `.${n}` : ""}.log`;
        return exists(target) ? free(n + 1) : target;
      };
      Deno.renameSync(path, free(1));
    }
    const names = [...Deno.readDirSync(this.#dir)].map(({ name }) => name);
    const old = names.filter((name) => this.#isOurs(name)).sort();
    for (const name of old.slice(0, -this.#maxFiles)) Deno.removeSync(`${this.#dir}/${name}`);
  }

  #isOurs(name: string): boolean {
    const day = name.startsWith(`${this.#name}.`) ? name.slice(this.#name.length) : "";
    return /^\.\d{4}-\d\d-\d\d(?:\.\d+)?\.log$/.test(day);
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
