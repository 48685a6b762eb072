/** Which commands of scripts a user of Redis may not run, or it does not know: before 7.2 it says only that there is one. */
import type { Client } from "./client_library.ts";
import { publicMessageOfCommand } from "./error_text.ts";
import type { PubSubWords } from "./pubsub_words.ts";
import { evaluateOn, Script, type ScriptForm } from "./script.ts";

/** What can't be had, as a sentence without a full stop that anybody may read, and for the log. */
export interface Ungranted {
  readonly reason: string;
  readonly detail: string;
}

/** The commands that a script may call, each with its subcommand: "HSET", "PUBSUB NUMSUB". */
export function commandsOf({ source }: ScriptForm): string[] {
  const calls = source.matchAll(/(?:redis\.p?call|try|write)\(\s*'(\w+)'(?:\s*,\s*'(\w+)')?/g);
  const containers = ["PUBSUB", "OBJECT", "CLUSTER"]; // of these it is the word after that names a command
  return [
    ...new Set([...calls].map(([, name, sub]) => containers.includes(name!) ? `${name} ${sub}` : name!)),
  ];
}

/** Lua that notes a command where its answer says that the user may not run it, or that there is none of that name. */
const NOTE = `
local forbidden, unknown = {}, {}
local function note(command, answer)
  local said = type(answer) == 'table' and answer.err or ''
  if string.find(said, "can't run this command", 1, true) or string.find(said, 'permissions to run', 1, true) then
    forbidden[#forbidden + 1] = command
  elseif string.find(said, 'nknown Redis command', 1, true) then
    unknown[#unknown + 1] = command
  end
end
`;

/** How commands are called that scripts need at times only, on a key that is not there: so they find and change nothing. */
const SELDOM: Readonly<Record<string, string>> = {
  DEL: "",
  EXISTS: "",
  HDEL: "-",
  XDEL: "0-1",
  ZADD: "XX 0 -",
  ZCARD: "",
  ZRANGE: "0 0",
  ZRANGEBYLEX: "- +",
  ZREM: "-",
  ZSCORE: "-",
};

/** What of these scripts is to be tried with `ungrantedSeldom`. */
export function seldomOf(scripts: readonly ScriptForm[]): string[] {
  const commands = new Set(scripts.flatMap(commandsOf));
  return Object.entries(SELDOM).filter(([command]) => commands.has(command)).flat();
}

/** Arguments: a command and what it is given beside the key, and so on. */
const TRY_SELDOM = new Script(`
${NOTE}
for i = 1, #ARGV, 2 do
  local words = {ARGV[i], KEYS[1]}
  for word in string.gmatch(ARGV[i + 1], '%S+') do words[#words + 1] = word end
  note(ARGV[i], redis.pcall(unpack(words)))
end
return {forbidden, unknown}
`);

/**
 * Arguments: commands. Each is tried with as many words as it wants, which Redis looks at first, on a key that nobody else
 * has.
 */
const FORBIDDEN = new Script(`
${NOTE}
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do words[#words + 1] = word end
  for n = 0, 6 do
    local answer = redis.pcall(unpack(words))
    local said = type(answer) == 'table' and answer.err or ''
    if not string.find(said, 'rong number of arg') then
      note(command, answer)
      break
    end
    words[#words + 1] = n == 0 and KEYS[1] or '0'
  end
end
-- One of the two may be what is forbidden.
local gone = redis.pcall('DEL', KEYS[1])
if type(gone) == 'table' and gone.err then redis.pcall('PEXPIRE', KEYS[1], 1000) end
return {forbidden, unknown}
`);

type Found = [forbidden: string[], unknown: string[]];

/** What is missing of all that a script may call, which Redis has refused. @param tag As of a script that is tried. */
export async function ungrantedIn(
  client: Client,
  script: ScriptForm,
  words: PubSubWords,
  tag: string,
): Promise<Ungranted> {
  const commands = commandsOf(script);
  const found = await evaluateOn(client, FORBIDDEN.in(words), [keyOf(tag)], commands) as Found;
  return ungranted(found) ?? told(commands, " or ", true);
}

/** What is missing of what `seldomOf` has found; undefined when nothing is. */
export async function ungrantedSeldom(
  client: Client,
  seldom: readonly string[],
  words: PubSubWords,
  tag: string,
): Promise<Ungranted | undefined> {
  // By the text of the script: EVAL, too, is needed only when Redis has forgotten the scripts.
  const command = ["EVAL", TRY_SELDOM.in(words).source, "1", keyOf(tag), ...seldom];
  return ungranted(await client.sendCommand<Found>(command));
}

function ungranted([forbidden, unknown]: Found): Ungranted | undefined {
  if (forbidden.length > 0) return told(forbidden, " and ", true);
  return unknown.length > 0 ? told(unknown, " and ", false) : undefined;
}

function told(commands: readonly string[], joint: string, isForbidden: boolean): Ungranted {
  return {
    reason: publicMessageOfCommand(commands.join(joint), isForbidden),
    detail: `${isForbidden ? "Not granted" : "Not known"}: ${commands.join(", ")}`,
  };
}

function keyOf(tag: string): string {
  return `userwire:{${tag}}:rights`;
}
