/** The server's end of a WebSocket in the hands of a test, which says what comes, what waits and when it closes. */
export class StubSocket extends EventTarget {
  readyState: number = WebSocket.OPEN;
  /** What was sent and its client has not taken. */
  bufferedAmount = 0;
  readonly sent: string[] = [];
  /** What it was closed with, each time. */
  readonly closes: [code: number, reason: string][] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;

  /** The same, as the product knows it. */
  get socket(): WebSocket {
    return this as unknown as WebSocket;
  }

  /** All that is sent waits. */
  send(frame: string): void {
    this.sent.push(frame);
    this.bufferedAmount += frame.length;
  }

  close(code: number, reason: string): void {
    this.closes.push([code, reason]);
    this.readyState = WebSocket.CLOSING;
  }

  /** Its client takes so many bytes. */
  take(bytes: number): void {
    this.bufferedAmount -= bytes;
  }

  /** A frame comes from its client. */
  frame(data: unknown): void {
    // A handler that is set meanwhile is for the next one.
    const { onmessage } = this;
    this.dispatchEvent(new MessageEvent("message", { data }));
    onmessage?.({ data });
  }

  /** It is open. */
  open(): void {
    this.readyState = WebSocket.OPEN;
    this.dispatchEvent(new Event("open"));
    this.onopen?.();
  }

  /** It is gone. */
  end(code = 0): void {
    this.readyState = WebSocket.CLOSED;
    this.dispatchEvent(new CloseEvent("close", { code }));
  }
}
