/**
 * The service inside a program of yours, written in Deno:
 *
 * ```ts ignore
 * import { loadConfig, serve } from "../userwire/src/mod.ts";
 *
 * await using service = await serve(loadConfig({ env: { PORT: "8765" } }), {
 *   onRequest: ({ user, op }) => `${user} asked for ${op}`,
 * });
 * await service.app.publisher.send("alice", { order: 7 });
 * ```
 *
 * `serve` listens by itself; `openApp` leaves that to a server of yours, and the clock of its end, too. What is named here
 * stays within a major version. The other files may change at any time.
 */
import { loadConfig as load } from "./config/load.ts";
import type { Config, Sources } from "./config/settings.ts";
import type { Log } from "./log/log.ts";
import { ConfigError } from "./protocol/errors.ts";
import { type App, type AppOptions, type Listeners, openApp as openUnprepared } from "./server/app.ts";
import { startServer } from "./server/server.ts";

/** Settings that `loadConfig` has read; no other object will do. */
export interface LoadedConfig {
  readonly host: string;
  readonly port: number;
  readonly node: string | undefined;
}

/**
 * Reads settings, each by the name of its variable: `loadConfig({ env: { PORT: "8765" } })`, `loadConfig({ env:
 * Deno.env.toObject() })`. What is not given has its default; nothing else is read.
 * @throws {ConfigError} with every fault found.
 */
export function loadConfig(sources: Sources): LoadedConfig {
  return load(sources);
}

/** A running service. */
export interface Service extends AsyncDisposable {
  /** Where the console page is, such as "http://127.0.0.1:8765/". */
  readonly url: string;
  readonly port: number;
  readonly node: string;
  readonly app: App;
  readonly log: Log;
  /** Resolves when it can't listen any more, whatever it tries. */
  readonly failed: Promise<void>;
  /** Drains, closes everything, flushes the log. Idempotent; never hangs. */
  shutdown(): Promise<void>;
}

/**
 * Starts a service in this process. It listens to no signal: end it with `shutdown`, or by `await using`.
 * @param options.log Used instead of the log that the settings describe; stays the caller's to close.
 * @throws {ConfigError} with every fault: a port in use, a log folder that can't be written, a refused password.
 */
export async function serve(given: LoadedConfig, options: Listeners & { log?: Log } = {}): Promise<Service> {
  const config = given as Config;
  if (config.processes === 1) return await startServer(config, options);
  throw new ConfigError([
    "USERWIRE_PROCESSES starts the program userwire several times, and not this one: leave it out",
  ]);
}

/** How long the first attempt to reach Redis is waited for, which says only what the log says too. */
const FIRST_ATTEMPT_MS = 2_000;

/**
 * Opens all that a service is but what listens: give its `handle` the requests of a server of yours. At the end call
 * `drain`, then `close`.
 * @throws {ConfigError} with every fault of keys, tokens and the log.
 */
export function openApp(config: LoadedConfig, options: AppOptions = {}): App {
  const app = openUnprepared(config as Config, options);
  void app.firstAttempt(FIRST_ATTEMPT_MS);
  return app;
}

export type { Sources } from "./config/settings.ts";
export type { Log } from "./log/log.ts";
export {
  BrokerUnavailableError,
  ConfigError,
  InvalidMessageError,
  InvalidUsernameError,
  RequestError,
} from "./protocol/errors.ts";
export type { ConnectionInfo } from "./net/connection_info.ts";
export * from "./publisher/mod.ts";
export type { IncomingRequest, OnRequest } from "./requests/by_function.ts";
export type { App, AppOptions, Listeners } from "./server/app.ts";
export type { OnUsersChanged, UserChange } from "./server/events.ts";
