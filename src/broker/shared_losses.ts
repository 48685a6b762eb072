/**
 * Who has lost the channels of a shared connection: each listener is told of it, counts as lost meanwhile, and is told again
 * when Redis has its channel back. Thousands may come back at one time, and each then reads what it missed: in slices.
 */
import { setImmediate } from "node:timers";
import { inSlices } from "../async/slices.ts";
import type { Listener } from "./listener.ts";
import type { SharedChannel } from "./shared_channel.ts";

export interface LossesContext {
  /** Subscriptions were lost, or found again: a negative number. */
  onLost(count: number): void;
  /** Whether Redis has the channel now. */
  isConfirmed(channel: SharedChannel): boolean;
}

export class SharedLosses {
  readonly #context: LossesContext;
  /** Channels that Redis has again, and whose listeners have to be told. */
  readonly #returned = new Set<SharedChannel>();

  constructor(context: LossesContext) {
    this.#context = context;
  }

  /** Whoever listens to it hears nothing from now on. */
  lose(channel: SharedChannel, reason: string): void {
    for (const listener of channel.listeners) {
      if (listener.isLost) continue;
      listener.isLost = true;
      this.#context.onLost(1);
      listener.lost(reason);
    }
  }

  /** It listens no more. */
  leave(listener: Listener): void {
    if (listener.isLost) this.#context.onLost(-1);
  }

  /** Redis has confirmed the channel. */
  restoreSoon(channel: SharedChannel): void {
    if (!isLost(channel)) return;
    if (this.#returned.size === 0) {
      setImmediate(() => void inSlices(this.#returned, (channel) => this.#restore(channel)));
    }
    this.#returned.add(channel);
  }

  #restore(channel: SharedChannel): void {
    this.#returned.delete(channel);
    // It may have been lost again since.
    if (!this.#context.isConfirmed(channel)) return;
    for (const listener of channel.listeners) {
      if (!listener.isLost) continue;
      listener.isLost = false;
      this.#context.onLost(-1);
      listener.restored();
    }
  }
}

/** Whether somebody waits for it to come back. */
export function isLost({ listeners }: SharedChannel): boolean {
  return listeners.values().some(({ isLost }) => isLost);
}
