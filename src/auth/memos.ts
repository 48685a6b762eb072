/**
 * Short texts under a name until their time is up: what tickets and revocations are made of. In memory for a single
 * instance, in Redis for many and for those that restart. Not a cache: what was put is there until it expires.
 */
import type { Broker } from "../broker/broker.ts";
import { type Redis, Script } from "../redis.ts";

/** What a channel is told of a memo. */
export interface Notice {
  readonly channel: string;
  readonly payload: string;
}

export interface Memos {
  /**
   * @param notice Published in the same step: who hears it finds the memo there, and no memo is there unheard of.
   * @throws {BrokerUnavailableError}
   */
  put(name: string, text: string, ttlMs: number, notice?: Notice): Promise<void>;
  /**
   * Puts a number there unless a greater one is there, and starts its time anew; one step, so that of many at once the
   * greatest stays.
   * @param notice As for `put`; published also when a greater number is there.
   * @throws {BrokerUnavailableError}
   */
  raise(name: string, number: number, ttlMs: number, notice?: Notice): Promise<void>;
  /** What is there under each name. All names share a hash slot. @throws {BrokerUnavailableError} */
  read(names: readonly string[]): Promise<(string | undefined)[]>;
  /** Takes it away and returns it; of many takers one gets it. @throws {BrokerUnavailableError} */
  take(name: string): Promise<string | undefined>;
}

/** How many memos are put between two looks for those whose time is up. */
const SWEEP_EVERY = 256;

export class MemoryMemos implements Memos {
  readonly #memos = new Map<string, { text: string; endsMs: number }>();
  readonly #broker: Broker;
  #puts = 0;

  /** @param broker Where notices are published; stays the caller's to close. */
  constructor(broker: Broker) {
    this.#broker = broker;
  }

  async put(name: string, text: string, ttlMs: number, notice?: Notice): Promise<void> {
    if (++this.#puts % SWEEP_EVERY === 0) {
      const nowMs = Date.now();
      for (const [name, { endsMs }] of this.#memos) if (endsMs <= nowMs) this.#memos.delete(name);
    }
    this.#memos.set(name, { text, endsMs: Date.now() + ttlMs });
    if (notice) await this.#broker.publish(notice.channel, notice.payload);
  }

  raise(name: string, number: number, ttlMs: number, notice?: Notice): Promise<void> {
    return this.put(name, String(Math.max(number, Number(this.#get(name) ?? -Infinity))), ttlMs, notice);
  }

  read(names: readonly string[]): Promise<(string | undefined)[]> {
    return Promise.resolve(names.map((name) => this.#get(name)));
  }

  take(name: string): Promise<string | undefined> {
    const text = this.#get(name);
    this.#memos.delete(name);
    return Promise.resolve(text);
  }

  #get(name: string): string | undefined {
    const memo = this.#memos.get(name);
    return memo && memo.endsMs > Date.now() ? memo.text : undefined;
  }
}

/**
 * At the end of a script: what can't be written is not told. By Redis itself, because a broker holds what it publishes
 * back for a while after an outage, until it can count right.
 */
const PUBLISH_NOTICE = "if ARGV[3] then redis.call('PUBLISH', ARGV[3], ARGV[4]) end";
const PUT = new Script(`
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
${PUBLISH_NOTICE}
`);
const RAISE = new Script(`
local known = redis.call('GET', KEYS[1])
local number = known and tonumber(known) > tonumber(ARGV[1]) and known or ARGV[1]
redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
${PUBLISH_NOTICE}
`);
const READ = new Script(`
local texts = {}
for i, key in ipairs(KEYS) do texts[i] = redis.call('GET', key) or '' end
return texts
`);
const TAKE = new Script(`
local text = redis.call('GET', KEYS[1])
if text then redis.call('DEL', KEYS[1]) end
return text
`);

export class RedisMemos implements Memos {
  readonly #redis: Redis;

  /** @param redis Stays the caller's to close. */
  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async put(name: string, text: string, ttlMs: number, notice?: Notice): Promise<void> {
    await this.#redis.evaluate(PUT, [name], [text, String(Math.ceil(ttlMs)), ...wordsOf(notice)]);
  }

  async raise(name: string, number: number, ttlMs: number, notice?: Notice): Promise<void> {
    await this.#redis.evaluate(RAISE, [name], [
      String(number),
      String(Math.ceil(ttlMs)),
      ...wordsOf(notice),
    ]);
  }

  async read(names: readonly string[]): Promise<(string | undefined)[]> {
    const texts = await this.#redis.evaluate(READ, names, []) as string[];
    return texts.map((text) => text === "" ? undefined : text);
  }

  async take(name: string): Promise<string | undefined> {
    return await this.#redis.evaluate(TAKE, [name], []) as string | null ?? undefined;
  }
}

function wordsOf(notice: Notice | undefined): string[] {
  return notice ? [notice.channel, notice.payload] : [];
}
