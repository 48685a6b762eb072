/**
 * `userwire completions`: what a shell needs to complete our commands, their options and the words that these take, made
 * from the commands themselves. A script is a table of lines, and as little of the shell's own language as will do.
 */
import { Argument, type Command, type Option } from "commander";
import type { Shell } from "./shell.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;
type ShellName = (typeof SHELLS)[number];

/** A command, and what may follow on it. */
interface Node {
  /** Its names from the program's on, without that: "group add"; "" for the program itself. */
  readonly path: string;
  readonly description: string;
  readonly commands: readonly Command[];
  readonly options: readonly Option[];
  /** Words that its argument may be, when they are few. */
  readonly words: readonly string[];
}

/** Adds the command. Others that are added later are completed too. */
export function addCompletions(program: Command, shell: Shell): void {
  program.command("completions")
    .description("Print what a shell needs to complete commands and options")
    .addArgument(new Argument("<shell>", "which one").choices(SHELLS))
    .addHelpText(
      "after",
      `
Examples:
  $ source <(userwire completions bash)
  $ userwire completions zsh > ~/.zfunc/_userwire
  $ userwire completions fish > ~/.config/fish/completions/userwire.fish`,
    )
    .action((name: ShellName) => {
      const nodes = nodesOf(program);
      shell.io.out({ bash, zsh, fish }[name](nodes));
    });
}

function nodesOf(command: Command, path = ""): Node[] {
  const help = command.createHelp();
  const visibleCommands = help.visibleCommands(command);
  const node = {
    path,
    description: command.summary() || command.description(),
    commands: visibleCommands,
    options: help.visibleOptions(command),
    words: command.registeredArguments.flatMap(({ argChoices = [] }) => argChoices),
  };
  // "help" is commander's own, which has no commands below it.
  const below = visibleCommands.filter((one) => one.name() !== "help");
  return [node, ...below.flatMap((one) => nodesOf(one, `${path} ${one.name()}`.trim()))];
}

/** What may follow on a command. */
function wordsOf({ commands, options, words }: Node): string[] {
  return [...commands.map((one) => one.name()), ...words, ...options.flatMap(flagsOf)];
}

function flagsOf({ long, short }: Option): string[] {
  return [long, short].filter((flag) => flag !== undefined && flag !== null);
}

/** Options that take a value, which is not the name of a command: with their choices, where they have some. */
function valuesOf({ options }: Node): [flag: string, choices: readonly string[]][] {
  return options.filter((option) => option.required || option.optional)
    .flatMap((option) => flagsOf(option).map((flag): [string, string[]] => [flag, option.argChoices ?? []]));
}

function bash(nodes: readonly Node[]): string {
  const cases = nodes.map((node) => `    ${quote(node.path)}) words=${quote(wordsOf(node).join(" "))} ;;`);
  const values = nodes.flatMap((node) =>
    valuesOf(node).filter(([, choices]) => choices.length > 0)
      .map(([flag, choices]) => `    ${quote(`${node.path} ${flag}`)}) words=${quote(choices.join(" "))} ;;`)
  );
  const files = nodes.flatMap((node) =>
    valuesOf(node).filter(([, choices]) => choices.length === 0).map(([flag]) =>
      quote(`${node.path} ${flag}`)
    )
  );
  const paths = nodes.slice(1).map(({ path }) => quote(path)).join("|");
  return `# For bash: source <(userwire completions bash)
_userwire() {
  local word path="" next words current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]}
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    next="\${path:+$path }$word"
    case $next in
    ${paths}) path=$next ;;
    esac
  done
  case "$path $before" in
${values.join("\n")}
    ${files.join("|")})
      COMPREPLY=($(compgen -f -- "$current"))
      return ;;
    *)
  case $path in
${cases.join("\n")}
  esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _userwire userwire
`;
}

function zsh(nodes: readonly Node[]): string {
  const cases = nodes.map((node) => {
    const commands = [
      ...node.commands.map((one) =>
        quote(`${escapeColon(one.name())}:${one.summary() || one.description()}`)
      ),
      ...node.words.map(quote),
    ];
    const options = node.options.flatMap((option) =>
      flagsOf(option).map((flag) => quote(`${escapeColon(flag)}:${option.description}`))
    );
    return `    ${quote(node.path)}) commands=(${commands.join(" ")}); options=(${options.join(" ")}) ;;`;
  });
  const values = nodes.flatMap((node) =>
    valuesOf(node).map(([flag, choices]) => {
      const action = choices.length > 0 ? `compadd -- ${choices.map(quote).join(" ")}` : "_files";
      return `    ${quote(`${node.path} ${flag}`)}) ${action}; return ;;`;
    })
  );
  const paths = nodes.slice(1).map(({ path }) => quote(path)).join("|");
  return `#compdef userwire
# For zsh: userwire completions zsh > a file _userwire in a folder of $fpath
_userwire() {
  local word next path_of="" before=\${words[CURRENT - 1]}
  local -a commands options
  for word in "\${(@)words[2,CURRENT - 1]}"; do
    next="\${path_of:+$path_of }$word"
    case $next in
    ${paths}) path_of=$next ;;
    esac
  done
  case "$path_of $before" in
${values.join("\n")}
  esac
  case $path_of in
${cases.join("\n")}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then
    _describe option options
  else
    _describe command commands
  fi
}
if [[ \${funcstack[1]} == _userwire ]]; then
  _userwire "$@"
else
  compdef _userwire userwire
fi
`;
}

function fish(nodes: readonly Node[]): string {
  const lines = nodes.flatMap((node) => {
    const parts = node.path === "" ? [] : node.path.split(" ");
    const seen = parts.map((part) => `__fish_seen_subcommand_from ${part}`);
    const names = [...node.commands.map((one) => one.name()), ...node.words].join(" ");
    const isHere = parts.length === 0 ? ["__fish_use_subcommand"] : seen;
    const whenBare = names === "" || parts.length === 0
      ? isHere
      : [...isHere, `not __fish_seen_subcommand_from ${names}`];
    const line = (when: readonly string[], rest: string) =>
      `complete -c userwire -n ${quoteFish(when.join("; and "))} ${rest}`;
    return [
      ...node.commands.map((one) =>
        line(whenBare, `-f -a ${quoteFish(one.name())} -d ${quoteFish(one.summary() || one.description())}`)
      ),
      ...node.words.map((word) => line(whenBare, `-f -a ${quoteFish(word)}`)),
      ...node.options.map((option) => {
        const { long, short, required, argChoices = [], description } = option;
        const flags = [long && `-l ${long.slice(2)}`, short && `-s ${short.slice(1)}`].filter(Boolean).join(
          " ",
        );
        const value = argChoices.length > 0
          ? ` -x -a ${quoteFish(argChoices.join(" "))}`
          : required
          ? " -r"
          : "";
        return line(isHere, `${flags}${value} -d ${quoteFish(description)}`);
      }),
    ];
  });
  return ["# For fish: userwire completions fish > ~/.config/fish/completions/userwire.fish", ...lines, ""]
    .join("\n");
}

/** As one word of a shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** As one word of fish, where a backslash means something between quotes too. */
function quoteFish(text: string): string {
  return quote(text.replaceAll("\\", "\\\\"));
}

function escapeColon(text: string): string {
  return text.replaceAll(":", "\\:");
}
