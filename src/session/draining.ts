/**
 * A node that is emptied and does not end: its clients are sent to the others, spread over the drain window, and it takes
 * no new ones until that is taken back. Sends and calls are answered as ever.
 */
import type { Log } from "../log/log.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { messageOf } from "../protocol/errors.ts";
import { drain } from "./drain.ts";
import type { Registry } from "./registry.ts";

/** How far it has come. */
export interface DrainState {
  readonly draining: boolean;
  /** When it began, as ISO 8601 writes it. */
  readonly since?: string;
  /** Sockets that there were then. */
  readonly of?: number;
  /** Sockets that are still there, those that were told to close too. */
  readonly left: number;
}

/** The log says how far it is each time another part of so many is told to close. */
const PARTS = 4;

export class Draining {
  readonly #connections: Registry;
  readonly #log: Log;
  readonly #windowS: number;
  #current: { readonly stop: AbortController; readonly since: string; readonly of: number } | undefined;

  /** Called when it has begun, and when it was taken back. */
  onChange: () => void = () => {};

  /** @param windowS Over how long clients are sent away, in seconds. */
  constructor(connections: Registry, log: Log, windowS: number) {
    this.#connections = connections;
    this.#log = log;
    this.#windowS = windowS;
  }

  /** Whether new clients are refused, also when the last one is gone. */
  get isOn(): boolean {
    return this.#current !== undefined;
  }

  get state(): DrainState {
    const left = this.#connections.size + this.#connections.closing;
    if (!this.#current) return { draining: false, left };
    const { since, of } = this.#current;
    return { draining: true, since, of, left };
  }

  /** Begins; goes on as it does when it has begun. */
  start(): DrainState {
    if (this.#current) return this.state;
    const stop = new AbortController();
    const of = this.#connections.size;
    this.#current = { stop, since: new Date().toISOString(), of };
    this.#log.info("draining", { sockets: of, window_s: this.#windowS });
    void this.#run(stop.signal);
    this.onChange();
    return this.state;
  }

  /** Takes clients again. Those that were told to go stay away until they come back by themselves. */
  stop(): DrainState {
    if (this.#current) {
      this.#current.stop.abort();
      this.#current = undefined;
      this.#log.info("draining taken back", { sockets: this.#connections.size });
      this.onChange();
    }
    return this.state;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const startMs = performance.now();
    let said = 0;
    const onStep = (closed: number, of: number) => {
      const part = Math.floor(closed * PARTS / of);
      if (part <= said || closed === of) return;
      said = part;
      this.#log.info("drain progress", { told: closed, of });
    };
    try {
      const left = await drain(this.#connections, CLOSE.restart, this.#windowS * 1_000, { signal, onStep });
      if (signal.aborted) return;
      const seconds = Math.round((performance.now() - startMs) / 100) / 10;
      this.#log.info("drained", { seconds });
      if (left > 0) this.#log.warn("sockets did not answer the close", { sockets: left });
    } catch (error) {
      this.#log.error("drain failed", { reason: messageOf(error) });
    }
  }
}
