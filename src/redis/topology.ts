/**
 * The contract of a topology: on which server of Redis a channel or a key lives now.
 *
 * It is asked at each dial and no address is kept: behind an unchanged name there may be another server than a moment
 * ago. It says where to dial, not who answers there: that is found out by asking (`server_info.ts`).
 */
import type { RedisAddress } from "./address.ts";
import type { PubSubWords } from "./pubsub_words.ts";

export interface Topology {
  /** What pub/sub is called there. */
  readonly words: PubSubWords;

  /**
   * @param name A channel or key; without one, the server that all of them share.
   * @returns undefined while that is being found out for the first time.
   * @throws {BrokerUnavailableError} when that is not known now.
   */
  locate(name?: string): RedisAddress | undefined;

  /**
   * Calls back when something lives elsewhere than before, so that connections to the old place are left.
   * @param listener Gets the reason, for the log.
   */
  onChange(listener: (reason: string) => void): void;

  /** What is wrong with those who say where it is, while that is known: sentences without a full stop that anybody may read. */
  faults(): string[];

  /** A server that was located is away, or does not keep what it should: there may be another one by now. */
  doubt(): void;

  /**
   * Asks once more, when a dial has succeeded: a server that another one has replaced may be back, without its data, and take
   * itself for what it was. Who listens for changes has heard of one when it resolves. Never rejects.
   */
  confirm(): Promise<void>;

  /** A server that was located refused our login: there may be another one by now. */
  loginRefused(): void;

  /**
   * Reads again what may have changed while the process runs.
   * @throws {ConfigError} when it can't be used; what was known before stays.
   */
  reload(): void;

  /** Ends what it keeps open. */
  close(): void;
}
