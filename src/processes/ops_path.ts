/** Where one of several processes answers its supervisor: a unix socket in a folder that only the service's user can open. */
import { dirname } from "node:path";
import { ConfigError } from "../protocol/errors.ts";

/** Most bytes of a unix socket's path, on Linux. */
const MAX_PATH_BYTES = 107;

/**
 * Makes the folder, not the socket. Each process has a folder of its own, which goes with it: one that all had would have
 * to outlive the first to end, and be there for the last to start, also when no supervisor is left to see to that.
 */
export class OpsPath {
  readonly text: string;

  /** @throws {ConfigError} when the path would be too long for a socket. */
  constructor() {
    this.text = `${Deno.makeTempDirSync({ prefix: "userwire-" })}/ops.sock`;
    if (new TextEncoder().encode(this.text).length <= MAX_PATH_BYTES) return;
    this.remove();
    throw new ConfigError([
      `TMPDIR: its path is too long for the unix sockets in it: set a shorter one, such as /tmp`,
    ]);
  }

  /** Removes the folder, with the socket when that is there. */
  remove(): void {
    try {
      Deno.removeSync(dirname(this.text), { recursive: true });
    } catch {
      // The process has done it.
    }
  }
}
