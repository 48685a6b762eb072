/**
 * A service in a process of its own, for what can't be seen from inside: signals, exit codes, what is left in Redis
 * after a crash. Its log comes as JSON lines and is read back as records. It ends with the test:
 *
 *     await using service = await ProcessService.start({ REDIS_URL: redis.url });
 *     service.signal("SIGTERM");
 *     assertEquals((await service.ended()).code, 0);
 */
import { dirname } from "node:path";
import { Bell, withDeadline } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import { programPath } from "./program.ts";
import { secretsIn } from "./secrets.ts";

export interface ProcessOptions {
  /**
   * "run" starts `main.ts`, or what a run of all tests has made of it; "bin" the script that people have; "task" and "task for several" do it through `deno task
   * start` and `start:processes`, in a process group of its own. @default "run"
   */
  readonly through?: "run" | "bin" | "task" | "task for several";
  /** What follows on the command line. @default nothing */
  readonly args?: readonly string[];
  /** Folder of the project; another one runs a copy of it. @default this project */
  readonly root?: URL;
  /** What its log says when the start is over. @default "listening" */
  readonly until?: string;
  /** How many files it may have open. @default as many as the tests */
  readonly openFiles?: number;
}

/** One line of the log. */
export type LogRecord = Readonly<Record<string, unknown> & { event: string }>;

const ROOT = new URL("../", import.meta.url);
const START_MS = 30_000;

export class ProcessService implements AsyncDisposable {
  /** What the log said so far, without the lines that are no JSON. */
  readonly records: LogRecord[] = [];
  /** Folder of its log files, removed with it. */
  readonly logDir: string;
  readonly #child: Deno.ChildProcess;
  readonly #bell = new Bell();
  readonly #outputs: Promise<void>[];
  readonly #isGroup: boolean;
  /** That of several processes, see `start`. */
  readonly #port: OwnPort | undefined;
  readonly #secrets: (text: string) => string[];
  readonly #leaked = new Set<string>();
  #otherText = "";
  #status: Deno.CommandStatus | undefined;

  private constructor(
    child: Deno.ChildProcess,
    options: {
      logDir: string;
      isGroup: boolean;
      port: OwnPort | undefined;
      env: Readonly<Record<string, string>>;
    },
  ) {
    const { logDir, isGroup, port, env } = options;
    this.#port = port;
    this.#secrets = secretsIn(env);
    this.#child = child;
    this.#isGroup = isGroup;
    this.logDir = logDir;
    this.#outputs = [this.#read(child.stdout), this.#read(child.stderr)];
    child.status.then((status) => {
      this.#status = status;
      this.#bell.ring();
    });
  }

  /**
   * Resolves when it listens, or says what else is waited for.
   * @param env Settings. The port is free unless they say else. Several processes get one that is nobody else's: a
   *   supervisor that is to take a free one finds it long before the first process listens there, and others come after.
   */
  static async start(
    env: Readonly<Record<string, string>> = {},
    options: ProcessOptions = {},
  ): Promise<ProcessService> {
    const logDir = await Deno.makeTempDir({ prefix: "userwire-logs-" });
    const isSeveral = (env.USERWIRE_PROCESSES ?? "1") !== "1";
    const port = isSeveral && env.PORT === undefined ? OwnPort.take() : undefined;
    const isGroup = options.through === "task" || options.through === "task for several";
    // Deno itself needs its home; settings of whoever runs the tests must not get in.
    const { PATH = "", HOME = "", DENO_DIR = `${HOME}/.cache/deno` } = Deno.env.toObject();
    const program = {
      run: [Deno.execPath(), "run", "-A", options.root ? "main.ts" : programPath()],
      bin: ["bin/userwire"],
      "task": [Deno.execPath(), "task", "start"],
      "task for several": [Deno.execPath(), "task", "start:processes"],
    }[options.through ?? "run"].concat(options.args ?? []);
    const [command, ...args] = options.openFiles === undefined
      ? program
      : ["sh", "-c", `ulimit -n ${options.openFiles} && exec "$@"`, "sh", ...program];
    const child = new Deno.Command(command!, {
      args,
      cwd: options.root ?? ROOT,
      clearEnv: true,
      env: {
        ...{ PATH: `${dirname(Deno.execPath())}:${PATH}`, HOME, DENO_DIR, NO_COLOR: "1" },
        ...{ PORT: "0", LOG_FORMAT: "json", LOG_DIR: logDir },
        // By itself that for operators is the next one, which may be somebody's own.
        ...(port && { PORT: `${port}`, USERWIRE_OPS_PORT: "0" }),
        ...env,
      },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      detached: isGroup,
    }).spawn();
    const service = new ProcessService(child, { logDir, isGroup, port, env });
    try {
      await service.logged(options.until ?? "listening", START_MS);
      return service;
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw new Error(`The service did not start: ${service.#otherText}`, { cause: error });
    }
  }

  /** Address of the console page. */
  get url(): string {
    return String(this.records.find(({ event }) => event === "listening")!.url);
  }

  /** Address of a socket: of the user, or of nobody yet. */
  socketUrl(username?: string): string {
    const url = new URL("/ws", this.url.replace("http:", "ws:"));
    if (username !== undefined) url.searchParams.set("username", username);
    return url.href;
  }

  /**
   * Resolves with the first record of the event, when there is one.
   * @param like Fields that it must have.
   */
  async logged(event: string, ms?: number, like: Readonly<Record<string, unknown>> = {}): Promise<LogRecord> {
    const find = () =>
      this.records.find((record) =>
        record.event === event && Object.entries(like).every(([name, value]) => record[name] === value)
      );
    await this.#bell.until(
      () => {
        if (find() === undefined && this.#status !== undefined) {
          throw new Error(`The process has ended with ${this.#status.code}: ${this.lastWords()}`);
        }
        return find() !== undefined;
      },
      `the log to say "${event}"`,
      ms,
      () => `it said ${this.lastWords()}`,
    );
    return find()!;
  }

  /**
   * Sends a signal. Nothing happens when the process has ended.
   * @param options.toGroup To the task and the service, as Ctrl+C in a terminal does. @default false
   */
  signal(name: Deno.Signal, options: { toGroup?: boolean } = {}): void {
    if (this.#status !== undefined) return;
    if (options.toGroup && !this.#isGroup) {
      throw new Error('Only what runs through "task" has a group of its own');
    }
    try {
      Deno.kill(options.toGroup ? -this.#child.pid : this.#child.pid, name);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // it ended a moment ago
    }
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** What it wrote beside the lines of its log. */
  get otherText(): string {
    return this.#otherText;
  }

  /** Resident memory of the process, in bytes. Linux only. */
  async memory(): Promise<number> {
    const status = await Deno.readTextFile(`/proc/${this.#child.pid}/status`);
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1_024;
  }

  /** File descriptors that the process has open. Linux only. */
  async openFiles(): Promise<number> {
    let count = 0;
    for await (const _ of Deno.readDir(`/proc/${this.#child.pid}/fd`)) count++;
    return count;
  }

  get hasEnded(): boolean {
    return this.#status !== undefined;
  }

  /** Resolves when the process has ended and its log is read to the end. */
  async ended(ms?: number): Promise<Deno.CommandStatus> {
    await this.#bell.until(
      () => this.#status !== undefined,
      `process ${this.#child.pid} to end`,
      ms,
      () => `it lives, and said ${this.lastWords()}`,
    );
    await withDeadline(
      Promise.all(this.#outputs),
      20_000,
      "the end of the log",
      () => `it said ${this.lastWords()}`,
    );
    return this.#status!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The group: `deno task` leaves its child behind when it is killed.
    this.signal("SIGKILL", { toGroup: this.#isGroup });
    try {
      await this.ended();
      for await (const { name } of Deno.readDir(this.logDir)) {
        this.#search(await Deno.readTextFile(`${this.logDir}/${name}`));
      }
    } finally {
      this.#port?.[Symbol.dispose]();
      await Deno.remove(this.logDir, { recursive: true });
    }
    // Whatever the test is about.
    if (this.#leaked.size > 0) throw new Error(`The process wrote secrets: ${[...this.#leaked].join(", ")}`);
  }

  /** For an error: the last lines of its log, and what is no log. */
  lastWords(): string {
    return this.records.slice(-5).map((record) => JSON.stringify(record)).join("\n") + this.#otherText;
  }

  #search(text: string): void {
    for (const what of this.#secrets(text)) this.#leaked.add(what);
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        this.#search(line);
        if (line.startsWith("{")) this.records.push(JSON.parse(line));
        else this.#otherText += `${line}\n`;
      }
      this.#bell.ring();
    }
  }
}
