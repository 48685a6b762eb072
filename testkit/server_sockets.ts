/** The sockets of this process's services, on the server's side. */
export class ServerSockets implements Disposable {
  readonly all: WebSocket[] = [];
  readonly #upgrade = Deno.upgradeWebSocket;

  /** @param onSocket Told of each one that is made from now on. */
  constructor(onSocket: (socket: WebSocket) => void = () => {}) {
    Deno.upgradeWebSocket = (...args) => {
      const upgraded = this.#upgrade(...args);
      this.all.push(upgraded.socket);
      onSocket(upgraded.socket);
      return upgraded;
    };
  }

  [Symbol.dispose](): void {
    Deno.upgradeWebSocket = this.#upgrade;
  }
}
