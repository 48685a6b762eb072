/**
 * How many files this process has open, and how many it may have: each TCP connection is one, and without a free one
 * nobody can connect any more.
 *
 * Linux says so in `/proc`, which Deno lets only a program read that may do everything (`-A`). Elsewhere it is found out:
 * the system always gives the lowest number that is free, so all below it are open; and the limit is met by opening files
 * until there are no more, once, before anybody is served.
 */
import { closeSync, openSync } from "node:fs";

/** Above this share of the limit files are scarce. */
export const SCARCE_FILES = 0.9;
/** A look is good for so long, in milliseconds. */
const FRESH_MS = 250;
/** Files that are opened for a look when the system does not tell: so many free numbers among the open ones are seen. */
const PROBES = 16;
/** A limit is not looked for beyond that. */
const MAX_LIMIT = 32_768;

export class OpenFiles {
  /** How many there may be; undefined when there is no limit, or it is too high to be found. */
  readonly limit: number | undefined;
  readonly #read: () => number;
  #count = 0;
  #readMs = -Infinity;
  /** Files that are being opened, and those that were since the last look: a burst fills the room within a moment. */
  #opening = 0;
  #opened = 0;

  /** @param system Where to look. @default this process */
  constructor(system: { limit: number | undefined; read: () => number } = thisProcess()) {
    this.limit = system.limit;
    this.#read = system.read;
  }

  /** How many there are, a moment ago. Without `-A` at least so many. */
  get count(): number {
    if (performance.now() - this.#readMs >= FRESH_MS) this.#look();
    return this.#count;
  }

  /** Counts so many files more until the work is done that opens them, or fails to; then they are looked for. */
  async opening<T>(files: number, work: () => Promise<T> | T): Promise<T> {
    this.#opening += files;
    try {
      return await work();
    } finally {
      this.#opening -= files;
      this.#opened += files;
    }
  }

  /** Whether so few are left that they are needed for what is open already. */
  get areScarce(): boolean {
    if (this.limit === undefined) return false;
    const most = this.limit * SCARCE_FILES;
    if (this.count + this.#opening + this.#opened <= most) return false;
    // Some of them may have failed, or be closed again.
    if (this.#opened > 0) this.#look();
    return this.#count + this.#opening > most;
  }

  #look(): void {
    this.#readMs = performance.now();
    this.#count = this.#read();
    this.#opened = 0;
  }

  /** As a sentence. */
  get reason(): string {
    return `The process has ${this.count} files open of ${this.limit} that it may: raise the limit (ulimit -n)`;
  }
}

function thisProcess(): { limit: number | undefined; read: () => number } {
  try {
    const text = Deno.readTextFileSync("/proc/self/limits");
    const limit = Number(/^Max open files\s+(\d+)/m.exec(text)?.[1] ?? NaN);
    listed();
    return { limit: Number.isNaN(limit) ? undefined : limit, read: listed };
  } catch {
    const limit = tried(MAX_LIMIT);
    return { limit, read: () => lowestFree(limit ?? Infinity) };
  }
}

/** What the system counts. */
function listed(): number {
  // The size of that folder, since Linux 6.2.
  const { size } = Deno.statSync("/proc/self/fd");
  if (size > 0) return size;
  let count = 0;
  for (const _ of Deno.readDirSync("/proc/self/fd")) count++;
  return count;
}

/** At least how many are open, by the numbers that are free. */
function lowestFree(limit: number): number {
  const files: number[] = [];
  try {
    while (files.length < PROBES) files.push(openSync("/dev/null", "r"));
  } catch {
    return limit;
  } finally {
    for (const file of files) closeSync(file);
  }
  return files.at(-1)! + 1 - files.length;
}

/** How many can be opened; undefined when it is more than that. */
function tried(max: number): number | undefined {
  const files: number[] = [];
  try {
    while ((files.at(-1) ?? 0) < max) files.push(openSync("/dev/null", "r"));
    return undefined;
  } catch {
    return files.length > 0 ? files.at(-1)! + 1 : undefined;
  } finally {
    for (const file of files) closeSync(file);
  }
}
