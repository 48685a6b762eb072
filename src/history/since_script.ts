/** The script that reads a page of a user's history, and the position with it. */
import { historyKey, positionKey, Script } from "../redis/commands.ts";
import { newEpoch } from "./epochs.ts";
import { OPEN_POSITION, READ_POSITION, slackOf, TRIAL_TTL_MS } from "./script_parts.ts";

export type SinceReply = [
  ...[epoch: string, former: string, last: string, upTo: string, lastTag: string, afterTag: string],
  reached: number,
  ...sequenceNumbersAndEnvelopes: string[],
];

/** Bytes of messages that one read brings, if it is more than one message. */
const MAX_READ_BYTES = 256 * 1024;

export const SINCE = new Script(
  ({ numsub }) => `
local position, history = KEYS[1], KEYS[2]
local after, limit, counter_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local timeline, epoch_if_new, wants_proof, is_peek, channel = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local count, remembered, elsewhere = tonumber(ARGV[9]), ARGV[10], ARGV[11] or ''
-- A client that asks for the position alone has not subscribed yet.
local reached = after == '' and -1 or redis.call('PUBSUB', '${numsub}', channel)[2]
if is_peek == '1' and redis.call('EXISTS', position) == 0 then return {'', '', '0', '0', '', '', reached} end
${READ_POSITION}
local former_before
${OPEN_POSITION}
if redis.call('PTTL', position) < counter_ttl then
  local slack = ${slackOf("counter_ttl")}
  redis.call('PEXPIRE', position, counter_ttl + math.max(0, redis.call('PTTL', history)) + slack)
end
if not former then former = redis.call('HMGET', position, 'former')[1] or '' end
local last_tag = string.match(before[4] or '', '^' .. last .. '%.(.*)') or ''
local result = {epoch, former, last, last, last_tag, '', reached}
if after == '' then return result end

if after == last then
  result[6] = last_tag
elseif wants_proof == '1' then
  local entry = redis.call('XRANGE', history, after .. '-0', after .. '-0')[1]
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
  local entries = redis.call('XRANGE', history, '(' .. from .. '-0', '+', 'COUNT', wanted)
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
`,
  {
    probe: (tag) => ({
      keys: [positionKey(tag), historyKey(tag)],
      args: ["0", "1", TRIAL_TTL_MS, "0.trial", newEpoch(), "1", "0", tag, "1", ""],
    }),
  },
);
