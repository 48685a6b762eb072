/**
 * Two attacks on a service's file descriptors at once: handshakes that are reset at any moment, and silent connections,
 * more than it may have files open.
 */
import { until } from "../../../testkit/deadline.ts";
import type { ProcessService } from "../../../testkit/process_service.ts";
import { RawSocket } from "../../../testkit/raw_socket.ts";

const AT_ONCE = 8;
/** How long the silent ones hold what they got. */
const HOLD_MS = 500;
/** For a machine on which the attack has not used up all descriptors when its time is over. */
const MORE_MS = 60_000;

export interface Losses {
  readonly resets: number;
  /** Descriptors that are open at the end, beyond those at the beginning. */
  readonly left: number;
  /** How often it stopped listening. */
  readonly stops: number;
  /** Until it answered, once the attack was over, in milliseconds. */
  readonly answeredMs: number;
}

/**
 * @param limit How many files the service may have open.
 * @param ms How long it lasts; it goes on until the service has stopped listening at least once.
 */
export async function exhaust(service: ProcessService, limit: number, ms: number): Promise<Losses> {
  const { hostname, port } = new URL(service.url);
  const before = await service.openFiles();
  const endMs = performance.now() + ms;
  let resets = 0;
  const stops = () =>
    service.records.filter(({ event }) => event.startsWith("not listening any more")).length;
  const isOver = () => {
    const overMs = performance.now() - endMs;
    return overMs >= MORE_MS || overMs >= 0 && stops() > 0;
  };

  const reset = async () => {
    while (!isOver()) {
      try {
        const socket = await RawSocket.dial(service.socketUrl(resets % 4 < 2 ? "mallory" : undefined));
        socket.sendHandshake();
        // From the first byte to after the answer.
        if (resets++ % 2 === 0) await pause(Math.random() * 20);
        await socket.reset();
      } catch {
        await pause(10); // nobody listens
      }
    }
  };
  const hold = async () => {
    while (!isOver()) {
      const connections: Deno.Conn[] = [];
      for (let i = 0; i < limit && !isOver(); i++) {
        const connection = await Deno.connect({ hostname, port: Number(port) }).catch(() => undefined);
        if (!connection) break;
        connections.push(connection);
      }
      await pause(HOLD_MS);
      for (const connection of connections) connection.close();
    }
  };
  await Promise.all([...Array.from({ length: AT_ONCE }, reset), hold()]);

  const overMs = performance.now();
  await until(() => isReady(service.url), "it to be ready again", 10_000);
  const answeredMs = performance.now() - overMs;
  // Those that wait for their turn have had it in two seconds.
  let left = Infinity;
  for (let i = 0; i < 25; i++) {
    left = Math.min(left, await service.openFiles() - before);
    await pause(100);
  }
  return { resets, left, stops: stops(), answeredMs };
}

async function isReady(url: string): Promise<boolean> {
  const response = await fetch(`${url}readyz`).catch(() => undefined);
  await response?.body?.cancel();
  return response?.ok ?? false;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
