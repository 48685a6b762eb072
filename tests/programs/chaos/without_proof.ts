/**
 * A copy of the product that believes every position: what proves that a position is of the data that is there now is taken
 * out of it. The chaos must find losses in it, or it can't find any.
 *
 * The patch is text that is replaced. Text that is not there once, and only once, stops everything: a product that was
 * changed is not run unpatched by mistake.
 */

interface Replacement {
  /** File of the product. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** Every tag is taken for the right one. */
const WITHOUT_TAGS: readonly Replacement[] = [{
  file: "src/session/place.ts",
  find: 'return tag === undefined || tag === "" || other === "" || tag === other;',
  replace: "return true;",
}];

/** Nor is looked for the last appends, and whatever server answers has the data that was there before. */
const WITHOUT_LOOKS: readonly Replacement[] = [{
  file: "src/history/timeline_script.ts",
  find: "if not is_there(ARGV[i], ",
  replace: "if false and not is_there(ARGV[i], ",
}, {
  file: "src/history/timeline_script.ts",
  find: "elseif written ~= life and life ~= '' and not is_begun then",
  replace: "elseif false then",
}];

/** No node remembers what it appended for a user. */
const WITHOUT_MEMORY: readonly Replacement[] = [{
  file: "src/history/last_appends.ts",
  find: 'return this.#latest.get(channel) ?? this.#before.get(channel) ?? "";',
  replace: 'return "";',
}];

/** A way in which the product can be made to believe what it should not, and the faults in which nothing else would tell. */
export interface Credulity {
  readonly name: string;
  readonly patch: readonly Replacement[];
  /** Parts of their names. */
  readonly faults: readonly string[];
}

/** Each alone must lead to losses. */
export const CREDULITIES: readonly Credulity[] = [
  {
    name: "without proof",
    patch: [...WITHOUT_TAGS, ...WITHOUT_LOOKS, ...WITHOUT_MEMORY],
    faults: ["put back an older copy of an append-only", "fail-back"],
  },
  {
    name: "without tags",
    patch: [...WITHOUT_TAGS, ...WITHOUT_MEMORY],
    faults: ["users' keys put back from a copy"],
  },
  { name: "without memory", patch: WITHOUT_MEMORY, faults: ["newer than those who are away"] },
];

/** What it takes to run the product. */
const PARTS = ["main.ts", "deno.json", "deno.lock", "src", "links"];

/**
 * Makes the copy, in a temporary folder that goes with it.
 * @throws {Error} when the patch does not fit.
 */
export async function copyWithout(
  patch: readonly Replacement[],
  project = new URL("../../../", import.meta.url),
): Promise<AsyncDisposable & { readonly root: URL }> {
  if (patch.length === 0) throw new Error("Nothing is known that would take the proof out of the product");
  const dir = await Deno.makeTempDir({ prefix: "userwire-without-proof-" });
  const root = new URL(`file://${dir}/`);
  const copy = { root, [Symbol.asyncDispose]: () => Deno.remove(dir, { recursive: true }) };
  try {
    for (const part of PARTS) await copyTo(new URL(part, project), new URL(part, root));
    for (const replacement of patch) await apply(replacement, root);
    return copy;
  } catch (error) {
    await copy[Symbol.asyncDispose]();
    throw error;
  }
}

async function apply({ file, find, replace }: Replacement, root: URL): Promise<void> {
  const url = new URL(file, root);
  const text = await Deno.readTextFile(url);
  const times = text.split(find).length - 1;
  if (times !== 1) {
    throw new Error(`The patch does not fit: ${file} holds this ${times} times, not once:\n${find}`);
  }
  await Deno.writeTextFile(url, text.replace(find, () => replace));
}

async function copyTo(from: URL, to: URL): Promise<void> {
  if ((await Deno.stat(from)).isFile) return await Deno.copyFile(from, to);
  await Deno.mkdir(to);
  for await (const { name } of Deno.readDir(from)) {
    await copyTo(new URL(`${from.href}/${name}`), new URL(`${to.href}/${name}`));
  }
}
