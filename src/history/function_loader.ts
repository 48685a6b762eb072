/**
 * Sees to it that a Redis has the functions of `function_library.ts`: it looks at each greeting, loads them where they are
 * missing or older, and never over newer ones. On a cluster it tells them once a second what a node knows of this master.
 *
 * A Redis that will not have them, as one before version 7 or a user without the right, serves everything else all the same.
 */
import type { Log } from "../log/log.ts";
import { messageOf } from "../protocol/errors.ts";
import {
  type Ask,
  isReply,
  logMessage,
  PLAIN,
  type Send,
  type ServerInfo,
  type Watch,
} from "../redis/commands.ts";
import type { PubSubWords } from "../redis/commands.ts";
import { functionLibrary, type FunctionSettings, functionVersion, isOlder } from "./function_library.ts";
import type { Timeline } from "./timeline.ts";

/** What was found at the last greeting. */
export interface FunctionsFound {
  /** What `userwire_version` answers; undefined when there are none. */
  readonly version: string | undefined;
  /** Whether these are as good as our own: not older, and not for other settings. */
  readonly isFit: boolean;
  /** What Redis said when it refused, as a sentence without a full stop. */
  readonly fault?: string;
}

export interface FunctionLoaderOptions {
  readonly words: PubSubWords;
  readonly settings: FunctionSettings;
  /** Whether they are loaded where that is needed, or only looked at. */
  readonly mode: "load" | "look";
  readonly timeline: Pick<Timeline, "told">;
  readonly log?: Log | undefined;
}

export class FunctionLoader implements Watch {
  readonly #options: FunctionLoaderOptions;
  readonly #version: string;
  #found: FunctionsFound | undefined;

  constructor(options: FunctionLoaderOptions) {
    this.#options = options;
    this.#version = functionVersion(options.settings);
  }

  /** What was found at the last greeting; undefined before the first. */
  get found(): FunctionsFound | undefined {
    return this.#found;
  }

  async look(_ask: Ask, _server: ServerInfo, isGreeting: boolean, send: Send): Promise<undefined> {
    if (isGreeting) this.#found = await this.#greet(send);
    if (this.#options.mode === "load" && this.#options.words !== PLAIN && !await this.#tell(send)) {
      this.#found = await this.#greet(send);
      await this.#tell(send);
    }
  }

  async #greet(send: Send): Promise<FunctionsFound> {
    const { mode, words, settings, log } = this.#options;
    let version: string | undefined;
    try {
      version = await this.#loaded(send);
      const isMissing = version === undefined || isOlder(version, this.#version);
      // Settings are those of the last node that was started, if it is no older one.
      const isOther = isMissing || version !== this.#version && !isOlder(this.#version, version!);
      if (mode === "look" || !isOther) {
        if (isOlder(this.#version, version ?? "")) log?.info("newer redis functions left", { version });
        return { version, isFit: version !== undefined && !isOther };
      }
      await send(["FUNCTION", "LOAD", "REPLACE", functionLibrary(words, settings)]);
      log?.info("redis functions loaded", { version: this.#version, before: version ?? "none" });
      return { version: this.#version, isFit: true };
    } catch (error) {
      if (!isReply(error)) throw error;
      const fault = reasonOf(messageOf(error));
      log?.warn("redis functions not loaded", { reason: fault, detail: logMessage(messageOf(error)) });
      return { version, isFit: false, fault };
    }
  }

  /** The version that is loaded; undefined when none is. */
  async #loaded(send: Send): Promise<string | undefined> {
    try {
      return String(await send(["FCALL_RO", "userwire_version", "0"]));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** @returns False when there is nobody to be told. */
  async #tell(send: Send): Promise<boolean> {
    const { told } = this.#options.timeline;
    if (told === undefined) return true;
    try {
      await send(["FCALL_RO", "userwire_timeline", "0", ...told]);
      return true;
    } catch (error) {
      if (!isReply(error)) throw error;
      return !isMissing(error);
    }
  }
}

function isMissing(error: unknown): boolean {
  return isReply(error) && /^ERR Function not found/.test(messageOf(error));
}

/** Why Redis refused, in words of our own. */
function reasonOf(said: string): string {
  if (/^ERR unknown command/.test(said)) {
    return 'this Redis has no functions, which came with version 7: "userwire redis-functions print --eval" prints a ' +
      "script instead";
  }
  if (/^NOPERM/.test(said)) {
    return "Redis does not grant its user the rights that are needed: +function|load and +fcall_ro";
  }
  return "Redis refused to load the functions: the log says more";
}
