/**
 * What was received and waits for the application: a bounded queue with two outlets, one for loops that ask for the
 * next message and one for listeners. Hands everything over once and in order.
 *
 * While a loop runs it sets the pace, and listeners hear of what it takes; without a loop, they hear at
 * once; with neither, everything waits. A queue that is full can only say so: a WebSocket can't be paused.
 */

/** Something on its way: a message, or a notice that holds its place among the messages. */
export interface Entry<Message> {
  /** Undefined for a notice, which no loop takes. */
  readonly message: Message | undefined;
  /** What it counts for against the bound. */
  readonly size: number;
}

export interface HandoverHost<Item> {
  /** Whether somebody listens for messages. */
  isListening(): boolean;
  /** The application gets it now. */
  onHanded(item: Item): void;
  /** There is room again after the queue was full. */
  onRoom(): void;
}

export interface HandoverBound {
  /** Most messages that wait. */
  readonly messages: number;
  /** Most characters of frames that wait. */
  readonly chars: number;
}

/** What a `for await` loop takes messages from. Compilers before TypeScript 5.6 know no library's type that says as much. */
export interface Loop<Message> extends AsyncIterator<Message, undefined> {
  [Symbol.asyncIterator](): Loop<Message>;
}

interface Pull<Message> {
  readonly loop: symbol;
  resolve(result: IteratorResult<Message, undefined>): void;
}

export class Handover<Message, Item extends Entry<Message>> {
  readonly #host: HandoverHost<Item>;
  readonly #bound: HandoverBound;
  #queue: Item[] = [];
  #size = 0;
  readonly #loops = new Set<symbol>();
  /** Loops that wait for a message. */
  #pulls: Pull<Message>[] = [];
  #isFull = false;
  #hasEnded = false;
  #isPumping = false;

  constructor(host: HandoverHost<Item>, bound: HandoverBound) {
    this.#host = host;
    this.#bound = bound;
  }

  /** Whether more was received than may wait; until half of it is gone. */
  get isFull(): boolean {
    return this.#isFull;
  }

  push(item: Item): void {
    this.#queue.push(item);
    this.#size += item.size;
    this.pump();
    this.#isFull ||= this.#queue.length > this.#bound.messages || this.#size > this.#bound.chars;
  }

  /** Hands over what can be; to be called when somebody begins to listen. */
  pump(): void {
    // A listener may ask for more, push or end: the loop that is under way sees to it.
    if (this.#isPumping) return;
    this.#isPumping = true;
    for (let item = this.#next(); item !== undefined; item = this.#next()) {
      this.#queue.shift();
      this.#size -= item.size;
      if (item.message !== undefined) this.#pulls.shift()?.resolve({ value: item.message, done: false });
      this.#host.onHanded(item);
    }
    this.#isPumping = false;
    if (this.#hasEnded && this.#queue.length === 0) this.#finish(() => true);
    if (!this.#isFull) return;
    if (this.#queue.length > this.#bound.messages / 2 || this.#size > this.#bound.chars / 2) return;
    this.#isFull = false;
    this.#host.onRoom();
  }

  /** Nothing more will be pushed. @param options.discard Lets go of what waits instead of handing it over. */
  end(options: { discard: boolean }): void {
    this.#hasEnded = true;
    if (options.discard) {
      this.#queue = [];
      this.#size = 0;
    }
    this.pump();
  }

  /** A loop. Several loops share the messages: each goes to one of them. */
  iterate(): Loop<Message> {
    const loop = Symbol();
    this.#loops.add(loop);
    return {
      next: () =>
        new Promise((resolve) => {
          if (!this.#loops.has(loop)) return resolve({ value: undefined, done: true });
          this.#pulls.push({ loop, resolve });
          this.pump();
        }),
      return: () => {
        this.#loops.delete(loop);
        this.#finish((pull) => pull.loop === loop);
        this.pump();
        return Promise.resolve({ value: undefined, done: true });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** The first item, if there is one and somebody to take it. */
  #next(): Item | undefined {
    const hasLoop = this.#loops.size > 0;
    const item = hasLoop || this.#host.isListening() ? this.#queue[0] : undefined;
    const waitsForLoop = hasLoop && this.#pulls.length === 0 && item?.message !== undefined;
    return waitsForLoop ? undefined : item;
  }

  #finish(which: (pull: Pull<Message>) => boolean): void {
    const ended = this.#pulls.filter(which);
    this.#pulls = this.#pulls.filter((pull) => !which(pull));
    for (const pull of ended) pull.resolve({ value: undefined, done: true });
  }
}
