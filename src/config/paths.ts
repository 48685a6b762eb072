/**
 * Where the files are that a setting names. Pure: the working directory is an argument.
 *
 * Nothing else counts, neither where the code lies nor where the program does: the code of a compiled binary lies
 * in a made-up, read-only folder, and the binary itself in one such as /usr/local/bin, which is no place for logs.
 * So a binary behaves as `deno run` does, and `deno task start`, which Deno starts in the project's root, keeps its
 * logs there.
 */
import { resolve } from "node:path";

/**
 * The absolute path of what a setting names.
 * @param given As in the setting: absolute, or seen from the working directory.
 * @param cwd The working directory, absolute.
 */
export function absolutePath(given: string, cwd: string): string {
  return resolve(cwd, given);
}
