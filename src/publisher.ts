/**
 * The backend's single way to send. The HTTP API and the command line use it, and a backend written in Deno can
 * import it and skip the HTTP:
 *
 * ```ts ignore
 * import { Publisher } from "./src/publisher.ts";
 *
 * await using publisher = await Publisher.open({ redisUrl: "redis://127.0.0.1:6379" });
 * const { sockets } = await publisher.send("alice", { kind: "json", text: '{"order":7}' });
 * if (sockets === 0) console.log("alice is offline");
 * ```
 *
 * It never asks "is she there?" before it sends: the answer could be stale one moment later. The reply of the
 * publish itself says how many sockets were reached.
 */
import type { Broker } from "./broker/broker.ts";
import { type BrokerOptions, openBroker } from "./broker/open.ts";
import { InvalidMessageError } from "./errors.ts";
import { channelOf, formatEnvelope, isJson, parseUsername, type Payload } from "./protocol.ts";

/** What became of a message. */
export interface Receipt {
  /** Id of the message, the same that clients see in its `m` frame. */
  id: string;
  /** How many sockets of the user it was handed to; 0 means the user was offline. */
  sockets: number;
}

/** How a publisher turns a username into a channel. */
export interface PublisherOptions {
  /** Put before each username. @default "" */
  channelPrefix?: string;
  /** Lower-case usernames, as `USERWIRE_USERNAME_CASE=lower` does. @default false */
  foldUsernames?: boolean;
}

export interface SendOptions {
  /** Id of the message: 1–64 of letters, digits and `._:-`. @default a random UUID */
  id?: string;
}

const MESSAGE_ID = /^[\w.:-]{1,64}$/;

export class Publisher implements AsyncDisposable {
  readonly #broker: Broker;
  readonly #prefix: string;
  readonly #fold: { fold: boolean };
  #close: () => Promise<void> = () => Promise.resolve();

  /** A publisher on a broker that stays the caller's to close. */
  constructor(broker: Broker, options: PublisherOptions = {}) {
    this.#broker = broker;
    this.#prefix = options.channelPrefix ?? "";
    this.#fold = { fold: options.foldUsernames ?? false };
  }

  /**
   * A publisher with a broker of its own, for a backend. Without `redisUrl` it reaches nobody but itself.
   * @throws {Error} when Redis answers and refuses the login.
   */
  static async open(options: BrokerOptions & PublisherOptions): Promise<Publisher> {
    const opened = openBroker(options);
    const attempt = await opened.firstAttempt(options.redisTimeoutMs ?? 3_000);
    if (attempt.outcome === "refused") {
      await opened.close();
      throw new Error(`Can't open a publisher: ${attempt.why}`);
    }
    const publisher = new Publisher(opened.broker, options);
    publisher.#close = opened.close;
    return publisher;
  }

  /**
   * Sends a message to every socket of a user, in one round trip.
   * @param payload JSON text goes to raw sockets byte for byte.
   * @throws {InvalidUsernameError | InvalidMessageError | BrokerUnavailableError}
   */
  async send(username: string, payload: Payload, options: SendOptions = {}): Promise<Receipt> {
    const channel = this.channel(username);
    if (payload.kind === "json" && !isJson(payload.text)) {
      throw new InvalidMessageError("The payload is not JSON: send it as text, or correct it");
    }
    const id = options.id ?? crypto.randomUUID();
    if (!MESSAGE_ID.test(id)) {
      throw new InvalidMessageError("A message id must have 1 to 64 letters, digits or . _ : -");
    }
    const { head, tail } = formatEnvelope(payload, id, Date.now());
    return { id, sockets: await this.#broker.publish(channel, head + tail) };
  }

  /**
   * The broker's channel of a user.
   * @throws {InvalidUsernameError}
   */
  channel(username: string): string {
    return channelOf(parseUsername(username, this.#fold), this.#prefix);
  }

  /** Whether the user has a socket anywhere. To send, send: this answer may be stale by the time it is read. */
  async isOnline(username: string): Promise<boolean> {
    return await this.sockets(username) > 0;
  }

  /** How many sockets the user has, over all instances. */
  async sockets(username: string): Promise<number> {
    return (await this.#broker.counts([this.channel(username)]))[0]!;
  }

  /** How many sockets each of the users has, in one round trip. Keys are the names as they were asked for. */
  async online(usernames: readonly string[]): Promise<Map<string, number>> {
    const counts = await this.#broker.counts(usernames.map((username) => this.channel(username)));
    return new Map(usernames.map((username, i) => [username, counts[i]!]));
  }

  /** Closes the broker if `open` made it. */
  async close(): Promise<void> {
    await this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
