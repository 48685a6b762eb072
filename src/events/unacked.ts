/**
 * The part of the contract of events that is about messages: which users have not confirmed one in time. It is noted
 * before the message is sent, so that no end of a process leaves one untold; who confirms it, or gets none, is taken off.
 */

/** A message of which it is told who has not confirmed it. */
export interface WatchedMessage {
  /** Names this send: without spaces. */
  readonly token: string;
  /** Id of the message. */
  readonly id: string;
  /** When it was sent, in Unix milliseconds. */
  readonly ts: number;
  readonly group?: string | undefined;
  /** The span that the send was a part of. */
  readonly traceparent?: string | undefined;
  /** After how many milliseconds it is told; 0: as soon as it is sent, of who has no subscription then, and of nobody else. */
  readonly afterMs: number;
}

export interface UnackedStore {
  /** These users are about to be sent it. @throws {BrokerUnavailableError} */
  watch(message: WatchedMessage, users: readonly string[]): Promise<void>;
  /**
   * They were sent it.
   * @param seq Its number, where there is one user. @throws {BrokerUnavailableError}
   */
  sent(message: WatchedMessage, users: readonly string[], seq?: number): Promise<void>;
  /** They have confirmed it, or were not sent it. @throws {BrokerUnavailableError} */
  unwatch(token: string, users: readonly string[]): Promise<void>;
  /**
   * Tells of those whose time is over, some of them at a time.
   * @returns Whether there may be more.
   * @throws {BrokerUnavailableError}
   */
  tellUnacked(): Promise<boolean>;
}

/** With `afterMs` 0: how long a send may take before it is told all the same, whatever has become of the sender. */
export const SENDING_MS = 5_000;

/** What is kept of a message, and told: JSON without its braces. */
export function fieldsOf({ id, ts, group, traceparent }: WatchedMessage): string {
  return JSON.stringify({ id, ts, group, traceparent }).slice(1, -1);
}
