/**
 * A service from its start to its end: listens, opens the log and the app, and closes them in reverse order. Faults that
 * only a start can find are reported all at once. Knows no signals and ends no process: that is `run.ts`.
 */
import { type Pem, redisTlsOf, tlsOf } from "../config/pem.ts";
import type { Config } from "../config/settings.ts";
import { LogLevels } from "../log/levels.ts";
import type { Log } from "../log/log.ts";
import { openServiceLog } from "../log/open.ts";
import { OpenFiles } from "../metrics/open_files.ts";
import { listenUrl } from "../net/listening.ts";
import { type Place, settingsAt } from "../processes/place.ts";
import { sendAway } from "../session/drain.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { ConfigError, orFaults } from "../protocol/errors.ts";
import { type App, type Listeners, type Look, openApp } from "./app.ts";
import { logBanner } from "./banner.ts";
import { Listener, type ListenerOptions } from "./listener.ts";
import { OpsSocket } from "./ops_socket.ts";

/** How long a start waits to learn that Redis refuses it; a Redis that is away is waited for in the background. */
const FIRST_ATTEMPT_MS = 2_000;
/** How long the listener and the broker may take to close. */
const CLOSE_MS = 1_000;

/**
 * Starts a service.
 * @param options.log Used instead of the log that the settings describe; stays the caller's to close.
 * @param options.look Looks at the set-up, for who asks.
 * @param options.place Which process it is, of several that share the port.
 * @throws {ConfigError} with every fault: a port in use, a log folder that can't be written, a refused password.
 */
export async function startServer(
  given: Config,
  options: { log?: Log; place?: Place | undefined; look?: Look } & Listeners = {},
): Promise<Server> {
  const { place, onRequest, onUsersChanged } = options;
  const config = place ? settingsAt(place, given) : given;
  const faults: string[] = [];
  const attempt = <T>(make: () => T): T | undefined => orFaults(make, faults);
  const ready = Promise.withResolvers<Server>();
  // Where no request waits for it, a failed start would be an uncaught rejection as well.
  ready.promise.catch(() => {});
  let app: App | undefined = undefined;
  const failed = new AbortController();

  let tls = attempt(() => tlsOf(config));
  const redisTls = attempt(() => redisTlsOf(config));
  // Before anybody can connect: to learn the limit it may open files until there are no more.
  const files = new OpenFiles();
  const listenerOptions: ListenerOptions = {
    host: config.host,
    port: config.port,
    tls,
    sharesPort: place !== undefined,
    signal: failed.signal,
    handler: (request, info) =>
      app ? app.handle(request, info) : ready.promise.then(({ app }) => app.handle(request, info)),
    // A listener that stops during the start is tried again after it.
    onStop: (listener, error) =>
      void ready.promise.then((server) => server.recover(listener, error), () => {}),
  };
  const listener = attempt(() => new Listener(listenerOptions));
  const port = listener?.port ?? config.port;
  const node = `${config.node ?? `${Deno.hostname()}:${port}`}${place ? `#${place.number}` : ""}`;
  const sink = options.log ??
    attempt(() =>
      openServiceLog(config.node ?? String(port), { ...config, logLevel: "debug" }, place?.number)
    );
  const levels = sink && new LogLevels(sink, options.log?.level ?? config.logLevel);

  const opened = levels && attempt(() =>
    openApp(config, {
      ...{ node, levels, files, redisTls, tls: () => tls, hasOpsSocket: place !== undefined },
      ...{ onRequest, onUsersChanged, look: options.look },
    })
  );
  if (opened) faults.push(...await faultsWithRedis(opened, config));
  if (!listener || !levels || !opened || faults.length > 0) {
    await opened?.close();
    ready.reject(new Error("The start failed"));
    failed.abort();
    await listener?.finished;
    if (!options.log) sink?.close();
    throw new ConfigError(faults);
  }
  app = opened;
  const log = levels.in("service");
  const server = new Server({
    config,
    app,
    log,
    isLogOurs: options.log === undefined,
    node,
    listener,
    ops: place && new OpsSocket(place.opsPath, (request) => opened.answerOps(request)),
    replace: (next) => {
      const { signal: _, ...rest } = listenerOptions;
      const replacement = new Listener({ ...rest, port: listener.port, tls: next, replaces: true });
      tls = next;
      return replacement;
    },
  });
  ready.resolve(server);
  logBanner(log, config, server);
  return server;
}

interface Parts {
  readonly config: Config;
  readonly app: App;
  readonly log: Log;
  /** Whether the log is to be closed at the end. */
  readonly isLogOurs: boolean;
  readonly node: string;
  readonly listener: Listener;
  /** Where the supervisor asks; undefined without one. */
  readonly ops: OpsSocket | undefined;
  /** Listens on the same port with another certificate. @throws {ConfigError} */
  replace(tls: Pem): Listener;
}

/** A running service. */
export class Server implements AsyncDisposable {
  /** Where the console page is, such as "http://127.0.0.1:8765/". */
  readonly url: string;
  readonly port: number;
  readonly node: string;
  readonly app: App;
  readonly log: Log;
  readonly #parts: Parts;
  readonly #failed = Promise.withResolvers<void>();
  #listener: Listener;
  #ending: Promise<void> | undefined;
  /** Listeners that were replaced and still have sockets. */
  #retiring: Promise<unknown> = Promise.resolve();

  constructor(parts: Parts) {
    const { config, app, log, node, listener } = parts;
    this.#parts = parts;
    this.app = app;
    this.log = log;
    this.node = node;
    this.port = listener.port;
    this.url = listenUrl(listener.tls ? "https" : "http", config.host, listener.port);
    this.#listener = listener;
  }

  /** Resolves when it can't listen any more, whatever it tries. */
  get failed(): Promise<void> {
    return this.#failed.promise;
  }

  /** Brings back a listener that has stopped. */
  async recover(listener: Listener, error: unknown): Promise<void> {
    if (!await listener.recover(error, this)) this.#failed.resolve();
  }

  /**
   * Reads the files of keys and certificates again; faults are logged, and what was there stays. Drops no socket, unless
   * the certificate is a new one: then clients are asked to come back, spread over the drain window.
   */
  reload(): void {
    const faults: string[] = [];
    const keys = orFaults(() => this.app.auth.reload(), faults);
    const tls = orFaults(() => tlsOf(this.#parts.config), faults);
    orFaults(() => this.app.reloadRedis(), faults);
    for (const fault of faults) this.log.error("settings not reloaded", { reason: fault });
    if (keys !== undefined) this.log.info("reloaded", { api_keys: keys });
    const { tls: old } = this.#listener;
    if (tls && (tls.cert !== old?.cert || tls.key !== old?.key)) this.#renew(tls);
  }

  /**
   * Listens with the new certificate, then ends the old listener. Deno ends a listener's sockets with it, so they are sent
   * away first, as in a drain; those that come back meet the new one.
   */
  #renew(tls: Pem): void {
    const faults: string[] = [];
    const old = this.#listener;
    const next = orFaults(() => this.#parts.replace(tls), faults);
    for (const fault of faults) this.log.error("settings not reloaded", { reason: fault });
    if (!next) return;
    this.#listener = next;
    old.retire();
    const { connections } = this.app;
    this.log.info("certificate replaced: clients are told to come back", { sockets: connections.size });
    this.#retiring = Promise.all([
      this.#retiring,
      sendAway(connections, CLOSE.restart, this.#parts.config.drainS * 1_000).then(() => old.shutdown()),
    ]);
  }

  /** Drains, closes everything in reverse order of opening, flushes the log. Idempotent; never hangs. */
  shutdown(): Promise<void> {
    return this.#ending ??= this.#end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  async #end(): Promise<void> {
    const { app, log } = this;
    const { drainS } = this.#parts.config;
    this.#listener.end();
    log.info("shutting down", { sockets: app.connections.size, window_s: drainS });
    const left = await app.drain(drainS * 1_000);
    if (left > 0) log.warn("sockets did not answer the close", { sockets: left });
    await within(Promise.all([this.#listener.shutdown(), this.#retiring]), CLOSE_MS);
    await within(app.close(), CLOSE_MS);
    await within(Promise.resolve(this.#parts.ops?.close()), CLOSE_MS);
    log.info("stopped");
    if (this.#parts.isLogOurs) log.close();
  }
}

/** What is wrong with the address of Redis, as far as Redis says so at the first attempt. */
async function faultsWithRedis(app: App, config: Config): Promise<string[]> {
  const attempt = await app.firstAttempt(FIRST_ATTEMPT_MS);
  if (attempt.outcome !== "refused") return [];
  const { reason, remedy, detail } = attempt;
  const name = config.redisUrlFile === undefined ? "REDIS_URL" : "REDIS_URL_FILE";
  return [`${name}: ${reason}: ${remedy}${detail === undefined ? "" : ` (${detail})`}`];
}

/** Waits for the promise to settle, whichever way, but not longer than that. */
async function within(promise: Promise<unknown>, ms: number): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, ms);
  await Promise.race([promise.catch(() => {}), late.promise]);
  clearTimeout(timer);
}
