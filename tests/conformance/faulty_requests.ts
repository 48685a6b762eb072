/** The requests of the faulty client: as the protocol has them, but for the fault that it is given. */

type Fields = Record<string, unknown>;

interface Request {
  readonly i: number;
  readonly id: string;
  readonly op: string;
  readonly data?: unknown;
}

/** The client, as its parts need it. */
export interface Host {
  readonly has: (fault: string) => boolean;
  /** Writes what the application is handed. */
  readonly write: (line: Fields) => void;
}

const MAX_UNANSWERED = 16;
/** So many are sent at once, and then one after each pause, in milliseconds. */
const BURST = 16, PAUSE_MS = 25;

export class Requests {
  readonly #host: Host;
  #waiting: Request[];
  #sent: Request[] = [];
  #count = 0;
  #send: ((frame: Fields) => void) | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(requests: readonly { op: string; data?: unknown }[], host: Host) {
    this.#host = host;
    this.#waiting = requests.map((request, i) => ({ ...request, i, id: crypto.randomUUID() }));
  }

  /** A connection has opened. */
  opened(isSupported: boolean, send: (frame: Fields) => void): void {
    this.#send = send;
    if (isSupported || this.#host.has("request-unsupported")) return this.#pump();
    for (const { i } of this.#waiting) {
      this.#host.write({ refused: i, code: "unsupported", outcome: "refused" });
    }
    this.#waiting = [];
  }

  /** It has ended. */
  lost(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#send = undefined;
    for (const { i } of this.#sent) this.#host.write({ refused: i, code: "lost", outcome: "unknown" });
    if (this.#host.has("request-lost")) this.#waiting.unshift(...this.#sent);
    this.#sent = [];
  }

  /** @returns Whether it was the answer to one of them. */
  onReply({ id, ok, data, code, outcome = "refused" }: Fields): boolean {
    const one = this.#host.has("request") ? this.#sent[0] : this.#sent.find((sent) => sent.id === id);
    if (one === undefined) return false;
    this.#sent = this.#sent.filter((sent) => sent !== one);
    const what = this.#host.has("request-refused") ? "refused" : outcome;
    this.#host.write(ok ? { answer: one.i, data } : { refused: one.i, code, outcome: what });
    this.#pump();
    return true;
  }

  #pump(): void {
    if (this.#timer !== undefined) return;
    // Who breaks the rule on frames sends all at once: were answers waited for, a busy machine would keep the rule for it.
    const isHasty = this.#host.has("request-few-frames");
    const most = isHasty || this.#host.has("request-sixteen") ? Infinity : MAX_UNANSWERED;
    while (this.#waiting.length > 0 && this.#sent.length < most) {
      const { i: _, ...request } = this.#waiting[0]!;
      this.#sent.push(this.#waiting.shift()!);
      this.#send?.({ t: "req", ...request });
      if (++this.#count < BURST || isHasty) continue;
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#pump();
      }, PAUSE_MS);
      return;
    }
  }
}
