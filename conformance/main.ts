/**
 * Runs a client program through every rule that docs/protocol.md has for clients, and says which it breaks:
 *
 *     deno task conform -- python3 my_client.py
 *
 * What the program is told and what it writes is in docs/conformance.md.
 */
import { parseArgs } from "node:util";
import { type Case, PARTS } from "./case.ts";
import { startCommand } from "./program.ts";
import { CASES, run, type Verdict } from "./run.ts";

const USAGE = `deno task conform [options] -- <command> [arguments]

  --only <names>       only these rules, with commas between them
  --without <parts>    what it does not do, with commas: broadcasts, requests
  --hides-status       the program's platform hides the HTTP status of a handshake, as browsers do
  --pace <factor>      what the program is told to multiply its times by (1)
  --patience <ms>      how long it may take for what it does at once (5000)
  --at-once <number>   how many programs run at a time (8)
  --list               the rules, and where they stand

Exit code: 0 when it keeps them all, 1 when it breaks one, 2 when the call is wrong.`;

Deno.exitCode = await main(Deno.args);

async function main(args: readonly string[]): Promise<number> {
  let options: ReturnType<typeof read>;
  try {
    options = read(args);
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
    return 2;
  }
  const { cases, command, help, list } = options;
  if (help) console.log(USAGE);
  if (list) {
    for (const { name, rule, section } of cases) {
      console.log(`${name}: ${rule} (${link(section)})`);
    }
  }
  if (help || list) return 0;
  const [program, ...programArgs] = command as [string, ...string[]];
  try {
    const { pace, patienceMs, atOnce } = options;
    const start = startCommand(program, programArgs);
    return report(await run(cases, { start, pace, patienceMs, atOnce }), options);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.error(`There is no program "${program}"`);
    return 2;
  }
}

/** @throws {TypeError} with what is wrong with the call. */
function read(args: readonly string[]) {
  const { values, positionals: command } = parseArgs({
    args: ownFirst(args),
    allowPositionals: true,
    options: {
      "only": { type: "string" },
      "without": { type: "string" },
      "hides-status": { type: "boolean", default: false },
      "pace": { type: "string", default: "1" },
      "patience": { type: "string", default: "5000" },
      "at-once": { type: "string", default: "8" },
      "list": { type: "boolean", default: false },
      "help": { type: "boolean", default: false },
    },
  });
  const { help, list } = values;
  if (command.length === 0 && !help && !list) throw new TypeError("Name the program after --");
  const hidesStatus = values["hides-status"];
  const without = values.without?.split(",") ?? [];
  const unknown = without.filter((name) => !PARTS.some((part) => part === name));
  if (unknown.length > 0) {
    throw new TypeError(`--without takes ${PARTS.join(" and ")}, not "${unknown.join('", "')}"`);
  }
  return {
    cases: chosen(values.only?.split(",")).filter(({ needsStatus, part = "" }) =>
      !(needsStatus && hidesStatus) && !without.includes(part)
    ),
    hidesStatus,
    without,
    pace: above0("pace", values.pace),
    patienceMs: above0("patience", values.patience),
    atOnce: Math.ceil(above0("at-once", values["at-once"])),
    command,
    list,
    help,
  };
}

/** Everything after the options is the program's, also without `--`. */
function ownFirst(args: readonly string[]): string[] {
  const takesValue = /^--(?:only|without|pace|patience|at-once)$/;
  let i = 0;
  while (i < args.length && args[i]!.startsWith("--") && args[i] !== "--") {
    i += takesValue.test(args[i]!) ? 2 : 1;
  }
  const rest = args.slice(i);
  return [...args.slice(0, i), "--", ...(rest[0] === "--" ? rest.slice(1) : rest)];
}

function chosen(names: readonly string[] | undefined): Case[] {
  const unknown = names?.filter((name) => !CASES.some((one) => one.name === name)) ?? [];
  if (unknown.length > 0) throw new TypeError(`There is no rule "${unknown.join('", "')}": see --list`);
  return CASES.filter(({ name }) => names === undefined || names.includes(name));
}

function above0(name: string, text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new TypeError(`--${name} must be a number above 0: it is "${text}"`);
  return number;
}

function report(
  verdicts: readonly Verdict[],
  { hidesStatus, without }: { hidesStatus: boolean; without: readonly string[] },
): number {
  const broken = verdicts.filter(({ fault }) => fault !== undefined);
  for (const { case: { name, rule, section }, fault } of verdicts) {
    if (fault === undefined) console.log(`ok      ${name}: ${rule}`);
    else console.log(`BROKEN  ${name}: ${rule}\n        ${fault}\n        ${link(section)}`);
  }
  if (hidesStatus) console.log("Refusals by status were not tried: the program can't see them.");
  if (without.length > 0) console.log(`Not tried, for it does without: ${without.join(", ")}.`);
  console.log(`${verdicts.length - broken.length} rules kept, ${broken.length} broken`);
  return broken.length === 0 ? 0 : 1;
}

function link(section: string): string {
  return `docs/protocol.md#${section}`;
}
