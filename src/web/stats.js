/**
 * The stream of a node's numbers: opened while somebody looks, opened again when it breaks, and never shown as live when it
 * is not. Read by `fetch`, because an `EventSource` would have to show the key in its address.
 */
import { lacksKey } from "./access.js";
import { authorized, refusalOf } from "./api.js";

/** A stream that has said nothing for so many milliseconds is none any more: there is an event every five seconds. */
const SILENCE_MS = 15_000;
const RETRY_MS = 2_000;

/**
 * @typedef {{ at: number, connections: Record<string, number>, lagging: number, sends: Record<string, number>,
 *   send_ms?: { p50: number, p99: number }, delivered: number, replayed: number, gaps: Record<string, number>,
 *   missed: number, broker_available: boolean, redis_reconnects: number, interruptions: number,
 *   webhooks: Record<string, number>, webhook_oldest_s: number, events_dropped: number }} Sample
 * @typedef {{ node: string, version: string, since: string, connections: number, subscriptions?: string,
 *   draining: boolean }} NodeState
 * @typedef {{ about?: { node: string, version: string, webhooks: boolean }, every_ms?: number, samples: Sample[],
 *   readiness: import("./status.js").Readiness, nodes?: NodeState[], nodes_problem?: string }} Stats
 * @typedef {{ stats: (stats: Stats) => void, lost: (why: string) => void }} Listener
 *   `lost`: from now on nothing is live, until `stats` comes again.
 */

export class StatsStream {
  /** @type {Listener} */
  #listener;
  /** @type {AbortController | undefined} */
  #aborter;
  /** @type {number | undefined} */
  #retry;

  /** @param {Listener} listener */
  constructor(listener) {
    this.#listener = listener;
  }

  /** Opens it, anew when it was open: with the key that stands in its field now. */
  open() {
    this.close();
    if (lacksKey()) {
      return this.#listener.lost("An API key with the scope admin is needed, in the field above");
    }
    const aborter = this.#aborter = new AbortController();
    this.#read(aborter).then(({ why, isRefused = false }) => {
      if (this.#aborter !== aborter) return;
      this.#listener.lost(why);
      // The same key would be refused again.
      if (!isRefused) this.#retry = setTimeout(() => this.open(), RETRY_MS);
    });
  }

  close() {
    clearTimeout(this.#retry);
    const aborter = this.#aborter;
    this.#aborter = undefined;
    aborter?.abort();
  }

  /** @returns {Promise<{ why: string, isRefused?: boolean }>} Why it ended. */
  async #read(/** @type {AbortController} */ aborter) {
    let silence = setTimeout(() => aborter.abort(), SILENCE_MS);
    try {
      const response = await fetch("/v1/stats", {
        headers: authorized({ accept: "text/event-stream" }),
        cache: "no-store",
        signal: aborter.signal,
      });
      if (!response.ok || !response.body) {
        const { message, status } = refusalOf(response, await response.text());
        return { why: message, isRefused: status === 401 || status === 403 };
      }
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      for (let text = "";;) {
        const { value, done } = await reader.read();
        if (done) return { why: "The node has ended the stream" };
        clearTimeout(silence);
        silence = setTimeout(() => aborter.abort(), SILENCE_MS);
        const events = (text + decoder.decode(value, { stream: true })).split("\n\n");
        text = events.pop() ?? "";
        if (this.#aborter !== aborter) return { why: "" };
        for (const event of events) {
          this.#listener.stats(JSON.parse(event.slice(event.indexOf("data: ") + 6)));
        }
      }
    } catch {
      return { why: "This address does not answer" };
    } finally {
      clearTimeout(silence);
    }
  }
}
