/**
 * The messages that one client gets, each once and in order, over as many connections as it takes. Knows the position:
 * what was received, to go on from after a break, and what the application was handed, to go on from after a restart.
 * What comes twice is dropped, what is missing is reported. The pace of the application is `Handover`'s business.
 */
import type { GapFrame, MessageFrame } from "../protocol/frames.ts";
import type { Position } from "../protocol/position.ts";
import { Acks } from "./acks.ts";
import { Handover, type HandoverBound, type Loop } from "./handover.ts";
import type { Message } from "./options.ts";
import { holeBefore, placeAt, readMessage, type Received } from "./received.ts";

export interface MessagesHost<Data> {
  /** Whether somebody listens for messages. */
  isListening(): boolean;
  /** Whether there is a connection, over which senders may wait. */
  isOpen(): boolean;
  onMessage(message: Message<Data>): void;
  onGap(gap: GapFrame): void;
  /** What the application was handed has moved. Called before it hears why. */
  onMoved(): void;
  /** No more may wait for the application. */
  onFull(): void;
  /** There is room again. */
  onRoom(): void;
  /** Everything up to this number is with the application. */
  acknowledge(seq: number): void;
  onError(error: Error): void;
}

export class Messages<Data> {
  /** What was received; undefined until that is known. */
  received: Position | undefined;
  /** What the application was handed of it. */
  handed: Position | undefined;
  readonly acks: Acks;
  readonly #host: MessagesHost<Data>;
  readonly #handover: Handover<Message<Data>, Received<Data>>;

  constructor(host: MessagesHost<Data>, bound: HandoverBound) {
    this.#host = host;
    this.acks = new Acks((seq) => host.acknowledge(seq));
    this.#handover = new Handover({
      isListening: () => host.isListening(),
      onHanded: (received) => this.#onHanded(received),
      onRoom: () => host.onRoom(),
    }, bound);
  }

  /** The application goes on from here. */
  resumeFrom(position: Position | undefined): void {
    this.received = this.handed = position;
  }

  /** The server says where it begins. Where that differs from the position asked for, a gap follows. */
  startAt(pos: string | undefined, tag: string | undefined): void {
    if (this.received || pos === undefined) return;
    const position = placeAt(pos, tag);
    if (!position) {
      return this.#host.onError(new Error(`The server stands at "${pos}", which is no position`));
    }
    this.received = position;
    this.#moveTo(position);
  }

  onMessage(frame: MessageFrame, size: number): void {
    const { seq, tag } = frame;
    const before = this.received;
    const urgent = frame.ack === 1;
    if (seq !== undefined && before) {
      if (seq <= before.seq) {
        // The sender of a message that the application has may still wait, for a receipt that was lost.
        const { handed } = this;
        const hasIt = handed?.epoch === before.epoch && seq <= handed.seq;
        if (urgent && hasIt) this.acks.handed(handed.seq, { urgent });
        return;
      }
      if (seq > before.seq + 1) this.#host.onError(holeBefore("Message", seq, before));
      this.received = { epoch: before.epoch, seq, tag };
    }
    const position = seq === undefined ? undefined : this.received;
    this.#push({ message: readMessage(frame), gap: undefined, position, urgent, size });
  }

  onGap(gap: GapFrame, size: number): void {
    const position = placeAt(gap.pos, gap.tag);
    const before = this.received;
    if (!position) return this.#host.onError(new Error(`A gap ends at "${gap.pos}", which is no position`));
    // Within an epoch what is known to be missing is not news; a new epoch may begin anywhere.
    if (gap.why === "trimmed" && before?.epoch === position.epoch && position.seq <= before.seq) return;
    // What is held back counts in the old numbers: in the new ones it would confirm what nobody has.
    if (gap.why === "epoch") this.acks.reset();
    this.received = position;
    this.#push({ message: undefined, gap, position, urgent: false, size });
  }

  /** Hands over what can be; to be called when somebody begins to listen. */
  pump(): void {
    this.#handover.pump();
  }

  iterate(): Loop<Message<Data>> {
    return this.#handover.iterate();
  }

  /** Nothing more will come. @param options.discard Lets go of what waits instead of handing it over. */
  end(options: { discard: boolean }): void {
    this.#handover.end(options);
  }

  #push(received: Received<Data>): void {
    this.#handover.push(received);
    if (this.#handover.isFull) this.#host.onFull();
  }

  #onHanded({ message, gap, position, urgent }: Received<Data>): void {
    if (position) this.#moveTo(position);
    if (gap) this.#host.onGap(gap);
    if (!message) return;
    this.#host.onMessage(message);
    // For what came over a connection that is gone, nobody waits any more; in another epoch its number is another's.
    const counts = this.#host.isOpen() && position?.epoch === this.received?.epoch;
    if (message.seq !== undefined && counts) this.acks.handed(message.seq, { urgent });
  }

  #moveTo(position: Position): void {
    this.handed = position;
    this.#host.onMoved();
  }
}
