/** Listens, starts the app, and ends both in order. Faults that only a start can find are reported all at once. */
import { isLoopback } from "../net/addresses.ts";
import { type App, authOf, openApp, VERSION } from "./app.ts";
import { type Config, type Reading, SETTINGS } from "../config/settings.ts";
import { ConfigError, messageOf, orFaults } from "../protocol/errors.ts";
import { wideOrigins } from "../net/origin.ts";
import { problem } from "../http/problem.ts";
import { wantsUpgrade } from "../http/handshake.ts";
import { type Log, silentLog } from "../log/log.ts";
import { openLog } from "../log/file.ts";
import { OpenFiles } from "../metrics/open_files.ts";
import { absolutePath } from "../config/paths.ts";
import { type Pem, readPem } from "../config/pem.ts";
import { CLOSE } from "../protocol/close_codes.ts";

/** A running service. */
export interface Server {
  /** Where the console page is, such as "http://127.0.0.1:8765/". */
  readonly url: string;
  readonly port: number;
  readonly node: string;
  readonly app: App;
  readonly log: Log;
  /**
   * Reads the files of keys and certificates again; faults are logged, and what was there stays. Drops no socket, unless
   * the certificate is a new one: then clients are told to come back, spread over the drain window.
   */
  reload(): void;
  /** Resolves when it can't listen any more, whatever it tries. */
  readonly failed: Promise<void>;
  /** Drains, closes everything in reverse order of opening, flushes the log. Idempotent; never hangs. */
  shutdown(): Promise<void>;
}

export interface StartOptions {
  /** Used instead of the log that the settings describe; stays the caller's to close. */
  log?: Log;
  /** Faults found before, which are reported together with those found here. */
  faults?: readonly string[];
}

/** The settings that name the files of certificates. */
const FILES = {
  tlsFiles: { cert: "tlsCert", key: "tlsKey" },
  redisFiles: { ca: "redisCa", cert: "redisCert", key: "redisKey" },
} as const;

/** How long a start waits to learn that Redis refuses it; a Redis that is away is waited for in the background. */
const FIRST_ATTEMPT_MS = 2_000;
/** How long the listener and the broker may take to close. */
const CLOSE_MS = 1_000;
/**
 * A listener that Deno has ended listens anew after so long, twice as long each time, up to the longest; one that lasted
 * longer than that begins with the shortest again.
 */
const RELISTEN_MS = 100;
const MAX_RELISTEN_MS = 1_000;
/** Want of file descriptors passes; other faults are tried for so long. */
const GIVE_UP_MS = 30_000;
/** Ctrl+C comes twice under `deno task`: from the terminal, and passed on by the task. That is one signal. */
const SAME_SIGNAL_MS = 300;

/**
 * What is wrong beside the faults of single settings, as far as it can be found without starting: in keys, tokens and
 * files. Passes over what a setting at fault could be to blame for.
 */
export function furtherFaults({ config, atFault }: Reading): string[] {
  const faults: string[] = [];
  const look = (keys: readonly (keyof Config)[], check: () => unknown) => {
    if (!keys.some((key) => atFault.has(key))) orFaults(check, faults);
  };
  const { tlsFiles, redisFiles } = FILES;
  look(Object.values(tlsFiles), () => pemOf(config, tlsFiles));
  look(Object.values(redisFiles), () => pemOf(config, redisFiles));
  look(["jwtSecret", "jwtPublicKey", "jwksUrl", "jwtAlgorithms"], () => authOf(config, silentLog));
  return faults;
}

/**
 * Starts a service.
 * @throws {ConfigError} with every fault: a port in use, a log folder that can't be written, a refused password.
 */
export async function startServer(config: Config, options: StartOptions = {}): Promise<Server> {
  const faults = [...options.faults ?? []];
  const ready = Promise.withResolvers<App>();
  // Nobody may be waiting for it when the start fails.
  ready.promise.catch(() => {});
  let app: App | undefined;
  const failed = new AbortController();

  const attempt = <T>(make: () => T): T | undefined => orFaults(make, faults);
  const tls = attempt(() => pemOf(config, FILES.tlsFiles));
  const redisTls = attempt(() => pemOf(config, FILES.redisFiles));
  const handler: Handler = (request, info) =>
    app ? app.handle(request, info) : ready.promise.then((app) => app.handle(request, info));
  // Before anybody can connect: it may have to try how many files can be opened.
  const files = new OpenFiles();
  const gone = Promise.withResolvers<void>();
  // Not before all of this has begun.
  const onEnd = (listener: Listener, error: unknown) =>
    void ready.promise.then(() => listenAnew(listener, error), () => {});
  let listener = attempt(() => new Listener(config, { tls, signal: failed.signal, handler, onEnd }));
  const port = listener?.port ?? config.port;
  const node = config.node ?? `${Deno.hostname()}:${port}`;
  const log = options.log ?? attempt(() => openLogAs(config.node ?? String(port), config));

  const opened = log && attempt(() => openApp(config, { node, log, files, redisTls }));
  if (opened) {
    const attempt = await opened.firstAttempt(FIRST_ATTEMPT_MS);
    if (attempt.outcome === "refused") {
      const { reason, remedy, detail } = attempt;
      const name = config.redisUrlFile === undefined ? "REDIS_URL" : "REDIS_URL_FILE";
      faults.push(`${name}: ${reason}: ${remedy}${detail === undefined ? "" : ` (${detail})`}`);
    }
    if (faults.length === 0) app = opened;
    else await opened.close();
  }
  if (!listener || !log || !app) {
    ready.reject(new Error("The start failed"));
    failed.abort();
    await listener?.finished;
    if (!options.log) log?.close();
    throw new ConfigError(faults);
  }
  ready.resolve(app);

  const url = `${tls ? "https" : "http"}://${printable(config.host)}:${port}/`;
  announce(log, config, { url, node, auth: app.auth });

  let ending: Promise<void> | undefined;
  let retiring: Promise<void> = Promise.resolve();
  const running = app;

  /** Deno stops listening for good when it can't take one connection, for want of a file descriptor. */
  async function listenAnew(old: Listener, error: unknown): Promise<void> {
    if (old.isRetired || ending) return;
    log!.error("not listening any more: listens anew as soon as it can", { reason: messageOf(error) });
    const sinceMs = performance.now();
    let pauseMs = old.isStable ? RELISTEN_MS : nextPause(old.pauseMs);
    while (!old.isRetired && !ending) {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      if (old.isRetired || ending) return;
      try {
        old.listen(port, pauseMs);
        log!.info("listening again", { url, after_ms: Math.round(performance.now() - sinceMs) });
        return;
      } catch (error) {
        const isPassing = error instanceof Error && /os error (23|24)\b/.test(error.message);
        if (!isPassing && performance.now() - sinceMs > GIVE_UP_MS) {
          log!.error("can't listen: gives up", { reason: messageOf(error) });
          return gone.resolve();
        }
        pauseMs = nextPause(pauseMs);
      }
    }
  }

  async function end(): Promise<void> {
    log!.info("shutting down", { sockets: running.connections.size, window_s: config.drainS });
    const left = await running.drain(config.drainS * 1_000);
    if (left > 0) log!.warn("sockets did not answer the close", { sockets: left });
    await within(Promise.all([listener!.shutdown(), retiring]), CLOSE_MS);
    await within(running.close(), CLOSE_MS);
    log!.info("stopped");
    if (!options.log) log!.close();
  }

  function reload(): void {
    const again: string[] = [];
    const keys = orFaults(() => running.auth.reload(), again);
    const fresh = orFaults(() => pemOf(config, FILES.tlsFiles), again);
    orFaults(() => running.reloadRedis(), again);
    for (const fault of again) log!.error("not reloaded", { reason: fault });
    if (keys !== undefined) log!.info("reloaded", { api_keys: keys });
    if (fresh && (fresh.cert !== listener!.tls?.cert || fresh.key !== listener!.tls?.key)) renew(fresh);
  }

  /**
   * Listens with the new certificate, then lets go of the old listener. Deno ends a listener's sockets with it, so they
   * are sent away first, as in a drain; whoever comes back meets the new one.
   */
  function renew(fresh: Pem): void {
    const again: string[] = [];
    const old = listener!;
    const next = orFaults(() => new Listener(config, { tls: fresh, port, handler, onEnd }), again);
    for (const fault of again) log!.error("not reloaded", { reason: fault });
    if (!next) return;
    listener = next;
    old.isRetired = true;
    log!.info("certificate replaced: clients are told to come back", { sockets: running.connections.size });
    retiring = Promise.all([
      retiring,
      running.connections.sendAway(CLOSE.restart, config.drainS * 1_000).then(() => old.shutdown()),
    ]).then(() => {});
  }
  return { url, port, node, app, log, reload, failed: gone.promise, shutdown: () => ending ??= end() };
}

/**
 * Runs a service until a signal ends it: the first SIGTERM or SIGINT drains, the second ends at once.
 * @returns The exit code.
 * @throws {ConfigError}
 */
export async function serve(
  config: Config,
  options: { signal?: AbortSignal; faults?: readonly string[] } = {},
): Promise<number> {
  const stopped = Promise.withResolvers<number>();
  let firstSignalMs: number | undefined;
  const stop = () => {
    if (firstSignalMs !== undefined) {
      if (performance.now() - firstSignalMs > SAME_SIGNAL_MS) stopped.resolve(1);
      return;
    }
    firstSignalMs = performance.now();
    // What is only starting is ended as soon as it has; a start that fails is reported by `run`.
    starting.then((server) =>
      server.shutdown().then(() => stopped.resolve(0), (error) => {
        stopped.resolve(1);
        server.log.error("shutdown failed", { reason: messageOf(error) });
      }), () => {});
  };
  const names: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGTERM", "SIGINT"];
  // Before the start: whoever reads in the log that it listens may send a signal at once.
  for (const name of names) Deno.addSignalListener(name, stop);
  options.signal?.addEventListener("abort", stop);
  const reload = () => void starting.then((server) => server.reload(), () => {});
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGHUP", reload);
  const starting = startServer(config, options.faults ? { faults: options.faults } : {});
  using _ = surviveFaults(starting);

  async function run(): Promise<number> {
    const server = await starting;
    server.failed.then(() => server.shutdown()).finally(() => stopped.resolve(1));
    return await stopped.promise;
  }
  try {
    return await Promise.race([run(), stopped.promise]);
  } finally {
    for (const name of names) Deno.removeSignalListener(name, stop);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGHUP", reload);
    options.signal?.removeEventListener("abort", stop);
  }
}

/**
 * Deno ends the process on an exception in any WebSocket handler. One faulty session must not end the others. Nor must
 * a Redis that refuses our certificate, which Deno reports where nobody can catch it.
 */
function surviveFaults(starting: Promise<Server>): Disposable {
  const survive = (event: ErrorEvent | PromiseRejectionEvent) => {
    event.preventDefault();
    const error = event instanceof ErrorEvent ? event.error : event.reason;
    // Whatever fails in here would come back as the next event, or end the process. So it is left to the log to read the
    // error, which may be anything.
    const fields = {
      get reason() {
        return messageOf(error);
      },
      get stack() {
        return (error as Error)?.stack;
      },
    };
    starting.then(({ log }) => log.error("unexpected error", fields)).catch(() => {});
  };
  globalThis.addEventListener("error", survive);
  globalThis.addEventListener("unhandledrejection", survive);
  return {
    [Symbol.dispose]() {
      globalThis.removeEventListener("error", survive);
      globalThis.removeEventListener("unhandledrejection", survive);
    },
  };
}

type Handler = (
  request: Request,
  info: Deno.ServeHandlerInfo<Deno.NetAddr>,
) => Response | Promise<Response>;

function nextPause(ms: number): number {
  return Math.min(MAX_RELISTEN_MS, Math.max(RELISTEN_MS, ms * 2));
}

interface ListenerOptions {
  tls: Pem | undefined;
  /** Instead of the one of the settings: one that another listener of this process has already. */
  port?: number;
  signal?: AbortSignal;
  handler: Handler;
  /** It does not listen any more, and nobody asked for that. */
  onEnd(listener: Listener, error: unknown): void;
}

/** Where clients connect, with one certificate or none. */
class Listener {
  readonly tls: Pem | undefined;
  /** Another has taken over: what comes here is sent there. */
  isRetired = false;
  /** How long was waited before it listened, the last time. */
  pauseMs = 0;
  readonly #config: Config;
  readonly #options: ListenerOptions;
  #server: Deno.HttpServer<Deno.NetAddr>;
  #startMs = 0;
  #isEnding = false;

  /** @throws {ConfigError} */
  constructor(config: Config, options: ListenerOptions) {
    const { host } = config;
    const { tls, port = config.port } = options;
    this.tls = tls;
    this.#config = config;
    this.#options = options;
    try {
      // A certificate is replaced by a second listener on the same port, which the first must have allowed. So must
      // others then: whether one is there already shows only to a listener that does not allow it.
      if (tls?.cert !== undefined && options.port === undefined && port !== 0) {
        Deno.listen({ hostname: host, port }).close();
      }
      this.#server = this.#serve(port);
    } catch (error) {
      throw new ConfigError([
        error instanceof Deno.errors.AddrInUse
          ? `PORT: ${port} is in use on ${host}: stop what listens there, or set another (0 takes a free one)`
          : error instanceof Deno.errors.AddrNotAvailable
          ? `HOST: ${host} is not an address of this machine: set one that is, or 127.0.0.1`
          : error instanceof Deno.errors.PermissionDenied
          ? `PORT: ${port} may not be used by this user: set one above 1023`
          : `HOST, PORT: can't listen on ${host}:${port}: ${messageOf(error)}`,
      ]);
    }
  }

  get port(): number {
    return this.#server.addr.port;
  }

  get finished(): Promise<void> {
    return this.#server.finished;
  }

  /** Whether it listens for so long that what ended it before has passed. */
  get isStable(): boolean {
    return performance.now() - this.#startMs > MAX_RELISTEN_MS;
  }

  /**
   * Listens again, after it has ended.
   * @throws when that is not possible now.
   */
  listen(port: number, pauseMs: number): void {
    this.pauseMs = pauseMs;
    this.#server = this.#serve(port);
  }

  /**
   * Waits for requests in flight, but also for stuck readers and for ever for a client that left during its handshake:
   * so give it a moment, no more. It can't be cut short: Deno throws when a shutdown is aborted.
   */
  shutdown(): Promise<void> {
    this.#isEnding = true;
    return this.#server.shutdown();
  }

  #serve(port: number): Deno.HttpServer<Deno.NetAddr> {
    const { tls, signal, handler, onEnd } = this.#options;
    const secure = tls?.cert !== undefined && { cert: tls.cert, key: tls.key! };
    const server = Deno.serve(
      {
        hostname: this.#config.host,
        port,
        reusePort: secure !== false,
        ...(signal && { signal }),
        onListen() {},
        ...secure,
      },
      (request, info) => {
        if (this.isRetired && wantsUpgrade(request)) {
          return problem("draining", "The certificate is being replaced: connect again");
        }
        return handler(request, info);
      },
    );
    this.#startMs = performance.now();
    const onFinished = (error: unknown) => {
      if (!this.#isEnding && !signal?.aborted) onEnd(this, error);
    };
    server.finished.then(() => onFinished("it has ended"), onFinished);
    return server;
  }
}

function openLogAs(name: string, config: Config): Log {
  return openLog({
    level: config.logLevel,
    dir: absolutePath(config.logDir, Deno.cwd()),
    name: `userwire-${name.replaceAll(/[^\w.-]/g, "_")}`,
    format: config.logFormat,
    maxBytes: config.logMaxBytes,
    rotate: config.logRotate,
    maxFiles: config.logMaxFiles,
  });
}

/** @param keys The settings that name the files. */
function pemOf(
  config: Config,
  keys: Readonly<
    Partial<Record<"ca" | "cert" | "key", "redisCa" | "redisCert" | "redisKey" | "tlsCert" | "tlsKey">>
  >,
): Pem | undefined {
  const named = (key: (typeof keys)["ca"]) => {
    const path = key && config[key];
    return path === undefined ? undefined : { env: SETTINGS[key!].env, path };
  };
  return readPem({ ca: named(keys.ca), cert: named(keys.cert), key: named(keys.key) }, Deno.cwd());
}

function announce(
  log: Log,
  config: Config,
  { url, node, auth }: { url: string; node: string; auth: App["auth"] },
): void {
  log.info("listening", { url, node, version: VERSION });
  if (config.redisUrl === undefined && config.redisUrlFile === undefined) {
    log.warn("broker in memory: users of this one instance only; set REDIS_URL to scale out");
  }
  for (const wide of wideOrigins(config.allowedOrigins)) log.warn("an origin on the list is wide", wide);
  if (!auth.isOpen) {
    log.info("closed mode: callers need a key, sockets a token or a ticket", { tokens: auth.takesTokens });
    return;
  }
  log.warn(
    isLoopback(config.host)
      ? "open mode: any program on this machine may connect and send as anyone"
      : "open mode: whoever reaches this address may connect and send as anyone",
  );
}

/** The host as it stands in a URL that can be opened here. */
function printable(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "localhost";
  return host.includes(":") ? `[${host}]` : host;
}

/** Waits for the promise, but not longer; returns whether it was settled in time. */
async function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => late.resolve(false), ms);
  const inTime = await Promise.race([promise.then(() => true, () => true), late.promise]);
  clearTimeout(timer);
  return inTime;
}
