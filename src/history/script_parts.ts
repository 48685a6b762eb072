/** Pieces of Lua that several scripts of the history share. */

/** Lua that leaves in `before` what the position was. No more than is needed each time: each value costs as much as a command. */
export const READ_POSITION =
  "local before = redis.call('HMGET', position, 'epoch', 'seq', 'timeline', 'tag', 'ends')";

/**
 * Lua that sees to it that the position is of this timeline, and not older than the append that the asking process remembers.
 * Reads `position`, `history`, `timeline`, `elsewhere`, `remembered` (see `LastAppends`), `epoch_if_new` and
 * `counter_ttl` of the script around it, and what `READ_POSITION` leaves. Leaves `epoch` and `last`, and where it changes them
 * `former`, and what that was in `former_before`, which the script declares. Every key gets its end in the same step as its
 * first value: what comes after may fail.
 */
export const OPEN_POSITION = `
local epoch, last, former = before[1], before[2] or '0', nil
if not epoch then
  epoch = epoch_if_new
  -- First: it needs memory, and what comes after a write is not refused for want of it.
  redis.call('HSET', position, 'epoch', epoch, 'seq', last, 'timeline', timeline)
  local ends = redis.pcall('PEXPIRE', position, counter_ttl)
  if type(ends) == 'table' and ends.err then
    -- No key stays for ever.
    redis.call('DEL', position)
    return ends
  end
  redis.call('DEL', history)
elseif before[3] == timeline then
  if remembered ~= '' and remembered ~= before[4] then
    -- Others went on from there, or this user's keys alone were put back from a copy. Then its numbers are given out a second
    -- time from a place that nobody knows: nothing of the old epoch is vouched for.
    local seq, tag, is_looked_for = string.match(remembered, '^(%d+)%.([%w_-]+)(!?)$')
    local is_there = seq .. '.' .. tag == before[4] or tonumber(last) > tonumber(seq)
    if is_looked_for == '!' and tonumber(last) > tonumber(seq) then
      local entry = redis.call('XRANGE', history, seq .. '-0', seq .. '-0')[1]
      is_there = not entry or string.find(entry[2][2], '"seq":' .. seq .. ',"tag":"' .. tag .. '"', 1, true)
    end
    -- A tag begins as its epoch does.
    if not is_there and string.sub(tag, 1, 4) == string.sub(epoch, 1, 4) then
      former_before = redis.call('HMGET', position, 'former')[1] or ''
      epoch, former = epoch_if_new, ''
      redis.call('HSET', position, 'epoch', epoch, 'former', former)
    end
  end
elseif elsewhere ~= '' and not string.find(elsewhere, ',' .. (before[3] or '') .. ',', 1, true) then
  -- It came from another master of the cluster, where it was whole.
  redis.call('HSET', position, 'timeline', timeline)
elseif (before[3] or '') == '' and
  string.sub(redis.call('HMGET', position, 'run')[1] or '', 1, 12) == string.match(timeline, '%.(.*)') then
  -- It was written before there were timelines, by the run of Redis that began the first one.
  redis.call('HSET', position, 'timeline', timeline)
elseif elsewhere ~= '' or string.sub(timeline, 1, 2) == '1.' and string.sub(before[3] or '', 1, 2) == '1.' or
  tonumber(string.match(timeline, '^%d*')) > (tonumber(string.match(before[3] or '', '^%d+')) or 0) then
  -- Later ones have greater numbers; the first ones of two servers both have 1. Of one that was ended on another master
  -- the number says nothing here.
  former_before = redis.call('HMGET', position, 'former')[1] or ''
  former = former_before .. epoch .. '.' .. last .. ','
  -- Bounded, and cut between two of them: the oldest of many are of no use to anybody any more.
  if #former > 400 then former = string.match(former, ',(.*)', #former - 400) end
  epoch = epoch_if_new .. string.sub(epoch, 1, #epoch_if_new) .. last
  redis.call('HSET', position, 'epoch', epoch, 'timeline', timeline, 'former', former)
end
`;

/**
 * Lua for a slack in milliseconds: ends are set so much later than they have to be, and not again as long as they are late
 * enough, so that who gets many messages has them set now and then.
 */
export function slackOf(ttl: string): string {
  return `math.min(math.floor(${ttl} / 8), 3600000)`;
}

/** How long keys live on which scripts are only tried, in milliseconds. */
export const TRIAL_TTL_MS = "1000";
