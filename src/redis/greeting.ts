/**
 * What is asked of a server before any command goes to it, and once a second from then on: who it is, whether it can be
 * used, and whether it still is the same.
 */
import type { WarnOnce } from "../log/warn_once.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Client } from "./client_library.ts";
import { isForbiddenWithin, isReadOnly, isReply, logMessage, publicMessage } from "./error_text.ts";
import { type PubSubWords, SHARDED } from "./pubsub_words.ts";
import { ungrantedIn } from "./rights.ts";
import { evaluateOn, type Script, type ScriptForm } from "./script.ts";
import { changeOf, readInfo, type ServerInfo, type Unfitness, unfitnessOf } from "./server_info.ts";

/** Runs a script on the connection that is being looked at, past all that waits. */
export type Ask = (script: Script, keys: readonly string[], args: readonly string[]) => Promise<unknown>;

/** Sends a command there, in the same way. @throws what Redis refused. */
export type Send = (command: readonly string[]) => Promise<unknown>;

/** Looks at a server on behalf of what is kept there. */
export interface Watch {
  /**
   * @param isGreeting Nothing has been asked of this server yet, on this connection.
   * @returns Why the server can't be used yet, as a sentence without a full stop that anybody may read: asked again
   *   soon. Undefined when it can.
   * @throws {Error} what Redis refused: that is why it can't be used, then.
   */
  look(ask: Ask, server: ServerInfo, isGreeting: boolean, send: Send): Promise<string | undefined>;
}

/** What was found; reasons are sentences without a full stop that anybody may read. */
export type Finding =
  | { state: "fit"; server: ServerInfo }
  /** It can't be used yet. */
  | { state: "unfit yet"; reason: string }
  /** This connection is of no use. */
  | { state: "unfit" } & Unfitness;

export class Greeting {
  readonly #warnings: WarnOnce;
  readonly #words: PubSubWords;
  /** Sent before anything else, from the next connection on. Nobody hears what comes of them. */
  readonly commands: (readonly string[])[] = [];
  readonly watches: Watch[] = [];

  constructor(warnings: WarnOnce, words: PubSubWords) {
    this.#warnings = warnings;
    this.#words = words;
  }

  /** Asks what has to be known before anything is sent. @throws what the library rejects with. */
  async greet(client: Client): Promise<Finding> {
    // First: what refuses the connection, as a Redis that is full does, comes as the answer to it.
    const asked = client.info();
    // Only for a person who reads CLIENT LIST: a Redis that forbids it serves us all the same.
    client.clientSetName("userwire-publisher").catch(() => {});
    const server = readInfo(await asked);
    const unfit = unfitnessOf(server, this.#words === SHARDED);
    // One that loads will be what it says.
    if (unfit) return { state: server.isLoading ? "unfit yet" : "unfit", ...unfit };
    // What follows on this connection comes after them, so nobody waits.
    for (const command of this.commands) client.sendCommand(command).catch(() => {});
    return await this.#askWatches(client, server, true);
  }

  /**
   * Asks whether it still is who was greeted on this connection.
   * @throws what the library rejects with.
   */
  async look(client: Client, server: ServerInfo): Promise<Finding> {
    const reason = changeOf(server, readInfo(await client.info("replication")));
    return reason === undefined ? await this.#askWatches(client, server, false) : { state: "unfit", reason };
  }

  async #askWatches(client: Client, server: ServerInfo, isGreeting: boolean): Promise<Finding> {
    let asked: ScriptForm | undefined;
    const ask: Ask = (script, keys, args) => evaluateOn(client, asked = script.in(this.#words), keys, args);
    const send: Send = (command) => client.sendCommand(command);
    for (const watch of this.watches) {
      // What Redis refuses to a watch is no refused login: it may be granted while we run.
      const reason = await watch.look(ask, server, isGreeting, send).catch(async (error: unknown) => {
        if (!isReply(error) || isReadOnly(error)) throw error;
        const { reason, detail } = asked && isForbiddenWithin(error)
          ? await ungrantedIn(client, asked, this.#words, "probe")
          : { reason: publicMessage(error), detail: logMessage(messageOf(error)) };
        this.#warnings.warn("redis refused a command", reason, detail);
        return reason;
      });
      if (reason !== undefined) return { state: "unfit yet", reason };
    }
    return { state: "fit", server };
  }
}
