/**
 * Where a position outlives the program. A store that fails costs repeated or, with nothing to resume from, missed
 * messages, never the connection: its errors are reported and the client goes on. One that does not answer is waited
 * for.
 */
import { messageOf } from "../protocol/errors.ts";

/** Keeps a position, of one user in one program: among the user's messages and among the broadcasts, as one text. */
export interface Store {
  /**
   * The position that was saved last, if any. Called once, in the first attempt to connect. Without an answer the
   * client does not connect, for it would lose what came since: attempts fail after `timeoutMs`, and wait for the
   * same answer again.
   */
  load(): string | null | undefined | Promise<string | null | undefined>;
  /** Called when the position has moved, and not again before it is done. */
  save(position: string): void | Promise<void>;
}

/** What `localStorage` and `sessionStorage` have, and others may. */
export interface TextStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/**
 * A store in the browser: `storedIn(localStorage, "position of alice")`.
 *
 * With `localStorage` all tabs share it, so a tab goes on where whichever tab was last has been; `sessionStorage`
 * keeps them apart.
 */
export function storedIn(storage: TextStorage, key: string): Store {
  return { load: () => storage.getItem(key), save: (position) => storage.setItem(key, position) };
}

/** Saves the newest position, one save at a time. */
export class Saving {
  readonly #store: Store;
  readonly #onError: (error: Error) => void;
  #newest: string | undefined;
  #saved: string | undefined;
  #running: Promise<void> | undefined;

  constructor(store: Store, onError: (error: Error) => void) {
    this.#store = store;
    this.#onError = onError;
  }

  /** Resolves when everything is saved that was to be. */
  get done(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  async load(): Promise<string | undefined> {
    try {
      return this.#saved = await this.#store.load() ?? undefined;
    } catch (cause) {
      this.#onError(new Error(`Can't load the position: ${messageOf(cause)}`, { cause }));
      return undefined;
    }
  }

  save(position: string): void {
    this.#newest = position;
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    // Not at once: the position often moves again in the same turn.
    await null;
    while (this.#newest !== this.#saved) {
      const position = this.#saved = this.#newest!;
      try {
        await this.#store.save(position);
      } catch (cause) {
        this.#onError(new Error(`Can't save the position: ${messageOf(cause)}`, { cause }));
      }
    }
    this.#running = undefined;
  }
}
