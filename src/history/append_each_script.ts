/** The script that appends several messages, each for a user of its own; what it is given of each, and what it answers. */
import { Script } from "../redis/commands.ts";
import { appendIt, type AppendReply, CLOCK, MESSAGE, publishCounts } from "./append_script.ts";
import type { AppendOptions, HistoryLimits } from "./history.ts";

/** How many arguments each message of `APPEND_EACH` has. */
const ARGS_OF_EACH = 5;

/**
 * Appends several messages, each for a user of its own: what fails for one is undone for that one, and said in its place. Its
 * answer is a list of `AppendReply`; but for one that was appended it is the text `<seq>.<tag> <reached> <epoch>`, since what
 * stands alone costs both sides less than the parts of a list.
 *
 * Arguments of each: channel, head, tail, what is remembered, and, where the message has any, its options:
 * `<ttl> <expects> <has a key> <id> <fingerprint>`. Without a key nobody needs its id.
 */
export const APPEND_EACH = new Script((words) => `
${MESSAGE}
${publishCounts(words)}
${CLOCK}
local function append(position, history, memory, channel, epoch_if_new, head, tail, id, ttl, leaves, expect_online, fingerprint)
${appendIt(words, { clock: "" })}
end
local results, key, random = {}, 2, ARGV[12]
local nth = 0
for i = 13, #ARGV, ${ARGS_OF_EACH} do
  remembered = ARGV[i + 3]
  local its_ttl, its_end, expects, has_key, its_id, its_fingerprint = ttl, leaves, '0', '0', '', ''
  if ARGV[i + 4] ~= '' then
    its_ttl, expects, has_key, its_id, its_fingerprint = string.match(ARGV[i + 4], '^(%S+) (%d) (%d) (%S*) (.*)$')
    its_ttl = tonumber(its_ttl)
    its_end = string.format('%d', now + its_ttl)
  end
  local memory = has_key == '1' and KEYS[key + 2]
  local is_done, result = pcall(append, KEYS[key], KEYS[key + 1], memory, ARGV[i], string.sub(random, nth * 8 + 1, nth * 8 + 8),
    ARGV[i + 1], ARGV[i + 2], its_id, its_ttl, its_end, expects, its_fingerprint)
  nth = nth + 1
  if is_done and result[1] == 'appended' then
    local reached = result[5] == 0 and '0' or string.format('%d', result[5])
    result = result[3] .. '.' .. (result[6] or '') .. ' ' .. reached .. ' ' .. result[4]
  elseif not is_done and type(result) ~= 'table' then
    -- Redis before 7 raises its errors as text; so does Lua.
    result = {err = 'ERR Error running script (call to append): ' .. result}
  end
  results[nth] = result
  key = key + (memory and 3 or 2)
end
return results
`);

/** What `APPEND_EACH` is told of a message that has options. */
export function optionsOfEach(
  id: string,
  { ttlMs, expectOnline, idempotency }: AppendOptions,
  limits: HistoryLimits,
): string {
  if (ttlMs === undefined && !expectOnline && !idempotency) return "";
  const flags = `${expectOnline ? 1 : 0} ${idempotency ? 1 : 0}`;
  return `${ttlMs ?? limits.ttlMs} ${flags} ${id} ${idempotency?.fingerprint ?? ""}`;
}

/** What `APPEND_EACH` answers as text. @param id Of the message. */
export function replyIn(text: string, id: string): AppendReply {
  const [mark, reached, epoch] = text.split(" ") as [string, string, string];
  const dot = mark.indexOf(".");
  return ["appended", id, mark.slice(0, dot), epoch, reached, mark.slice(dot + 1)];
}
