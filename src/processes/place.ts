/**
 * One of several processes that are a service together, as that process sees itself: which of them it is, what of the
 * limits is its own, and what the supervisor tells it, by its standard input. A process whose supervisor has died drains
 * and ends: nobody would start it again, nor tell it to end.
 */
import type { Config } from "../config/settings.ts";
import type { Hands } from "./signals.ts";

/** Which of several processes one is. */
export interface Place {
  /** From 1; no two that live at a time have the same. */
  readonly number: number;
  /** How many share the limits. */
  readonly of: number;
  /** The port they share; never 0. */
  readonly port: number;
  /** Unix socket at which it answers the supervisor. */
  readonly opsPath: string;
}

/** What the supervisor may say, a word a line. The end of the input means "drain". */
export type Order = "reload" | "empty" | "drain" | "end";

/**
 * The settings of one process: the port that all share, and its part of the limits that count sockets and handshakes,
 * rounded up. 0 stays no limit. What one user may have is not divided, because it is counted over all nodes.
 */
export function settingsAt(place: Place, config: Config): Config {
  const part = (limit: number) => Math.ceil(limit / place.of);
  return {
    ...config,
    port: place.port,
    maxConnections: part(config.maxConnections),
    maxConnectionsPerAddress: part(config.maxConnectionsPerAddress),
    upgradesPerSecond: part(config.upgradesPerSecond),
  };
}

/**
 * Carries out what the supervisor says, until it is gone.
 * @param input Standard input.
 */
export async function follow(input: ReadableStream<Uint8Array<ArrayBuffer>>, hands: Hands): Promise<void> {
  const orders: Readonly<Record<Order, () => void>> = {
    reload: () => hands.reload(),
    empty: () => hands.empty(),
    drain: () => hands.drain(),
    end: () => hands.end(),
  };
  let rest = "";
  try {
    for await (const text of input.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) if (Object.hasOwn(orders, line)) orders[line as Order]();
    }
  } catch {
    // An input that breaks is one that has ended.
  }
  hands.drain();
}
