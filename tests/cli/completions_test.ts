/** `userwire completions`, asked by the shells themselves: each completes what the program has. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { findShell } from "../../testkit/programs.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

async function scriptFor(shell: string): Promise<string> {
  const io = new Terminal();
  assertEquals(await io.run(["completions", shell]), 0, io.stderr);
  return io.stdout;
}

/** Runs a script in a shell; what it prints, in words. */
async function ask(shell: string, args: string[], script: string): Promise<string[]> {
  using folder = new TempFolder("completions");
  const path = `${folder}/script`;
  Deno.writeTextFileSync(path, script);
  const command = new Deno.Command(shell, {
    args: [...args, path],
    // Of a locale that is not installed, as one that came by SSH may be, bash complains.
    env: { HOME: folder.path, XDG_CONFIG_HOME: folder.path, XDG_DATA_HOME: folder.path, LC_ALL: "C" },
  });
  const { code, stdout, stderr } = await withDeadline(command.output(), 20_000, `${shell} to answer`);
  const said = new TextDecoder().decode(stderr);
  assertEquals([code, said], [0, ""]);
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}

/** What is typed, with what some of the completions are, and some that must not be. */
const CASES: [typed: string[], has: string[], hasNot: string[]][] = [
  [[""], ["serve", "send", "doctor", "completions", "key", "group"], ["process", "new", "bash"]],
  [["d"], ["doctor", "drain"], ["serve"]],
  [["key", ""], ["new"], ["serve"]],
  [["group", ""], ["add", "remove", "show"], ["new"]],
  [["serve", "--red"], ["--redis-url", "--redis-timeout-ms"], ["--port"]],
  [["completions", ""], ["bash", "zsh", "fish"], ["serve"]],
  [["log-level", ""], ["debug", "warn"], ["serve"]],
  [["log-level", "debug", "--area", ""], ["http", "redis"], ["serve", "debug"]],
  [["bench", "--"], ["--users", "--rate", "--in-flight", "--json"], ["--redis-url", "--token"]],
  [["bench", "--mode", ""], ["framed", "raw"], ["serve"]],
  [["key", "new", "--"], ["--scopes", "--users"], ["--redis-url"]],
];

async function check(shell: string, complete: (typed: string[], script: string) => Promise<string[]>) {
  const script = await scriptFor(shell);
  for (const [typed, has, hasNot] of CASES) {
    const found = await complete(typed, script);
    const shown = `${shell}: userwire ${typed.join(" ")}| → ${found.join(" ")}`;
    for (const word of has) assert(found.includes(word), `${word} is missing: ${shown}`);
    for (const word of hasNot) assert(!found.includes(word), `${word} is too much: ${shown}`);
  }
}

const words = (typed: string[]) => ["userwire", ...typed].map((word) => `'${word}'`).join(" ");

Deno.test({
  name: "bash completes commands, options and their words",
  ignore: !findShell("bash"),
  fn: () =>
    check("bash", (typed, script) =>
      ask(
        "bash",
        ["--noprofile", "--norc"],
        `${script}
COMP_WORDS=(${words(typed)})
COMP_CWORD=${typed.length}
_userwire
printf '%s\\n' "\${COMPREPLY[@]}"`,
      )),
});

Deno.test({
  name: "zsh completes commands, options and their words",
  ignore: !findShell("zsh"),
  fn: () =>
    check("zsh", (typed, script) =>
      ask(
        "zsh",
        ["-f"],
        // What its completion system would do with them: those that begin as what was typed.
        `compdef() { : }
_describe() { print -l -- \${\${(@P)2}%%:*} }
compadd() { shift; print -l -- "$@" }
_files() { print -l -- (file) }
${script}
words=(${words(typed)})
CURRENT=${typed.length + 1}
_userwire | while read -r line; do [[ $line == ${
          typed.at(-1) === "" ? "" : `'${typed.at(-1)}'`
        }* ]] && print -r -- $line; done
true`,
      )),
});

Deno.test({
  name: "fish completes commands, options and their words",
  ignore: !findShell("fish"),
  fn: () =>
    check(
      "fish",
      async (typed, script) =>
        (await ask("fish", ["--no-config"], `${script}\ncomplete -C ${`'userwire ${typed.join(" ")}'`}`))
          .map((line) => line.split("\t")[0]!),
    ),
});

Deno.test("completions takes the shells that it knows", async () => {
  const io = new Terminal();
  assertEquals(await io.run(["completions", "tcsh"]), 2);
  assertMatch(io.stderr, /Allowed choices are bash, zsh, fish/);
});
