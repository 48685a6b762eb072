/**
 * A real, private redis-server for a test: own port or unix socket, own empty folder, nothing kept on disk. It
 * can be hung, stopped, killed and started again at the same address, and it ends with the test:
 *
 *     await using redis = await RedisServer.start();
 *
 * Only the process this file started is ever signalled, through its own handle.
 */
import type { Certificates } from "./certificates.ts";
import { until, withDeadline } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import { findRedisServer, REDIS_MISSING } from "./programs.ts";
import { type RedisAddress, RedisCommands, type Reply } from "./redis_commands.ts";
import { folderForSockets, TempFolder } from "./temp_folder.ts";

export interface RedisServerOptions {
  /** Listen on a unix socket and on no port. @default false */
  readonly unixSocket?: boolean;
  /** More arguments, as on the command line: `["--maxclients", "50"]`. */
  readonly args?: readonly string[];
  /** Password of the default user; `url` holds it. */
  readonly password?: string;
  /** Folder for its data, which is then left in place; else a temporary one. */
  readonly dir?: string;
  /** It keeps an append-only file, and then its data lives through `restart({ keepData: true })` without a snapshot. */
  readonly appendOnly?: boolean;
  /** It speaks TLS on another port, too, and with its master and its replicas on that alone. They stay the caller's to remove. */
  readonly tls?: Certificates;
  /** It begins as a replica of this server; wait for `copied` before you rely on that. */
  readonly replicaOf?: RedisServer;
}

/** The files that a server had at one moment. */
export interface DataCopy {
  readonly dir: string;
}

const START_MS = 30_000;
const STOP_MS = 30_000;
/** Where a server keeps its data, in its folder. */
const DATA = ["dump.rdb", "appendonlydir"] as const;

export class RedisServer implements AsyncDisposable {
  readonly #options: RedisServerOptions;
  readonly #dir: string;
  readonly #binary: string;
  readonly #port: OwnPort | undefined;
  readonly #tlsPort: OwnPort | undefined;
  #child: Deno.ChildProcess | undefined;
  /** Port of whom it is a replica, also when it is started again. */
  #masterPort: number | undefined;
  #copies = 0;

  private constructor(options: RedisServerOptions, dir: string, binary: string) {
    this.#options = options;
    this.#dir = dir;
    this.#binary = binary;
    this.#masterPort = options.replicaOf?.peerPort;
    if (!options.unixSocket) this.#port = OwnPort.take();
    if (options.tls) this.#tlsPort = OwnPort.take();
  }

  /** Resolves when the server answers. */
  static async start(options: RedisServerOptions = {}): Promise<RedisServer> {
    const installed = findRedisServer();
    if (installed === undefined) throw new Error(REDIS_MISSING);
    const dir = options.dir ??
      new TempFolder("redis", options.unixSocket ? folderForSockets() : undefined).path;
    // The binary goes by its name, see programs.ts.
    const binary = `${dir}/redis-server`;
    const server = new RedisServer(options, dir, binary);
    try {
      await Deno.symlink(installed, binary);
      await server.#launch();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** `redis://127.0.0.1:<port>` or `unix:///<path>`, with the password if there is one. */
  get url(): string {
    const { password } = this.#options;
    const login = password === undefined ? "" : `:${encodeURIComponent(password)}@`;
    const address = this.#address;
    return "path" in address ? `unix://${login}${address.path}` : `redis://${login}127.0.0.1:${address.port}`;
  }

  /** TCP port; 0 with a unix socket. */
  get port(): number {
    return this.#port?.number ?? 0;
  }

  /** On which other servers and Sentinels reach it: that for TLS where it has one. */
  get peerPort(): number {
    return this.#tlsPort?.number ?? this.port;
  }

  /** Process id. Another one after a restart. */
  get pid(): number {
    return this.#running.pid;
  }

  /**
   * Runs one command over a connection of its own, with the server's password.
   * @throws {RedisReplyError} when Redis answers with an error.
   */
  async cli(...args: (string | number | Uint8Array)[]): Promise<Reply> {
    const { password } = this.#options;
    using commands = await RedisCommands.connect(this.#address, password === undefined ? {} : { password });
    return await commands.command(...args);
  }

  /** Hangs the server: connections stay open, nothing answers. Resolves when it stands still. */
  async pause(): Promise<void> {
    this.#running.kill("SIGSTOP");
    await until(() => this.#isStopped(), "redis-server to stand still", undefined, () => stateOf(this.pid));
  }

  /** Lets a hung server go on. */
  resume(): void {
    this.#running.kill("SIGCONT");
  }

  /**
   * Ends the server and waits for its end. Does nothing when it is not running.
   * @param options.signal "SIGKILL" for a crash. @default "SIGTERM"
   */
  async stop(options: { signal?: "SIGTERM" | "SIGKILL" } = {}): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    try {
      child.kill(options.signal ?? "SIGTERM");
      child.kill("SIGCONT"); // a hung process acts on SIGTERM only when it goes on
    } catch {
      // It had ended by itself.
    }
    await withDeadline(child.status, STOP_MS, "redis-server to end", () => stateOf(child.pid));
  }

  /**
   * Stops the server unless it is stopped already, and starts it again at the same address.
   * @param options.keepData Whether the data lives through it. @default false
   * @param options.from Data that it had before, in place of that which it has now.
   * @param options.signal As in `stop`; a killed server still keeps its data when asked to.
   */
  async restart(
    options: { keepData?: boolean; from?: DataCopy; signal?: "SIGTERM" | "SIGKILL" } = {},
  ): Promise<void> {
    if (this.#child !== undefined) {
      if (options.keepData) await this.#save();
      await this.stop(options);
    }
    if (!options.keepData) await this.#removeData();
    if (options.from) await copyFolder(options.from.dir, this.#dir);
    await this.#launch();
  }

  /** Copies the data that it has now; a server without an append-only file saves it first. It may go on meanwhile. */
  async copyData(): Promise<DataCopy> {
    // Else files may be replaced while they are copied.
    if (this.#options.appendOnly) await this.cli("CONFIG", "SET", "auto-aof-rewrite-percentage", 0);
    await this.#save();
    const dir = `${this.#dir}/copies/${++this.#copies}`;
    await Deno.mkdir(dir, { recursive: true });
    for (const name of DATA) await copyIfThere(`${this.#dir}/${name}`, `${dir}/${name}`);
    return { dir };
  }

  /** Resolves when all that was answered is in a file, though not on the disk. */
  async #save(): Promise<void> {
    if (!this.#options.appendOnly) return void await this.cli("SAVE");
    // While an fsync takes its time on a busy disk, Redis holds back what it has answered already.
    await until(
      async () => /^aof_buffer_length:0\r?$/m.test(String(await this.cli("INFO", "persistence"))),
      "all that was answered to be in the append-only file",
    );
  }

  /** Becomes a replica of another server, also when it is restarted; of none when it is not given. */
  async follow(master?: RedisServer): Promise<void> {
    this.#masterPort = master?.peerPort;
    if (master) await this.cli("REPLICAOF", "127.0.0.1", master.peerPort);
    else await this.cli("REPLICAOF", "NO", "ONE");
  }

  /** The next start makes it a replica of this server, or of none. */
  followNext(master: RedisServer | undefined): void {
    this.#masterPort = master?.peerPort;
  }

  /** Resolves when this replica has a whole copy of its master's data, and is fed what comes. */
  async copied(): Promise<void> {
    let info = "";
    await until(
      async () => /^master_link_status:up/m.test(info = await this.info("replication")),
      "the replica to have copied its master",
      START_MS,
      () => info,
    );
  }

  /**
   * Begins a planned failover: this server becomes a replica of the other once that has all that it has itself. It comes
   * to that only with a replica that it lists as online, which is up to a second after the replica has its copy.
   */
  async failOverTo(replica: RedisServer, ...options: (string | number)[]): Promise<void> {
    const listed = new RegExp(`^slave\\d+:.*port=${replica.peerPort},state=online`, "m");
    let info = "";
    await until(
      async () => listed.test(info = await this.info("replication")),
      "the replica to be online",
      START_MS,
      () => info,
    );
    await this.cli("FAILOVER", "TO", "127.0.0.1", replica.peerPort, ...options);
  }

  /** A section of INFO. */
  async info(section: string): Promise<string> {
    return String(await this.cli("INFO", section));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stop({ signal: "SIGKILL" });
    } finally {
      this.#port?.[Symbol.dispose]();
      this.#tlsPort?.[Symbol.dispose]();
      if (this.#options.dir === undefined) await Deno.remove(this.#dir, { recursive: true });
      else await Deno.remove(this.#binary);
    }
  }

  get #running(): Deno.ChildProcess {
    if (this.#child === undefined) throw new Error("This redis-server is stopped: call restart() first");
    return this.#child;
  }

  get #address(): RedisAddress {
    return this.#options.unixSocket ? { path: `${this.#dir}/redis.sock` } : { port: this.port };
  }

  async #launch(): Promise<void> {
    const { unixSocket, password, appendOnly, tls, args = [] } = this.#options;
    const log = `${this.#dir}/redis.log`;
    const child = new Deno.Command(this.#binary, {
      args: [
        ...["--port", String(this.port), "--bind", "127.0.0.1"],
        ...(unixSocket ? ["--unixsocket", `${this.#dir}/redis.sock`] : []),
        ...["--dir", this.#dir, "--save", "", "--appendonly", appendOnly ? "yes" : "no", "--logfile", log],
        // Else a replica waits for five seconds, for others that might want to begin with it.
        ...["--repl-diskless-sync-delay", "0"],
        ...(this.#masterPort === undefined ? [] : ["--replicaof", `127.0.0.1 ${this.#masterPort}`]),
        ...(password === undefined ? [] : ["--requirepass", password]),
        ...(tls ? ["--tls-port", String(this.peerPort), "--tls-replication", "yes", ...tlsFiles(tls)] : []),
        ...args,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#child = child;
    let ended = false;
    const watch = child.status.then(() => {
      ended = true;
    });
    try {
      await until(
        async () => ended || await this.#answers(child.pid),
        "redis-server to answer",
        START_MS,
        () => `it lives, and its log ends with "${lastLine(log)}"`,
      );
      if (ended) {
        throw new Error(
          `redis-server ended at once: ${lastLine(log) ?? `it rejects its arguments "${args.join(" ")}"`}`,
        );
      }
    } catch (error) {
      await this.stop({ signal: "SIGKILL" });
      await watch;
      throw error;
    }
  }

  /** Whether the server answers, and is the one just started, not another on the same port. */
  async #answers(pid: number): Promise<boolean> {
    try {
      await this.cli("PING"); // refused while it loads its data, unlike INFO
      return String(await this.cli("INFO", "server")).includes(`process_id:${pid}\r\n`);
    } catch {
      return false; // not listening yet, or not ready
    }
  }

  async #removeData(): Promise<void> {
    for (const name of DATA) {
      await Deno.remove(`${this.#dir}/${name}`, { recursive: true }).catch((error) => {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
    }
  }

  async #isStopped(): Promise<boolean> {
    try {
      return (await Deno.readTextFile(`/proc/${this.pid}/stat`)).includes(") T ");
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return true; // no /proc on this system: take it on trust
      throw error;
    }
  }
}

/**
 * Declares a test that needs Redis: as `Deno.test`, but ignored where no redis-server can be found, which is
 * said aloud once. `deno task test` makes sure that there is one.
 */
export function redisTest(name: string, fn: (t: Deno.TestContext) => void | Promise<void>): void {
  const ignore = findRedisServer() === undefined;
  // Test files run in workers of one process, and the environment is what those share.
  if (ignore && Deno.env.get("USERWIRE_TEST_REDIS_WARNED") === undefined) {
    Deno.env.set("USERWIRE_TEST_REDIS_WARNED", "1");
    console.warn(`\nSKIPPED: every test that needs Redis. ${REDIS_MISSING}, or run "deno task test".\n`);
  }
  Deno.test({ name, ignore, fn });
}

function tlsFiles(tls: Certificates): string[] {
  return tls.forRedis().flatMap(([name, value]) => [`--${name}`, value]);
}

/** Undefined when Redis wrote no log, as happens when it can't read its arguments. */
function lastLine(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trimEnd().split("\n").at(-1) || undefined;
  } catch {
    return undefined;
  }
}

/** For an error: what a process does, as far as the system says it. */
function stateOf(pid: number): string {
  try {
    return /^State:.*$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![0];
  } catch {
    return `process ${pid} is not there, or nobody says what it does`;
  }
}

async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name } of Deno.readDir(from)) await copyIfThere(`${from}/${name}`, `${to}/${name}`);
}

async function copyIfThere(from: string, to: string): Promise<void> {
  const info = await Deno.stat(from).catch(() => undefined);
  if (info?.isDirectory) await copyFolder(from, to);
  else if (info) await Deno.copyFile(from, to);
}
