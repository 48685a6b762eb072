/** What a process that must live on does with errors that nobody caught. */
import { messageOf } from "../protocol/errors.ts";
import type { Log } from "./log.ts";

/**
 * Logs uncaught errors instead of letting Deno end the process: an exception in a WebSocket handler must end one session
 * and not all, and a Redis that refuses our certificate is reported by Deno where nobody can catch it.
 * @param log Where, as soon as there is one.
 * @param signal Gives them their usual meaning back.
 */
export function surviveFaults(log: Promise<Log>, signal: AbortSignal): void {
  // A start that fails is told by whoever waits for it.
  log.catch(() => {});
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
    log.then((log) => log.error("unexpected error", fields)).catch(() => {});
  };
  globalThis.addEventListener("error", survive, { signal });
  globalThis.addEventListener("unhandledrejection", survive, { signal });
}
