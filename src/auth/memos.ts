/**
 * Short texts under a name until their time is up: what tickets and revocations are made of. In memory for a single
 * instance, in Redis for many and for those that restart. Not a cache: what was put is there until it expires.
 */
import { type Redis, Script } from "../redis.ts";

export interface Memos {
  /** @throws {BrokerUnavailableError} */
  put(name: string, text: string, ttlMs: number): Promise<void>;
  /**
   * Puts a number there unless a greater one is there, and starts its time anew; one step, so that of many at once the
   * greatest stays.
   * @throws {BrokerUnavailableError}
   */
  raise(name: string, number: number, ttlMs: number): Promise<void>;
  /** What is there under each name. All names share a hash slot. @throws {BrokerUnavailableError} */
  read(names: readonly string[]): Promise<(string | undefined)[]>;
  /** Takes it away and returns it; of many takers one gets it. @throws {BrokerUnavailableError} */
  take(name: string): Promise<string | undefined>;
}

/** How many memos are put between two looks for those whose time is up. */
const SWEEP_EVERY = 256;

export class MemoryMemos implements Memos {
  readonly #memos = new Map<string, { text: string; endsMs: number }>();
  #puts = 0;

  put(name: string, text: string, ttlMs: number): Promise<void> {
    if (++this.#puts % SWEEP_EVERY === 0) {
      const nowMs = Date.now();
      for (const [name, { endsMs }] of this.#memos) if (endsMs <= nowMs) this.#memos.delete(name);
    }
    this.#memos.set(name, { text, endsMs: Date.now() + ttlMs });
    return Promise.resolve();
  }

  raise(name: string, number: number, ttlMs: number): Promise<void> {
    return this.put(name, String(Math.max(number, Number(this.#get(name) ?? -Infinity))), ttlMs);
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

const PUT = new Script("return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])");
const RAISE = new Script(`
local known = redis.call('GET', KEYS[1])
local number = known and tonumber(known) > tonumber(ARGV[1]) and known or ARGV[1]
return redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
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

  async put(name: string, text: string, ttlMs: number): Promise<void> {
    await this.#redis.evaluate(PUT, [name], [text, String(Math.ceil(ttlMs))]);
  }

  async raise(name: string, number: number, ttlMs: number): Promise<void> {
    await this.#redis.evaluate(RAISE, [name], [String(number), String(Math.ceil(ttlMs))]);
  }

  async read(names: readonly string[]): Promise<(string | undefined)[]> {
    const texts = await this.#redis.evaluate(READ, names, []) as string[];
    return texts.map((text) => text === "" ? undefined : text);
  }

  async take(name: string): Promise<string | undefined> {
    return await this.#redis.evaluate(TAKE, [name], []) as string | null ?? undefined;
  }
}
