/** A connection to one server for a question now and then: made when it is asked, and anew after a fault. */
import type { RedisAddress } from "./address.ts";
import { type Client, newClient } from "./client_library.ts";

export class Link {
  readonly address: RedisAddress;
  #client: Client | undefined;
  #asking: Promise<unknown> | undefined;
  #isClosed = false;

  constructor(address: RedisAddress) {
    this.address = address;
  }

  /** Where it leads, for the log. */
  get place(): string {
    return `${this.address.hostname}:${this.address.port}`;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * Asks the one question that is asked here; while an answer is due, that one is waited for.
   * @throws what the client library rejects with.
   */
  ask<T>(...question: string[]): Promise<T> {
    this.#asking ??= this.#ask(question).finally(() => this.#asking = undefined);
    return this.#asking as Promise<T>;
  }

  close(): void {
    this.#isClosed = true;
    this.#end();
  }

  async #ask(question: string[]): Promise<unknown> {
    const client = this.#client ??= newClient(this.address);
    try {
      if (!client.isOpen) {
        client.on("error", () => {}); // the command rejects with it
        await client.connect();
      }
      return await client.sendCommand(question);
    } catch (error) {
      if (this.#client === client) this.#end();
      throw error;
    }
  }

  #end(): void {
    this.#client?.destroy();
    this.#client = undefined;
  }
}
