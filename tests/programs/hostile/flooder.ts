/**
 * Somebody who floods, in a thread of its own: writes the same bytes without pause, and notes when it
 * is cut.
 *
 * In: `Flood`. Out: `{ cutMs }` for each connection that was cut, in milliseconds from its first frame; `"over"` at the end.
 */

export interface Flood {
  readonly hostname: string;
  readonly port: number;
  /** The handshake, as it goes over the wire. */
  readonly handshake: string;
  /** Frames that are sent once, before the flood. */
  readonly first: Uint8Array;
  /** What is sent over and over. */
  readonly bytes: Uint8Array;
  /** How long, in milliseconds. */
  readonly ms: number;
  /** Whether it connects again when it is cut. */
  readonly again: boolean;
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<Flood>) => void;
  postMessage(message: unknown): void;
};

scope.onmessage = async ({ data }) => {
  const endMs = performance.now() + data.ms;
  do {
    const cutMs = await flood(data, endMs);
    if (cutMs !== undefined) scope.postMessage({ cutMs });
  } while (data.again && performance.now() < endMs);
  scope.postMessage("over");
};

/** Until it is cut, or the time is up: then undefined. */
async function flood(flood: Flood, endMs: number): Promise<number | undefined> {
  let startMs = performance.now();
  let connection: Deno.TcpConn | undefined;
  // A write that nobody takes must end too.
  const timer = setTimeout(() => connection?.close(), endMs - startMs);
  try {
    connection = await Deno.connect({ hostname: flood.hostname, port: flood.port });
    await write(connection, new TextEncoder().encode(flood.handshake));
    const length = await connection.read(new Uint8Array(4_096));
    if (length === null) return undefined;
    startMs = performance.now();
    void drain(connection);
    await write(connection, flood.first);
    while (performance.now() < endMs) await write(connection, flood.bytes);
    return undefined;
  } catch {
    return performance.now() < endMs ? performance.now() - startMs : undefined;
  } finally {
    clearTimeout(timer);
    try {
      connection?.close();
    } catch {
      // By the timer.
    }
  }
}

async function write(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  while (bytes.length > 0) bytes = bytes.subarray(await connection.write(bytes));
}

/** Takes what comes, so that whoever answers each frame is not held up by us. */
async function drain(connection: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(65_536);
  try {
    while (await connection.read(buffer) !== null);
  } catch {
    // Closed.
  }
}
