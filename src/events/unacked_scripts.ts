/**
 * The steps of unconfirmed messages in Redis, over two more keys of the events:
 *
 *     unacked  zset  token, a space, user → when it is told, Unix ms
 *     watched  hash  the same → "0" for offline users alone, else "1"; then what is told: JSON without its braces
 *
 * `watched` in `meta` says how many there are: a key that is evicted is noticed by it.
 */
import { Script } from "../redis/commands.ts";
import { settleDue, TELL, trial } from "./event_scripts.ts";
import { PER_MS } from "./events.ts";

const NOW = `
local unacked, watched = KEYS[7], KEYS[8]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
`;

/**
 * ARGV[1]: token; ARGV[2]: after how long, in milliseconds; ARGV[3]: what is kept; then users. Answers with an `n` of its own,
 * or 0 where none was ever given: by it a node knows later whether this is in the data that it then finds.
 */
export const WATCH = new Script(
  `${NOW}
local due, added = string.format('%.0f', now + tonumber(ARGV[2])), 0
for i = 4, #ARGV do
  local member = ARGV[1] .. ' ' .. ARGV[i]
  added = added + redis.call('HSET', watched, member, ARGV[3])
  redis.call('ZADD', unacked, due, member)
end
redis.call('HINCRBY', KEYS[4], 'watched', added)
local n = tonumber(redis.call('HGET', KEYS[4], 'n') or '0')
if n == 0 then return '0' end
n = string.format('%.0f', math.max(n + 1, now * ${PER_MS}))
redis.call('HSET', KEYS[4], 'n', n)
return n`,
  trial("t", "1", '1"id":"a"', "a"),
);

/** ARGV[1]: token; ARGV[2]: a number to be told, or nothing; ARGV[3]: "0" when it is due now; then users. */
export const SENT = new Script(
  `${NOW}
for i = 4, #ARGV do
  local member = ARGV[1] .. ' ' .. ARGV[i]
  -- Who has confirmed it already is not there any more.
  local kept = redis.call('HGET', watched, member)
  if kept then
    if ARGV[2] ~= '' then redis.call('HSET', watched, member, kept .. ',"seq":' .. ARGV[2]) end
    if ARGV[3] == '0' then redis.call('ZADD', unacked, string.format('%.0f', now), member) end
  end
end`,
  trial("t", "1", "0", "a"),
);

/** ARGV[1]: token; then users. */
export const UNWATCH = new Script(
  `
local removed = 0
for i = 2, #ARGV do
  local member = ARGV[1] .. ' ' .. ARGV[i]
  redis.call('ZREM', KEYS[7], member)
  removed = removed + redis.call('HDEL', KEYS[8], member)
end
if removed > 0 then redis.call('HINCRBY', KEYS[4], 'watched', -removed) end`,
  trial("t", "a"),
);

/** ARGV[4]: what is counted; ARGV[5] and on: what `settleDue` is called with again. */
export const TELL_UNACKED = new Script(
  (words) =>
    `${TELL}
local unacked, watched = KEYS[7], KEYS[8]
local count = redis.call('HLEN', watched)
if tonumber(redis.call('HGET', meta, 'watched') or '0') ~= count or redis.call('ZCARD', unacked) ~= count then
  -- One of the keys was evicted, or both: whose time alone was lost is told now.
  if known[1] then tellUnknown() end
  for _, member in ipairs(redis.call('HKEYS', watched)) do redis.call('ZADD', unacked, 'NX', whole(now), member) end
  for _, member in ipairs(redis.call('ZRANGE', unacked, 0, -1)) do
    if redis.call('HEXISTS', watched, member) == 0 then redis.call('ZREM', unacked, member) end
  end
  redis.call('HSET', meta, 'watched', redis.call('HLEN', watched))
end
local looked = {}
local function userOf(member) return string.sub(member, string.find(member, ' ', 1, true) + 1) end
local function settle(member, count)
  looked[#looked + 1] = member
  local kept = redis.call('HGET', watched, member)
  if not kept or (string.sub(kept, 1, 1) == '0' and count > 0) then return end
  number()
  add('message.unacked', '{"user":' .. cjson.encode(userOf(member)) .. ',' .. string.sub(kept, 2) .. ',"' .. ARGV[4]
    .. '":' .. count .. '}')
end
${settleDue(words, "unacked", 5)}
for _, member in ipairs(looked) do
  redis.call('ZREM', unacked, member)
  redis.call('HDEL', watched, member)
end
if #looked > 0 then redis.call('HINCRBY', meta, 'watched', -#looked) end
return { whole(n), unknown, dropped, #looked }`,
  trial("", "0", "", "sockets"),
);
