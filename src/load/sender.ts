/**
 * The backend's part: sending. By HTTP on some kept-alive connections, or by whatever else fulfils `Sender`. Messages
 * of one user leave, and are carried out, in order.
 */
import { Deadlines } from "../async/deadlines.ts";
import type { Histogram } from "./histogram.ts";
import type { Refusal } from "./http_answer.ts";
import { Lane } from "./lane.ts";
import type { Place } from "./stream.ts";

/** What became of the sends. */
export interface SendCounts {
  /** Answered with a success. */
  answered: number;
  /** Of those: the answer was that nobody listens. */
  unheard: number;
  /** Refused, or not answered. */
  failed: number;
}

export abstract class Sender {
  readonly counts: SendCounts = { answered: 0, unheard: 0, failed: 0 };
  /** Called after answers have arrived. */
  onAnswer: () => void = () => {};
  /** Sends that keep the way busy: more of them only wait. */
  abstract readonly width: number;
  /** Sends not answered yet. */
  pending = 0;

  /**
   * Hands a message over; it leaves at the next `flush`.
   * @param user Number of the user, for the way; `username` is where it goes.
   * @param sequence Its number among those of the user, for whoever is told of refusals.
   */
  abstract send(user: number, username: string, payload: string, sequence?: number): void;

  abstract flush(): void;

  abstract close(): void;

  /** Resolves when every send was answered, or none has been for a second. */
  async settle(): Promise<void> {
    for (let quiet = 0, before = this.pending; this.pending > 0 && quiet < 200; quiet++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (this.pending !== before) quiet = 0;
      before = this.pending;
    }
  }
}

export interface HttpOptions {
  /** Value of the header, when the service wants one. */
  readonly authorization?: string | undefined;
  /** How long an answer may take, in milliseconds. @default 10000 */
  readonly patienceMs?: number;
  /** Gets how long each success took. */
  readonly times?: Histogram;
  /** Told of each send that was refused, or not answered. */
  onRefused?(user: number, sequence: number, refusal: Refusal): void;
}

/** `POST /v1/users/{username}/messages`, a request at a time on each lane. */
export class HttpSender extends Sender {
  readonly #lanes: Lane[];
  readonly #deadlines: Deadlines;

  private constructor(lanes: Lane[], deadlines: Deadlines) {
    super();
    this.#lanes = lanes;
    this.#deadlines = deadlines;
  }

  /**
   * Socket number i is on node i mod n, so its messages go to the next one: the way through Redis is always
   * taken. A lane whose node can't be reached goes on to the next.
   * @throws when a node can't be reached at all.
   */
  static async open(
    places: readonly Place[],
    lanes: number,
    options: HttpOptions = {},
  ): Promise<HttpSender> {
    const { authorization, patienceMs = 10_000, times, onRefused } = options;
    const deadlines = new Deadlines(patienceMs);
    const head = authorization === undefined ? "" : `Authorization: ${authorization}\r\n`;
    const opened = Array.from(
      { length: lanes },
      (_, i) => new Lane({ places, first: (i + 1) % places.length, head, deadlines, times }),
    );
    const sender = new HttpSender(opened, deadlines);
    for (const lane of opened) {
      lane.report = (message, answer) => {
        if (typeof answer !== "number") onRefused?.(message.user, message.sequence, answer);
        sender.#onAnswer(typeof answer === "number" ? answer : 0);
      };
    }
    const results = await Promise.allSettled(opened.map((lane) => lane.connect()));
    const failed = results.find(({ status }) => status === "rejected") as PromiseRejectedResult | undefined;
    if (failed !== undefined) {
      sender.close();
      throw failed.reason;
    }
    return sender;
  }

  get width(): number {
    return this.#lanes.length;
  }

  send(user: number, username: string, payload: string, sequence = 0): void {
    this.pending++;
    this.#lanes[user % this.#lanes.length]!.send({ user, sequence, username, payload });
  }

  flush(): void {} // requests leave at once

  close(): void {
    for (const lane of this.#lanes) lane.close();
    this.#deadlines.close();
  }

  #onAnswer(status: number): void {
    this.pending--;
    if (status === 0) this.counts.failed++;
    else this.counts.answered++;
    if (status === 202) this.counts.unheard++;
    this.onAnswer();
  }
}
