/**
 * One connection to Redis at the level of bytes: dial, log in, send commands, read replies. The subscriptions
 * live on it, one each; everything else that is asked of Redis goes through `commands.ts` and the client library.
 */
import { Buffer } from "node:buffer";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Attempt } from "../async/attempt.ts";
import type { Semaphore } from "../async/semaphore.ts";
import type { Pace } from "../async/slices.ts";
import type { RedisAddress } from "./address.ts";
import { logMessage, publicMessage, publicMessageOfReply } from "./error_text.ts";
import { encodeCommand, type Reply, ReplyError, RespParser } from "./resp.ts";
import { readInfo, REPLICA } from "./server_info.ts";

export interface OpenOptions {
  /** Sent together with the login, in one write; each has one reply. */
  commands?: readonly Uint8Array[];
  /** Bounds how many dial at one time. */
  semaphore?: Semaphore;
  /** Bounds how many begin to dial in one turn of the event loop. */
  pace?: Pace;
  /** Where the read buffer begins, in bytes. */
  bufferSize?: number;
  /** What `CLIENT LIST` shows it as. @default "userwire-subscription" */
  name?: string;
  /** Refuses a replica: it hears what its master publishes, and nobody there counts who listens. @default false */
  onlyMaster?: boolean;
  /** Redis refused the login. */
  onLoginRefused?(): void;
}

/**
 * What is said of the connection, and only happens to be the answer to its naming. Whatever else that answer says, by an
 * ACL, for its age, or in the words of a proxy: a Redis that lets us not name the connection serves it all the same.
 */
const OF_CONNECTION = /^(NOAUTH|DENIED|ERR max number of clients)/;
/** What a Redis says that does not let us in. */
const LOGIN_REFUSED = /^(WRONGPASS|NOAUTH|ERR (Client sent )?AUTH|ERR invalid password)/;

export class RedisConnection {
  readonly parser: RespParser;
  /** Whether a message has come on it; set by its reader. */
  hasDelivered = false;
  isClosed = false;
  readonly #conn: Deno.Conn;
  /** In which round of dialling it was made; set by its dialler. */
  generation = 0;
  /** As in `ServerInfo`, where only a master was wanted; else "". */
  life = "";

  private constructor(conn: Deno.Conn, bufferSize: number | undefined) {
    this.#conn = conn;
    this.parser = new RespParser(bufferSize === undefined ? {} : { bufferSize });
  }

  /**
   * Dials, logs in, sends the commands and waits for their replies.
   * @param attempt Covers the waiting for the semaphore too: while Redis hangs, nobody waits for those before him.
   * @throws {BrokerUnavailableError} also when Redis answers with an error.
   * @throws the reason why the attempt was given up.
   */
  static async open(
    address: RedisAddress,
    attempt: Attempt,
    options: OpenOptions = {},
  ): Promise<RedisConnection> {
    const { semaphore, pace } = options;
    const work = async () => {
      await pace?.turn();
      attempt.throwIfGivenUp();
      const conn = await attempt.step(dial(address), (conn) => conn.close());
      const connection = new RedisConnection(conn, options.bufferSize);
      try {
        await attempt.step(connection.#greet(address, options));
        return connection;
      } catch (error) {
        connection.close();
        throw error;
      }
    };
    try {
      return await (semaphore ? semaphore.run(work, attempt) : work());
    } catch (error) {
      attempt.throwIfGivenUp();
      if (error instanceof BrokerUnavailableError) throw error;
      throw new BrokerUnavailableError(publicMessage(error), { cause: error });
    }
  }

  async #greet(address: RedisAddress, options: OpenOptions): Promise<void> {
    const { commands = NO_COMMANDS, name = "userwire-subscription", onLoginRefused, onlyMaster } = options;
    const login = loginOf(address);
    // What may be refused, and need not be answered.
    const asides = onlyMaster ? [namingOf(name), ASK_WHO] : [namingOf(name)];
    await this.write(Buffer.concat([...login, ...asides, ...commands]));
    for (let i = 0; i < login.length + asides.length + commands.length; i++) {
      const reply = await this.#reply();
      const isAside = i >= login.length && i < login.length + asides.length;
      if (isAside && reply instanceof Uint8Array) {
        const { role, life } = readInfo(new TextDecoder().decode(reply));
        if (role === "slave") throw new BrokerUnavailableError(REPLICA);
        this.life = life;
      }
      if (!(reply instanceof ReplyError) || isAside && !OF_CONNECTION.test(reply.text)) continue;
      if (LOGIN_REFUSED.test(reply.text)) onLoginRefused?.();
      throw new BrokerUnavailableError(publicMessageOfReply(reply.text), { cause: logMessage(reply.text) });
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(at === 0 ? bytes : bytes.subarray(at));
  }

  /**
   * Reads what Redis sent into the parser's space, and says how much: `parser.filled` wants to know. Null at the end of
   * the stream.
   */
  read(): Promise<number | null> {
    return this.#conn.read(this.parser.space());
  }

  /** Says that nothing more will be sent; Redis answers by hanging up, which ends the reading. */
  async closeWrite(): Promise<void> {
    if ("closeWrite" in this.#conn) await (this.#conn as Deno.TcpConn).closeWrite();
  }

  /** Lets go of the connection at once. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#conn.close();
  }

  async #reply(): Promise<Reply> {
    for (;;) {
      const reply = this.parser.next();
      if (reply !== undefined) return reply;
      const count = await this.read();
      if (count === null) throw new BrokerUnavailableError("Redis closed the connection");
      this.parser.filled(count);
    }
  }
}

/** Encoded once: there are few names, and ten thousand connections. */
function namingOf(name: string): Uint8Array {
  let naming = namings.get(name);
  if (!naming) namings.set(name, naming = encodeCommand("CLIENT", "SETNAME", name));
  return naming;
}

const namings = new Map<string, Uint8Array>();
/** Before anything is subscribed: after that Redis takes no such question. */
const ASK_WHO = encodeCommand("INFO");

const NO_COMMANDS: readonly Uint8Array[] = [];

/** The commands that log in; none when there is neither user nor password. */
function loginOf({ username, password }: RedisAddress): Uint8Array[] {
  // A user without a password is let in with any.
  if (username !== undefined) return [encodeCommand("AUTH", username, password ?? "")];
  return password === undefined ? [] : [encodeCommand("AUTH", password)];
}

/** Not with Deno's own `signal`: it is there for TCP only, and in 2.9 leaks the connection when it meets the end of the dial. */
function dial({ transport, hostname, port, path, tls }: RedisAddress): Promise<Deno.Conn> {
  if (transport === "tcp") return Deno.connect({ hostname, port });
  if (transport === "unix") return Deno.connect({ transport, path });
  return Deno.connectTls({
    hostname,
    port,
    ...(tls?.ca !== undefined && { caCerts: [tls.ca] }),
    ...(tls?.cert !== undefined && { cert: tls.cert, key: tls.key! }),
  });
}
