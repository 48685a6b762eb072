/**
 * The service as a process: starts a server, ends it when a signal or a supervisor asks for it, and survives faults that
 * Deno would end the process for.
 */
import type { Config } from "../config/settings.ts";
import { surviveFaults } from "../log/faults.ts";
import { follow, type Place } from "../processes/place.ts";
import { type Hands, onSignals } from "../processes/signals.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Look } from "./app.ts";
import { type Server, startServer } from "./server.ts";

/** A supervisor, and which of its processes this is. */
export interface Supervision {
  readonly place: Place;
  /** Where it says what to do: standard input. */
  readonly orders: ReadableStream<Uint8Array<ArrayBuffer>>;
}

interface ServeOptions {
  readonly stop?: AbortSignal | undefined;
  readonly supervision?: Supervision;
  readonly look?: Look;
}

/**
 * Runs a service until a signal ends it.
 * @param options.stop Drains as a first SIGTERM does.
 * @param options.look Looks at the set-up, for who asks.
 * @param options.supervision When it is one of several processes.
 * @returns The exit code: 0, or 1 when it ended at once or can't listen any more.
 * @throws {ConfigError}
 */
export async function serve(
  config: Config,
  { stop, supervision, look }: ServeOptions = {},
): Promise<number> {
  const stopped = Promise.withResolvers<number>();
  const returned = new AbortController();
  let started: Server | undefined;
  const end = async (server: Server, code: number) => {
    try {
      await server.shutdown();
      stopped.resolve(code);
    } catch (error) {
      stopped.resolve(1);
      server.log.error("shutdown failed", { reason: messageOf(error) });
    }
  };
  const starting = Promise.withResolvers<Server>();
  const hands: Hands = {
    // A server that is still starting is ended once it has started; that a start failed, `serve` throws.
    drain: () => void starting.promise.then((server) => end(server, 0), () => {}),
    end() {
      // A third signal meets no listener and ends the process where it is: by then the log must be written.
      started?.log.flush();
      stopped.resolve(1);
    },
    empty: () => void starting.promise.then(({ app }) => void app.draining.start(), () => {}),
    reload: () => void starting.promise.then((server) => server.reload(), () => {}),
    // The supervisor's, which may have been sent to all processes of the service.
    ...(supervision && { restart() {} }),
  };
  // Before the start: a program that reads in the log that it listens may send a signal at once.
  using _signals = onSignals(hands, stop);
  if (supervision) void follow(supervision.orders, hands);
  starting.resolve(startServer(config, { place: supervision?.place, ...(look && { look }) }));
  surviveFaults(starting.promise.then(({ log }) => log), returned.signal);
  starting.promise.then((server) => {
    started = server;
    void server.failed.then(() => end(server, 1));
  }, stopped.reject);
  try {
    return await stopped.promise;
  } finally {
    returned.abort();
  }
}
