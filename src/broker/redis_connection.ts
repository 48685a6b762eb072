/**
 * One connection to Redis at the level of bytes: dial, log in, send commands, read replies. The subscriptions
 * live on it, one each; everything else a Userwire asks of Redis goes through the client library in `redis.ts`.
 */
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import type { RedisAddress } from "./redis_address.ts";
import { concat, encodeCommand, type Reply, ReplyError, RespParser } from "./resp.ts";

export class RedisConnection {
  readonly parser = new RespParser();
  readonly #conn: Deno.Conn;
  #closed = false;

  private constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  /**
   * Dials, sends login and the given commands in one write, and waits for their replies.
   * @param options.replies How many replies the commands have.
   * @param options.signal Ends the attempt, and only the attempt.
   * @throws {BrokerUnavailableError} also when Redis answers one of them with an error.
   */
  static async open(
    address: RedisAddress,
    options: { commands: readonly Uint8Array[]; replies: number; signal: AbortSignal },
  ): Promise<RedisConnection> {
    const { signal } = options;
    const connection = new RedisConnection(await dial(address, signal));
    const abort = () => connection.close();
    signal.addEventListener("abort", abort);
    try {
      signal.throwIfAborted();
      const login = loginOf(address);
      await connection.write(concat([...login, ...options.commands]));
      for (let i = 0; i < login.length + options.replies; i++) {
        const reply = await connection.#reply();
        if (reply instanceof ReplyError) {
          throw new BrokerUnavailableError(`Redis at ${address.label} refused a subscription: ${reply.text}`);
        }
      }
      // An abort may have closed it while the last reply was on its way here.
      signal.throwIfAborted();
      return connection;
    } catch (error) {
      connection.close();
      signal.throwIfAborted();
      if (error instanceof BrokerUnavailableError) throw error;
      throw new BrokerUnavailableError(`Redis at ${address.label} broke off: ${messageOf(error)}`, {
        cause: error,
      });
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(at === 0 ? bytes : bytes.subarray(at));
  }

  /**
   * Reads what Redis sent into the parser.
   * @returns False at the end of the stream.
   */
  async fill(): Promise<boolean> {
    const count = await this.#conn.read(this.parser.space());
    if (count === null) return false;
    this.parser.filled(count);
    return true;
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
      if (!await this.fill()) throw new BrokerUnavailableError("Redis closed the connection");
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
  // Deno can't abort a dial to a unix socket or a TLS handshake, so the promise is raced and a connection that
  // comes too late is closed.
  const dialing = address.transport === "unix"
    ? Deno.connect({ transport: "unix", path: address.path })
    : address.transport === "tls"
    ? Deno.connectTls({
      hostname: address.hostname,
      port: address.port,
      ...(address.tls?.ca !== undefined && { caCerts: [address.tls.ca] }),
      ...(address.tls?.cert !== undefined && { cert: address.tls.cert, key: address.tls.key! }),
    })
    : Deno.connect({ hostname: address.hostname, port: address.port, signal });
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([dialing, aborted.promise]);
  } catch (error) {
    dialing.then((conn) => conn.close(), () => {});
    signal.throwIfAborted();
    throw new BrokerUnavailableError(`Redis at ${address.label} can't be reached: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
