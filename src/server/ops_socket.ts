/**
 * The unix socket at which one of several processes answers its supervisor, with what it alone knows: its readiness and its
 * metrics. It lies in a folder that only the service's user can open.
 */
import { dirname } from "node:path";

export class OpsSocket {
  readonly #path: string;
  readonly #server: Deno.HttpServer<Deno.UnixAddr>;

  /** @param path Must not exist yet. */
  constructor(path: string, answer: (request: Request) => Response | Promise<Response>) {
    this.#path = path;
    this.#server = Deno.serve({ path, onListen() {} }, answer);
  }

  async close(): Promise<void> {
    await this.#server.shutdown();
    remove(this.#path);
    // The supervisor does it, unless it has died: then the last process to end finds the folder empty.
    remove(dirname(this.#path));
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // Not there any more, or a folder that others are in.
  }
}
