/**
 * A history whose messages are sent by the Redis function, or by its script: what reads them is a node's own. So the contract
 * that holds for a node's sends is held against those of strangers.
 */
import type { Appended, AppendOptions, History, OutgoingMessage } from "../src/history/history.ts";
import { type FunctionSettings, sendScript } from "../src/history/function_library.ts";
import { payloadOf } from "../src/protocol/envelope.ts";
import { PLAIN } from "../src/redis/pubsub_words.ts";
import type { Reply } from "./redis_commands.ts";

/** Runs one command where a key is kept. @throws what Redis refused. */
export type Command = (key: string, ...args: string[]) => Promise<Reply>;

/** By which command it is sent: as a function that is loaded, or as a script. */
export function functionCall(): string[] {
  return ["FCALL", "userwire_send"];
}

export function scriptCall(settings: FunctionSettings): string[] {
  return ["EVAL", sendScript(PLAIN, settings)];
}

/** @param call What `functionCall` or `scriptCall` says. */
export function byFunction(history: History, command: Command, call: readonly string[]): History {
  const sent = new Set<string>();
  let last: Promise<unknown> = Promise.resolve();
  const append = async (
    channel: string,
    message: OutgoingMessage,
    { ttlMs, expectOnline, idempotency }: AppendOptions = {},
  ): Promise<Appended> => {
    const key = `userwire:{${channel}}`;
    const options = [
      ...["id", message.id],
      ...(ttlMs === undefined ? [] : ["ttl", String(ttlMs / 1_000)]),
      ...(expectOnline ? ["expect", "online"] : []),
      ...(idempotency ? ["key", idempotency.key] : []),
    ];
    try {
      const reply = await command(key, ...call, "1", key, ...payloadIn(message), ...options);
      const [reached, seq, epoch, id] = reply as [number, number | null, string | null, string];
      // The function does not say whether it did it now: that is told by the id.
      const isOurs = id === message.id && !sent.has(`${channel} ${id}`);
      if (isOurs) sent.add(`${channel} ${id}`);
      const outcome = isOurs ? "appended" : "repeated";
      return { outcome, id, position: seq === null ? undefined : { epoch: epoch!, seq }, reached };
    } catch (error) {
      const { message } = error as Error;
      if (message.startsWith("OFFLINE ")) return { outcome: "offline" };
      if (message.startsWith("CONFLICT ")) return { outcome: "conflict" };
      throw error;
    }
  };
  return {
    limits: history.limits,
    append,
    appendToAll(channels, message, options) {
      const all = async () => {
        const results: PromiseSettledResult<Appended>[] = [];
        for (const channel of channels) {
          results.push(...await Promise.allSettled([append(channel, message, options)]));
        }
        return results;
      };
      // One list after the other, as on one connection.
      const results = last.then(all);
      last = results;
      return results;
    },
    openRun: (...args) => history.openRun(...args),
    appendPage: (...args) => history.appendPage(...args),
    leaveRun: (...args) => history.leaveRun(...args),
    claim: (...args) => history.claim(...args),
    release: (...args) => history.release(...args),
    since: (...args) => history.since(...args),
  };
}

function payloadIn({ head, tail }: OutgoingMessage): string[] {
  const kind = head.charAt(4);
  const payload = payloadOf(head + tail);
  if (payload instanceof Uint8Array) return [payload.toBase64(), "as", "base64"];
  return kind === "t" ? [payload, "as", "text"] : [payload];
}
