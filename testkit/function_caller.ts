/**
 * A program in some other language, which sends by the Redis function and knows nothing of Userwire: one call at a time, on
 * plain connections. On a cluster it goes where it is sent, as clients of Redis do.
 */
import { until } from "./deadline.ts";
import { RedisCommands, RedisReplyError } from "./redis_commands.ts";

/** What the function says when nothing was sent, and it should be tried again. */
const LATER = /^(TRYAGAIN|NOTREADY|CLUSTERDOWN) |^ERR Function not found/;

export class FunctionCaller implements Disposable {
  readonly #port: number;
  readonly #connections = new Map<number, RedisCommands>();
  /** Who was found to keep a user, where that is not the first server. */
  readonly #keepers = new Map<string, number>();

  /** @param url `redis://` of a server, or of one of a cluster. */
  constructor(url: string) {
    this.#port = Number(new URL(url).port);
  }

  /** Sends JSON text. Resolves with its number, when it was sent. */
  async send(user: string, payload: string): Promise<number> {
    const call = ["FCALL", "userwire_send", 1, `userwire:{${user}}`, payload];
    let seq: number | undefined;
    let said = "nothing";
    await until(
      async () => {
        try {
          const reply = await this.#command(user, call) as [sockets: number, seq: number];
          seq = reply[1];
          return true;
        } catch (error) {
          said = String(error);
          if (error instanceof RedisReplyError && LATER.test(error.message)) return false;
          throw error;
        }
      },
      "the function to send",
      undefined,
      () => said,
    );
    return seq!;
  }

  [Symbol.dispose](): void {
    for (const connection of this.#connections.values()) connection.close();
  }

  async #command(user: string, call: readonly (string | number)[]): Promise<unknown> {
    try {
      return await (await this.#at(this.#keepers.get(user) ?? this.#port)).command(...call);
    } catch (error) {
      const elsewhere = error instanceof RedisReplyError && /^(MOVED|ASK) \d+ .*:(\d+)$/.exec(error.message);
      if (!elsewhere) throw error;
      const port = Number(elsewhere[2]);
      if (elsewhere[1] === "ASK") {
        const connection = await this.#at(port);
        await connection.command("ASKING");
        return await connection.command(...call);
      }
      this.#keepers.set(user, port);
      return await this.#command(user, call);
    }
  }

  async #at(port: number): Promise<RedisCommands> {
    const known = this.#connections.get(port);
    if (known) return known;
    const connection = await RedisCommands.connect({ port });
    this.#connections.set(port, connection);
    return connection;
  }
}
