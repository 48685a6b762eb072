/**
 * One connection to Redis at the level of bytes: dial, log in, send commands, read replies. The subscriptions
 * live on it, one each; everything else a Userwire asks of Redis goes through the client library in `redis.ts`.
 */
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import { unlessAborted } from "./abort.ts";
import type { RedisAddress } from "./redis_address.ts";
import type { Slots } from "./slots.ts";
import { concat, encodeCommand, type Reply, ReplyError, RespParser } from "./resp.ts";

export interface OpenOptions {
  /** Sent together with the login, in one write. */
  commands?: readonly Uint8Array[];
  /** How many replies the commands have. */
  replies?: number;
  /**
   * How long all of it may take, in milliseconds. It covers the waiting for a slot too: while Redis hangs, nobody waits
   * for those before him.
   */
  timeoutMs: number;
  /** Bounds how many dial at one time. */
  slots?: Slots;
  /** Ends the attempt, and only the attempt. */
  signal?: AbortSignal | undefined;
  /** Where the read buffer begins, in bytes. */
  bufferSize?: number;
}

/** What `CLIENT LIST` shows these connections as. */
const SET_NAME = encodeCommand("CLIENT", "SETNAME", "userwire-subscription");

export class RedisConnection {
  readonly parser: RespParser;
  readonly #conn: Deno.Conn;
  #closed = false;

  private constructor(conn: Deno.Conn, bufferSize: number | undefined) {
    this.#conn = conn;
    this.parser = new RespParser(bufferSize === undefined ? {} : { bufferSize });
  }

  /**
   * Dials, logs in, sends the commands and waits for their replies.
   * @throws {BrokerUnavailableError} also when Redis answers one of them with an error.
   * @throws the signal's reason.
   */
  static async open(address: RedisAddress, options: OpenOptions): Promise<RedisConnection> {
    const { timeoutMs, signal, slots } = options;
    signal?.throwIfAborted();
    const attempt = new AbortController();
    const fail = (reason: unknown) => {
      attempt.abort(reason);
      connection?.close();
    };
    const timer = setTimeout(
      () => fail(new BrokerUnavailableError(`Redis did not confirm a subscription within ${timeoutMs} ms`)),
      timeoutMs,
    );
    const abort = () => fail(signal!.reason);
    signal?.addEventListener("abort", abort);
    let connection: RedisConnection | undefined;
    const work = async () => {
      connection = new RedisConnection(await dial(address, attempt.signal), options.bufferSize);
      // What has failed by now could not close what was not there yet.
      attempt.signal.throwIfAborted();
      await connection.#greet(address, options);
      // A failure may have closed it while the last reply was on its way here.
      attempt.signal.throwIfAborted();
      return connection;
    };
    try {
      return await (slots ? slots.run(work, attempt.signal) : work());
    } catch (error) {
      connection?.close();
      attempt.signal.throwIfAborted();
      if (error instanceof BrokerUnavailableError) throw error;
      throw new BrokerUnavailableError(`Redis broke off: ${messageOf(error)}`, {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  async #greet(address: RedisAddress, { commands = [], replies = 0 }: OpenOptions): Promise<void> {
    const login = loginOf(address);
    await this.write(concat([...login, SET_NAME, ...commands]));
    for (let i = 0; i < login.length + 1 + replies; i++) {
      const reply = await this.#reply();
      // A Redis that does not let us name the connection serves it all the same.
      if (reply instanceof ReplyError && i !== login.length) {
        throw new BrokerUnavailableError(`Redis refused a subscription: ${reply.text}`);
      }
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
    if (this.#closed) return;
    this.#closed = true;
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

/** The commands that log in; none when there is no password. */
function loginOf(address: RedisAddress): Uint8Array[] {
  if (address.password === undefined) return [];
  return [
    address.username === undefined
      ? encodeCommand("AUTH", address.password)
      : encodeCommand("AUTH", address.username, address.password),
  ];
}

async function dial(address: RedisAddress, signal: AbortSignal): Promise<Deno.Conn> {
  signal.throwIfAborted();
  const dialing: Promise<Deno.Conn> = address.transport === "unix"
    ? Deno.connect({ transport: "unix", path: address.path })
    : address.transport === "tls"
    ? Deno.connectTls({
      hostname: address.hostname,
      port: address.port,
      ...(address.tls?.ca !== undefined && { caCerts: [address.tls.ca] }),
      ...(address.tls?.cert !== undefined && { cert: address.tls.cert, key: address.tls.key! }),
    })
    : Deno.connect({ hostname: address.hostname, port: address.port });
  try {
    // Deno's own `signal` is there for TCP only, and in 2.9 it leaks the connection when the abort meets the end of
    // the dial.
    return await unlessAborted(dialing, signal);
  } catch (error) {
    if (signal.aborted) dialing.then((conn) => conn.close(), () => {}); // it may yet come
    signal.throwIfAborted();
    throw new BrokerUnavailableError(`Redis can't be reached: ${reasonOf(error)}`, { cause: error });
  }
}

/** What went wrong, in words that may reach clients: without the address that Deno puts into some of them. */
function reasonOf(error: unknown): string {
  return error instanceof Deno.errors.ConnectionRefused ? "nobody listens there" : messageOf(error);
}
