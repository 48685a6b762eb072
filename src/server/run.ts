/**
 * The service as a process: starts a server, ends it at a signal, and survives faults that Deno would end the process
 * for. The first SIGTERM or SIGINT drains, the second ends at once, SIGHUP reloads.
 */
import type { Config } from "../config/settings.ts";
import { messageOf } from "../protocol/errors.ts";
import { type Server, startServer } from "./server.ts";

/** Ctrl+C comes twice under `deno task`: from the terminal, and passed on by the task. That is one signal. */
const SAME_SIGNAL_MS = 300;
const IS_WINDOWS = Deno.build.os === "windows";
const STOP_SIGNALS: readonly Deno.Signal[] = IS_WINDOWS ? ["SIGINT"] : ["SIGTERM", "SIGINT"];

/**
 * Runs a service until a signal ends it.
 * @param signal Ends it as a first SIGTERM does.
 * @returns The exit code: 0, or 1 when it ended at once or can't listen any more.
 * @throws {ConfigError}
 */
export async function serve(config: Config, signal?: AbortSignal): Promise<number> {
  const stopped = Promise.withResolvers<number>();
  const returned = new AbortController();
  let firstSignalMs: number | undefined;
  let started: Server | undefined;
  const stop = () => {
    if (firstSignalMs !== undefined) {
      if (performance.now() - firstSignalMs <= SAME_SIGNAL_MS) return;
      // A third signal meets no listener and ends the process where it is: by then the log must be written.
      started?.log.flush();
      return stopped.resolve(1);
    }
    firstSignalMs = performance.now();
    // A server that is still starting is ended once it has started; that a start failed, `serve` throws.
    starting.then((server) => end(server, 0), () => {});
  };
  const end = async (server: Server, code: number) => {
    try {
      await server.shutdown();
      stopped.resolve(code);
    } catch (error) {
      stopped.resolve(1);
      server.log.error("shutdown failed", { reason: messageOf(error) });
    }
  };
  const reload = () => void starting.then((server) => server.reload(), () => {});
  // Before the start: a program that reads in the log that it listens may send a signal at once.
  for (const name of STOP_SIGNALS) Deno.addSignalListener(name, stop);
  if (!IS_WINDOWS) Deno.addSignalListener("SIGHUP", reload);
  signal?.addEventListener("abort", stop, { signal: returned.signal });
  const starting = startServer(config);
  if (signal?.aborted) stop();
  surviveFaults(starting, returned.signal);
  starting.then((server) => {
    started = server;
    void server.failed.then(() => end(server, 1));
  }, stopped.reject);
  try {
    return await stopped.promise;
  } finally {
    for (const name of STOP_SIGNALS) Deno.removeSignalListener(name, stop);
    if (!IS_WINDOWS) Deno.removeSignalListener("SIGHUP", reload);
    returned.abort();
  }
}

/**
 * Logs uncaught errors instead of letting Deno end the process: an exception in a WebSocket handler must end one session
 * and not all, and a Redis that refuses our certificate is reported by Deno where nobody can catch it.
 */
function surviveFaults(starting: Promise<Server>, signal: AbortSignal): void {
  const survive = (event: ErrorEvent | PromiseRejectionEvent) => {
    event.preventDefault();
    const error = event instanceof ErrorEvent ? event.error : event.reason;
    // An exception in here would come back as the next event, or end the process. So the log reads the error, which may
    // be anything.
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
  globalThis.addEventListener("error", survive, { signal });
  globalThis.addEventListener("unhandledrejection", survive, { signal });
}
