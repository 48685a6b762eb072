/** Which server commands go to: who was greeted last, and whether that is who is at the end of this connection. */
import type { ServerInfo } from "./server_info.ts";

export class GreetedServer {
  #info: ServerInfo | undefined;
  #isHere = false;
  readonly #onOther: (() => void)[] = [];

  /** Who was greeted last; stays when that connection ends. */
  get info(): ServerInfo | undefined {
    return this.#info;
  }

  /** Whether the server has said which life it lives, on this connection. */
  get isHere(): boolean {
    return this.#isHere;
  }

  /** Calls back when another server is greeted than before, or one with other data. */
  onOther(listener: () => void): void {
    this.#onOther.push(listener);
  }

  /** Who is there is unknown until it has said it again. */
  leave(): void {
    this.#isHere = false;
  }

  greeted(info: ServerInfo): void {
    const isOther = this.#info !== undefined && this.#info.life !== info.life;
    this.#info = info;
    this.#isHere = true;
    if (isOther) { for (const listener of this.#onOther) listener(); }
  }
}
