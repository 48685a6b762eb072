/**
 * Where records go: a base class, a file, a file that rotates by size. The file handlers own a buffer of whole
 * lines and hand it to a sink of LogTape, which owns the open file and the renaming. They write when the buffer is
 * full, on a critical record, on `flush()` and `destroy()`, and when the process ends; never by a timer. Everything is
 * synchronous, and what the file system refuses is thrown.
 */
import { Buffer } from "node:buffer";
import { getFileSink, getRotatingFileSink } from "@logtape/file";
import type { LogRecord as SinkRecord, Sink } from "@logtape/logtape";
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

/** LogTape buffers and delays too: both are turned off, since the handler decides when to write. */
const SINK_OPTIONS = {
  bufferSize: 0,
  flushInterval: 0,
  formatter: (record: SinkRecord) => String(record.rawMessage),
} as const;

const openSink = Symbol("openSink");

/** Appends lines to a file. */
export class FileHandler extends BaseHandler {
  readonly #filename: string;
  readonly #bufferSize: number;
  readonly #onUnload = () => this.destroy();
  #sink: (Sink & Disposable) | undefined;
  #buffer = "";
  #bufferedBytes = 0;

  constructor(levelName: LevelName, options: FileHandlerOptions) {
    super(levelName, options);
    this.#filename = options.filename;
    this.#bufferSize = options.bufferSize ?? 4096;
  }

  [openSink](filename: string): Sink & Disposable {
    return getFileSink(filename, SINK_OPTIONS);
  }

  /** Opens the file. */
  override setup(): void {
    this.#sink = this[openSink](this.#filename);
    this.#buffer = "";
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

  /** Writes what is buffered. When that fails it stays buffered. */
  flush(): void {
    if (this.#sink === undefined || this.#bufferedBytes === 0) return;
    this.#sink({
      category: [],
      level: "info",
      message: [this.#buffer],
      rawMessage: this.#buffer,
      properties: {},
      timestamp: Date.now(),
    });
    this.#buffer = "";
    this.#bufferedBytes = 0;
  }

  /** Writes what is buffered and closes the file. */
  override destroy(): void {
    removeEventListener("unload", this.#onUnload);
    try {
      this.flush();
    } finally {
      const sink = this.#sink;
      this.#sink = undefined;
      sink?.[Symbol.dispose]();
    }
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

  override [openSink](filename: string): Sink & Disposable {
    const { maxBytes, maxBackupCount } = this.#options;
    return getRotatingFileSink(filename, { ...SINK_OPTIONS, maxSize: maxBytes, maxFiles: maxBackupCount });
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
      // The sink compares the size of each write with what is left, and rotates before the write that is too
      // big. So the buffer is cut exactly here: what still fits goes now, and this line begins the next write.
      this.flush();
      this.#size = 0;
    }
    super.log(msg);
    this.#size += bytes;
  }
}

function lineBytes(msg: string): number {
  return Buffer.byteLength(msg) + 1;
}
