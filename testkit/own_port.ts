/**
 * A TCP port on 127.0.0.1 that is one test's own, also while nobody listens on it: for what is restarted at the same
 * address, and for addresses at which nobody is to answer.
 *
 *     using port = OwnPort.take();
 *     await using service = await Service.start({ PORT: `${port}` });
 */

/** From the first port that needs no rights to the last; where many kernels, which hand out by themselves what lies above, have room. */
const ALL: PortRange = { first: 1_024, last: 65_535 };
const USUAL: PortRange = { first: 20_000, last: 29_999 };
/** A range with fewer would be taken soon by tests that run side by side. */
const FEWEST = 1_000;
const HANDED_OUT = "/proc/sys/net/ipv4/ip_local_port_range";

/** Of TCP ports, both ends included. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

export class OwnPort implements Disposable {
  readonly number: number;
  readonly #mark: Deno.DatagramConn;

  private constructor(number: number, mark: Deno.DatagramConn) {
    this.number = number;
    this.#mark = mark;
  }

  static take(): OwnPort {
    const { first, last } = rangeBeside(handedOut());
    while (true) {
      const port = first + Math.floor(Math.random() * (last - first + 1));
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

/**
 * Ports that the kernel hands out to nobody, so that no outgoing connection and no listener on port 0 gets them, and no client
 * that dials one again and again ends up connected to itself.
 * @param handedOut Those that it does hand out. Where that is all of them, the usual ones must do.
 */
export function rangeBeside(handedOut: PortRange): PortRange {
  const beside = [
    USUAL,
    { first: ALL.first, last: handedOut.first - 1 },
    { first: handedOut.last + 1, last: ALL.last },
  ];
  const isApart = ({ first, last }: PortRange) => last < handedOut.first || handedOut.last < first;
  return beside.find((range) => isApart(range) && range.last - range.first >= FEWEST) ?? USUAL;
}

/** What Linux says, which a container or a sandbox may have set otherwise; other systems hand out their last quarter. */
function handedOut(): PortRange {
  try {
    const [first, last] = Deno.readTextFileSync(HANDED_OUT).trim().split(/\s+/).map(Number);
    return { first: first!, last: last! };
  } catch {
    return { first: 49_152, last: ALL.last };
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
