/** Whoever must look at a server before anything is asked of it, and again once a second. */
import type { Script } from "./script.ts";
import type { ServerInfo } from "./server_info.ts";

/** Runs a script on the connection that is being looked at, past all that waits. */
export type Ask = (script: Script, keys: readonly string[], args: readonly string[]) => Promise<unknown>;

export interface Watch {
  /**
   * @param isGreeting Nothing has been asked of this server yet, on this connection.
   * @returns Why the server can't be used yet, as a sentence without a full stop that anybody may read: asked again
   *   soon. Undefined when it can.
   * @throws {Error} what Redis refused: that is why it can't be used, then.
   */
  look(ask: Ask, server: ServerInfo, isGreeting: boolean): Promise<string | undefined>;
}
