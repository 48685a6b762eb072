/**
 * A TCP port on 127.0.0.1 that is one test's own, also while nobody listens on it: for what is restarted at the same
 * address, and for addresses at which nobody is to answer.
 *
 *     using port = OwnPort.take();
 *     await using service = await Service.start({ PORT: `${port}` });
 */

// Below the ports that kernels hand out by themselves, so that no outgoing connection and no listener on port 0 gets it,
// and no client that dials it again and again ends up connected to itself.
const FIRST_PORT = 20_000;
const PORT_COUNT = 10_000;

export class OwnPort implements Disposable {
  readonly number: number;
  readonly #mark: Deno.DatagramConn;

  private constructor(number: number, mark: Deno.DatagramConn) {
    this.number = number;
    this.#mark = mark;
  }

  static take(): OwnPort {
    while (true) {
      const port = FIRST_PORT + Math.floor(Math.random() * PORT_COUNT);
      // The UDP port of the same number is the mark of the owner: it is in nobody's way, is seen by the tests of other
      // processes too, and goes with the process.
      const mark = unlessInUse(() => Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port }));
      if (!mark) continue;
      if (isFree(port)) return new OwnPort(port, mark);
      mark.close(); // somebody has it who knows nothing of marks
    }
  }

  toString(): string {
    return String(this.number);
  }

  [Symbol.dispose](): void {
    this.#mark.close();
  }
}

/** Whether nobody listens there. */
export function isFree(port: number): boolean {
  const probe = unlessInUse(() => Deno.listen({ hostname: "127.0.0.1", port }));
  probe?.close();
  return probe !== undefined;
}

function unlessInUse<T>(listen: () => T): T | undefined {
  try {
    return listen();
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) return undefined;
    throw error;
  }
}
