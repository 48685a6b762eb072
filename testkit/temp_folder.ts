/**
 * A temporary folder that goes with the test, also when that fails:
 *
 *     using folder = new TempFolder("leak");
 *     await Deno.writeTextFile(`${folder}/keys`, "");
 */
export class TempFolder implements Disposable {
  readonly path: string;

  /**
   * @param subject For its name: "leak" makes "userwire-leak-…".
   * @param dir In which folder. @default that for temporary files
   */
  constructor(subject: string, dir?: string) {
    this.path = Deno.makeTempDirSync({ prefix: `userwire-${subject}-`, ...(dir !== undefined && { dir }) });
  }

  toString(): string {
    return this.path;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** Of the 104 characters that the path of a unix socket may have on some systems, what names of folders and files leave. */
const ROOM_FOR_SOCKETS = 36;

/** In which folder those are made that are to have unix sockets; undefined where the one for temporary files does. */
export function folderForSockets(temporary = Deno.env.get("TMPDIR") ?? "/tmp"): string | undefined {
  return temporary.length > ROOM_FOR_SOCKETS ? "/tmp" : undefined;
}
