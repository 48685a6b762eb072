/**
 * The broadcasts that one client gets, each once and in order, over as many connections as it takes. They are numbered
 * apart from the user's messages and handed over at once: nothing of them waits for the application.
 */
import type { BroadcastFrame, BroadcastGapFrame } from "../protocol/frames.ts";
import type { Position } from "../protocol/position.ts";
import { holeBefore, placeAt, readMessage } from "./received.ts";
import type { Message } from "./options.ts";

export interface BroadcastsHost<Data> {
  onBroadcast(message: Message<Data>): void;
  onGap(gap: BroadcastGapFrame): void;
  /** The position has moved. Called before the application hears why. */
  onMoved(): void;
  onError(error: Error): void;
}

export class Broadcasts<Data> {
  /** Where the application stands; undefined until that is known. */
  position: Position | undefined;
  readonly #host: BroadcastsHost<Data>;

  constructor(host: BroadcastsHost<Data>) {
    this.#host = host;
  }

  /** The server says where it begins. */
  startAt(all: string | undefined): void {
    if (all !== undefined && !this.position) this.#moveTo(placeAt(all, undefined), all);
  }

  onMessage(frame: BroadcastFrame): void {
    const { seq, tag } = frame;
    const before = this.position;
    if (seq !== undefined && before) {
      if (seq <= before.seq) return;
      if (seq > before.seq + 1) this.#host.onError(holeBefore("Broadcast", seq, before));
      this.#moveTo({ epoch: before.epoch, seq, tag }, "");
    }
    this.#host.onBroadcast(readMessage(frame));
  }

  onGap(gap: BroadcastGapFrame): void {
    if (this.#moveTo(placeAt(gap.pos, gap.tag), gap.pos)) this.#host.onGap(gap);
  }

  /** @param text What it was read from. */
  #moveTo(position: Position | undefined, text: string): boolean {
    if (position) {
      this.position = position;
      this.#host.onMoved();
    } else {
      this.#host.onError(new Error(`The server's broadcasts stand at "${text}", which is no position`));
    }
    return position !== undefined;
  }
}
