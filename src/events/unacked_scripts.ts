/**
 * The steps of unconfirmed messages in Redis, over two more keys of the events:
 *
 *     unacked  zset  token, a space, user → when it is told, Unix ms
 *     watched  hash  the same → "0" for offline users alone, else "1"; then what is told: JSON without its braces
 */
import { PLAIN, Script } from "../redis/commands.ts";
import { TELL, trial } from "./event_scripts.ts";
import { MOST_DUE } from "./events.ts";

const NOW = `
local unacked, watched = KEYS[7], KEYS[8]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
`;

/** ARGV[1]: token; ARGV[2]: after how long, in milliseconds; ARGV[3]: what is kept; then users. */
export const WATCH = new Script(
  `${NOW}
local due = string.format('%.0f', now + tonumber(ARGV[2]))
for i = 4, #ARGV do
  local member = ARGV[1] .. ' ' .. ARGV[i]
  redis.call('HSET', watched, member, ARGV[3])
  redis.call('ZADD', unacked, due, member)
end`,
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
for i = 2, #ARGV do
  local member = ARGV[1] .. ' ' .. ARGV[i]
  redis.call('ZREM', KEYS[7], member)
  redis.call('HDEL', KEYS[8], member)
end`,
  trial("t", "a"),
);

/**
 * ARGV[3]: what precedes a user in the name of a channel; ARGV[4]: what is counted. On a cluster it answers with who is due,
 * and is called again with ARGV[5] and on: member, when due, count.
 */
export const TELL_UNACKED = new Script(
  (words) =>
    `${TELL}
local unacked, watched = KEYS[7], KEYS[8]
local looked = {}
local function settle(member, count)
  looked[#looked + 1] = member
  local kept = redis.call('HGET', watched, member)
  if not kept or (string.sub(kept, 1, 1) == '0' and count > 0) then return end
  local user = string.sub(member, string.find(member, ' ', 1, true) + 1)
  number()
  add('message.unacked', '{"user":' .. cjson.encode(user) .. ',' .. string.sub(kept, 2) .. ',"' .. ARGV[4] .. '":' .. count
    .. '}')
end
if #ARGV > 4 then
  for i = 5, #ARGV, 3 do
    if redis.call('ZSCORE', unacked, ARGV[i]) == ARGV[i + 1] then settle(ARGV[i], tonumber(ARGV[i + 2])) end
  end
else
  local found = redis.call('ZRANGEBYSCORE', unacked, '-inf', whole(now), 'WITHSCORES', 'LIMIT', 0, ${MOST_DUE})
  ${
      words.publish === PLAIN.publish
        ? `for i = 1, #found, 2 do
    local user = string.sub(found[i], string.find(found[i], ' ', 1, true) + 1)
    settle(found[i], redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. user)[2])
  end`
        : `if #found > 0 then
    finish()
    return { whole(n), epoch, dropped, 0, found }
  end`
    }
end
finish()
for _, member in ipairs(looked) do
  redis.call('ZREM', unacked, member)
  redis.call('HDEL', watched, member)
end
return { whole(n), epoch, dropped, #looked }`,
  trial("", "0", "", "sockets"),
);
