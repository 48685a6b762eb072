/** The scripts of groups: those that use the keys of one group, and those that use the lists of groups of users. */
import { Script } from "../redis/commands.ts";

const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/** Milliseconds that a name stays at least in a user's list of groups: longer than a change may take. */
export const LISTED_MS = 15 * 60_000;

/**
 * Changes who is in a group. Keys: users, meta. Arguments: the most it may have, the version it must be in or "", "1" to
 * replace, an epoch if there is none, how many are added, these, those that are removed.
 */
export const CHANGE = new Script(`
local users, meta = KEYS[1], KEYS[2]
local max, if_version, is_replacement, epoch_if_new = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1', ARGV[4]
local last_added = 5 + tonumber(ARGV[5])
local size = redis.call('ZCARD', users)
local known = redis.call('HMGET', meta, 'version', 'epoch')
local version = size > 0 and tonumber(known[1] or '0') or 0
if if_version ~= '' and tonumber(if_version) ~= version then
  return {'stale', string.format('%.0f', version)}
end
local joining, leaving, wanted = {}, {}, {}
for i = 6, last_added do
  if is_replacement then wanted[ARGV[i]] = true end
  if size == 0 or not redis.call('ZSCORE', users, ARGV[i]) then joining[#joining + 1] = ARGV[i] end
end
if is_replacement then
  for _, user in ipairs(redis.call('ZRANGE', users, 0, -1)) do
    if not wanted[user] then leaving[#leaving + 1] = user end
  end
else
  for i = last_added + 1, #ARGV do
    if redis.call('ZSCORE', users, ARGV[i]) then leaving[#leaving + 1] = ARGV[i] end
  end
end
local becomes = size + #joining - #leaving
if becomes > max and #joining > 0 then return {'full', tostring(becomes)} end
-- Those who join first: they need memory, and what comes after a write is not refused for want of it.
for i = 1, #joining do redis.call('ZADD', users, 0, joining[i]) end
for i = 1, #leaving do redis.call('ZREM', users, leaving[i]) end
if becomes == 0 then
  redis.call('DEL', meta)
  version = 0
elseif #joining + #leaving > 0 then
  -- By the clock, so that a group that is made anew, or that was set back, is in no version it was in before.
  local time = redis.call('TIME')
  version = math.max(version + 1, time[1] * 1000000 + time[2])
  redis.call('HSET', meta, 'version', string.format('%.0f', version), 'epoch', size > 0 and known[2] or epoch_if_new)
end
local reply = {'changed', tostring(#joining), tostring(#leaving), tostring(becomes), string.format('%.0f', version)}
if is_replacement then
  for i = 1, #leaving do reply[5 + i] = leaving[i] end
end
return reply
`);

export const DELETE = new Script(`
local size = redis.call('ZCARD', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
return size
`);

/** One page of users. Arguments: after whom, how many. */
export const PAGE = new Script(`
local size = redis.call('ZCARD', KEYS[1])
if size == 0 then return {} end
local meta = redis.call('HMGET', KEYS[2], 'version', 'epoch')
local from = ARGV[1] == '' and '-' or '(' .. ARGV[1]
return {tostring(size), meta[1] or '0', meta[2] or '',
  unpack(redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, ARGV[2]))}
`);

/** Whether a user is in a group. */
export const IS_MEMBER = new Script("return redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0");

/** Notes for each user that they are about to be in a group. @returns How many names are in the longest of these lists. */
export const LIST = new Script(`
${NOW}
local longest = 0
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format('%.0f', now), ARGV[1])
  longest = math.max(longest, redis.call('ZCARD', key))
end
return longest
`);

/**
 * Takes groups out of the list of each user. One that was noted a moment ago stays: who noted it may not have written the
 * group yet, which would then be in no list.
 */
export const UNLIST = new Script(`
${NOW}
for _, key in ipairs(KEYS) do
  for _, group in ipairs(ARGV) do
    local noted = redis.call('ZSCORE', key, group)
    if noted and tonumber(noted) < now - ${LISTED_MS} then redis.call('ZREM', key, group) end
  end
end
return 1
`);

export const LISTED = new Script("return redis.call('ZRANGE', KEYS[1], 0, -1)");
