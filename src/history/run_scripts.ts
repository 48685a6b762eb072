/**
 * The scripts that keep a run: how far one message to many users has come.
 *
 *     userwire:{<channel>}:key:<key>  hash  fingerprint, id; cursor: up to where; sums: what became of it; beyond: channels
 *                                           after the cursor for which it is done; state: "done" at the end; holder, lease
 */
import { Script } from "../redis/commands.ts";
import { TRIAL_TTL_MS } from "./script_parts.ts";

/** As `sums` is written: the numbers of a `Tally`, in the order of its fields. */
const NO_SUMS = "0 0 0 0 0 0 0";

/** Milliseconds on Redis' own clock. */
const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/** Lua that notes that a page is done. Reads `run`, `sums`, `is_last`, `is_kept` and `run_ttl` of the script around it. */
export const NOTE_SUMS = `
if is_last and not is_kept then
  redis.call('DEL', run)
else
  redis.call('HSET', run, 'sums', table.concat(sums, ' '), 'beyond', '', 'state', is_last and 'done' or '')
  redis.call('PEXPIRE', run, run_ttl)
end
`;

/** Lua that adds up what was noted, into `sums`. */
export const ADD_SUMS = `
local nth = 0
for number in string.gmatch(noted_sums, '%d+') do
  nth = nth + 1
  sums[nth] = string.format('%.0f', sums[nth] + number)
end
`;

/** Begins a run, or takes it up: `lease` 0 where several may go on with one, since each of its steps is done once. */
export const OPEN_RUN = new Script(
  `
local run = KEYS[1]
local fingerprint, id, run_ttl, holder, lease, is_again = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local state = redis.call('HMGET', run, 'fingerprint', 'id', 'cursor', 'sums', 'state', 'beyond', 'holder', 'lease')
${NOW}
if state[1] then
  if state[1] ~= fingerprint then return {'conflict'} end
  if state[5] == 'done' then return {'done', state[2], '', state[4], ''} end
  if lease > 0 and state[7] ~= '' and state[7] ~= holder and tonumber(state[8]) > now then return {'held'} end
elseif is_again == '1' then
  return {'lost'}
end
local ends = string.format('%.0f', now + lease)
if state[1] then
  redis.call('HSET', run, 'holder', holder, 'lease', ends)
else
  redis.call('HSET', run, 'fingerprint', fingerprint, 'id', id, 'cursor', '', 'sums', '${NO_SUMS}', 'state', '', 'beyond', '',
    'holder', holder, 'lease', ends)
end
local is_ending = redis.pcall('PEXPIRE', run, run_ttl)
if type(is_ending) == 'table' then
  -- No key stays for ever.
  if not state[1] then redis.call('DEL', run) end
  return is_ending
end
return {'open', state[2] or id, state[3] or '', state[4] or '${NO_SUMS}', state[6] or ''}
`,
  {
    probe: (tag) => ({
      keys: [`userwire:{${tag}}:run`],
      args: ["trial", "trial", TRIAL_TTL_MS, "trial", "0", "0"],
    }),
  },
);

/** Lets go of a run: who took it up meanwhile keeps it. */
export const LEAVE_RUN = new Script(`
local state = redis.call('HMGET', KEYS[1], 'holder', 'cursor', 'beyond', 'state')
if state[1] ~= ARGV[1] or state[4] == 'done' then return 0 end
if state[2] == '' and state[3] == '' then redis.call('DEL', KEYS[1])
else redis.call('HSET', KEYS[1], 'holder', '') end
return 1
`);

/**
 * Notes what was done on several servers: that the run has come to the end of a page, or, with `beyond`, for which
 * channels of it the message is done.
 */
export const NOTE_RUN = new Script(`
local run = KEYS[1]
local from, to, run_ttl = ARGV[1], ARGV[2], ARGV[3]
local is_last, is_kept = ARGV[4] == '1', ARGV[5] == '1'
local beyond, holder, lease = ARGV[6], ARGV[7], tonumber(ARGV[8])
local state = redis.call('HMGET', run, 'cursor', 'sums', 'holder', 'beyond')
if state[1] ~= from or state[3] ~= holder then return {'passed'} end
local noted_sums, sums = state[2], {}
for number in string.gmatch(ARGV[9], '%d+') do sums[#sums + 1] = number end
${ADD_SUMS}
${NOW}
redis.call('HSET', run, 'lease', string.format('%.0f', now + lease))
if beyond == '' then
  redis.call('HSET', run, 'cursor', to)
  ${NOTE_SUMS}
else
  redis.call('HSET', run, 'sums', table.concat(sums, ' '), 'beyond', state[4] .. beyond)
  redis.call('PEXPIRE', run, run_ttl)
end
return {'noted', table.concat(sums, ' ')}
`);
