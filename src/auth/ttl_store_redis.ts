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
local heard = redis.pcall('${publish}', channel, payload)
if type(heard) == 'table' and heard.err then
  if not known then redis.call('SET', KEYS[1], '', 'PX', 1)
  else redis.call('SET', KEYS[1], known, 'PX', string.format('%.0f', left < 0 and ttl or math.max(1, left))) end
  return heard
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

/**
 * What proves that a unique entry is no copy stands before its text: `mark`, where beside it there is a key that is kept as only
 * the memory it was written to has it. It is written without replication, so that neither a log nor a replica gets it, and raw,
 * which no snapshot and no RESTORE brings back for a text this short. Where scripts can't do that, it is the life of the server.
 */
const MARK = "mark";
const UNIQUE = (text: string, ...args: string[]) =>
  new Script(text, {
    probe: (tag) => ({ keys: uniqueKeys(`userwire:{${tag}}:memo`), args }),
  });
const uniqueKeys = (name: string) => [name, `${name}:${MARK}`];
const SET_UNIQUE = UNIQUE(
  `
local key, mark, text, ttl, proof = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if redis.set_repl then
  redis.set_repl(redis.REPL_NONE)
  redis.pcall('SET', mark, 'm', 'PX', ttl)
  -- What was appended to is kept raw, however short it is.
  redis.pcall('APPEND', mark, 'm')
  redis.set_repl(redis.REPL_ALL)
  if redis.pcall('OBJECT', 'ENCODING', mark) == 'raw' then proof = '${MARK}' end
end
redis.call('SET', key, proof .. ' ' .. text, 'PX', ttl)
`,
  "",
  TRIAL_MS,
  "",
);
const READ_UNIQUE = `
local proof, text = string.match(redis.call('GET', KEYS[1]) or '', '^(%S*) (.*)$')
if proof == '${MARK}' then
  if redis.pcall('OBJECT', 'ENCODING', KEYS[2]) ~= 'raw' then text = nil end
elseif proof ~= ARGV[1] then
  text = nil
end
`;
const GET_UNIQUE = UNIQUE(`${READ_UNIQUE} return text`, "");
const TAKE_UNIQUE = UNIQUE(
  `${READ_UNIQUE}
if text then redis.call('DEL', KEYS[1], KEYS[2]) end
return text`,
  "",
);
const NOW = scriptOf("return redis.call('TIME')");

export class RedisTtlStore implements TtlStore {
  readonly #scripts: Scripts;

  constructor(scripts: Scripts) {
    this.#scripts = scripts;
    scripts.prepare(SET, SET_MAX, GET_MANY, SET_UNIQUE, GET_UNIQUE, TAKE_UNIQUE, NOW);
  }

  async set(name: string, text: string, ttlMs: number, notice: Notice): Promise<void> {
    const args = [text, String(Math.ceil(ttlMs)), notice.channel, notice.payload];
    await this.#scripts.evaluate(SET, [name], args);
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

  async setUnique(name: string, text: string, ttlMs: number): Promise<void> {
    const args = [text, String(Math.ceil(ttlMs)), this.#scripts.lifeAt(name)];
    await this.#scripts.evaluate(SET_UNIQUE, uniqueKeys(name), args);
  }

  getUnique(name: string): Promise<string | undefined> {
    return this.#readUnique(GET_UNIQUE, name);
  }

  takeUnique(name: string): Promise<string | undefined> {
    return this.#readUnique(TAKE_UNIQUE, name);
  }

  async now(name: string): Promise<number> {
    const [seconds, micros] = await this.#scripts.evaluate(NOW, [name], []) as [string, string];
    return Number(seconds) + Number(micros) / 1_000_000;
  }

  async #readUnique(script: Script, name: string): Promise<string | undefined> {
    const text = await this.#scripts.evaluate(script, uniqueKeys(name), [this.#scripts.lifeAt(name)]);
    return text as string | null ?? undefined;
  }
}
