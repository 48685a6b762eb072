/**
 * Several processes that serve on one port, each a node like any other, and the one that keeps them: it starts them, puts
 * a new one into the place of one that ended, passes on what signals ask for, and ends when all have ended. No connection
 * of a client and no message goes through it, and it knows neither Redis nor who may do what. The room owns how processes
 * of one service come, go and speak to each other; `place.ts` is their side of it.
 */
import type { Config } from "../config/settings.ts";
import { surviveFaults } from "../log/faults.ts";
import type { Log } from "../log/log.ts";
import { openServiceLog } from "../log/open.ts";
import { freePort, listenFault, listenUrl } from "../net/listening.ts";
import { ConfigError, orFaults } from "../protocol/errors.ts";
import { Child, type Program } from "./child.ts";
import { opsHandler } from "./ops.ts";
import { OpsPath } from "./ops_path.ts";
import { endWithin, Post } from "./post.ts";
import { type Hands, onSignals } from "./signals.ts";

/** How long a process may take to end, beyond its drain window. */
const END_MS = 10_000;
/** How long one may take that is to end at once, in milliseconds. */
const KILL_MS = 1_000;

/**
 * Runs several processes until a signal ends them.
 * @param program How each is started.
 * @param stop Drains as a first SIGTERM does.
 * @returns The exit code: 0; 1 when one did not end as it should; that of the first process when it can't start.
 * @throws {ConfigError} with every fault that the supervisor itself finds; others the first process tells.
 */
export async function supervise(
  config: Config,
  count: number,
  program: Program,
  stop?: AbortSignal,
): Promise<number> {
  const { host, opsHost } = config;
  const faults = faultsOfSystem();
  const address = { host, port: config.port, names: { host: "HOST", port: "PORT" } };
  const opsPort = config.opsPort ?? (config.port === 0 ? 0 : config.port + 1);
  const living = new Set<Child>();
  const options = { opsHost, count, children: () => byNumber(living) };
  const closed = new AbortController();
  // First: once it has a port, that is not the one found free.
  const ops = orFaults(() => listen(opsHost, opsPort, closed.signal, opsHandler(options)), faults);
  const port = orFaults(() => freePort(address), faults) ?? config.port;
  const log = orFaults(() => openServiceLog(config.node ?? String(port), config), faults);
  orFaults(() => new OpsPath().remove(), faults);
  const close = async () => {
    closed.abort();
    await ops?.finished;
    log?.close();
  };
  if (!log || !ops || faults.length > 0) {
    await close();
    throw new ConfigError(faults);
  }

  surviveFaults(Promise.resolve(log), closed.signal);
  const supervisor = new Supervisor({ config, count, port, program, log, living });
  using _signals = onSignals(supervisor, stop);
  try {
    const code = await supervisor.start();
    if (code !== undefined) return code;
    if (!supervisor.isEnding) {
      const url = listenUrl(config.tlsCert === undefined ? "http" : "https", host, port);
      const opsUrl = listenUrl("http", opsHost, ops.addr.port);
      log.info("processes started", { processes: count, url, ops_url: opsUrl });
    }
    const end = await supervisor.ended;
    log.info("processes stopped");
    return end;
  } finally {
    await close();
  }
}

interface SupervisorOptions {
  readonly config: Config;
  readonly count: number;
  readonly port: number;
  readonly program: Program;
  readonly log: Log;
  /** Is kept up to date: the processes that live. */
  readonly living: Set<Child>;
}

/** Keeps as many processes as there should be. */
class Supervisor implements Hands {
  /** Resolves with the exit code when all have ended. */
  readonly ended: Promise<number>;
  readonly #options: SupervisorOptions;
  readonly #living: Set<Child>;
  readonly #posts: Post[];
  readonly #ending = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<number>();
  #isEnding = false;
  /** Whether a rolling restart may begin: not before all were started, nor while one goes on. */
  #mayRestart = false;
  #code = 0;

  constructor(options: SupervisorOptions) {
    const { count, log, living } = options;
    this.#options = options;
    this.#living = living;
    this.ended = this.#ended.promise;
    this.#posts = Array.from(
      { length: count },
      () =>
        new Post({
          log,
          ending: this.#ending.promise,
          isEnding: () => this.#isEnding,
          spawn: () => this.#spawn(),
        }),
    );
  }

  get isEnding(): boolean {
    return this.#isEnding;
  }

  /**
   * Starts the first process, and when it listens the others: so what keeps them all from starting is said once.
   * @returns Undefined when all listen or are tried again; else the exit code of the first.
   */
  async start(): Promise<number | undefined> {
    const first = this.#spawn();
    if (!await first.isUp() && !this.#isEnding) return (await first.ended).code || 1;
    this.#posts[0]!.take(first);
    if (this.#isEnding) return undefined;
    const others = this.#posts.slice(1).map((post) => post.start());
    await Promise.race([Promise.all(others.map((child) => child.isUp())), this.#ending.promise]);
    this.#mayRestart = true;
    return undefined;
  }

  drain(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    const { log, config } = this.#options;
    log.info("processes shutting down", { processes: this.#living.size, window_s: config.drainS });
    this.#ending.resolve();
    for (const child of this.#living) child.order("drain");
    void this.#finish(config.drainS * 1_000 + END_MS);
  }

  end(): void {
    this.#code = 1;
    for (const child of this.#living) child.order("end");
    void this.#finish(KILL_MS);
  }

  reload(): void {
    for (const child of this.#living) child.order("reload");
  }

  empty(): void {
    for (const child of this.#living) child.order("empty");
  }

  /** Asked again while it goes on, it is not begun a second time. */
  restart(): void {
    if (this.#mayRestart && !this.#isEnding) void this.#restart();
  }

  async #restart(): Promise<void> {
    const { log, count, config } = this.#options;
    this.#mayRestart = false;
    log.info("rolling restart", { processes: count });
    let fault: string | undefined;
    for (const [i, post] of this.#posts.entries()) {
      fault = await post.replace(config.drainS * 1_000 + END_MS);
      if (this.#isEnding) return;
      if (fault === undefined) continue;
      log.error("rolling restart given up", { reason: fault, replaced: i });
      break;
    }
    if (fault === undefined) log.info("rolling restart done", { processes: count });
    this.#mayRestart = true;
  }

  /** Waits for all to end, and ends by force what takes longer. */
  async #finish(withinMs: number): Promise<void> {
    await Promise.all([...this.#living].map((child) => endWithin(child, withinMs, this.#options.log)));
    this.#ended.resolve(this.#code);
  }

  /** Starts a process at the first place that is free. @throws when it can't be started. */
  #spawn(): Child {
    const { count, port, program, log } = this.#options;
    const taken = new Set([...this.#living].map(({ place }) => place.number));
    let number = 1;
    while (taken.has(number)) number++;
    const child = new Child({ number, of: count, port }, program);
    log.info("process started", { process: number, pid: child.pid });
    this.#living.add(child);
    child.ended.then(({ code }) => {
      this.#living.delete(child);
      if (this.#isEnding && code !== 0) this.#code = 1;
    });
    return child;
  }
}

/** The processes, the draining ones too. */
function byNumber(living: ReadonlySet<Child>): Child[] {
  return [...living].sort((a, b) => a.place.number - b.place.number);
}

function listen(
  hostname: string,
  port: number,
  signal: AbortSignal,
  handler: Deno.ServeHandler<Deno.NetAddr>,
): Deno.HttpServer<Deno.NetAddr> {
  const names = { host: "USERWIRE_OPS_HOST", port: "USERWIRE_OPS_PORT" };
  try {
    return Deno.serve({ hostname, port, signal, onListen() {} }, handler);
  } catch (error) {
    throw new ConfigError([listenFault(error, { host: hostname, port, names })]);
  }
}

/** Why this system can't have several processes on one port. */
function faultsOfSystem(): string[] {
  const remedy =
    "start one node for each core instead, see docs/operations.md, or leave USERWIRE_PROCESSES out";
  if (Deno.build.os !== "linux") {
    return [`USERWIRE_PROCESSES: only Linux spreads the connections of a port over processes: ${remedy}`];
  }
  if (Deno.build.standalone) {
    return [`USERWIRE_PROCESSES: the compiled program has no right to start processes: ${remedy}`];
  }
  const deno = Deno.execPath();
  const { state } = Deno.permissions.querySync({ name: "run", command: deno });
  if (state === "granted") return [];
  return [
    `USERWIRE_PROCESSES: the supervisor may not start processes: give Deno --allow-run=${deno}, or start it with ` +
    `bin/userwire or "deno task start:processes", which do; or ${remedy}`,
  ];
}
