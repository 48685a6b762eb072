/**
 * One plain connection to Redis that sends commands and reads replies (RESP2). The tests use it to look at a
 * server from outside: who is connected, who listens, what is stored. It shares no code with the product, so
 * that a fault in the product can't hide itself.
 *
 * One command at a time; pub/sub is not its job. Replies are text, so binary goes in but not out.
 */
import { withDeadline } from "./deadline.ts";

export type Reply = string | number | null | Reply[];

/** Where a server listens. */
export type RedisAddress = { port: number; hostname?: string } | { path: string };

const COMMAND_MS = 10_000;
const LINE_END = "\r\n";

/** An error reply of Redis, such as "WRONGPASS invalid username-password pair". */
export class RedisReplyError extends Error {
  override readonly name = "RedisReplyError";
}

export class RedisCommands implements Disposable {
  readonly #conn: Deno.Conn;
  #unread: Uint8Array = new Uint8Array();

  private constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  /** @throws {Deno.errors.ConnectionRefused} and its like when nobody listens there. */
  static async connect(address: RedisAddress, options: { password?: string } = {}): Promise<RedisCommands> {
    const conn = "path" in address
      ? await Deno.connect({ transport: "unix", path: address.path })
      : await Deno.connect({ hostname: "127.0.0.1", ...address });
    const commands = new RedisCommands(conn);
    try {
      if (options.password !== undefined) await commands.command("AUTH", options.password);
    } catch (error) {
      commands.close();
      throw error;
    }
    return commands;
  }

  /**
   * Sends one command and resolves with its reply. After a deadline error the connection can't be used any more.
   * @throws {RedisReplyError} when Redis answers with an error.
   */
  async command(...args: (string | number | Uint8Array)[]): Promise<Reply> {
    return await withDeadline(
      this.#exchange(args),
      COMMAND_MS,
      `the reply to ${args[0]}`,
      () => `${this.#unread.length} bytes are left of what came`,
    );
  }

  close(): void {
    try {
      this.#conn.close();
    } catch {
      // Closed before.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #exchange(args: (string | number | Uint8Array)[]): Promise<Reply> {
    const encoder = new TextEncoder();
    const parts: Uint8Array[] = [encoder.encode(`*${args.length}${LINE_END}`)];
    for (const arg of args) {
      const bytes = arg instanceof Uint8Array ? arg : encoder.encode(String(arg));
      parts.push(encoder.encode(`$${bytes.length}${LINE_END}`), bytes, encoder.encode(LINE_END));
    }
    const request = concat(parts);
    for (let sent = 0; sent < request.length;) sent += await this.#conn.write(request.subarray(sent));
    return await this.#readReply();
  }

  async #readReply(): Promise<Reply> {
    const line = await this.#readLine();
    const rest = line.slice(1);
    switch (line[0]) {
      case "+":
        return rest;
      case "-":
        throw new RedisReplyError(rest);
      case ":":
        return Number(rest);
      case "$": {
        const length = Number(rest);
        if (length < 0) return null;
        const bytes = await this.#take(length + LINE_END.length);
        return new TextDecoder().decode(bytes.subarray(0, length));
      }
      case "*": {
        const length = Number(rest);
        if (length < 0) return null;
        const items: Reply[] = [];
        while (items.length < length) items.push(await this.#readReply());
        return items;
      }
      default:
        throw new Error(`Redis answered "${line}", which is no RESP2 reply`);
    }
  }

  async #readLine(): Promise<string> {
    let end: number;
    while ((end = this.#unread.indexOf(0x0a)) < 0) await this.#fill();
    const line = this.#unread.subarray(0, end - 1);
    this.#unread = this.#unread.subarray(end + 1);
    return new TextDecoder().decode(line);
  }

  async #take(count: number): Promise<Uint8Array> {
    while (this.#unread.length < count) await this.#fill();
    const bytes = this.#unread.subarray(0, count);
    this.#unread = this.#unread.subarray(count);
    return bytes;
  }

  async #fill(): Promise<void> {
    const chunk = new Uint8Array(65_536);
    const count = await this.#conn.read(chunk);
    if (count === null) throw new Error("Redis closed the connection");
    this.#unread = concat([this.#unread, chunk.subarray(0, count)]);
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
