/**
 * The pages of the documentation, and the blocks of code in them. The first line of a block says what becomes of it:
 *
 *     ```sh                      runs, and must succeed
 *     ```sh terminal             runs beside what follows, until the page ends
 *     ```python file=login.py    is written down, for a later block to run
 *     ```sh needs=php            is left out where there is no such program, or package of Python
 *     ```sh no-run: needs root   is not run, and why
 *
 * In a block, `# =>` or `// =>` stands before a line of what it writes; `…` in it stands for any text.
 */
const ROOT = new URL("../", import.meta.url);

export interface Block {
  /** Page and line, for messages: "docs/login.md:20". */
  readonly place: string;
  readonly language: string;
  readonly text: string;
  readonly isTerminal: boolean;
  /** Name of the file that it is. */
  readonly file: string | undefined;
  /** Name of the program that it needs. */
  readonly needs: string | undefined;
  /** Why it is not run. */
  readonly reason: string | undefined;
  /** Lines that it says it writes. */
  readonly claims: readonly string[];
}

/** Paths of all pages, from the root of the project. */
export async function pagePaths(): Promise<string[]> {
  const paths = ["links/README.md", "tests/packages/README.md"];
  const folders = ["", "docs/"];
  for (const folder of folders) {
    for await (const { name, isDirectory } of Deno.readDir(new URL(folder || ".", ROOT))) {
      if (name.endsWith(".md")) paths.push(folder + name);
      else if (isDirectory && folder !== "") folders.push(`${folder}${name}/`);
    }
  }
  return paths.sort();
}

export function readPage(path: string): Promise<string> {
  return Deno.readTextFile(new URL(path, ROOT));
}

/** @throws {SyntaxError} for a first line that means nothing. */
export function blocksIn(page: string, path: string): Block[] {
  return Array.from(page.matchAll(/^( *)```(.*)\n([\s\S]*?)^\1```$/gm), ({ index, 2: info, 3: text }) => {
    const place = `${path}:${page.slice(0, index).split("\n").length}`;
    const parts = /^(\w+)( terminal)?(?: file=(\S+))?(?: needs=(\w+))?(?: no-run: (\S.*))?$/.exec(info!);
    if (!parts) throw new SyntaxError(`${place}: the block begins with "${info}"`);
    const [, language, terminal, file, needs, reason] = parts;
    return {
      place,
      language: language!,
      text: text!,
      isTerminal: terminal !== undefined,
      file,
      needs,
      reason,
      claims: Array.from(text!.matchAll(/^(?:#|\/\/) => (.+)$/gm), ([, claim]) => claim!),
    };
  });
}
