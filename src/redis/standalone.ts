/** The topology of one Redis that has everything, at the place that its URL names. */
import { isSamePlace, type RedisAddress } from "./address.ts";
import { PLAIN } from "./pubsub_words.ts";
import type { Topology } from "./topology.ts";
import type { UrlSource } from "./url_source.ts";

export class Standalone implements Topology {
  readonly words = PLAIN;
  readonly #source: UrlSource;

  constructor(source: UrlSource) {
    this.#source = source;
  }

  locate(): RedisAddress {
    return this.#source.url;
  }

  /** Who logs in there is no part of the place. */
  onChange(listener: (reason: string) => void): void {
    this.#source.onChange((before) => {
      if (!isSamePlace(before, this.#source.url)) listener("REDIS_URL_FILE names another Redis");
    });
  }

  faults(): string[] {
    return [];
  }

  doubt(): void {}

  async confirm(): Promise<void> {}

  loginRefused(): void {
    this.#source.loginRefused();
  }

  reload(): void {
    this.#source.reload();
  }

  close(): void {}
}
