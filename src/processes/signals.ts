/**
 * The signals of a service, whether it is one process or several: the first SIGTERM or SIGINT drains, the second ends at
 * once, SIGHUP reloads, SIGUSR1 sends clients away, and SIGUSR2 restarts several processes one after the other.
 */

/** Ctrl+C comes twice under `deno task`: from the terminal, and passed on by the task. That is one signal. */
const SAME_SIGNAL_MS = 300;
const IS_WINDOWS = Deno.build.os === "windows";
const STOP_SIGNALS: readonly Deno.Signal[] = IS_WINDOWS ? ["SIGINT"] : ["SIGTERM", "SIGINT"];

/** What can be asked of a service from outside. None of them throws. */
export interface Hands {
  /** Sends clients away over the drain window, and ends. Asked again, it goes on as it does. */
  drain(): void;
  /** Ends at once. */
  end(): void;
  /** Sends clients away over the drain window, takes no more, and goes on. */
  empty(): void;
  /** Reads files again. */
  reload(): void;
  /** Puts new processes into the places of the old ones. Without it, SIGUSR2 keeps what it means to the system. */
  restart?(): void;
}

/**
 * Listens to the signals until it is disposed of.
 * @param stop Drains as a first SIGTERM does.
 */
export function onSignals(hands: Hands, stop?: AbortSignal): Disposable {
  let firstMs: number | undefined;
  const onStop = () => {
    if (firstMs === undefined) {
      firstMs = performance.now();
      hands.drain();
    } else if (performance.now() - firstMs > SAME_SIGNAL_MS) hands.end();
  };
  const listeners: [Deno.Signal, () => void][] = STOP_SIGNALS.map((name) => [name, onStop]);
  if (!IS_WINDOWS) listeners.push(["SIGHUP", () => hands.reload()], ["SIGUSR1", () => hands.empty()]);
  if (!IS_WINDOWS && hands.restart) listeners.push(["SIGUSR2", () => hands.restart!()]);
  for (const [name, listener] of listeners) Deno.addSignalListener(name, listener);
  stop?.addEventListener("abort", onStop);
  if (stop?.aborted) onStop();
  return {
    [Symbol.dispose]() {
      for (const [name, listener] of listeners) Deno.removeSignalListener(name, listener);
      stop?.removeEventListener("abort", onStop);
    },
  };
}
