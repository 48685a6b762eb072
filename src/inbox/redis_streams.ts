/**
 * The inbox in Redis: per user a stream whose ids are the sequence numbers, a counter with its epoch, and the
 * idempotency keys. All keys of a user share the hash slot of the user's channel.
 *
 *     userwire:{<channel>}:position   hash    seq, epoch, run, former
 *     userwire:{<channel>}:inbox      stream  <seq>-0 → m: envelope, x: Unix ms at which it has left
 *     userwire:{<channel>}:key:<key>  hash    what the first send with this key came to
 *     userwire:<prefix>call:<key>     hash    what a key of many sends stands for
 *
 * One script per send: scripts run alone, so check, number, store and publish are one step. Times are those of
 * Redis' own clock.
 *
 * `run` tells one life of the Redis from the next (`Redis.run` says how). After a restart from an older snapshot
 * the counter would give out numbers that clients have seen; so the first script of a new life begins a new epoch
 * and notes in `former` from where the numbers of the old one can't be trusted; the new one's name says it too, for a
 * life that ends before its epochs were saved (`originOf`). Only a life that came back with all
 * that the one before had goes on in its epoch.
 */
import { parsePosition, type Position, RESERVED_PREFIX } from "../protocol.ts";
import { type Redis, Script } from "../redis.ts";
import {
  type Appended,
  type AppendOptions,
  CLAIM_TTL_MS,
  COUNTER_TTL_MS,
  type Draft,
  type Idempotency,
  IDEMPOTENCY_TTL_MS,
  type Inbox,
  type InboxLimits,
  newEpoch,
  type Stretch,
} from "./inbox.ts";

/** Sees to it that the position is of this life of the Redis; leaves `epoch`, `last` and `former`. */
const OPEN_POSITION = `
-- Whether a life is another view of the same one, or came after it with all that the earlier one had.
local function continues(earlier, later)
  if string.match(earlier, '^[^+]*') == string.match(later, '^[^+]*') then return true end
  return string.sub(earlier, -1) == '+' and string.sub(later, -1) == '+'
end
local state = redis.call('HMGET', position, 'epoch', 'seq', 'run', 'former')
local epoch, last, former = state[1], state[2] or '0', state[4] or ''
if not epoch then
  epoch = epoch_if_new
  -- First: it needs memory, and what comes after a write is not refused for want of it.
  redis.call('HSET', position, 'epoch', epoch, 'seq', last, 'run', run)
  redis.call('DEL', inbox)
elseif state[3] ~= run and continues(state[3] or '', run) then
  redis.call('HSET', position, 'run', run)
elseif state[3] ~= run then
  former = former .. epoch .. '.' .. last .. ','
  -- Bounded, and cut between two of them: the oldest of many lives are of no use to anybody any more.
  if #former > 400 then former = string.match(former, ',(.*)', #former - 400) end
  epoch = epoch_if_new .. string.sub(epoch, 1, #epoch_if_new) .. last
  redis.call('HSET', position, 'epoch', epoch, 'run', run, 'former', former)
end
`;

const APPEND = new Script(`
local position, inbox, memory = KEYS[1], KEYS[2], KEYS[3]
local channel, head, tail, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local count, ttl, counter_ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local run, epoch_if_new = ARGV[8], ARGV[9]
local expect_online, fingerprint, memory_ttl = ARGV[10], ARGV[11], tonumber(ARGV[12])

if memory then
  local first = redis.call('HMGET', memory, 'fingerprint', 'id', 'seq', 'epoch', 'reached')
  if first[1] then
    if first[1] ~= fingerprint then return {'conflict'} end
    return {'repeated', first[2], first[3], first[4], first[5]}
  end
end

if expect_online == '1' and redis.call('PUBSUB', 'NUMSUB', channel)[2] == 0 then return {'offline'} end

local seq, kept_epoch, payload, last_seq = '', '', head .. tail, nil
if count > 0 then
  ${OPEN_POSITION}
  seq = string.format('%.0f', tonumber(last) + 1)
  kept_epoch, last_seq = epoch, last
  payload = head .. '"seq":' .. seq .. ',' .. tail
  redis.call('HSET', position, 'seq', seq)
end
if memory then
  redis.call('HSET', memory, 'fingerprint', fingerprint, 'id', id, 'seq', seq, 'epoch', kept_epoch)
end

-- After a write: for want of memory, a disk or replicas Redis refuses the first one of a script, but none after it.
local reached = redis.pcall('PUBLISH', channel, payload)
if type(reached) == 'table' then
  if last_seq then redis.call('HSET', position, 'seq', last_seq) end
  if memory then redis.call('DEL', memory) end
  return reached
end

if count > 0 then
  local time = redis.call('TIME')
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ttl
  redis.call('XADD', inbox, 'MAXLEN', count, seq .. '-0', 'm', payload, 'x', string.format('%.0f', ends))
  local keep = math.max(ttl, redis.call('PTTL', inbox))
  redis.call('PEXPIRE', inbox, keep)
  redis.call('PEXPIRE', position, math.max(counter_ttl, keep))
end
if memory then
  redis.call('HSET', memory, 'reached', reached)
  redis.call('PEXPIRE', memory, memory_ttl)
end
return {'appended', id, seq, kept_epoch, reached}
`);

const SINCE = new Script(`
local position, inbox = KEYS[1], KEYS[2]
local after, limit, counter_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local run, epoch_if_new = ARGV[4], ARGV[5]
${OPEN_POSITION}
redis.call('PEXPIRE', position, math.max(counter_ttl, redis.call('PTTL', inbox)))
local result = {epoch, former, last, last}
if after == '' then return result end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entries = redis.call('XRANGE', inbox, '(' .. after .. '-0', '+', 'COUNT', limit)
for _, entry in ipairs(entries) do
  if tonumber(entry[2][4]) > now then
    result[#result + 1] = string.match(entry[1], '^%d+')
    result[#result + 1] = entry[2][2]
  end
end
if #entries == limit then result[4] = string.match(entries[#entries][1], '^%d+') end
return result
`);

const CLAIM = new Script(`
local first = redis.call('HMGET', KEYS[1], 'fingerprint')[1]
if first and first ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
`);

/**
 * Reads of messages that are under way at one time. Each may bring a hundred messages of any size: a crowd that comes
 * back at once must not have them all in memory.
 */
const MAX_READS = 8;

export class RedisStreamsInbox implements Inbox {
  readonly limits: InboxLimits;
  readonly #redis: Redis;
  #reads = 0;
  /** Those whose read must wait, first come first. */
  readonly #line: (() => void)[] = [];

  /** @param redis Stays the caller's to close. */
  constructor(redis: Redis, options: { limits: InboxLimits }) {
    this.#redis = redis;
    redis.prepare(APPEND, CLAIM, SINCE);
    this.limits = options.limits;
  }

  async append(channel: string, draft: Draft, options: AppendOptions = {}): Promise<Appended> {
    const { idempotency } = options;
    const keys = [positionKey(channel), inboxKey(channel)];
    if (idempotency) keys.push(`userwire:{${channel}}:key:${idempotency.key}`);
    const reply = await this.#redis.evaluate(APPEND, keys, [
      channel,
      draft.head,
      draft.tail,
      draft.id,
      String(this.limits.count),
      String(options.ttlMs ?? this.limits.ttlMs),
      String(COUNTER_TTL_MS),
      this.#redis.run,
      newEpoch(),
      options.expectOnline ? "1" : "0",
      idempotency?.fingerprint ?? "",
      String(IDEMPOTENCY_TTL_MS),
    ]) as string[];
    const [outcome, id, seq, epoch, reached] = reply as [
      Appended["outcome"],
      string,
      string,
      string,
      string | number,
    ];
    if (outcome === "offline" || outcome === "conflict") return { outcome };
    return {
      outcome,
      id,
      position: seq === "" ? undefined : { epoch, seq: Number(seq) },
      reached: Number(reached),
    };
  }

  async claim(prefix: string, { key, fingerprint }: Idempotency): Promise<boolean> {
    const name = `${RESERVED_PREFIX}${prefix}call:${key}`;
    return await this.#redis.evaluate(CLAIM, [name], [fingerprint, String(CLAIM_TTL_MS)]) === 1;
  }

  since(channel: string, after: number | undefined, limit: number): Promise<Stretch> {
    const read = () => this.#read(channel, after, limit);
    // Without a number it brings no message.
    return after === undefined ? read() : this.#inTurn(read);
  }

  /** Nothing of its own to let go of. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  async #inTurn<T>(read: () => Promise<T>): Promise<T> {
    // Whoever ends a read passes its place on, so that nobody can come in between.
    if (this.#reads < MAX_READS) this.#reads++;
    else await new Promise<void>((resolve) => this.#line.push(resolve));
    try {
      return await read();
    } finally {
      const next = this.#line.shift();
      if (next) next();
      else this.#reads--;
    }
  }

  async #read(channel: string, after: number | undefined, limit: number): Promise<Stretch> {
    const reply = await this.#redis.evaluate(SINCE, [positionKey(channel), inboxKey(channel)], [
      after === undefined ? "" : String(after),
      String(limit),
      String(COUNTER_TTL_MS),
      this.#redis.run,
      newEpoch(),
    ]) as string[];
    const [epoch, former, last, through] = reply as [string, string, string, string];
    const items = [];
    for (let i = 4; i < reply.length; i += 2) items.push({ seq: Number(reply[i]), envelope: reply[i + 1]! });
    return { epoch, former: parseFormer(former), last: Number(last), items, through: Number(through) };
  }
}

function parseFormer(text: string): Position[] {
  return text.split(",").flatMap((position) => parsePosition(position) ?? []);
}

function positionKey(channel: string): string {
  return `userwire:{${channel}}:position`;
}

function inboxKey(channel: string): string {
  return `userwire:{${channel}}:inbox`;
}
