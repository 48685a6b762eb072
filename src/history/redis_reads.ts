/** Reads of histories in Redis: a page of messages with the position, as they are at one moment. */
import { Semaphore } from "../async/semaphore.ts";
import { parsePosition } from "../protocol/position.ts";
import { historyKey, positionKey, type Redis } from "../redis/commands.ts";
import { newEpoch } from "./epochs.ts";
import type { HistoryLimits, Page, SinceOptions } from "./history.ts";
import { COUNTER_TTL_MS } from "./lifetimes.ts";
import type { LastAppends } from "./last_appends.ts";
import { SINCE, type SinceReply } from "./since_script.ts";
import type { Timeline } from "./timeline.ts";

/**
 * Reads of messages that are under way at one time: a crowd that comes back at once must not have all histories in memory,
 * here or in what Redis holds for this connection.
 */
const MAX_READS = 8;

export interface ReadsParts {
  readonly redis: Redis;
  readonly timeline: Timeline;
  readonly limits: HistoryLimits;
  readonly remembered: LastAppends;
  /** Called with each read of messages: how many subscriptions the channel has. */
  readonly onCount: (channel: string, count: number) => void;
}

export class RedisReads {
  readonly #parts: ReadsParts;
  readonly #turns = new Semaphore(MAX_READS);

  constructor(parts: ReadsParts) {
    this.#parts = parts;
    if (parts.limits.count > 0) parts.redis.prepare(SINCE);
  }

  /** As `History.since`. */
  since(channel: string, after: number | undefined, limit: number, options?: SinceOptions): Promise<Page> {
    const read = () => this.#read(channel, after, limit, options);
    // Without a number it brings no message.
    return after === undefined ? read() : this.#turns.run(read);
  }

  async #read(
    channel: string,
    after: number | undefined,
    limit: number,
    { proof = false, peek = false }: SinceOptions = {},
  ): Promise<Page> {
    const { redis, timeline, limits, remembered, onCount } = this.#parts;
    const elsewhere = timeline.elsewhere(channel);
    const reply = await redis.evaluate(SINCE, [positionKey(channel), historyKey(channel)], [
      after === undefined ? "" : String(after),
      String(limit),
      String(COUNTER_TTL_MS),
      timeline.name,
      newEpoch(),
      proof ? "1" : "0",
      peek ? "1" : "0",
      channel,
      String(limits.count),
      remembered.thoroughly(channel),
      ...(elsewhere === "" ? [] : [elsewhere]),
    ]);
    const [epoch, former, last, upTo, lastTag, afterTag, reached, ...messages] = reply as SinceReply;
    if (after !== undefined) onCount(channel, Number(reached));
    const items = [];
    for (let i = 0; i < messages.length; i += 2) {
      items.push({ seq: Number(messages[i]), envelope: messages[i + 1]! });
    }
    return {
      epoch,
      previousEpochs: former.split(",").flatMap((position) => parsePosition(position) ?? []),
      last: Number(last),
      items,
      upTo: Number(upTo),
      lastTag,
      afterTag,
    };
  }
}
