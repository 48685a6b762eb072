/**
 * The script that looks whether the data in Redis still holds all that is known to have been appended, and says which
 * timeline it belongs to. `timeline.ts` says what for.
 */
import { Script } from "../redis/commands.ts";

export const LOOK = new Script(`
local timeline, last = KEYS[1], KEYS[2]
local life, known, fresh, has_memory, patience = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local me, record, ttl, is_other, told = ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local known_mark, new_mark = ARGV[11], ARGV[12]
local ids, whose, slots_now, slots, ended = ARGV[13], ARGV[14], ARGV[15], ARGV[16], ARGV[17]
local is_unproven, is_elsewhere, left, own_age, first = ARGV[18], ARGV[19], ARGV[20], ARGV[21], 22
local has_shrunk = false
-- A later timeline has a greater number, whatever the clock says: so a process that does not know it yet is recognised.
local function number_of(name) return tonumber(string.match(name or '', '^%d+') or 0) end
local state = redis.call('HMGET', timeline, 'name', 'life', 'waits', 'mark', 'ids', 'slots', 'ended', 'begun')
local name, written, waits, mark = state[1], state[2], state[3], state[4] or ''
if ids ~= '' and name then
  local is_own = whose == 'own'
  for id in string.gmatch(state[5] or '', '[^,]+') do
    if string.find(ids, id, 1, true) then is_own = true end
  end
  -- It was kept in this slot before, then in another, and now here again: what is written here is old.
  local is_old = has_memory == '1' and is_elsewhere == '1' and number_of(name) < number_of(known)
  if is_own and not is_old then
    slots, ended = state[6] or '', state[7] or ''
    if left ~= '' and name == known then slots, has_shrunk = left == 'none' and '' or left, true end
  elseif whose == '' and not is_own then
    return {'whose', state[5] or ''}
  else
    -- Or another master's, which has kept its own elsewhere since. As if there were none.
    name, written, waits = false, false, false
    redis.pcall('DEL', last)
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A Redis that takes no writes just now, for want of memory, a disk or replicas, can be looked at all the same: it is
-- written down the next time.
local failed
local function write(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return true end
  local is_passing = false
  for _, why in ipairs({'OOM', 'MISCONF', 'NOREPLICAS'}) do
    if string.find(reply.err, '^%-?' .. why) then is_passing = true end
  end
  if not is_passing then failed = reply end
  return false, is_passing
end

local function encoding_of(key) return redis.pcall('OBJECT', 'ENCODING', key) end
local mark_key = timeline .. ':mark:'
local is_begun, is_copied = false, false
local encoding = ids == '' and encoding_of(mark_key .. mark)
if ids ~= '' then
  mark = ''
elseif encoding == 'raw' then
  is_begun = state[8] == mark
  -- Read, so that it is not among those that were used least, and go first where Redis evicts.
  redis.call('GET', mark_key .. mark)
  if redis.call('PTTL', mark_key .. mark) < ttl / 2 then write('PEXPIRE', mark_key .. mark, ttl) end
elseif new_mark == '' or not name and #ARGV < first then
  -- As long as nothing was ever appended there is nothing to tell apart, and no key is made.
  mark = ''
elseif redis.set_repl then
  redis.set_repl(redis.REPL_NONE)
  local is_set, is_passing = write('SET', mark_key .. new_mark, 'm', 'PX', ttl)
  -- What was appended to is kept raw, however short it is.
  if is_set then redis.pcall('APPEND', mark_key .. new_mark, 'm') end
  redis.set_repl(redis.REPL_ALL)
  failed = nil
  if encoding_of(mark_key .. new_mark) == 'raw' and write('HSET', timeline, 'mark', new_mark) then
    -- The one before is here and was not made here: a copy of data was put into this memory, whatever life that has.
    is_copied = type(encoding) == 'string' and write('HSET', timeline, 'life', '')
    mark = new_mark
    if not name then write('PEXPIRE', timeline, ttl) end
  else
    mark = is_passing and '' or 'none'
  end
else
  mark = 'none'
end
local is_marked = mark ~= '' and mark ~= 'none'
if is_copied then written = '' end
local is_marked_anew = known_mark ~= '' and mark ~= known_mark
if life == '' then
  -- It does not say who it is: the mark does.
  life = is_marked and mark or ''
  is_other = has_memory == '1' and is_marked_anew and '1' or '0'
elseif written == '' then
  -- Until those who remember have looked at the copy.
  is_other = has_memory
end

-- Whether the append of this number and tag is in the data, as far as can be told: an entry may have left its history,
-- and a single key may have been evicted from data that is whole.
local function is_there(position, history, seq, tag)
  -- One user's key may hold something else, of somebody else: that is not for all to suffer.
  local now = redis.pcall('HMGET', position, 'seq', 'tag')
  -- It has left for another master of the cluster.
  if now.err and string.find(now.err, 'non local key', 1, true) then return true end
  local reached = tonumber(now[1] or '')
  if not reached then return written == life and is_other == '0' end
  if reached < tonumber(seq) then return false end
  if now[2] and string.match(now[2], '^%d+') == seq then return now[2] == seq .. '.' .. tag end
  local entry = redis.pcall('XRANGE', history, seq .. '-0', seq .. '-0')[1]
  return not entry or string.find(entry[2][2], '"seq":' .. seq .. ',"tag":"' .. tag .. '"', 1, true) ~= nil
end

local is_whole, is_own_lost = true, false
for i = first, #ARGV, 4 do
  if not is_there(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) then
    is_whole = false
    if i == first and own_age ~= '' then is_own_lost = true end
  end
end

local records = redis.call('HGETALL', last)
-- What somebody else has put there is as old as can be.
local function time_of(record) return tonumber(string.match(record, '^%d+') or 0) end
local newest = 0
for i = 2, #records, 2 do newest = math.max(newest, time_of(records[i])) end
-- The time told is that of the newest record that this process knows of. Where it has not looked before, others may have gone
-- on while it was elsewhere: that their records are there says nothing of the appends that were answered to itself.
local is_same_data = is_whole or
  is_other == '0' and not (is_marked and is_marked_anew) and written == life and name == known and
    told > 0 and newest >= told

-- Another may have begun one here while this process went on elsewhere. Clients that were told then know nothing of what it
-- accepted after that. Both are counted from now, each on one clock.
local function has_begun_before(age)
  local began = number_of(name)
  return began > now or now - began >= tonumber(age)
end

local found = name
local later = string.format('%.0f', math.max(number_of(name) + 1, number_of(known) + 1, now)) .. '.' .. fresh
-- Nobody has found out meanwhile that the former master has handed everything over.
if is_unproven == '1' and written ~= life and patience ~= '0' then is_same_data = false end
if has_memory == '1' then
  if name and number_of(name) < number_of(known) then is_whole, is_same_data = false, false end
  if is_same_data then
    if written ~= life and life ~= '' and is_other == '1' and patience == '0' then
      if name then write('HSET', timeline, 'waits', life) end
      return {'', ''}
    end
    name = name or known
  elseif number_of(name) <= number_of(known) or is_other == '1' and is_own_lost and has_begun_before(own_age) then
    name = later
  end
elseif not name then
  -- Every process that looks at this server makes the same name. It is written down with the first append.
  name = '1.' .. fresh
elseif written ~= life and life ~= '' and not is_begun then
  -- A Redis function, which knows no lives, has begun it with a mark that is still there.
  if patience == '0' or patience == '1' and waits == life then return {'', ''} end
  name = later
end
if name == later and ids ~= '' then
  for _, former in ipairs({found or '', known}) do
    if former ~= '' and not string.find(ended, former .. ',', 1, true) then ended = ended .. former .. ',' end
  end
  if #ended > 400 then ended = string.match(ended, ',(.*)', #ended - 400) end
  slots = slots_now
end
local is_news = name ~= found or written ~= life or redis.call('PTTL', timeline) < ttl / 2 or
  ids ~= '' and (ids ~= state[5] or has_shrunk)
if is_news and (found or #ARGV >= first or number_of(name) > 1 or is_other == '1') then
  local part = ids == '' and {} or {'ids', ids, 'slots', slots, 'ended', ended}
  if write('HSET', timeline, 'name', name, 'life', life, unpack(part)) then write('PEXPIRE', timeline, ttl) end
end

local day_ago = now - 86400000
local reply = {name, is_whole and '1' or '0', '', mark, slots, ended}
for i = 1, #records, 2 do
  if time_of(records[i + 1]) < day_ago then
    write('HDEL', last, records[i])
  elseif records[i] ~= me then
    reply[#reply + 1] = records[i]
    reply[#reply + 1] = records[i + 1]
  end
end
-- What was lost is not told: others would look for it again.
if record ~= '' and is_whole and write('HSET', last, me, string.format('%.0f', now) .. ' ' .. record) then
  newest = now
  write('PEXPIRE', last, ttl)
end
if failed then return failed end
reply[3] = string.format('%.0f', newest)
return reply
`);
