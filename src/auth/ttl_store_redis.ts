/** The store in Redis, for many nodes, and for those that restart: each entry is a string that expires. */
import { type PubSubWords, Script, type Scripts } from "../redis/commands.ts";
import { LATER_S, type Moment, type MomentNotice, type Notice, type TtlStore } from "./ttl_store.ts";

/** How long what a script sets where it is tried lives, in milliseconds. */
const TRIAL_MS = "1000";

/** A script of one key, with what it is tried with. */
const scriptOf = (
  text: string | ((words: PubSubWords) => string),
  trialArgs: (tag: string) => string[] = () => [],
) => new Script(text, { probe: (tag) => ({ keys: [`userwire:{${tag}}:memo`], args: trialArgs(tag) }) });

/**
 * Begins a script that sets an entry. What was there is known before anything is written, so that it can be put back.
 * An entry never ends earlier than the one whose place it takes.
 */
const RECALL = `
local known = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
`;
/**
 * Ends it. The entry first: what can't be written is not told. What can't be told, as where an ACL forbids the channel,
 * is taken back; by writing, for which no other right is needed. Told by Redis itself, because a broker holds what it
 * publishes back for a while after an outage, until it can count right.
 */
const write = ({ publish }: PubSubWords) => `
redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', math.max(ttl, left)))
if channel then
  local heard = redis.pcall('${publish}', channel, payload)
  if type(heard) == 'table' and heard.err then
    if not known then redis.call('SET', KEYS[1], '', 'PX', 1)
    else redis.call('SET', KEYS[1], known, 'PX', string.format('%.0f', left < 0 and ttl or math.max(1, left))) end
    return heard
  end
end
return text
`;
const SET = scriptOf(
  (words) =>
    `${RECALL}
local text, ttl, channel, payload = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
${write(words)}`,
  (tag) => ["1", TRIAL_MS, tag, ""],
);
/**
 * By Redis' clock, as those of the nodes may differ, and an entry of one that is ahead counts too; and by that of this node where
 * it is later: what was issued by a clock that goes right is in the past for whoever says "now", also where Redis' clock is behind.
 */
const SET_MAX = scriptOf(
  (words) =>
    `${RECALL}
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local before = tonumber(known or '') or -1
local moment
if ARGV[1] == '' then moment = math.max(before + ${
      LATER_S.toFixed(6)
    }, math.max(now, tonumber(ARGV[7])) + tonumber(ARGV[2]))
else moment = math.max(before, tonumber(ARGV[1])) end
local text = string.format('%.6f', moment)
local ttl = math.ceil(tonumber(ARGV[3]) + math.max(0, moment - now) * 1000)
local channel, payload = ARGV[4], ARGV[5] .. text .. ARGV[6]
${write(words)}`,
  (tag) => ["1", "0", TRIAL_MS, tag, "", "", "0"],
);
const GET_MANY = scriptOf(`
local texts = {}
for i, key in ipairs(KEYS) do texts[i] = redis.call('GET', key) or '' end
return texts
`);
const TAKE = scriptOf(`
local text = redis.call('GET', KEYS[1])
if text then redis.call('DEL', KEYS[1]) end
return text
`);
const NOW = scriptOf("return redis.call('TIME')");

export class RedisTtlStore implements TtlStore {
  readonly #scripts: Scripts;

  constructor(scripts: Scripts) {
    this.#scripts = scripts;
    scripts.prepare(SET, SET_MAX, GET_MANY, TAKE, NOW);
  }

  async set(name: string, text: string, ttlMs: number, notice?: Notice): Promise<void> {
    const words = notice ? [notice.channel, notice.payload] : [];
    await this.#scripts.evaluate(SET, [name], [text, String(Math.ceil(ttlMs)), ...words]);
  }

  async setMax(name: string, moment: Moment, ttlMs: number, notice: MomentNotice): Promise<number> {
    const [at, aheadS] = "at" in moment ? [String(moment.at), "0"] : ["", String(moment.aheadS)];
    const { channel, head, tail } = notice;
    const ownNow = String(Date.now() / 1_000);
    const words = [at, aheadS, String(Math.ceil(ttlMs)), channel, head, tail, ownNow];
    return Number(await this.#scripts.evaluate(SET_MAX, [name], words));
  }

  async getMany(names: readonly string[]): Promise<(string | undefined)[]> {
    const texts = await this.#scripts.evaluate(GET_MANY, names, []) as string[];
    return texts.map((text) => text === "" ? undefined : text);
  }

  async take(name: string): Promise<string | undefined> {
    return await this.#scripts.evaluate(TAKE, [name], []) as string | null ?? undefined;
  }

  async now(name: string): Promise<number> {
    const [seconds, micros] = await this.#scripts.evaluate(NOW, [name], []) as [string, string];
    return Number(seconds) + Number(micros) / 1_000_000;
  }

  line(name: string): string {
    return this.#scripts.lifeAt(name);
  }
}
