/**
 * What was given to a socket and its client has not taken yet: how much may wait, and whether the client takes any of
 * it. `send()` never blocks and never fails on a stuck client, and Deno has no event for room: so it is looked at
 * before each frame, and once a second.
 */
export class SendBuffer {
  readonly #socket: WebSocket;
  readonly #maxBytes: number;
  /** Bytes that waited when it was last looked at: fewer since then mean that the client takes some. */
  #bytes = 0;
  #hasTaken = false;
  #stuckTicks = 0;

  /** @param maxBytes May wait at most, but for a single frame that is larger. */
  constructor(socket: WebSocket, maxBytes: number) {
    this.#socket = socket;
    this.#maxBytes = maxBytes;
  }

  /** Whether the client has taken so much that it is worth going on. */
  get hasRoom(): boolean {
    return this.#socket.bufferedAmount <= this.#maxBytes / 2;
  }

  /** Sends the frame; false, without sending, when the client has not taken what it was given before. */
  write(frame: string | Uint8Array<ArrayBuffer>): boolean {
    const waiting = this.#look();
    // A frame that is larger than the mark goes alone.
    if (waiting > 0 && waiting + frame.length > this.#maxBytes) return false;
    this.#socket.send(frame);
    this.#bytes = this.#socket.bufferedAmount;
    return true;
  }

  /**
   * Called once a second.
   * @returns How many times in a row something waited and nothing had been taken.
   */
  tick(): number {
    const isWaiting = this.#look() > 0;
    this.#stuckTicks = isWaiting && !this.#hasTaken ? this.#stuckTicks + 1 : 0;
    this.#hasTaken = false;
    return this.#stuckTicks;
  }

  #look(): number {
    const { bufferedAmount } = this.#socket;
    if (bufferedAmount < this.#bytes) this.#hasTaken = true;
    return this.#bytes = bufferedAmount;
  }
}
