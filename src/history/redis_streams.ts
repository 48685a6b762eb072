/**
 * The inbox in Redis: per user a stream whose ids are the sequence numbers, a counter with its epoch, and the
 * idempotency keys. All keys of a user share the hash slot of the user's channel.
 *
 *     userwire:{<channel>}:position   hash    seq, epoch, tag: <seq>.<tag of the newest>, timeline, former
 *     userwire:{<channel>}:inbox      stream  <seq>-0 → m: envelope, x: Unix ms at which it has left
 *     userwire:{<channel>}:key:<key>  hash    what the first send with this key came to
 *     userwire:<prefix>call:<key>     string  what a key of many sends stands for, and of how many calls
 *
 * One script per send: scripts run alone, so check, count, number, store and publish are one step, and it is done whole or
 * not at all. A message to many users is one script for a page of them, which does that for one after the other: most of
 * what a send costs this process is the call. Times are those of Redis' own clock.
 *
 * `timeline` tells an unbroken run of writes from the next one (`timeline.ts` says how). When the data was set back, the
 * counter would give out numbers that clients have seen; so the first script of a new timeline begins a new epoch
 * and notes in `former` from where the numbers of the old one can't be trusted; the new one's name says it too, for a
 * timeline that ends before its epochs were saved (`originOf`).
 */
import { Semaphore } from "../async/semaphore.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import { parsePosition, type Position } from "../protocol/position.ts";
import { RESERVED_PREFIX } from "../protocol/username.ts";
import {
  idempotencyKey,
  inboxKey,
  logMessage,
  OTHER_DATA,
  positionKey,
  publicMessageOfReply,
  type Redis,
  Script,
} from "../redis/commands.ts";
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
  newEpochs,
  type SinceOptions,
  type Stretch,
} from "./history.ts";
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

/** What is to be appended, as all users have it. */
const MESSAGE = `
local head, tail, id = ARGV[1], ARGV[2], ARGV[3]
local count, ttl, counter_ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
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

/**
 * Ends are set so much later than they have to be, in milliseconds, and not again as long as they are late enough: who gets
 * many messages has them set now and then.
 */
function slackOf(ttl: string): string {
  return `math.min(math.floor(${ttl} / 8), 3600000)`;
}

const ADD = "'XADD', inbox, 'MAXLEN', count + 1, seq .. '-0', 'm', payload, 'x', ends";

/** Appends it for one user: its keys, its channel, and some random characters in `epoch_if_new`. */
const APPEND_IT = `
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
-- None of these commands answers with a table, unless it is an error.
local failed
local seq, kept_epoch, payload, tag = '', '', '', ''
local is_counted, is_stored, is_remembered, was, left
if count > 0 then
  local time = redis.call('TIME')
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ttl
  left = redis.call('PTTL', inbox)
  local keep, slack = math.max(ttl, left), ${slackOf("ttl")}
  ${OPEN_POSITION}
  was, is_counted = before, not before[1]
  seq = string.format('%.0f', tonumber(last) + 1)
  -- Four characters tell the epoch, four the message. One more message stays than is shown: should this one be undone,
  -- the oldest must not have left for it.
  tag = string.sub(epoch, 1, 4) .. string.sub(epoch_if_new, 5, 8)
  payload = head .. '"seq":' .. seq .. ',"tag":"' .. tag .. '",' .. tail
  kept_epoch = epoch
  ${unlessFailed("'HSET', position, 'seq', seq, 'tag', seq .. '.' .. tag", "is_counted = true")}
  ${unlessFailed(ADD, "is_stored = true")}
  if failed and not is_stored and string.find(failed.err, 'equal or smaller', 1, true) then
    -- The stream remembers a number that was undone, or set back with the counter alone: it is written anew. It must be
    -- possible to give it an end again.
    failed, left = nil, -1
    ${unlessFailed("'PEXPIRE', inbox, keep")}
    if not failed then
      local entries = redis.call('XRANGE', inbox, '-', (tonumber(seq) - 1) .. '-0')
      redis.call('DEL', inbox)
      for _, entry in ipairs(entries) do redis.call('XADD', inbox, entry[1], unpack(entry[2])) end
    end
    ${unlessFailed(ADD, "is_stored = true")}
  end
  -- The position ends a counter's life after the history: so it need not be looked at.
  if left < ttl then
    ${unlessFailed("'PEXPIRE', inbox, keep + slack")}
    ${unlessFailed("'PEXPIRE', position, counter_ttl + keep + slack")}
  end
else
  payload = head .. tail
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
${unlessFailed("'PUBLISH', channel, payload")}

if failed then
  local why = failed
  failed = nil
  if is_remembered then
    ${unlessFailed("'DEL', memory")}
  end
  -- A stream that was not there has no end yet.
  if is_stored and (left == -2 or not was[1]) then
    ${unlessFailed("'DEL', inbox")}
  elseif is_stored then
    ${unlessFailed("'XDEL', inbox, seq .. '-0'")}
  end
  if is_counted and was[1] then
    ${
  unlessFailed(
    "'HSET', position, 'epoch', was[1], 'seq', was[2] or '0', 'timeline', was[3] or '', 'former', was[4] or '', " +
      "'tag', was[5] or ''",
  )
}
  elseif is_counted then
    ${unlessFailed("'DEL', position")}
  end
  return failed and {'unknown', why.err} or why
end
return {'appended', id, seq, kept_epoch, reached, tag}
`;

const APPEND = `
${MESSAGE}
local position, inbox, memory = KEYS[2], KEYS[3], KEYS[4]
local channel, epoch_if_new = ARGV[12], ARGV[13]
${APPEND_IT}`;

/** Appends it for one user after the other: what fails for one is undone for that one, and said in its place. */
const APPEND_TO_ALL = `
${MESSAGE}
local random, users = ARGV[12], #ARGV - 12
local random_each, keys_each = #random / users, (#KEYS - 1) / users
local function append(position, inbox, memory, channel, epoch_if_new)
${APPEND_IT}
end
local results = {}
for i = 1, users do
  local key = 1 + (i - 1) * keys_each
  local is_done, result = pcall(append, KEYS[key + 1], KEYS[key + 2], keys_each == 3 and KEYS[key + 3], ARGV[12 + i],
    string.sub(random, (i - 1) * random_each + 1, i * random_each))
  -- Redis before 7 raises its errors as text; so does Lua.
  if not is_done and type(result) ~= 'table' then
    result = {err = 'ERR Error running script (call to append): ' .. result}
  end
  results[i] = result
end
return results
`;

/** Bytes of messages that one read brings, if it is more than one message. */
const MAX_READ_BYTES = 256 * 1024;

const SINCE = `
local position, inbox = KEYS[1], KEYS[2]
local after, limit, counter_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local timeline, epoch_if_new, wants_proof, is_peek, channel = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local count = tonumber(ARGV[9])
-- Whoever has no place yet is not subscribed yet either.
local reached = after == '' and -1 or redis.call('PUBSUB', 'NUMSUB', channel)[2]
if is_peek == '1' and redis.call('EXISTS', position) == 0 then return {'', '', '0', '0', '', '', reached} end
${OPEN_POSITION}
if redis.call('PTTL', position) < counter_ttl then
  local slack = ${slackOf("counter_ttl")}
  redis.call('PEXPIRE', position, counter_ttl + math.max(0, redis.call('PTTL', inbox)) + slack)
end
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
local from = string.format('%.0f', math.max(tonumber(after), tonumber(last) - count))
-- A few at first, then ever more: of large ones not many are wanted. What Redis holds for one client has bounds, which
-- may be low; beyond them it ends the connection, and all that is asked on it.
local looked, bytes, portion = 0, 0, 8
while looked < limit do
  local wanted = math.min(portion, limit - looked)
  local entries = redis.call('XRANGE', inbox, '(' .. from .. '-0', '+', 'COUNT', wanted)
  for _, entry in ipairs(entries) do
    local is_there = tonumber(entry[2][4]) > now
    if is_there then bytes = bytes + #entry[2][2] end
    if bytes > ${MAX_READ_BYTES} and #result > 7 then
      result[4] = from
      return result
    end
    from = string.match(entry[1], '^%d+')
    if is_there then
      result[#result + 1] = from
      result[#result + 1] = entry[2][2]
    end
  end
  if #entries < wanted then return result end
  looked, portion = looked + wanted, portion * 2
end
result[4] = from
return result
`;

/** How long keys live on which scripts are only tried, in milliseconds. */
const TRIAL_TTL_MS = "1000";

/** With how many calls that may have sent something it is claimed. */
const CLAIMED = `
local fingerprint, calls = ARGV[1], 0
local first = redis.call('GET', KEYS[1])
if first then
  local known
  known, calls = string.match(first, '^(.*) (%d+)$')
  if known ~= fingerprint then return 0 end
end
`;

const CLAIM = new Script(
  `
${CLAIMED}
-- With its end in the same step: a claim is made whole or not at all.
redis.call('SET', KEYS[1], fingerprint .. ' ' .. calls + 1, 'PX', ARGV[2])
return 1
`,
  { probe: (tag) => ({ keys: [`userwire:{${tag}}:call`], args: ["trial", TRIAL_TTL_MS] }) },
);

const RELEASE = new Script(`
${CLAIMED}
if tonumber(calls) > 1 then redis.call('SET', KEYS[1], fingerprint .. ' ' .. calls - 1, 'PX', ARGV[2])
else redis.call('DEL', KEYS[1]) end
return 1
`);

/**
 * Reads of messages that are under way at one time: a crowd that comes back at once must not have all histories in memory,
 * here or in what Redis holds for this connection.
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
  readonly #appendToAll = new Script(APPEND_TO_ALL);
  readonly #since: Script;
  /** While it is looked at what has taken the place of the data. */
  #looked: Promise<void> | undefined;
  readonly #reads = new Semaphore(MAX_READS);

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
        keys: [positionKey(tag), positionKey(tag), inboxKey(tag), idempotencyKey(tag, "trial")],
        args: [
          ...["", "", "", String(Math.min(count, 1)), TRIAL_TTL_MS, TRIAL_TTL_MS, "0.trial"],
          ...["0", newEpoch(), "1", "", tag, newEpoch()],
        ],
      }),
    });
    this.#since = new Script(SINCE, {
      probe: (tag) => ({
        keys: [positionKey(tag), inboxKey(tag)],
        args: ["0", "1", TRIAL_TTL_MS, "0.trial", newEpoch(), "1", "0", tag, "1"],
      }),
    });
    redis.prepare(this.#append, this.#appendToAll, CLAIM, RELEASE);
    if (count === 0) return;
    redis.prepare(this.#since);
    redis.watchWith(this.#timeline);
  }

  async append(channel: string, draft: Draft, options: AppendOptions = {}): Promise<Appended> {
    if (this.#looked) await this.#isLookedAt();
    const run = () =>
      this.#redis.evaluate(this.#append, this.#keys([channel], options), [
        ...this.#message(draft, options),
        channel,
        newEpoch(),
      ]);
    let reply = await run() as AppendReply;
    if (reply[0] === "replaced") reply = await this.#again(run) as AppendReply;
    return this.#appended(channel, reply);
  }

  async appendToAll(
    channels: readonly string[],
    draft: Draft,
    options: AppendOptions = {},
  ): Promise<PromiseSettledResult<Appended>[]> {
    if (this.#looked) await this.#isLookedAt();
    // Of one slot, where the keys are spread over several servers: a script has only those of its own.
    const run = () =>
      this.#redis.evaluateEach(this.#appendToAll, this.#keys(channels, options), [
        ...this.#message(draft, options),
        newEpochs(channels.length),
        ...channels,
      ]);
    let replies = await run();
    if (replies[0] === "replaced") replies = await this.#again(run) as unknown[];
    return replies.map((reply, i) => {
      try {
        if (reply instanceof Error) throw reply;
        return { status: "fulfilled", value: this.#appended(channels[i]!, reply as AppendReply) };
      } catch (reason) {
        return { status: "rejected", reason };
      }
    });
  }

  /** Resolves when it was looked at what has taken the place of the data; what was refused for it goes first. */
  async #isLookedAt(): Promise<void> {
    await this.#looked!.then(() => {});
  }

  /** Other data has taken the place of that which was looked at: looks at it, and runs the script once more. */
  async #again(run: () => Promise<unknown>): Promise<unknown> {
    this.#looked ??= this.#redis.lookNow().finally(() => this.#looked = undefined);
    await this.#looked;
    const reply = await run() as unknown[];
    if (reply[0] === "replaced") throw new BrokerUnavailableError(OTHER_DATA);
    return reply;
  }

  /** First the key of the mark; then those of each user. */
  #keys(channels: readonly string[], { idempotency }: AppendOptions): string[] {
    const keys = [this.#timeline.markKey ?? positionKey(channels[0]!)];
    for (const channel of channels) {
      keys.push(positionKey(channel), inboxKey(channel));
      if (idempotency) keys.push(idempotencyKey(channel, idempotency.key));
    }
    return keys;
  }

  /** What `MESSAGE` reads. */
  #message(draft: Draft, { ttlMs, expectOnline, idempotency }: AppendOptions): string[] {
    return [
      draft.head,
      draft.tail,
      draft.id,
      String(this.limits.count),
      String(ttlMs ?? this.limits.ttlMs),
      String(COUNTER_TTL_MS),
      this.#timeline.name,
      expectOnline ? "1" : "0",
      idempotency?.fingerprint ?? "",
      String(IDEMPOTENCY_TTL_MS),
      this.#timeline.markKey === undefined ? "" : "1",
    ];
  }

  /** @throws {BrokerUnavailableError} when it may have been appended. */
  #appended(channel: string, [outcome, id, seq, epoch, reached, tag]: AppendReply): Appended {
    if (outcome === "offline" || outcome === "conflict") return { outcome };
    if (outcome === "unknown" || outcome === "replaced") {
      throw new BrokerUnavailableError(publicMessageOfReply(id), {
        outcome: "unknown",
        cause: logMessage(id),
      });
    }
    if (seq === "") return { outcome, id, position: undefined, reached: Number(reached) };
    const position = { epoch, seq: Number(seq) };
    if (tag !== undefined && this.#timeline.appended(channel, position.seq, tag)) void this.#redis.lookNow();
    return { outcome, id, position, reached: Number(reached) };
  }

  async claim(prefix: string, { key, fingerprint }: Idempotency): Promise<boolean> {
    const args = [fingerprint, String(CLAIM_TTL_MS)];
    return await this.#redis.evaluate(CLAIM, [claimKey(prefix, key)], args) === 1;
  }

  async release(prefix: string, { key, fingerprint }: Idempotency): Promise<void> {
    await this.#redis.evaluate(RELEASE, [claimKey(prefix, key)], [fingerprint, String(CLAIM_TTL_MS)]);
  }

  since(
    channel: string,
    after: number | undefined,
    limit: number,
    options: SinceOptions = {},
  ): Promise<Stretch> {
    const read = () => this.#read(channel, after, limit, options);
    // Without a number it brings no message.
    return after === undefined ? read() : this.#reads.run(read);
  }

  onSetBack(listener: () => void): void {
    this.#timeline.onNew(listener);
  }

  /** Nothing of its own to let go of. */
  close(): Promise<void> {
    return Promise.resolve();
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
    if (after !== undefined) this.#onCount(channel, Number(reply[6]));
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

function claimKey(prefix: string, key: string): string {
  return `${RESERVED_PREFIX}${prefix}call:${key}`;
}

function parseFormer(text: string): Position[] {
  return text.split(",").flatMap((position) => parsePosition(position) ?? []);
}
