/**
 * The sockets of a load generator: opens many, some at a time, gives each message to the tally, and closes them.
 * Socket number i belongs to user i, unless all belong to one, and is on node i mod n.
 */
import type { Deadlines } from "../async/deadlines.ts";
import { Mark } from "./mark.ts";
import { LeanSocket, RefusedError } from "./socket.ts";
import type { Place } from "./stream.ts";
import type { Tally } from "./tally.ts";

/** How to reach the system that is measured. */
export interface Target {
  readonly places: readonly Place[];
  /** Path and query with which a user's socket is opened. */
  pathOf(user: number): string | Promise<string>;
  /** Subprotocol to offer, for framed sockets. */
  readonly subprotocol?: string | undefined;
  /** Addresses that sockets come from, in turns; for more sockets than one address has ports. */
  readonly sources?: readonly string[];
  /** As those of `SocketOptions`. */
  readonly deadlines?: Deadlines;
  readonly signal?: AbortSignal;
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
  /** Called after it has ended one, with the code of its Close frame, 0 when there was none. */
  onDropped: (listener: number, code: number) => void = () => {};

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
          await this.add(number, options.soleUser ?? number, { tally: options.tally, listener });
          result.opened++;
        } catch (error) {
          if (error instanceof RefusedError) {
            const { status } = error.refusal;
            result.refused[status] = (result.refused[status] ?? 0) + 1;
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

  /** Opens one more, and keeps it. @throws {RefusedError} */
  async add(number: number, user: number, options: { tally: Tally; listener: number }): Promise<void> {
    this.#sockets.push(await this.openOne(number, user, options));
  }

  /** One socket, which stays the caller's. @throws {RefusedError} */
  async openOne(
    number: number,
    user: number,
    options: { tally: Tally; listener: number },
  ): Promise<LeanSocket> {
    const { places, subprotocol, sources, deadlines, signal } = this.#target;
    const { tally, listener } = options;
    const mark = this.#mark;
    return await LeanSocket.open({
      place: places[number % places.length]!,
      path: await this.#target.pathOf(user),
      subprotocol,
      source: sources?.[number % sources.length],
      deadlines,
      signal,
      onMessage(bytes, from, to) {
        if (!mark.read(bytes, from, to)) return; // a frame of the protocol
        if (mark.user !== user) tally.misdelivered++;
        else tally.deliver(listener, mark.sequence, performance.now() - mark.dueUs / 1_000);
      },
      onEnd: (code) => {
        this.dropped++;
        this.onDropped(listener, code);
      },
    });
  }

  /**
   * Closes every socket; how many the server had not ended in time.
   * @param ms Milliseconds that all of them have together. @default each has its own time
   */
  async close(ms?: number, atOnce = 200): Promise<number> {
    const sockets = this.#sockets;
    this.#sockets = [];
    const endMs = performance.now() + (ms ?? 0);
    let late = 0;
    const work = async () => {
      for (let socket; (socket = sockets.pop()) !== undefined;) {
        const leftMs = ms === undefined ? undefined : Math.max(0, endMs - performance.now());
        if (!await socket.close(leftMs)) late++;
      }
    };
    await Promise.all(Array.from({ length: atOnce }, work));
    return late;
  }
}
