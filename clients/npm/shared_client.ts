/** One client for all who use it: opened by the first, closed a moment after the last. Knows nothing of React. */
import { type Client, connect, type ConnectOptions, type Message, type State } from "./client.ts";

/** How a connection stands. */
export interface Snapshot {
  readonly state: State;
  /** Undefined until the component is mounted, and on a server. */
  readonly client: Client | undefined;
  /** What was wrong last; undefined again when a connection has opened. */
  readonly error: Error | undefined;
}

/** As for `connect`. */
export type UserwireOptions = ConnectOptions & {
  /** Whose token it is, for pages where one person may log out and another in: another value connects anew. */
  readonly account?: string | undefined;
};

const NONE: Snapshot = { state: "connecting", client: undefined, error: undefined };

export class SharedClient {
  #snapshot = NONE;
  #users = 0;
  #key = "";
  #closing: ReturnType<typeof setTimeout> | undefined;
  /** Where the client before stood, for one that does the same. */
  #left: { key: string; position: string | undefined } | undefined;
  #stopMessages: () => void = () => {};
  readonly #listeners = new Set<() => void>();
  readonly #receivers = new Set<(message: Message) => void>();

  /**
   * Uses the client; opens it, if nobody has.
   * @param options Asked when the client is made, and for a token each time it needs one.
   * @returns Lets go of it.
   * @throws {Error} when others use one with another address or user.
   */
  use(url: string, who: string | undefined, options: () => UserwireOptions): () => void {
    clearTimeout(this.#closing);
    const key = JSON.stringify([url, who]);
    const { client } = this.#snapshot;
    if (client && (key !== this.#key || client.state === "closed")) {
      if (this.#users > 0 && key !== this.#key) {
        throw new Error(
          `This page is connected to ${this.#key} and can't be to ${key} too: useUserwire shares one connection; for ` +
            "another use connect()",
        );
      }
      this.#close();
    }
    if (!this.#snapshot.client) this.#open(url, key, options);
    this.#users++;
    let isUsed = true;
    return () => {
      if (!isUsed) return;
      isUsed = false;
      // StrictMode, and a change of pages, let go and come back within the same turn.
      if (--this.#users === 0) this.#closing = setTimeout(() => this.#close(), 0);
    };
  }

  readonly snapshot = (): Snapshot => this.#snapshot;

  readonly onChange = (listener: () => void): () => void => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** What comes while nobody receives waits in the client. @returns Ends that. */
  onMessage(receive: (message: Message) => void): () => void {
    this.#receivers.add(receive);
    this.#receive();
    return () => {
      this.#receivers.delete(receive);
      if (this.#receivers.size === 0) this.#stopMessages();
    };
  }

  #open(url: string, key: string, options: () => UserwireOptions): void {
    const given = options();
    const resume = given.resume ?? (this.#left?.key === key ? this.#left.position : undefined);
    const token = () => {
      const newest = options();
      if ("token" in newest) return newest.token();
      throw new TypeError("useUserwire was given a token before, and has none now");
    };
    const client = connect(url, "user" in given ? { ...given, resume } : { ...given, resume, token });
    this.#key = key;
    this.#set({ state: client.state, client, error: undefined });
    client.on("state", (state) => this.#update(client, { state }));
    client.on("open", () => this.#update(client, { error: undefined }));
    client.on("error", (error) => {
      console.error(error);
      this.#update(client, { error });
    });
    this.#receive();
  }

  #receive(): void {
    this.#stopMessages();
    if (this.#receivers.size === 0 || !this.#snapshot.client) return;
    this.#stopMessages = this.#snapshot.client.on("message", (message) => {
      for (const receive of this.#receivers) receive(message);
    });
  }

  #close(): void {
    const { client } = this.#snapshot;
    if (!client) return;
    this.#stopMessages();
    this.#left = { key: this.#key, position: client.position };
    this.#set(NONE);
    void client.close();
  }

  #update(client: Client, change: Partial<Snapshot>): void {
    if (client === this.#snapshot.client) this.#set({ ...this.#snapshot, ...change });
  }

  #set(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    for (const listener of this.#listeners) listener();
  }
}
