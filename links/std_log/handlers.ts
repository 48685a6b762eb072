/**
 * Where records go: a base class, a file, a file that rotates by size. The file handlers own a buffer of whole
 * lines. They write when the buffer is full, on a critical record, on `flush()` and `destroy()`, and when the process
 * ends; never by a timer. Everything is synchronous, and what the file system refuses is thrown. What is written is left
 * to the system to bring to the disk: who waited for that would stop the event loop for as long as the disk takes.
 */
import { Buffer } from "node:buffer";
import { getLevelByName, type LevelName, type LogLevel, LogLevels, type LogRecord } from "./logger.ts";

/** Turns a record into text. */
export type FormatterFunction = (logRecord: LogRecord) => string;

/** What every handler can be told. */
export interface BaseHandlerOptions {
  /** @default {(record) => `${record.levelName} ${record.msg}`} */
  formatter?: FormatterFunction;
}

/** Formats records from its level upwards; what becomes of the text is up to the class that extends it. */
export abstract class BaseHandler {
  formatter: FormatterFunction;
  readonly #levelName: LevelName;
  readonly #level: LogLevel;

  constructor(levelName: LevelName, options: BaseHandlerOptions = {}) {
    this.#levelName = levelName;
    this.#level = getLevelByName(levelName);
    this.formatter = options.formatter ?? ((record) => `${record.levelName} ${record.msg}`);
  }

  get level(): LogLevel {
    return this.#level;
  }

  get levelName(): LevelName {
    return this.#levelName;
  }

  handle(logRecord: LogRecord): void {
    if (logRecord.level >= this.#level) this.log(this.format(logRecord));
  }

  format(logRecord: LogRecord): string {
    return this.formatter(logRecord);
  }

  abstract log(msg: string): void;

  setup(): void {}

  destroy(): void {}

  [Symbol.dispose](): void {
    this.destroy();
  }
}

/** How a file handler is set up. */
export interface FileHandlerOptions extends BaseHandlerOptions {
  filename: string;
  /**
   * Bytes to gather before writing.
   * @default {4096}
   */
  bufferSize?: number;
}

const NOTHING = new Uint8Array();

/** Appends lines to a file. */
export class FileHandler extends BaseHandler {
  readonly #filename: string;
  readonly #bufferSize: number;
  readonly #onUnload = () => this.destroy();
  #file: Deno.FsFile | undefined;
  #buffer = "";
  /** The rest of what a write was to bring into the file. */
  #unwritten = NOTHING;
  #bufferedBytes = 0;

  constructor(levelName: LevelName, options: FileHandlerOptions) {
    super(levelName, options);
    this.#filename = options.filename;
    this.#bufferSize = options.bufferSize ?? 4096;
  }

  /** Opens the file. */
  override setup(): void {
    this.#open();
    this.#buffer = "";
    this.#unwritten = NOTHING;
    this.#bufferedBytes = 0;
    addEventListener("unload", this.#onUnload);
  }

  override handle(logRecord: LogRecord): void {
    super.handle(logRecord);
    if (logRecord.level > LogLevels.ERROR) this.flush();
  }

  log(msg: string): void {
    const bytes = lineBytes(msg);
    if (this.#bufferedBytes + bytes > this.#bufferSize) {
      this.flush();
      if (this.#bufferedBytes > 0) {
        throw new Error(`Cannot write to "${this.#filename}": the file is not open`);
      }
    }
    this.#buffer += `${msg}\n`;
    this.#bufferedBytes += bytes;
    if (bytes > this.#bufferSize) this.flush();
  }

  /** Writes what is buffered. When that fails, what is not written stays buffered. */
  flush(): void {
    if (this.#file === undefined || this.#bufferedBytes === 0) return;
    while (this.#bufferedBytes > 0) {
      if (this.#unwritten.length === 0) {
        this.#unwritten = Buffer.from(this.#buffer);
        this.#buffer = "";
      }
      // A disk that is nearly full takes a part.
      const count = this.#file.writeSync(this.#unwritten);
      this.#unwritten = this.#unwritten.subarray(count);
      this.#bufferedBytes -= count;
    }
    this.#unwritten = NOTHING;
  }

  /** Writes what is buffered and closes the file. */
  override destroy(): void {
    removeEventListener("unload", this.#onUnload);
    try {
      this.flush();
    } finally {
      const file = this.#file;
      this.#file = undefined;
      file?.close();
    }
  }

  /** Begins a new file in the place of this one. What is buffered goes to the new one. */
  protected renew(putAway: (filename: string) => void): void {
    this.#file?.close();
    putAway(this.#filename);
    this.#open();
  }

  #open(): void {
    this.#file = Deno.openSync(this.#filename, { create: true, append: true });
  }
}

/** How a rotating file handler is set up. */
interface RotatingFileHandlerOptions extends FileHandlerOptions {
  /** Size in bytes that a file may grow to. */
  maxBytes: number;
  /** How many old files are kept: `<filename>.1`, the newest, to `<filename>.<n>`. */
  maxBackupCount: number;
}

/** Appends lines to a file, and starts a new one before a line that would make it too big. */
export class RotatingFileHandler extends FileHandler {
  readonly #options: RotatingFileHandlerOptions;
  /** Bytes in the file and in the buffer. */
  #size = 0;

  constructor(levelName: LevelName, options: RotatingFileHandlerOptions) {
    super(levelName, options);
    this.#options = options;
  }

  override setup(): void {
    const { filename, maxBytes, maxBackupCount } = this.#options;
    if (maxBytes < 1) throw new Error(`"maxBytes" must be at least 1: received ${maxBytes}`);
    if (maxBackupCount < 1) {
      throw new Error(`"maxBackupCount" must be at least 1: received ${maxBackupCount}`);
    }
    super.setup();
    this.#size = Deno.statSync(filename).size;
  }

  override log(msg: string): void {
    const bytes = lineBytes(msg);
    if (this.#size + bytes > this.#options.maxBytes) {
      // What still fits goes now, and this line begins the next file.
      this.flush();
      this.renew((filename) => this.#putAway(filename));
      this.#size = 0;
    }
    super.log(msg);
    this.#size += bytes;
  }

  #putAway(filename: string): void {
    for (let n = this.#options.maxBackupCount - 1; n > 0; n--) {
      try {
        Deno.renameSync(`${filename}.${n}`, `${filename}.${n + 1}`);
      } catch {
        // There are not so many yet.
      }
    }
    Deno.renameSync(filename, `${filename}.1`);
  }
}

function lineBytes(msg: string): number {
  return Buffer.byteLength(msg) + 1;
}
