/**
 * A program that a benchmark has started: its output is read, so that it never waits for a full pipe, and its end
 * is certain. Only processes started here are ever signalled, through their own handles.
 */
import { withDeadline } from "../testkit/deadline.ts";

export interface ProgramOptions {
  readonly args: readonly string[];
  readonly cwd?: string;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** What to call it in errors. */
  readonly name: string;
}

const KEPT_CHARACTERS = 4_000;
const END_MS = 3_000;

export class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #name: string;
  readonly #status: Promise<Deno.CommandStatus>;
  readonly #read: Promise<unknown>;
  #tail = "";
  #onText: () => void = () => {};
  #ended: Deno.CommandStatus | undefined;

  private constructor(child: Deno.ChildProcess, name: string) {
    this.#child = child;
    this.#name = name;
    this.#status = child.status.then((status) => {
      this.#onText();
      return this.#ended = status;
    });
    this.#read = Promise.all([this.#keep(child.stdout), this.#keep(child.stderr)]);
  }

  /** @throws {Deno.errors.NotFound} when there is no such program. */
  static start(command: string, options: ProgramOptions): Program {
    const { args, cwd, env, name } = options;
    const child = new Deno.Command(command, {
      args: [...args],
      ...(cwd !== undefined && { cwd }),
      ...(env !== undefined && { env }),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    return new Program(child, name);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** How it ended, if it has. */
  get ended(): Deno.CommandStatus | undefined {
    return this.#ended;
  }

  /** The end of what it wrote. */
  get tail(): string {
    return this.#tail;
  }

  /**
   * Resolves when it has written what matches, with the match.
   * @throws {Error} when it ends before.
   */
  async output(pattern: RegExp, ms: number): Promise<RegExpExecArray> {
    const found = Promise.withResolvers<RegExpExecArray>();
    const look = () => {
      const match = pattern.exec(this.#tail);
      if (match) found.resolve(match);
      else if (this.#ended) found.reject(new Error(`${this.#name} ended at its start: ${this.#tail.trim()}`));
    };
    this.#onText = look;
    look();
    try {
      return await withDeadline(found.promise, ms, `${this.#name} to write ${pattern}`);
    } finally {
      this.#onText = () => {};
    }
  }

  /** Resolves when it has ended by itself. */
  async end(ms: number): Promise<Deno.CommandStatus> {
    const status = await withDeadline(this.#status, ms, `${this.#name} to end`);
    await this.#read;
    return status;
  }

  /** Asks it to stop as Ctrl+C does. */
  interrupt(): void {
    this.#signal("SIGINT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#signal("SIGTERM");
    const timer = setTimeout(() => this.#signal("SIGKILL"), END_MS);
    await this.#status;
    clearTimeout(timer);
    await this.#read;
  }

  #signal(signal: Deno.Signal): void {
    if (this.#ended) return;
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended in this moment.
    }
  }

  async #keep(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.#tail = (this.#tail + decoder.decode(chunk, { stream: true })).slice(-KEPT_CHARACTERS);
      this.#onText();
    }
  }
}
