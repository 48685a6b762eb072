/**
 * The Redis functions: a program in any language sends with one command, and what `append` promises holds for it.
 *
 *     FCALL userwire_send 1 userwire:{alice} '{"order":7}'               → sockets, seq, epoch, id
 *     FCALL userwire_send 1 userwire:{alice} '{"order":7}' ttl 60 key order-7 id o7 expect online
 *     FCALL_RO userwire_online 0 alice bob                               → 2, 0
 *     FCALL_RO userwire_version 0                                        → "1 0.1.0 100 300000 65536"
 *
 * The step itself is the text of the script that a node runs (`append_script.ts`). What a node knows besides, a function has to
 * find out where it runs: whether the data is that which was looked at, and which timeline it is of.
 *
 * - On one Redis both stand in the data: the timeline's name, and the mark that only this server's memory has. Without the
 *   mark the data was restored, copied or restarted, and some of it may be lost: nothing is numbered in it until a node has
 *   looked. Should none do so, a new timeline begins after `PATIENCE_MS`. Where nothing was ever appended, the function begins
 *   the first timeline as a node would.
 * - On a cluster each master has a timeline, under a key that a function can't find out. There each node tells it, once a second
 *   (`function_loader.ts`). It is kept in the library's memory, which a restart and a whole copy of another's data end.
 *
 * Nodes look for the last append that each of them was answered, and tell one another of it. A function's is noted beside
 * theirs, so that they look for it too: a loss of what it sent is found out as the loss of anything else.
 */
import denoJson from "../../deno.json" with { type: "json" };
import { type PubSubWords, SHARDED } from "../redis/commands.ts";
import { appendIt } from "./append_script.ts";
import { CHECKS } from "./function_checks.ts";
import type { HistoryLimits } from "./history.ts";
import { COUNTER_TTL_MS, IDEMPOTENCY_TTL_MS } from "./lifetimes.ts";
import { TIMELINE_TTL_MS } from "./timeline.ts";

/** What the functions are written for. */
export interface FunctionSettings extends HistoryLimits {
  /** Largest payload, in bytes. */
  readonly maxBytes: number;
}

/** Raised with each change of what they store or answer. */
const FORMAT = 1;
/** How long a node has to look at data that has taken the place of other data. */
const PATIENCE_MS = 5_000;

/** What `userwire_version` answers: format, version of the program, and the settings. */
export function functionVersion({ count, ttlMs, maxBytes }: FunctionSettings): string {
  return `${FORMAT} ${denoJson.version} ${count} ${ttlMs} ${maxBytes}`;
}

/** Whether functions of one version are older than those of another; their settings don't count. */
export function isOlder(version: string, than: string): boolean {
  const [ones, others] = [version, than].map((text) => text.match(/^\d+ \d+\.\d+\.\d+/)?.[0].split(/[ .]/));
  if (!ones || !others) return ones === undefined;
  const at = ones.findIndex((number, i) => number !== others[i]);
  return at >= 0 && Number(ones[at]) < Number(others[at]);
}

/** The text for `FUNCTION LOAD`. */
export function functionLibrary(words: PubSubWords, settings: FunctionSettings): string {
  const isCluster = words === SHARDED;
  return `#!lua name=userwire
${preamble(words, settings)}
redis.register_function{function_name = 'userwire_send', callback = send${
    isCluster ? ", flags = {'allow-cross-slot-keys'}" : ""
  }}
redis.register_function{function_name = 'userwire_version', flags = {'no-writes'}, callback = function() return VERSION end}
redis.register_function{function_name = 'userwire_online', flags = {'no-writes'}, callback = ${
    isCluster ? ONLINE_OF_ONE : ONLINE
  }}
${isCluster ? TOLD : ""}`;
}

/** The text of a script that does what `userwire_send` does, for a Redis without functions: with the same key and arguments. */
export function sendScript(words: PubSubWords, settings: FunctionSettings): string {
  return `${preamble(words, settings)}return send(KEYS, ARGV)\n`;
}

function preamble(words: PubSubWords, settings: FunctionSettings): string {
  return `-- Written by "userwire redis-functions print": change nothing here, but the settings there.
local VERSION = '${functionVersion(settings)}'
local MAX_BYTES = ${settings.maxBytes}
local KEEPS = ${settings.count > 0}
local TTL = ${settings.ttlMs}
local HEADS = {j = '\\1uw1j{"t":"m",', t = '\\1uw1t{"t":"m",', b = '\\1uw1b{"t":"m",'}
${CHECKS}
${NAMES}
${words === SHARDED ? TIMELINE_AS_TOLD : TIMELINE_OF_DATA}
local function append(position, history, memory, channel, head, tail, data, id, own, ttl, timeline, elsewhere, now,
    expect_online, fingerprint)
  local count, counter_ttl, memory_ttl, most = ${settings.count}, ${COUNTER_TTL_MS}, ${IDEMPOTENCY_TTL_MS}, '${
    settings.count + 1
  }'
  local leaves, remembered, epoch_if_new = string.format('%d', now + ttl), '', nil
  -- Where there are patterns it is not asked for them: that would be one more right.
  local publish_counts = ${!words.hasPatterns}
${appendIt(words, { clock: "", tail: "tail .. data .. '}'", random: MADE })}
end
${sendIn(words === SHARDED)}`;
}

/** `is_of_memory`, `timeline_of`, and the key in which the last appends are noted. */
const TIMELINE_OF_DATA = String.raw`
local TIMELINE = 'userwire:{userwire:timeline}'
local MARK = TIMELINE .. ':mark:'
local function is_of_memory(key) return redis.pcall('OBJECT', 'ENCODING', key) == 'raw' end

local function begin_timeline(name, mark)
  if not redis.set_repl then return nil, 'ERR this Redis can write nothing that is not copied: send by HTTP' end
  redis.set_repl(redis.REPL_NONE)
  local set = redis.pcall('SET', MARK .. mark, 'm', 'PX', ${TIMELINE_TTL_MS})
  if set.ok then redis.pcall('APPEND', MARK .. mark, 'm') end
  redis.set_repl(redis.REPL_ALL)
  if set.err then return nil, set.err end
  if not is_of_memory(MARK .. mark) then
    return nil, 'NOPERM this needs the rights +set +append +object|encoding: docs/redis.md has the whole rule'
  end
  redis.call('HSET', TIMELINE, 'name', name, 'mark', mark, 'begun', mark)
  redis.call('PEXPIRE', TIMELINE, ${TIMELINE_TTL_MS})
  return name
end

local function timeline_of(key, now)
  local state = redis.call('HMGET', TIMELINE, 'name', 'mark')
  local name, mark = state[1], state[2] or ''
  if name and is_of_memory(MARK .. mark) then return name, '', TIMELINE .. ':last' end
  local random, fault = new_name(), nil
  if not name then
    -- The name that each node gives the first timeline of this server.
    local info = redis.pcall('INFO', 'server')
    local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
    name, fault = begin_timeline('1.' .. string.sub(run, 1, 12), random)
  elseif redis.call('HGET', TIMELINE, 'asked_of') ~= mark then
    redis.call('HSET', TIMELINE, 'asked', string.format('%.0f', now), 'asked_of', mark)
    fault = 'NOTREADY'
  elseif now - tonumber(redis.call('HGET', TIMELINE, 'asked')) < ${PATIENCE_MS} then
    fault = 'NOTREADY'
  else
    local later = math.max(now, tonumber(string.match(name, '^%d+') or 0) + 1)
    name, fault = begin_timeline(string.format('%.0f', later) .. '.' .. random, random)
  end
  if fault == 'NOTREADY' then
    fault = 'NOTREADY this Redis was restarted or replaced, and no node has looked yet whether it kept its data: nothing was ' ..
      'sent, send it again in a second'
  end
  if fault then return nil, fault end
  return name, '', TIMELINE .. ':last'
end
`;

const TIMELINE_AS_TOLD = String.raw`
local told
local function timeline_of(key)
  if not told then
    return nil, 'NOTREADY no node has said yet what this master keeps: nothing was sent, send it again in a second; nodes need ' ..
      'USERWIRE_REDIS_FUNCTIONS=load'
  end
  -- What another node has found out since, or it is kept elsewhere now.
  local name = redis.pcall('HGET', told.key, 'name')
  if name and name ~= told.name then
    return nil, 'NOTREADY this master changes what it keeps just now: nothing was sent, send it again in a second'
  end
  local slot = redis.call('CLUSTER', 'KEYSLOT', key)
  for _, range in ipairs(told.slots) do
    if range[1] <= slot and slot <= range[2] then return told.name, '', told.key .. ':last' end
  end
  return told.name, ',' .. told.ended, told.key .. ':last'
end
`;

const TOLD = String.raw`
redis.register_function{function_name = 'userwire_timeline', flags = {'no-writes'}, callback = function(_, argv)
  local slots = {}
  for first, last in string.gmatch(argv[3], '(%d+)-?(%d*)') do
    slots[#slots + 1] = {tonumber(first), tonumber(last) or tonumber(first)}
  end
  told = {name = argv[1], key = argv[2], slots = slots, ended = argv[4]}
  return 1
end}
`;

/** Keys of a slot that is on the way come one after the other: a command with several of them is refused until all are there. */
const HAS_COME = String.raw`  local there = redis.pcall('EXISTS', position, history, memory or history)
  if type(there) == 'table' then
    return redis.error_reply('TRYAGAIN this user is on the way to another master: nothing was sent, send it again in a second')
  end
`;

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/**
 * `seed`, `digits_of` and `new_name`. What is random is asked for once, since a hash of it costs more than a command; from then
 * on each message has the next number of a generator in its tag, and the next number of all in its id. Names of epochs can't be
 * guessed from what clients see: each has a hash of its own.
 */
const NAMES = String.raw`
local DIGITS = {${[...DIGITS].map((digit) => `'${digit}'`).join(",")}}
local secret, prefix, own_number, nth
-- Where a table lies in memory is known to this process alone.
local function seed(time, channel)
  secret = redis.sha1hex(time[1] .. ' ' .. time[2] .. ' ' .. tostring({}) .. ' ' .. channel)
  prefix = string.gsub(string.sub(secret, 1, 18), '^(........)(....)(...)(...)$', '%1-%2-4%3-a%4-')
  own_number, nth = tonumber(string.sub(secret, 19, 25), 16) + 1, tonumber(string.sub(secret, 26, 33), 16)
end

-- The four digits of base 64 of a number below 2^24.
local function digits_of(number)
  local first = number % 64
  number = (number - first) / 64
  local second = number % 64
  number = (number - second) / 64
  local third = number % 64
  return DIGITS[first + 1] .. DIGITS[second + 1] .. DIGITS[third + 1] .. DIGITS[(number - third) / 64 + 1]
end

local function new_name()
  local random = redis.sha1hex(secret .. ' ' .. nth)
  return digits_of(tonumber(string.sub(random, 1, 6), 16)) .. digits_of(tonumber(string.sub(random, 7, 12), 16))
end
`;

/** An epoch begins where there is none, and with a new timeline. */
const MADE = {
  forEpoch: "if not before[1] or before[3] ~= timeline then epoch_if_new = new_name() end",
  forTag: "own",
};

/** `send`: reads `timeline_of`, `append`, the names and the checks. */
const sendIn = (isCluster: boolean) =>
  String.raw`
local function refused(why) return redis.error_reply('INVALID ' .. why .. '; nothing was sent') end

local function send(keys, argv)
  local channel = #keys == 1 and string.match(keys[1], '^userwire:{(.+)}$')
  if not channel then return refused('the one key must be userwire:{<username>}, as userwire:{alice}') end
  local fault = name_fault(channel)
  if fault then return refused('the username can\'t be used: ' .. fault) end
  if not argv[1] then return refused('there is no payload: it comes after the key') end
  local options, data, kind, encoding
  options, fault = options_of(argv)
  if not options then return refused(fault) end
  data, kind, encoding = data_of(argv[1], options.as)
  if not data then return refused(kind) end

  local time = redis.call('TIME')
  if not secret then seed(time, channel) end
  own_number, nth = own_number * 48271 % 2147483647, nth + 1
  -- The lowest bits of such a number are the least random.
  local own = digits_of((own_number - own_number % 128) / 128)
  local ms = math.floor(time[2] / 1000)
  local now, now_text = time[1] * 1000 + ms, time[1] .. string.format('%03d', ms)
  local id = options.id or prefix .. string.format('%012x', nth)
  local position, history = keys[1] .. ':position', keys[1] .. ':inbox'
  local memory = options.key and keys[1] .. ':key:' .. options.key
  -- Not that of a send by HTTP: to have used a key both ways is a mistake, and is told.
  local fingerprint = memory and 'function ' .. redis.sha1hex(kind .. argv[1])
  local trace = options.traceparent and options.traceparent ~= '' and ',"tp":"' .. options.traceparent .. '"' or ''
  local head, tail = HEADS[kind], '"id":"' .. id .. '","ts":' .. now_text .. trace .. encoding .. ',"data":'
  local timeline, elsewhere, noted = '', '', nil
  if KEEPS then
    timeline, elsewhere, noted = timeline_of(keys[1], now)
    if not timeline then return redis.error_reply(elsewhere) end
  end
${
    isCluster
      ? HAS_COME
      : ""
  }  local result = append(position, history, memory, channel, head, tail, data, id, own, options.ttl or TTL, timeline, elsewhere,
    now, options.expect and '1' or '0', fingerprint)
  if result.err then return result end
  local outcome, seq, tag = result[1], tonumber(result[3]), result[6]
  if outcome == 'offline' then
    return redis.error_reply('OFFLINE no socket is open for this user: nothing was sent')
  elseif outcome == 'conflict' then
    return redis.error_reply('CONFLICT this key was used for another message: use a new key; nothing was sent')
  elseif outcome == 'unknown' then
    return redis.error_reply('UNKNOWN the message may or may not have been sent: ' .. result[2])
  end
  if outcome == 'appended' and seq then
    -- The newest append that was not a node's. One that can't be noted was done all the same.
    local record = now_text .. ' ' .. result[3] .. ' ' .. tag .. ' ' .. channel
    if redis.pcall('HSET', noted, 'function', record) == 1 then redis.pcall('PEXPIRE', noted, ${TIMELINE_TTL_MS}) end
  end
  return {tonumber(result[5]), seq or false, seq and result[4] or false, result[2]}
end
`;

const ONLINE = String.raw`function(_, argv)
  if #argv == 0 or #argv > 1000 then return redis.error_reply('INVALID give 1 to 1000 usernames, after the 0') end
  local counts = redis.call('PUBSUB', 'NUMSUB', unpack(argv))
  local sockets = {}
  for i = 2, #counts, 2 do sockets[#sockets + 1] = counts[i] end
  return sockets
end`;

const ONLINE_OF_ONE = String.raw`function(keys)
  local channel = #keys == 1 and string.match(keys[1], '^userwire:{(.+)}$')
  if channel then return {redis.call('PUBSUB', 'SHARDNUMSUB', channel)[2]} end
  return redis.error_reply('INVALID on a cluster ask for one user at a time: FCALL_RO userwire_online 1 userwire:{alice}')
end`;
