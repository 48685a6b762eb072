/**
 * The sockets of a load generator: opens many, some at a time, gives each message to the tally, and closes them.
 * Socket number i belongs to user i, unless all belong to one, and is on node i mod n.
 */
import { Mark } from "./mark.ts";
import { LeanSocket, RefusedError } from "./socket.ts";
import type { Tally } from "./tally.ts";

/** How to reach the system that is measured. */
export interface Target {
  /** Ports of the nodes on 127.0.0.1. */
  readonly ports: readonly number[];
  /** Subprotocol to offer, for framed sockets. */
  readonly subprotocol?: string;
  /** Addresses that sockets come from, in turns; for more sockets than one address has ports. */
  readonly sources?: readonly string[];
}

/** What became of opening many. */
export interface Opened {
  opened: number;
  /** Handshakes answered with something else than 101, by status. */
  refused: Record<string, number>;
  /** Connections that broke before an answer, with the first reason. */
  broken: number;
  why?: string;
}

export class Crowd {
  readonly #target: Target;
  readonly #mark = new Mark();
  #sockets: LeanSocket[] = [];
  /** Sockets that the server ended. */
  dropped = 0;

  constructor(target: Target) {
    this.#target = target;
  }

  get size(): number {
    return this.#sockets.length;
  }

  /**
   * @param numbers From and up to (not including) which number.
   * @param options.atOnce Handshakes at one time.
   * @param options.soleUser All sockets are this user's.
   */
  async open(
    numbers: { from: number; to: number },
    options: { tally: Tally; atOnce: number; soleUser?: number },
  ): Promise<Opened> {
    const result: Opened = { opened: 0, refused: {}, broken: 0 };
    let next = numbers.from;
    const work = async () => {
      while (next < numbers.to) {
        const number = next++;
        try {
          const listener = number - numbers.from;
          this.#sockets.push(
            await this.openOne(number, options.soleUser ?? number, { tally: options.tally, listener }),
          );
          result.opened++;
        } catch (error) {
          if (error instanceof RefusedError) {
            result.refused[error.status] = (result.refused[error.status] ?? 0) + 1;
          } else {
            result.broken++;
            result.why ??= String(error);
          }
        }
      }
    };
    await Promise.all(Array.from({ length: options.atOnce }, work));
    return result;
  }

  /** One socket, which stays the caller's. */
  openOne(
    number: number,
    user: number,
    options: { tally: Tally; listener: number },
  ): Promise<LeanSocket> {
    const { ports, subprotocol, sources } = this.#target;
    const { tally, listener } = options;
    const mark = this.#mark;
    return LeanSocket.open({
      port: ports[number % ports.length]!,
      path: `/?username=${usernameOf(user)}`,
      subprotocol,
      source: sources?.[number % sources.length],
      onMessage(bytes, from, to) {
        if (!mark.read(bytes, from, to)) return; // a frame of the protocol
        if (mark.user !== user) tally.misdelivered++;
        else tally.deliver(listener, mark.sequence, performance.now() - mark.dueUs / 1_000);
      },
      onEnd: () => this.dropped++,
    });
  }

  /** Closes every socket; how many the server had not ended in time. */
  async close(atOnce = 200): Promise<number> {
    const sockets = this.#sockets;
    this.#sockets = [];
    let late = 0;
    const work = async () => {
      for (let socket; (socket = sockets.pop()) !== undefined;) if (!await socket.close()) late++;
    };
    await Promise.all(Array.from({ length: atOnce }, work));
    return late;
  }
}

export function usernameOf(user: number): string {
  return `u${user}`;
}
