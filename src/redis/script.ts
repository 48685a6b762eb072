/** Lua scripts, as they are known to Redis. */
import { createHash } from "node:crypto";
import { messageOf } from "../protocol/errors.ts";
import type { Client } from "./client_library.ts";
import { PLAIN, type PubSubWords, SHARDED } from "./pubsub_words.ts";

export interface ScriptOptions {
  /**
   * How the script is tried, so that a Redis that refuses it is known before a user meets it: with keys and arguments
   * that make it do all that it may do, on keys that expire within seconds. Without this it is called without keys,
   * which finds out only whether scripts may be called at all.
   * @param tag Of this process alone; keys are named `userwire:{<tag>}:…`, and channels by the tag itself.
   */
  readonly probe?: (tag: string) => { keys: readonly string[]; args: readonly string[] };
}

/** A script as one kind of Redis gets it. Called without keys and arguments it does nothing. */
export interface ScriptForm {
  readonly source: string;
  /** By which Redis knows it. */
  readonly sha: string;
}

/** A Lua script. */
export class Script {
  readonly probe: ScriptOptions["probe"] | undefined;
  readonly #forms: ReadonlyMap<PubSubWords, ScriptForm>;

  /** @param write Writes it with the words that pub/sub has there. */
  constructor(write: string | ((words: PubSubWords) => string), options: ScriptOptions = {}) {
    this.probe = options.probe;
    this.#forms = new Map([PLAIN, SHARDED].map((words) => {
      const source = `if #KEYS + #ARGV == 0 then return end\n${
        typeof write === "string" ? write : write(words)
      }`;
      return [words, { source, sha: createHash("sha1").update(source).digest("hex") }];
    }));
  }

  in(words: PubSubWords): ScriptForm {
    return this.#forms.get(words)!;
  }
}

/**
 * Runs a script on a connection.
 * @param onError Hears of what Redis refused, before the caller does.
 */
export function evaluateOn(
  client: Client,
  script: ScriptForm,
  keys: readonly string[],
  args: readonly string[],
  onError?: (script: ScriptForm, error: unknown) => void,
): Promise<unknown> {
  const call = (how: string, what: string): Promise<unknown> =>
    client.sendCommand([how, what, String(keys.length), ...keys, ...args]);
  return call("EVALSHA", script.sha).catch((error: unknown) => {
    // Redis forgets scripts when it restarts, and at SCRIPT FLUSH.
    if (messageOf(error).startsWith("NOSCRIPT")) return call("EVAL", script.source);
    onError?.(script, error);
    throw error;
  });
}
