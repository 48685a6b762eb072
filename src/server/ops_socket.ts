/**
 * The unix socket at which one of several processes answers its supervisor, with what it alone knows: its readiness and its
 * metrics.
 */
import { dirname } from "node:path";

export class OpsSocket {
  readonly #path: string;
  readonly #server: Deno.HttpServer<Deno.UnixAddr>;

  /** @param path In a folder that is this socket's own, and is removed with it. */
  constructor(path: string, answer: (request: Request) => Response | Promise<Response>) {
    this.#path = path;
    this.#server = Deno.serve({ path, onListen() {} }, answer);
  }

  async close(): Promise<void> {
    await this.#server.shutdown();
    // The supervisor does it too, unless it has died. Only what is empty goes: the path may be anything.
    remove(this.#path);
    remove(dirname(this.#path));
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // Not there any more, or a folder with something else in it.
  }
}
