/**
 * The steps of the events in Redis, each a script over keys of one hash slot:
 *
 *     told     hash    user → id of the `users.unknown` before it: whom the backend was told to be online
 *     due      zset    user → when to look again, Unix ms
 *     outbox   stream  type, data; the id is made of `n`
 *     meta     hash    n: the last one; life: of the data; unknown: id of the last `users.unknown`; told, watched: how
 *                      many there are, to notice one that was evicted; cursor, began: of the sweep
 *     refused  hash    id → how often, and until when it is put off, Unix ms
 *     sweeper  string  expires when the next page is to be looked at
 *
 * An event is written before what it tells is marked as told: what breaks off between the two is told twice, never not.
 * A `users.unknown` takes back what was told before it: who is marked with another one's id is told again when a node says
 * that he is here, and is still told offline when he has gone.
 */
import { PLAIN, Script } from "../redis/commands.ts";
import {
  MAX_AGE_MS,
  MAX_CHANGES,
  MAX_EVENTS,
  MOST_DUE,
  PER_MS,
  PUT_OFF_MS,
  SWEEP_PAGE,
  SWEEP_PAGE_MS,
  SWEEP_ROUND_MS,
} from "./events.ts";

/** The keys, in the order in which scripts get them. */
export const KEYS = ["told", "due", "outbox", "meta", "refused", "sweeper", "unacked", "watched"] as const;

/** The consumer group that carries the outbox. */
export const GROUP = "webhooks";

const keysAt = (tag: string) => KEYS.map((name) => `userwire:{${tag}}:${name}`);
export const trial = (...args: string[]) => ({ probe: (tag: string) => ({ keys: keysAt(tag), args }) });

/**
 * What is there, and how an event is written. ARGV[1]: life of the data; ARGV[2]: the highest `n` that the caller has seen,
 * negative when that was in another life.
 */
export const TELL = `
local told, due, outbox, meta, refused, sweeper = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local known = redis.call('HMGET', meta, 'n', 'life', 'unknown', 'told')
local seen = tonumber(ARGV[2])
local n = math.max(tonumber(known[1] or '0'), math.abs(seen))
local unknown, dropped = known[3] or '', 0
local life = ARGV[1] ~= '' and ARGV[1] or known[2] or ''
local function whole(number) return string.format('%.0f', number) end
if not known[1] and redis.call('EXISTS', outbox) == 1 then
  -- Only the rest was lost: no number goes behind those of the entries.
  local info = redis.call('XINFO', 'STREAM', outbox)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local ms, rest = string.match(info[i + 1], '(%d+)-(%d+)')
      n = math.max(n, tonumber(ms) * ${PER_MS} + tonumber(rest))
    end
  end
end
local function number()
  n = math.max(n + 1, now * ${PER_MS})
  return whole(n)
end
local function add(kind, data)
  local id = string.format('%.0f-%.0f', math.floor(n / ${PER_MS}), n % ${PER_MS})
  redis.call('XADD', outbox, id, 'type', kind, 'data', data)
  return id
end
local function tellUnknown() unknown = add('users.unknown', '{"n":' .. number() .. '}') end
-- One that waits comes after whatever was dropped, which is the oldest.
local function tellDropped()
  if #redis.call('XRANGE', outbox, unknown, unknown) == 0 then tellUnknown() end
end
local changes = {}
local function flush()
  if #changes == 0 then return end
  add('users.changed', '{"changes":[' .. table.concat(changes, ',') .. ']}')
  changes = {}
end
local function tell(user, online)
  changes[#changes + 1] = '{"user":' .. cjson.encode(user) .. ',"online":' .. online .. ',"n":' .. number() .. '}'
  if #changes == ${MAX_CHANGES} then flush() end
end
local function finish()
  flush()
  local over = redis.call('XLEN', outbox) - ${MAX_EVENTS}
  if over > 0 then
    redis.call('XTRIM', outbox, 'MAXLEN', ${MAX_EVENTS})
    dropped = dropped + over
    tellDropped()
  end
  redis.call('HSET', meta, 'n', whole(n), 'life', life, 'unknown', unknown)
end
local function countTold() redis.call('HSET', meta, 'told', redis.call('HLEN', told)) end
-- What the caller has seen is not in it: older data was loaded into a server that goes on. Or what the caller wrote after
-- another life had begun: two nodes hear of a failover at two moments.
local function isBehind()
  if seen > tonumber(known[1]) then return true end
  local ms, rest = string.match(unknown, '(%d+)-(%d+)')
  return seen < 0 and -seen > tonumber(ms) * ${PER_MS} + tonumber(rest)
end
-- Other data than before, or not all of them: what was told may not be what is written here.
if not known[1] or known[2] ~= life or tonumber(known[4]) ~= redis.call('HLEN', told)
  or redis.call('EXISTS', outbox) == 0 or isBehind() then
  tellUnknown()
  countTold()
end
`;

/**
 * The end of a script that looks at who is due: `due` holds members with their moments, `settle(member, count)` decides,
 * and `userOf(member)` is whom to count. Where subscriptions can't be counted in a script for all users, which is so on a
 * cluster, it answers with who is due, and is called again with them: member, when due, count.
 * @param first Number of the first such argument. ARGV[3]: what precedes a user in the name of a channel.
 */
export const settleDue = ({ publish }: typeof PLAIN, due: string, first: number) => `
if #ARGV >= ${first} then
  for i = ${first}, #ARGV, 3 do
    -- Only while nothing has happened since it was counted.
    if redis.call('ZSCORE', ${due}, ARGV[i]) == ARGV[i + 1] then settle(ARGV[i], tonumber(ARGV[i + 2])) end
  end
else
  local found = redis.call('ZRANGEBYSCORE', ${due}, '-inf', whole(now), 'WITHSCORES', 'LIMIT', 0, ${MOST_DUE})
  ${
  publish === PLAIN.publish
    ? `for i = 1, #found, 2 do
    settle(found[i], redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. userOf(found[i]))[2])
  end`
    : `if #found > 0 then
    finish()
    return { whole(n), unknown, dropped, 0, found }
  end`
}
end
finish()
`;

/**
 * ARGV[3]: milliseconds until who has gone is looked at; ARGV[4] and [5]: how many have come and have gone; then these, and
 * those of whom it is only thought that they have gone.
 */
export const NOTE = new Script(
  `${TELL}
local before = n
local closed = 6 + tonumber(ARGV[4])
local missing = closed + tonumber(ARGV[5])
local new, since = {}, unknown
for i = 6, closed - 1 do
  if redis.call('HGET', told, ARGV[i]) ~= unknown then
    new[#new + 1] = ARGV[i]
    tell(ARGV[i], 'true')
  end
end
finish()
for _, user in ipairs(new) do redis.call('HSET', told, user, since) end
if #new > 0 then countTold() end
for i = 6, closed - 1 do redis.call('ZREM', due, ARGV[i]) end
for i = closed, #ARGV do
  if redis.call('HEXISTS', told, ARGV[i]) == 1 then
    local dueMs = whole(now + tonumber(ARGV[3]))
    -- The last socket that went says when; who is thought to have gone may be due already.
    if i < missing then redis.call('ZADD', due, dueMs, ARGV[i]) else redis.call('ZADD', due, 'NX', dueMs, ARGV[i]) end
  end
end
return { whole(n), unknown, dropped, n > before and 1 or 0 }`,
  trial("", "0", "1", "1", "1", "a", "a", "a"),
);

/** ARGV[4] and on: what `settleDue` is called with again. */
export const SETTLE = new Script(
  (words) =>
    `${TELL}
local gone, looked = {}, 0
local function userOf(user) return user end
local function settle(user, count)
  looked = looked + 1
  redis.call('ZREM', due, user)
  if count == 0 and redis.call('HEXISTS', told, user) == 1 then
    tell(user, 'false')
    gone[#gone + 1] = user
  end
end
${settleDue(words, "due", 4)}
for _, user in ipairs(gone) do redis.call('HDEL', told, user) end
if #gone > 0 then countTold() end
return { whole(n), unknown, dropped, looked }`,
  trial("", "0", ""),
);

/** Answers with some that are told online, when it is time for them; of many callers one gets them. */
export const SWEEP = new Script(
  `
local told, meta, sweeper = KEYS[1], KEYS[4], KEYS[6]
if redis.call('EXISTS', sweeper) == 1 then return {} end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local known = redis.call('HMGET', meta, 'cursor', 'began')
local cursor, began = known[1] or '0', tonumber(known[2] or '0')
if cursor == '0' then began = now end
local page = redis.call('HSCAN', told, cursor, 'COUNT', ${SWEEP_PAGE})
local pause = ${SWEEP_PAGE_MS}
if page[1] == '0' then pause = math.min(math.max(began + ${SWEEP_ROUND_MS} - now, pause), ${SWEEP_ROUND_MS}) end
redis.call('SET', sweeper, '1', 'PX', string.format('%.0f', pause))
redis.call('HSET', meta, 'cursor', page[1], 'began', string.format('%.0f', began))
local users = {}
for i = 1, #page[2], 2 do users[#users + 1] = page[2][i] end
return users`,
  trial(""),
);

/**
 * ARGV[3]: name of the node; ARGV[4]: how many it takes at most; ARGV[5]: for how long, in milliseconds.
 * What was taken and not carried comes first: its node has died, or could not reach the backend.
 */
export const TAKE = new Script(
  `${TELL}
local taken = {}
local most, hold = tonumber(ARGV[4]), ARGV[5]
local function keep(entry)
  local fields = entry[2]
  taken[#taken + 1] = { entry[1], fields[2], fields[4] }
end
local old = redis.call('XTRIM', outbox, 'MINID', whole(math.max(0, now - ${MAX_AGE_MS})))
if old > 0 then
  dropped = old
  tellDropped()
end
finish()
redis.pcall('XGROUP', 'CREATE', outbox, '${GROUP}', '0', 'MKSTREAM')
local from = '-'
repeat
  local page = redis.call('XPENDING', outbox, '${GROUP}', 'IDLE', hold, from, '+', 100)
  for _, pending in ipairs(page) do
    local id = pending[1]
    from = '(' .. id
    local untilMs = string.match(redis.call('HGET', refused, id) or '', ':(%d+)$')
    if #taken < most and tonumber(untilMs or '0') <= now then
      local claimed = redis.call('XCLAIM', outbox, '${GROUP}', ARGV[3], hold, id)
      if claimed[1] then keep(claimed[1])
      else redis.call('HDEL', refused, id) redis.call('XACK', outbox, '${GROUP}', id) end
    end
  end
until #page < 100 or #taken >= most
if #taken < most then
  local read = redis.call('XREADGROUP', 'GROUP', '${GROUP}', ARGV[3], 'COUNT', most - #taken, 'STREAMS', outbox, '>')
  if read then for _, entry in ipairs(read[1][2]) do keep(entry) end end
end
local oldest = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)
return { whole(n), unknown, dropped, oldest[1] and oldest[1][1] or '', taken }`,
  trial("", "0", "probe", "1", "1"),
);

/** ARGV[1]: the id. */
export const DONE = new Script(
  `
redis.call('XACK', KEYS[3], '${GROUP}', ARGV[1])
redis.call('XDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])`,
  trial("0-1"),
);

/** ARGV[1]: the id. */
export const PUT_OFF = new Script(
  `
local pauses = { ${PUT_OFF_MS.join(", ")} }
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local before = string.match(redis.call('HGET', KEYS[5], ARGV[1]) or '', '^(%d+)')
local times = tonumber(before or '0') + 1
local pause = pauses[math.min(times, #pauses)]
redis.call('HSET', KEYS[5], ARGV[1], string.format('%.0f:%.0f', times, now + pause))`,
  trial("0-1"),
);
