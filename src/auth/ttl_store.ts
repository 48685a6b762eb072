/**
 * Short texts under a name until their time is up: what tickets and revocations are made of. In memory for a single
 * instance, in Redis for many and for those that restart. Not a cache: what was put is there until it expires.
 */
import type { Broker } from "../broker/broker.ts";
import { type Redis, Script } from "../redis/commands.ts";

/** What a channel is told of a memo. */
export interface Notice {
  readonly channel: string;
  readonly payload: string;
}

/** What a channel is told of a moment: it stands between the two. */
export interface MomentNotice {
  readonly channel: string;
  readonly head: string;
  readonly tail: string;
}

/** A moment in Unix seconds, or so many seconds from now, by the clock of the store. */
export type Moment = { readonly at: number } | { readonly aheadS: number };

export interface Memos {
  /**
   * All or nothing: what can't be told is not put either.
   * @param notice Published in the same step: who hears it finds the memo there, and no memo is there unheard of.
   * @throws {BrokerUnavailableError}
   */
  put(name: string, text: string, ttlMs: number, notice?: Notice): Promise<void>;
  /**
   * Puts a moment there unless a later one is there, and starts its time anew; one step, so that of many at once the
   * latest stays. A moment from now is later than any that is there.
   * @param ttlMs Counted from the moment when that is still to come.
   * @param notice As for `put`; published also when a later moment is there.
   * @returns What is there now, in Unix seconds.
   * @throws {BrokerUnavailableError}
   */
  raise(name: string, moment: Moment, ttlMs: number, notice: MomentNotice): Promise<number>;
  /** What is there under each name. All names share a hash slot. @throws {BrokerUnavailableError} */
  read(names: readonly string[]): Promise<(string | undefined)[]>;
  /** Takes it away and returns it; of many takers one gets it. @throws {BrokerUnavailableError} */
  take(name: string): Promise<string | undefined>;
  /**
   * The clock of the store, which all instances share: Unix seconds with fractions.
   * @param name Any that will be used next: it says where to ask.
   * @throws {BrokerUnavailableError}
   */
  now(name: string): Promise<number>;
}

/** How many memos are put between two looks for those whose time is up. */
const SWEEP_EVERY = 256;
/** By so many seconds a moment is later than the one before it at least. */
const LATER_S = 0.00001;

export class MemoryMemos implements Memos {
  readonly #memos = new Map<string, { text: string; endsMs: number }>();
  readonly #broker: Broker;
  #puts = 0;

  /** @param broker Where notices are published; stays the caller's to close. */
  constructor(broker: Broker) {
    this.#broker = broker;
  }

  /** How many are held, those included whose time is up. */
  get size(): number {
    return this.#memos.size;
  }

  async put(name: string, text: string, ttlMs: number, notice?: Notice): Promise<void> {
    // Not the time of day: were that set back, nothing would end, and nothing be swept away.
    const nowMs = performance.now();
    if (++this.#puts % SWEEP_EVERY === 0) {
      for (const [name, { endsMs }] of this.#memos) if (endsMs <= nowMs) this.#memos.delete(name);
    }
    this.#memos.set(name, { text, endsMs: nowMs + ttlMs });
    if (notice) await this.#broker.publish(notice.channel, notice.payload);
  }

  async raise(name: string, moment: Moment, ttlMs: number, notice: MomentNotice): Promise<number> {
    const nowS = Date.now() / 1_000;
    const known = Number(this.#get(name) ?? -Infinity);
    const raised = "at" in moment
      ? Math.max(known, moment.at)
      : Math.max(known + LATER_S, nowS + moment.aheadS);
    const { channel, head, tail } = notice;
    await this.put(name, String(raised), ttlMs + Math.max(0, raised - nowS) * 1_000, {
      channel,
      payload: head + raised + tail,
    });
    return raised;
  }

  read(names: readonly string[]): Promise<(string | undefined)[]> {
    return Promise.resolve(names.map((name) => this.#get(name)));
  }

  take(name: string): Promise<string | undefined> {
    const text = this.#get(name);
    this.#memos.delete(name);
    return Promise.resolve(text);
  }

  now(): Promise<number> {
    return Promise.resolve(Date.now() / 1_000);
  }

  #get(name: string): string | undefined {
    const memo = this.#memos.get(name);
    return memo && memo.endsMs > performance.now() ? memo.text : undefined;
  }
}

/** Where a script is tried, and how long what it puts there lives, in milliseconds. */
const TRIAL_MS = "1000";
const trialKey = (tag: string) => `userwire:{${tag}}:memo`;

/**
 * Begins a script that puts a memo. What was there is known before anything is written, so that it can be put back.
 * A memo never ends earlier than the one whose place it takes.
 */
const RECALL = `
local known = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
`;
/**
 * Ends it. The memo first: what can't be written is not told. What can't be told, as where an ACL forbids the channel,
 * is taken back; by writing, for which no other right is needed. Told by Redis itself, because a broker holds what it
 * publishes back for a while after an outage, until it can count right.
 */
const WRITE = `
redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', math.max(ttl, left)))
if channel then
  local heard = redis.pcall('PUBLISH', channel, payload)
  if type(heard) == 'table' and heard.err then
    if not known then redis.call('SET', KEYS[1], '', 'PX', 1)
    else redis.call('SET', KEYS[1], known, 'PX', string.format('%.0f', left < 0 and ttl or math.max(1, left))) end
    return heard
  end
end
return text
`;
const PUT = new Script(
  `
${RECALL}
local text, ttl, channel, payload = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
${WRITE}
`,
  { probe: (tag) => ({ keys: [trialKey(tag)], args: ["1", TRIAL_MS, tag, ""] }) },
);
/** By Redis' clock: those of the instances may differ, and whoever is ahead must be meant too. */
const RAISE = new Script(
  `
${RECALL}
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local before = tonumber(known or '') or -1
local moment
if ARGV[1] == '' then moment = math.max(before + ${LATER_S.toFixed(6)}, now + tonumber(ARGV[2]))
else moment = math.max(before, tonumber(ARGV[1])) end
local text = string.format('%.6f', moment)
local ttl = math.ceil(tonumber(ARGV[3]) + math.max(0, moment - now) * 1000)
local channel, payload = ARGV[4], ARGV[5] .. text .. ARGV[6]
${WRITE}
`,
  { probe: (tag) => ({ keys: [trialKey(tag)], args: ["1", "0", TRIAL_MS, tag, "", ""] }) },
);
const READ = new Script(
  `
local texts = {}
for i, key in ipairs(KEYS) do texts[i] = redis.call('GET', key) or '' end
return texts
`,
  { probe: (tag) => ({ keys: [trialKey(tag)], args: [] }) },
);
const TAKE = new Script(
  `
local text = redis.call('GET', KEYS[1])
if text then redis.call('DEL', KEYS[1]) end
return text
`,
  { probe: (tag) => ({ keys: [trialKey(tag)], args: [] }) },
);
const NOW = new Script("return redis.call('TIME')", {
  probe: (tag) => ({ keys: [trialKey(tag)], args: [] }),
});

export class RedisMemos implements Memos {
  readonly #redis: Redis;

  /** @param redis Stays the caller's to close. */
  constructor(redis: Redis) {
    this.#redis = redis;
    redis.prepare(PUT, RAISE, READ, TAKE, NOW);
  }

  async put(name: string, text: string, ttlMs: number, notice?: Notice): Promise<void> {
    const words = notice ? [notice.channel, notice.payload] : [];
    await this.#redis.evaluate(PUT, [name], [text, String(Math.ceil(ttlMs)), ...words]);
  }

  async raise(name: string, moment: Moment, ttlMs: number, notice: MomentNotice): Promise<number> {
    const [at, aheadS] = "at" in moment ? [String(moment.at), "0"] : ["", String(moment.aheadS)];
    const { channel, head, tail } = notice;
    return Number(
      await this.#redis.evaluate(RAISE, [name], [
        ...[at, aheadS, String(Math.ceil(ttlMs))],
        ...[channel, head, tail],
      ]),
    );
  }

  async read(names: readonly string[]): Promise<(string | undefined)[]> {
    const texts = await this.#redis.evaluate(READ, names, []) as string[];
    return texts.map((text) => text === "" ? undefined : text);
  }

  async take(name: string): Promise<string | undefined> {
    return await this.#redis.evaluate(TAKE, [name], []) as string | null ?? undefined;
  }

  async now(name: string): Promise<number> {
    const [seconds, micros] = await this.#redis.evaluate(NOW, [name], []) as [string, string];
    return Number(seconds) + Number(micros) / 1_000_000;
  }
}
