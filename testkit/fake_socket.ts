/**
 * A WebSocket for what no server can be made to do: to break in odd ways, at a moment that the test chooses, or not to
 * come into being.
 */
import { connect } from "../src/client/mod.ts";
import { QUICK, Watch } from "./client_watch.ts";
import { Bell } from "./deadline.ts";

/** What a client sees of a socket. */
export class FakeSocket {
  readyState: number | undefined;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: { message?: string }) => void) | null = null;
  /** The code by which the client closed it. */
  closedWith: number | undefined;

  send(): void {}

  close(code: number): void {
    this.closedWith = code;
  }

  /** Gives the client a frame. */
  frame(frame: Record<string, unknown>): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

/**
 * A client whose sockets are fake.
 * @param options.failures The first of them can't be made.
 */
export function connectFake(options: { timeoutMs?: number; failures?: Error[] } = {}) {
  const { failures = [], timeoutMs } = options;
  const sockets: FakeSocket[] = [];
  const bell = new Bell();
  class Socket extends FakeSocket {
    constructor() {
      super();
      const failure = failures.shift();
      if (failure) throw failure;
      sockets.push(this);
      bell.ring();
    }
  }
  const client = connect("ws://host", {
    user: "alice",
    backoff: QUICK,
    timeoutMs,
    WebSocket: Socket as never,
  });
  /** Resolves with the client's nth socket. */
  const socket = async (number: number): Promise<FakeSocket> => {
    await bell.until(
      () => sockets.length >= number,
      `${number} sockets`,
      undefined,
      () => `${sockets.length} were made`,
    );
    return sockets[number - 1]!;
  };
  return { client, watch: new Watch(client), socket };
}
