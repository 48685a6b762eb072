/** A connection to one server for a question now and then: made when it is asked, and anew after a fault. */
import type { RedisAddress } from "./address.ts";
import { type Client, load, newClient } from "./client_library.ts";

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
   * Asks what is always asked here, at one time; while answers are due, those are waited for.
   * @returns One answer for each question.
   * @throws what the client library rejects with.
   */
  ask<T extends unknown[]>(...questions: string[][]): Promise<T> {
    this.#asking ??= this.#ask(questions).finally(() => this.#asking = undefined);
    return this.#asking as Promise<T>;
  }

  close(): void {
    this.#isClosed = true;
    this.#end();
  }

  async #ask(questions: string[][]): Promise<unknown[]> {
    await load();
    const client = this.#client ??= newClient(this.address);
    try {
      if (!client.isOpen) {
        client.on("error", () => {}); // the command rejects with it
        await client.connect();
      }
      return await Promise.all(questions.map((question) => client.sendCommand(question)));
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
