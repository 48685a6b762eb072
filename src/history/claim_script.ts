/** The scripts that claim an idempotency key for a call of many sends, and release it. */
import { RESERVED_PREFIX } from "../protocol/username.ts";
import { Script } from "../redis/commands.ts";
import { TRIAL_TTL_MS } from "./script_parts.ts";

/** Where it is noted. @param prefix That of the installation's channels. */
export function claimKey(prefix: string, key: string): string {
  return `${RESERVED_PREFIX}${prefix}call:${key}`;
}

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

export const CLAIM = new Script(
  `
${CLAIMED}
-- With its end in the same step: a claim is made whole or not at all.
redis.call('SET', KEYS[1], fingerprint .. ' ' .. calls + 1, 'PX', ARGV[2])
return 1
`,
  { probe: (tag) => ({ keys: [`userwire:{${tag}}:call`], args: ["trial", TRIAL_TTL_MS] }) },
);

export const RELEASE = new Script(`
${CLAIMED}
if tonumber(calls) > 1 then redis.call('SET', KEYS[1], fingerprint .. ' ' .. calls - 1, 'PX', ARGV[2])
else redis.call('DEL', KEYS[1]) end
return 1
`);
