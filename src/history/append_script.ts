/**
 * The scripts that append: to one user's history, and to those of several users, one after the other. Both number the
 * message, store it and publish it, or do nothing.
 */
import { historyKey, idempotencyKey, positionKey, type PubSubWords, Script } from "../redis/commands.ts";
import { newEpoch } from "./epochs.ts";
import type { Appended } from "./history.ts";
import { OPEN_POSITION, READ_POSITION, slackOf, TRIAL_TTL_MS } from "./script_parts.ts";

/** What both answer for each user. */
export type AppendReply = [
  outcome: Appended["outcome"] | "unknown" | "replaced",
  id: string,
  seq: string,
  epoch: string,
  reached: string | number,
  tag?: string,
];

/**
 * Lua for how many messages a stream holds: one more than is shown. Should a message be undone, the oldest must not have left
 * for it. As text: Redis prints the numbers that it is given by scripts at some cost.
 */
const MOST = "local most = string.format('%d', count + 1)";

/** What is to be appended, as all users have it. */
export const MESSAGE = `
local elsewhere, remembered = '', ''
local head, tail, id = ARGV[1], ARGV[2], ARGV[3]
local count, ttl, counter_ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
${MOST}
local timeline, expect_online = ARGV[7], ARGV[8]
local fingerprint, memory_ttl = ARGV[9], tonumber(ARGV[10])
-- Other data has taken the place of that which was looked at: nothing may be numbered in it.
if ARGV[11] == '1' and redis.call('OBJECT', 'ENCODING', KEYS[1]) ~= 'raw' then return {'replaced'} end
`;

/**
 * Lua that runs a command, unless one has failed before. Not a function of the script: with its arguments a call costs as
 * much as a command.
 * @param andThen What is done when it has succeeded.
 */
function unlessFailed(command: string, andThen = ""): string {
  return `if not failed then
    local reply = redis.pcall(${command})
    if type(reply) == 'table' then failed = reply else ${andThen} end
  end`;
}

const ENTRY = "seq .. '-0', 'm', payload, 'x', leaves";
const ADD = `'XADD', history, ${ENTRY}`;
/** Answers false where there is no stream. */
const ADD_IF_THERE = `'XADD', history, 'NOMKSTREAM', ${ENTRY}`;
const ADD_AND_CUT = `'XADD', history, 'NOMKSTREAM', 'MAXLEN', '~', most, ${ENTRY}`;
/**
 * A stream is cut with one in so many messages, at a border between the parts in which it lies in memory: to look for that each
 * time would cost a fifth of the command. Which ones is left to chance, since those of some numbers may not be kept at all. What
 * is too old lies there for a while; readers go by the numbers.
 */
const CUT_ONE_IN = 8;

/** Lua for a user of a group, which reads `keeps_for_offline`. */
const OF_GROUP = `
-- Where there is no counter no client has a position that it could come back with.
if reached == 0 and not before[1] then return {'unseen'} end
keeps_it = keeps_for_offline or reached > 0
`;

/** Lua that leaves the time in `now`, in ms, and in `leaves`, as text, when what is kept for `ttl` has left. */
export const CLOCK = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local leaves = string.format('%d', now + ttl)
`;

/**
 * Lua for whether the answer of PUBLISH is the number of subscriptions of the channel: where none is by pattern. So it need
 * not be asked for where it is known early enough with that.
 */
export const publishCounts = ({ hasPatterns }: PubSubWords) =>
  `local publish_counts = ${hasPatterns ? "redis.call('PUBSUB', 'NUMPAT') == 0" : "true"}`;

/** Lua for eight random characters, see `appendIt`. */
interface Random {
  /** Leaves them in `epoch_if_new`, where that is set only when it is needed. */
  readonly forEpoch: string;
  /** Four of a message, also where no epoch begins. */
  readonly forTag: string;
}

const GIVEN: Random = { forEpoch: "", forTag: "string.sub(epoch_if_new, 5, 8)" };

/**
 * Appends it for one user: its keys, its channel, and some random characters in `epoch_if_new`. Reads `publish_counts`.
 * @param options.clock Lua that leaves `now` and `leaves`, see `CLOCK`; "" where they are there already.
 * @param options.isOfGroup Whether it passes over users who were not seen for long.
 * @param options.tail Lua for what comes after the number, which makes no text that is not the whole one.
 * @param options.random Lua for the random characters.
 */
export const appendIt = (
  { publish, numsub }: PubSubWords,
  { clock = CLOCK, isOfGroup = false, tail = "tail", random = GIVEN } = {},
) => `
if memory then
  local first = redis.call('HMGET', memory, 'fingerprint', 'id', 'seq', 'epoch', 'reached')
  if first[1] then
    if first[1] ~= fingerprint then return {'conflict'} end
    return {'repeated', first[2], first[3], first[4], first[5]}
  end
end

local reached, keeps_it = nil, true
${isOfGroup ? READ_POSITION : ""}
if not publish_counts or memory or expect_online == '1'${
  isOfGroup ? " or not keeps_for_offline or not before[1]" : ""
} then
  reached = redis.call('PUBSUB', '${numsub}', channel)[2]
  if expect_online == '1' and reached == 0 then return {'offline'} end
end
${isOfGroup ? OF_GROUP : ""}
-- All that can fail comes before the payload is out. When it does, what was done is undone: either all of it or nothing.
-- None of these commands answers with a table, unless it is an error.
local failed
local seq, kept_epoch, payload, tag, mark = '', '', '', '', ''
local is_counted, is_stored, is_remembered, was, left, former_before
if count > 0 then
  ${clock}
  ${isOfGroup ? "" : READ_POSITION}
  -- How long the history lives on; -2 for none. A new position begins with none. Redis knows it, too: the position is read anyway.
  local ends = tonumber(before[5])
  if not before[1] then left = -2 elseif ends then left = ends - now else left = redis.call('PTTL', history) end
  local keep = left > ttl and left or ttl
  ${random.forEpoch}
  ${OPEN_POSITION}
  was, is_counted = before, not before[1]
  seq = string.format('%d', tonumber(last) + 1)
  -- Four characters tell the epoch, four the message.
  tag = string.sub(epoch, 1, 4) .. ${random.forTag}
  mark = seq .. '.' .. tag
  payload = head .. '"seq":' .. seq .. ',"tag":"' .. tag .. '",' .. ${tail}
  kept_epoch = epoch
  ${unlessFailed("'HSET', position, 'seq', seq, 'tag', mark", "is_counted = true")}
  if keeps_it and left ~= -2 then
    if string.byte(tag, 8) % ${CUT_ONE_IN} == 0 then
      ${unlessFailed(ADD_AND_CUT, "if reply then is_stored = true else left = -2 end")}
    else
      ${unlessFailed(ADD_IF_THERE, "if reply then is_stored = true else left = -2 end")}
    end
  end
  if keeps_it and left == -2 then
    ${unlessFailed(ADD, "is_stored = true")}
  end
  if failed and keeps_it and not is_stored and string.find(failed.err, 'equal or smaller', 1, true) then
    -- The stream remembers a number that was undone, or set back with the counter alone: it is written anew. It must be
    -- possible to give it an end again.
    failed, left = nil, -1
    ${unlessFailed("'PEXPIRE', history, keep")}
    if not failed then
      local entries = redis.call('XRANGE', history, '-', (tonumber(seq) - 1) .. '-0')
      redis.call('DEL', history)
      for _, entry in ipairs(entries) do redis.call('XADD', history, entry[1], unpack(entry[2])) end
    end
    ${unlessFailed(ADD, "is_stored = true")}
  end
  -- The position ends a counter's life after the history: so it need not be looked at.
  if left < ttl then
    local slack = ${slackOf("ttl")}
    ${unlessFailed("'PEXPIRE', history, keep + slack")}
    ${unlessFailed("'PEXPIRE', position, counter_ttl + keep + slack")}
    ${unlessFailed("'HSET', position, 'ends', string.format('%d', now + keep + slack)")}
  end
else
  payload = head .. ${tail}
end
if memory then
  ${
  unlessFailed(
    "'HSET', memory, 'fingerprint', fingerprint, 'id', id, 'seq', seq, 'epoch', kept_epoch, 'reached', reached",
    "is_remembered = true",
  )
}
  ${unlessFailed("'PEXPIRE', memory, memory_ttl")}
end
${unlessFailed(`'${publish}', channel, payload`, "reached = reached or reply")}

if failed then
  local why = failed
  failed = nil
  if is_remembered then
    ${unlessFailed("'DEL', memory")}
  end
  -- A stream that was not there has no end yet.
  if is_stored and (left == -2 or not was[1]) then
    ${unlessFailed("'DEL', history")}
  elseif is_stored then
    ${unlessFailed("'XDEL', history, seq .. '-0'")}
  end
  if is_counted and was[1] then
    ${
  unlessFailed(
    "'HSET', position, 'epoch', was[1], 'seq', was[2] or '0', 'timeline', was[3] or '', 'tag', was[4] or '', " +
      "'ends', was[5] or ''",
  )
}
    if former_before then
      ${unlessFailed("'HSET', position, 'former', former_before")}
    end
  elseif is_counted then
    ${unlessFailed("'DEL', position")}
  end
  return failed and {'unknown', why.err} or why
end
return {'appended', id, seq, kept_epoch, reached, tag${isOfGroup ? ", mark" : ""}}
`;

const append = (words: PubSubWords) => `
${MESSAGE}
${publishCounts(words)}
local position, history, memory = KEYS[2], KEYS[3], KEYS[4]
local channel, epoch_if_new = ARGV[12], ARGV[13]
remembered, elsewhere = ARGV[14], ARGV[15] or ''
${appendIt(words)}`;

/** @param count How many messages are kept of each user: what it is tried with has to match. */
export function appendScript(count: number): Script {
  return new Script(append, {
    probe: (tag) => ({
      keys: [positionKey(tag), positionKey(tag), historyKey(tag), idempotencyKey(tag, "trial")],
      args: [
        ...["", "", "", String(Math.min(count, 1)), TRIAL_TTL_MS, TRIAL_TTL_MS, "0.trial"],
        ...["0", newEpoch(), "1", "", tag, newEpoch(), ""],
      ],
    }),
  });
}

/** Appends it for one user after the other: what fails for one is undone for that one, and said in its place. */
export const APPEND_TO_ALL = new Script((words) => `
${MESSAGE}
local random, users = ARGV[12], (#ARGV - 12) / 2
local random_each, keys_each = #random / users, (#KEYS - 1) / users
${publishCounts(words)}
${CLOCK}
local function append(position, history, memory, channel, epoch_if_new)
${appendIt(words, { clock: "" })}
end
local results = {}
for i = 1, users do
  local key = 1 + (i - 1) * keys_each
  remembered = ARGV[12 + users + i]
  local is_done, result = pcall(append, KEYS[key + 1], KEYS[key + 2], keys_each == 3 and KEYS[key + 3], ARGV[12 + i],
    string.sub(random, (i - 1) * random_each + 1, i * random_each))
  -- Redis before 7 raises its errors as text; so does Lua.
  if not is_done and type(result) ~= 'table' then
    result = {err = 'ERR Error running script (call to append): ' .. result}
  end
  results[i] = result
end
return results
`);
