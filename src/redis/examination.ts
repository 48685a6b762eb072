/** What a doctor asks of a Redis beside what a service asks of it all the time: its version, its settings, its clock. */
import type { Client } from "./client_library.ts";
import { isReply } from "./error_text.ts";
import { readInfo } from "./server_info.ts";

export interface Examination {
  /** Such as "7.0.15". */
  readonly version: string;
  /** "master", "slave"; "standalone", "cluster", "sentinel"; "" when it is not said. */
  readonly role: string;
  readonly mode: string;
  readonly connected: number;
  /** Undefined when it is not said, as before 6.2. */
  readonly maxclients: number | undefined;
  /** Settings that it tells; without an entry those that it does not. */
  readonly settings: ReadonlyMap<string, string>;
  /** The shortest of some. */
  readonly roundTripMs: number;
  /** How far its clock is ahead of ours, give or take half a round trip. */
  readonly aheadMs: number;
}

const SETTINGS = ["tcp-keepalive", "client-output-buffer-limit"];
const TRIALS = 5;

/** @param asksSettings Whether to ask for settings: an ACL user should not have that right, and Redis notes each trial. */
export async function examine(client: Client, asksSettings: boolean): Promise<Examination> {
  const { role, mode, field } = readInfo(await client.info());
  const number = (name: string) => {
    const text = field(name);
    return text === undefined ? undefined : Number(text);
  };
  const settings = new Map<string, string>();
  for (const name of asksSettings ? SETTINGS : []) {
    try {
      const value = (await client.configGet(name))[name];
      if (value !== undefined) settings.set(name, value);
    } catch (error) {
      // Managed services forbid it.
      if (!isReply(error)) throw error;
    }
  }
  let roundTripMs = Infinity;
  let aheadMs = 0;
  for (let trial = 0; trial < TRIALS; trial++) {
    const startMs = performance.now();
    const sentMs = Date.now();
    const [seconds, micros] = await client.sendCommand<string[]>(["TIME"]) as [string, string];
    const tookMs = performance.now() - startMs;
    if (tookMs >= roundTripMs) continue;
    roundTripMs = tookMs;
    aheadMs = Number(seconds) * 1_000 + Number(micros) / 1_000 - (sentMs + tookMs / 2);
  }
  return {
    version: field("valkey_version") ?? field("redis_version") ?? "",
    role,
    mode,
    connected: number("connected_clients") ?? 0,
    maxclients: number("maxclients"),
    settings,
    roundTripMs,
    aheadMs,
  };
}
