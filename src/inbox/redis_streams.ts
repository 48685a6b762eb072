/**
 * The inbox in Redis: per user a stream whose ids are the sequence numbers, a counter with its epoch, and the
 * idempotency keys. All keys of a user share the hash slot of the user's channel.
 *
 *     userwire:{<channel>}:position   hash    seq, epoch, tag: <seq>.<tag of the newest>, timeline, former
 *     userwire:{<channel>}:inbox      stream  <seq>-0 → m: envelope, x: Unix ms at which it has left
 *     userwire:{<channel>}:key:<key>  hash    what the first send with this key came to
 *     userwire:<prefix>call:<key>     hash    what a key of many sends stands for
 *
 * One script per send: scripts run alone, so check, count, number, store and publish are one step, and it is done whole or
 * not at all. Times are those of Redis' own clock.
 *
 * `timeline` tells an unbroken run of writes from the next one (`timeline.ts` says how). When the data was set back, the
 * counter would give out numbers that clients have seen; so the first script of a new timeline begins a new epoch
 * and notes in `former` from where the numbers of the old one can't be trusted; the new one's name says it too, for a
 * timeline that ends before its epochs were saved (`originOf`).
 */
import { BrokerUnavailableError } from "../errors.ts";
import { parsePosition, type Position, RESERVED_PREFIX } from "../protocol.ts";
import {
  explainReply,
  idempotencyKey,
  inboxKey,
  OTHER_DATA,
  positionKey,
  type Redis,
  Script,
  verbatim,
} from "../redis.ts";
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
  type SinceOptions,
  type Stretch,
} from "./inbox.ts";
import { Timeline } from "./timeline.ts";

/**
 * Sees to it that the position is of this timeline; leaves `epoch`, `last` and `former`, and in `before` what was there.
 * Every key gets its end in the same step as its first value: what comes after may fail.
 */
const OPEN_POSITION = `
local before = redis.call('HMGET', position, 'epoch', 'seq', 'timeline', 'former', 'tag')
local epoch, last, former = before[1], before[2] or '0', before[4] or ''
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
  redis.call('DEL', inbox)
elseif before[3] == timeline then
  -- As it should be.
elseif (before[3] or '') == '' and
  string.sub(redis.call('HMGET', position, 'run')[1] or '', 1, 12) == string.match(timeline, '%.(.*)') then
  -- It was written before there were timelines, by the run of Redis that began the first one.
  redis.call('HSET', position, 'timeline', timeline)
elseif string.sub(timeline, 1, 2) == '1.' and string.sub(before[3] or '', 1, 2) == '1.' or
  tonumber(string.match(timeline, '^%d*')) > (tonumber(string.match(before[3] or '', '^%d+')) or 0) then
  -- Later ones have greater numbers; the first ones of two servers both have 1.
  former = former .. epoch .. '.' .. last .. ','
  -- Bounded, and cut between two of them: the oldest of many are of no use to anybody any more.
  if #former > 400 then former = string.match(former, ',(.*)', #former - 400) end
  epoch = epoch_if_new .. string.sub(epoch, 1, #epoch_if_new) .. last
  redis.call('HSET', position, 'epoch', epoch, 'timeline', timeline, 'former', former)
end
`;

const APPEND = `
local position, inbox, mark, memory = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, head, tail, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local count, ttl, counter_ttl = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local timeline, epoch_if_new = ARGV[8], ARGV[9]
local expect_online, fingerprint, memory_ttl = ARGV[10], ARGV[11], tonumber(ARGV[12])

-- Other data has taken the place of that which was looked at: nothing may be numbered in it.
if ARGV[13] == '1' and redis.call('OBJECT', 'ENCODING', mark) ~= 'raw' then return {'replaced'} end

if memory then
  local first = redis.call('HMGET', memory, 'fingerprint', 'id', 'seq', 'epoch', 'reached')
  if first[1] then
    if first[1] ~= fingerprint then return {'conflict'} end
    return {'repeated', first[2], first[3], first[4], first[5]}
  end
end

-- Not what PUBLISH answers: that counts whoever watches by pattern, too.
local reached = redis.call('PUBSUB', 'NUMSUB', channel)[2]
if expect_online == '1' and reached == 0 then return {'offline'} end

-- All that can fail comes before the payload is out. When it does, what was done is undone: either all of it or nothing.
local failed
local function try(...)
  if failed then return false end
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    failed = reply
    return false
  end
  return true
end

local seq, kept_epoch, payload, tag = '', '', head .. tail, ''
local is_counted, is_stored, is_remembered, was, left
if count > 0 then
  local time = redis.call('TIME')
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ttl
  left = redis.call('PTTL', inbox)
  local keep = math.max(ttl, left)
  ${OPEN_POSITION}
  was, is_counted = before, not before[1]
  seq = string.format('%.0f', tonumber(last) + 1)
  -- Four characters tell the epoch, four the message. One more message stays than is shown: should this one be undone,
  -- the oldest must not have left for it.
  tag = string.sub(epoch, 1, 4) .. string.sub(epoch_if_new, 5, 8)
  payload = head .. '"seq":' .. seq .. ',"tag":"' .. tag .. '",' .. tail
  kept_epoch = epoch
  is_counted = try('HSET', position, 'seq', seq, 'tag', seq .. '.' .. tag) or is_counted
  local function add() return try('XADD', inbox, 'MAXLEN', count + 1, seq .. '-0', 'm', payload, 'x', ends) end
  is_stored = add()
  if failed and string.find(failed.err, 'equal or smaller', 1, true) then
    -- The stream remembers a number that was undone, or set back with the counter alone: it is written anew. It must be
    -- possible to give it an end again.
    failed = nil
    if try('PEXPIRE', inbox, keep) then
      local entries = redis.call('XRANGE', inbox, '-', (tonumber(seq) - 1) .. '-0')
      redis.call('DEL', inbox)
      for _, entry in ipairs(entries) do redis.call('XADD', inbox, entry[1], unpack(entry[2])) end
      is_stored = add()
    end
  end
  try('PEXPIRE', inbox, keep)
  try('PEXPIRE', position, math.max(counter_ttl, keep))
end
if memory then
  is_remembered = try('HSET', memory, 'fingerprint', fingerprint, 'id', id, 'seq', seq, 'epoch', kept_epoch,
    'reached', reached)
  try('PEXPIRE', memory, memory_ttl)
end
try('PUBLISH', channel, payload)

if failed then
  local why = failed
  failed = nil
  if is_remembered then try('DEL', memory) end
  -- A stream that was not there has no end yet.
  if is_stored and (left == -2 or not was[1]) then try('DEL', inbox)
  elseif is_stored then try('XDEL', inbox, seq .. '-0') end
  if is_counted and was[1] then
    try('HSET', position, 'epoch', was[1], 'seq', was[2] or '0', 'timeline', was[3] or '', 'former', was[4] or '',
      'tag', was[5] or '')
  elseif is_counted then
    try('DEL', position)
  end
  return failed and {'unknown', why.err} or why
end
return {'appended', id, seq, kept_epoch, reached, tag}
`;

const SINCE = `
local position, inbox = KEYS[1], KEYS[2]
local after, limit, counter_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local timeline, epoch_if_new, wants_proof, is_peek, channel = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local count = tonumber(ARGV[9])
local reached = redis.call('PUBSUB', 'NUMSUB', channel)[2]
if is_peek == '1' and redis.call('EXISTS', position) == 0 then return {'', '', '0', '0', '', '', reached} end
${OPEN_POSITION}
redis.call('PEXPIRE', position, math.max(counter_ttl, redis.call('PTTL', inbox)))
local last_tag = string.match(before[5] or '', '^' .. last .. '%.(.*)') or ''
local result = {epoch, former, last, last, last_tag, '', reached}
if after == '' then return result end

if after == last then
  result[6] = last_tag
elseif wants_proof == '1' then
  local entry = redis.call('XRANGE', inbox, after .. '-0', after .. '-0')[1]
  result[6] = entry and string.match(entry[2][2], '^.-"seq":' .. after .. ',"tag":"([%w_-]+)"') or ''
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first = string.format('%.0f', math.max(tonumber(after), tonumber(last) - count))
local entries = redis.call('XRANGE', inbox, '(' .. first .. '-0', '+', 'COUNT', limit)
for _, entry in ipairs(entries) do
  if tonumber(entry[2][4]) > now then
    result[#result + 1] = string.match(entry[1], '^%d+')
    result[#result + 1] = entry[2][2]
  end
end
if #entries == limit then result[4] = string.match(entries[#entries][1], '^%d+') end
return result
`;

/** How long keys live on which scripts are only tried, in milliseconds. */
const TRIAL_TTL_MS = "1000";

const CLAIM = new Script(
  `
local first = redis.call('GET', KEYS[1])
if first and first ~= ARGV[1] then return 0 end
-- With its end in the same step: a claim is made whole or not at all.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`,
  { probe: (tag) => ({ keys: [`userwire:{${tag}}:call`], args: ["trial", TRIAL_TTL_MS] }) },
);

/**
 * Reads of messages that are under way at one time. Each may bring a hundred messages of any size: a crowd that comes
 * back at once must not have them all in memory.
 */
const MAX_READS = 8;

type AppendReply = [
  outcome: Appended["outcome"] | "unknown" | "replaced",
  id: string,
  seq: string,
  epoch: string,
  reached: string | number,
  tag?: string,
];

export class RedisStreamsInbox implements Inbox {
  readonly limits: InboxLimits;
  readonly #redis: Redis;
  readonly #timeline: Timeline;
  readonly #onCount: (channel: string, count: number) => void;
  readonly #append: Script;
  readonly #since: Script;
  /** While it is looked at what has taken the place of the data. */
  #looked: Promise<void> | undefined;
  #reads = 0;
  /** Those whose read must wait, first come first. */
  readonly #line: (() => void)[] = [];

  /**
   * @param redis Stays the caller's to close.
   * @param options.onCount Told with each read how many subscriptions the channel has.
   */
  constructor(
    redis: Redis,
    options: { limits: InboxLimits; onCount?: (channel: string, count: number) => void },
  ) {
    this.#redis = redis;
    this.#onCount = options.onCount ?? (() => {});
    this.#timeline = new Timeline();
    this.limits = options.limits;
    const { count } = options.limits;
    this.#append = new Script(APPEND, {
      probe: (tag) => ({
        keys: [positionKey(tag), inboxKey(tag), positionKey(tag), idempotencyKey(tag, "trial")],
        args: [
          ...[tag, "", "", "", String(Math.min(count, 1)), TRIAL_TTL_MS, TRIAL_TTL_MS, "0.trial", newEpoch()],
          ...["0", newEpoch(), "1", ""],
        ],
      }),
    });
    this.#since = new Script(SINCE, {
      probe: (tag) => ({
        keys: [positionKey(tag), inboxKey(tag)],
        args: ["0", "1", TRIAL_TTL_MS, "0.trial", newEpoch(), "1", "0", tag, "1"],
      }),
    });
    redis.prepare(this.#append, CLAIM);
    if (count === 0) return;
    redis.prepare(this.#since);
    redis.watchWith(this.#timeline);
  }

  async append(channel: string, draft: Draft, options: AppendOptions = {}): Promise<Appended> {
    // What was refused goes first: a step later than its own wait.
    if (this.#looked) await this.#looked.then(() => {});
    let reply = await this.#tryAppend(channel, draft, options);
    if (reply[0] === "replaced") {
      this.#looked ??= this.#redis.lookNow().finally(() => this.#looked = undefined);
      await this.#looked;
      reply = await this.#tryAppend(channel, draft, options);
    }
    const [outcome, id, seq, epoch, reached, tag] = reply;
    if (outcome === "replaced") throw new BrokerUnavailableError(OTHER_DATA);
    if (outcome === "offline" || outcome === "conflict") return { outcome };
    if (outcome === "unknown") {
      throw new BrokerUnavailableError(explainReply(id), { outcome: "unknown", cause: verbatim(id) });
    }
    if (seq === "") return { outcome, id, position: undefined, reached: Number(reached) };
    const position = { epoch, seq: Number(seq) };
    if (tag !== undefined) this.#timeline.appended(channel, position.seq, tag);
    return { outcome, id, position, reached: Number(reached) };
  }

  #tryAppend(channel: string, draft: Draft, options: AppendOptions): Promise<AppendReply> {
    const { idempotency } = options;
    const { markKey } = this.#timeline;
    const keys = [positionKey(channel), inboxKey(channel), markKey ?? positionKey(channel)];
    if (idempotency) keys.push(idempotencyKey(channel, idempotency.key));
    return this.#redis.evaluate(this.#append, keys, [
      channel,
      draft.head,
      draft.tail,
      draft.id,
      String(this.limits.count),
      String(options.ttlMs ?? this.limits.ttlMs),
      String(COUNTER_TTL_MS),
      this.#timeline.name,
      newEpoch(),
      options.expectOnline ? "1" : "0",
      idempotency?.fingerprint ?? "",
      String(IDEMPOTENCY_TTL_MS),
      markKey === undefined ? "" : "1",
    ]) as Promise<AppendReply>;
  }

  async claim(prefix: string, { key, fingerprint }: Idempotency): Promise<boolean> {
    const name = `${RESERVED_PREFIX}${prefix}call:${key}`;
    return await this.#redis.evaluate(CLAIM, [name], [fingerprint, String(CLAIM_TTL_MS)]) === 1;
  }

  since(
    channel: string,
    after: number | undefined,
    limit: number,
    options: SinceOptions = {},
  ): Promise<Stretch> {
    const read = () => this.#read(channel, after, limit, options);
    // Without a number it brings no message.
    return after === undefined ? read() : this.#inTurn(read);
  }

  onSetBack(listener: () => void): void {
    this.#timeline.onNew(listener);
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

  async #read(
    channel: string,
    after: number | undefined,
    limit: number,
    { proof = false, peek = false }: SinceOptions,
  ): Promise<Stretch> {
    const reply = await this.#redis.evaluate(this.#since, [positionKey(channel), inboxKey(channel)], [
      after === undefined ? "" : String(after),
      String(limit),
      String(COUNTER_TTL_MS),
      this.#timeline.name,
      newEpoch(),
      proof ? "1" : "0",
      peek ? "1" : "0",
      channel,
      String(this.limits.count),
    ]) as string[];
    const [epoch, former, last, through, lastTag, afterTag] = reply as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    this.#onCount(channel, Number(reply[6]));
    const items = [];
    for (let i = 7; i < reply.length; i += 2) items.push({ seq: Number(reply[i]), envelope: reply[i + 1]! });
    return {
      epoch,
      former: parseFormer(former),
      last: Number(last),
      items,
      through: Number(through),
      lastTag,
      afterTag,
    };
  }
}

function parseFormer(text: string): Position[] {
  return text.split(",").flatMap((position) => parsePosition(position) ?? []);
}
