/**
 * The client library, which no other file imports: how it is set up here, and what commands become that it fails.
 *
 * It is loaded when it is needed: its hundreds of files take longer than all the rest of a service, and in memory none of
 * them is used.
 */
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { RedisAddress } from "./address.ts";
import { classOf, isReply, publicMessage } from "./error_text.ts";

/** A connection on which nothing came for so long is given up and dialled again. */
const SILENCE_MS = 5_000;

export type Client = ReturnType<typeof newClient>;

let library: typeof import("redis") | undefined;
let loading: Promise<void> | undefined;

/** Whether clients can be made. */
export function isLoaded(): boolean {
  return library !== undefined;
}

/** Resolves when clients can be made. */
export function load(): Promise<void> {
  if (library) return Promise.resolve();
  return loading ??= import("redis").then((loaded) => void (library = loaded))
    .finally(() => loading = undefined);
}

/** A client that dials once, when `connect` is called. Only once the library is loaded. */
export function newClient(address: RedisAddress) {
  const { transport, hostname, port, path, tls, username, password, database } = address;
  return (model ??= newModel()).duplicate({
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    database,
    socket: {
      ...(transport === "unix" ? { path } : { host: hostname, port }),
      ...(transport === "tls" && { tls: true as const, ...tls }),
      connectTimeout: 3_000,
      socketTimeout: SILENCE_MS,
      // When to try again is decided in `command_connection.ts` too.
      reconnectStrategy: false,
    },
  });
}

/**
 * Never connected: what all clients are made like. `createClient` makes a class with every command of Redis anew whenever
 * its options are others than the time before, for some 50 ms in which the process does nothing else.
 */
let model: ReturnType<typeof newModel> | undefined;

function newModel() {
  return library!.createClient({
    // RESP2 needs no greeting and is spoken by every Redis.
    RESP: 2,
    maintNotifications: "disabled",
    disableClientInfo: true,
    // A command given while there is no connection fails at once, so that the caller can say so.
    disableOfflineQueue: true,
    // Its own deadlines cost a signal and a timer for each command; ours are in `outbox.ts`.
    commandOptions: { timeout: 0 },
  });
}

/** Whether Redis answered and would not let us in. */
export function isRefusal(error: unknown): boolean {
  return /^(WRONGPASS|NOAUTH|NOPERM|ERR AUTH|ERR invalid password|ERR Client sent AUTH)/.test(
    messageOf(error),
  );
}

/** The error that a command is rejected with when the library rejects it with the one given. */
export function asUnavailable(error: unknown): BrokerUnavailableError {
  const name = classOf(error);
  const isUnsent = name === "ClientOfflineError" || name === "ClientClosedError";
  return new BrokerUnavailableError(publicMessage(error), {
    outcome: isReply(error) || isUnsent ? "refused" : "unknown",
    cause: error,
  });
}
