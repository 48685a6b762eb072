/**
 * What was asked on one shared connection, and which question an answer belongs to.
 *
 * Redis carries out commands in order and answers each: SUBSCRIBE and UNSUBSCRIBE once for each of their channels, or
 * once with an error for all of them. So an answer is about the first command that has not all of its answers.
 */
import { Buffer } from "node:buffer";
import { type PubSubWords, SHARDED } from "../redis/pubsub_words.ts";
import { slotOf } from "../redis/commands.ts";
import { encodeCommand, isUnsubscribed, type Reply, ReplyError } from "../redis/resp.ts";
import type { SharedChannel } from "./shared_channel.ts";

/** A command that has not all of its answers. */
interface Command {
  readonly kind: "subscribe" | "unsubscribe" | "ping";
  readonly channels: readonly SharedChannel[];
  answers: number;
}

export interface AnswerHandlers {
  /** An answer that was due for the channel has come. */
  onDone(channel: SharedChannel): void;
  /** Redis forbids to subscribe to these, maybe because of only one of them: the answer due for each has come. */
  onRefused(channels: readonly SharedChannel[], reason: string): void;
  /** Redis no longer has this channel, and nobody asked for that: another master of the cluster keeps it now. */
  onTaken(channel: string): void;
}

/** Errors that are about the channels of a command, and say nothing of the connection. */
const OF_CHANNEL = /^(NOPERM|MOVED|CLUSTERDOWN|TRYAGAIN|ASK) /;
/** Channels in one command: few enough that Redis is not kept from others for long. */
const BATCH = 500;

export class SharedCommands {
  readonly #handlers: AnswerHandlers;
  readonly #words: PubSubWords;
  readonly #pending: Command[] = [];

  constructor(handlers: AnswerHandlers, words: PubSubWords) {
    this.#handlers = handlers;
    this.#words = words;
  }

  /** @returns Commands to be written at once: from now on their answers are due. */
  make(channels: { leave: readonly SharedChannel[]; join: readonly SharedChannel[] }): Uint8Array {
    // On a cluster a command names channels of one slot only: each gets its own.
    const size = this.#words === SHARDED ? 1 : BATCH;
    return Buffer.concat([
      ...inBatches(channels.leave, size).map((batch) => this.#make("unsubscribe", batch)),
      ...inBatches(channels.join, size).map((batch) => this.#make("subscribe", batch)),
    ]);
  }

  /** The last command that was sent for the channel on this connection; undefined also when Redis refused it. */
  lastOf({ by, sent }: SharedChannel): SharedChannel["sent"] {
    return by === this ? sent : undefined;
  }

  /** Whether Redis has the channel on this connection: none of a new one, whatever was asked on the one before. */
  isConfirmed(channel: SharedChannel): boolean {
    return this.lastOf(channel) === "subscribe" && channel.due === 0;
  }

  /** As `make`. */
  ping(): Uint8Array {
    this.#pending.push({ kind: "ping", channels: [], answers: 0 });
    return encodeCommand("PING");
  }

  /**
   * Takes an answer.
   * @returns Why the connection is of no more use, if the answer says that.
   */
  take(answer: Reply): string | undefined {
    const command = this.#pending[0];
    const channel = command?.channels[command.answers];
    if (answer instanceof ReplyError) {
      const slot = /^MOVED (\d+) /.exec(answer.text)?.[1];
      // Unasked it was said before that the channel is not there any more, and taken for the answer that this one is.
      if (slot !== undefined && !(channel && slotOf(channel.name) === Number(slot))) return undefined;
      if (slot !== undefined && command?.kind === "unsubscribe") return this.#done(command, channel!);
      // Of a channel that it does not let us leave, Redis is rid when the connection ends.
      if (!command || command.kind === "unsubscribe" || !OF_CHANNEL.test(answer.text)) {
        return `Redis says: ${answer.text}`;
      }
      this.#pending.shift();
      this.#handlers.onRefused(command.channels, answer.text);
      return undefined;
    }
    if (isUnsubscribed(answer) && !(channel && command.kind === "unsubscribe" && isAbout(channel, answer))) {
      this.#handlers.onTaken(Buffer.from(answer[1]).toString());
      return undefined;
    }
    if (!command) return undefined;
    if (channel && !isAbout(channel, answer)) return "Redis answered in another order than it was asked";
    return this.#done(command, channel);
  }

  /** @param channel Undefined for PING, which has none. */
  #done(command: Command, channel: SharedChannel | undefined): undefined {
    if (++command.answers >= command.channels.length) this.#pending.shift();
    if (channel) this.#handlers.onDone(channel);
  }

  #make(kind: "subscribe" | "unsubscribe", channels: readonly SharedChannel[]): Uint8Array {
    this.#pending.push({ kind, channels, answers: 0 });
    for (const channel of channels) {
      if (channel.by !== this) channel.due = 0;
      channel.by = this;
      channel.sent = kind;
      channel.due++;
    }
    return encodeCommand(this.#words[kind], ...channels.map(({ name }) => name));
  }
}

/** Whether the answer is `[kind, channel, count]` of this channel. */
function isAbout({ name }: SharedChannel, answer: Reply): boolean {
  return Array.isArray(answer) && answer[1] instanceof Uint8Array && Buffer.from(name).equals(answer[1]);
}

/** Puts together what goes into one command. */
function inBatches(channels: readonly SharedChannel[], size: number): SharedChannel[][] {
  const batches: SharedChannel[][] = [];
  let batch: SharedChannel[] = [];
  for (const channel of channels) {
    if (channel.isSuspect) batches.push([channel]);
    else if (batch.push(channel) === 1) batches.push(batch);
    if (batch.length === size) batch = [];
  }
  return batches;
}
