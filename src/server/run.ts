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
 * @param options.signal Ends it as a first SIGTERM does.
 * @param options.faults As for `startServer`.
 * @returns The exit code: 0, or 1 when it ended at once or can't listen any more.
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
    // A server that is still starting is ended once it has started; a start that fails is reported by `run`.
    starting.then((server) =>
      server.shutdown().then(() => stopped.resolve(0), (error) => {
        stopped.resolve(1);
        server.log.error("shutdown failed", { reason: messageOf(error) });
      }), () => {});
  };
  const reload = () => void starting.then((server) => server.reload(), () => {});
  // Before the start: a program that reads in the log that it listens may send a signal at once.
  for (const name of STOP_SIGNALS) Deno.addSignalListener(name, stop);
  if (!IS_WINDOWS) Deno.addSignalListener("SIGHUP", reload);
  options.signal?.addEventListener("abort", stop);
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
    for (const name of STOP_SIGNALS) Deno.removeSignalListener(name, stop);
    if (!IS_WINDOWS) Deno.removeSignalListener("SIGHUP", reload);
    options.signal?.removeEventListener("abort", stop);
  }
}

/**
 * Logs uncaught errors instead of letting Deno end the process: an exception in a WebSocket handler must end one session
 * and not all, and a Redis that refuses our certificate is reported by Deno where nobody can catch it.
 */
function surviveFaults(starting: Promise<Server>): Disposable {
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
  globalThis.addEventListener("error", survive);
  globalThis.addEventListener("unhandledrejection", survive);
  return {
    [Symbol.dispose]() {
      globalThis.removeEventListener("error", survive);
      globalThis.removeEventListener("unhandledrejection", survive);
    },
  };
}
