/** The script that appends one message for each user of a page, and notes in the same step that the run has come so far. */
import { Script } from "../redis/commands.ts";
import { appendIt, CLOCK, MESSAGE, publishCounts } from "./append_script.ts";
import { ADD_SUMS, NOTE_SUMS } from "./run_scripts.ts";

/** What it answers: "passed" alone, when the run is somewhere else. */
export type PageReply = [
  outcome: "noted" | "passed" | "replaced",
  /** As `sums` of a run: of the whole run, or of this page where the run is kept on another server. */
  sums: string,
  /** Which of the channels was the last that it was numbered for, from 1 on; "" for none. */
  last: string,
  seq: string,
  tag: string,
  /**
   * For each channel, with spaces in between: `<seq>.<tag>`, and a `!` after it where nobody got the message; "-" where it
   * was not numbered.
   */
  marks: string,
  /** For each channel that it was refused for: which, and Redis' words. */
  ...refused: string[],
];

/**
 * Keys: of the mark, of the run where it is kept here, and those of each user; or none at all, on a cluster, where those of
 * several slots can't be named beforehand, and a script may use all that its server keeps.
 */
export const APPEND_PAGE = new Script((words) => `
${MESSAGE}
local keeps_for_offline = ARGV[12] == '1'
local has_run, from, to, run_ttl = ARGV[13] == '1', ARGV[14], ARGV[15], ARGV[16]
local is_last, is_kept = ARGV[17] == '1', ARGV[18] == '1'
local random, ended, is_elsewhere, remembers = ARGV[19], ARGV[20], ARGV[21], ARGV[22] == '1'
local fixed = 22
local users = (#ARGV - fixed) / (remembers and 2 or 1)
local random_each = users > 0 and #random / users or 0
${CLOCK}
local first_key = has_run and 2 or 1
local run = has_run and KEYS[2]
local sums, noted_sums = {0, 0, 0, 0, 0, 0, 0}, ''
if run then
  local state = redis.call('HMGET', run, 'cursor', 'sums')
  if state[1] ~= from then return {'passed'} end
  -- The first write: what Redis refuses for all, as for want of memory, it refuses here, and nothing was done.
  local moved = redis.pcall('HSET', run, 'cursor', to)
  if type(moved) == 'table' then return moved end
  noted_sums = state[2]
end

${publishCounts(words)}
local function append(position, history, memory, channel, epoch_if_new)
${appendIt(words, { clock: "", isOfGroup: true })}
end

local reply, marks = {'noted', '', '', '', '', ''}, {}
local last_done, last
for i = 1, users do
  local channel, key = ARGV[fixed + i], first_key + 2 * i
  local position = KEYS[key - 1] or 'userwire:{' .. channel .. '}:position'
  local history = KEYS[key] or 'userwire:{' .. channel .. '}:inbox'
  if ended ~= '' then elsewhere = string.sub(is_elsewhere, i, i) == '1' and ended or '' end
  if remembers then remembered = ARGV[fixed + users + i] end
  local is_done, result = pcall(append, position, history, false, channel,
    string.sub(random, (i - 1) * random_each + 1, i * random_each))
  local outcome = is_done and result[1]
  if outcome == 'appended' then
    sums[1] = sums[1] + 1
    marks[#marks + 1] = result[7]
    if result[5] > 0 then
      sums[2], sums[3] = sums[2] + 1, sums[3] + result[5]
    else
      marks[#marks + 1] = '!'
      if count > 0 and keeps_for_offline then sums[4] = sums[4] + 1 end
    end
    last_done, last = result, i
  else
    marks[#marks + 1] = '-'
    if outcome == 'unseen' then
      sums[5] = sums[5] + 1
    elseif outcome == 'offline' then
      sums[6] = sums[6] + 1
    else
      sums[7] = sums[7] + 1
      -- Redis before 7 raises its errors as text; so does Lua.
      local why = outcome == 'unknown' and result[2] or type(result) == 'table' and result.err or result
      reply[#reply + 1] = tostring(i)
      reply[#reply + 1] = tostring(why)
    end
  end
end
if last then reply[3], reply[4], reply[5] = tostring(last), last_done[3], last_done[6] end
if count > 0 then reply[6] = table.concat(marks, ' ') end
for i = 1, 7 do sums[i] = string.format('%d', sums[i]) end
if run then
  ${ADD_SUMS}
  ${NOTE_SUMS}
end
reply[2] = table.concat(sums, ' ')
return reply
`);
