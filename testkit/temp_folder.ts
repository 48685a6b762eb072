/**
 * A temporary folder that goes with the test, also when that fails:
 *
 *     using folder = new TempFolder("leak");
 *     await Deno.writeTextFile(`${folder}/keys`, "");
 */
export class TempFolder implements Disposable {
  readonly path: string;

  /** @param subject For its name: "leak" makes "userwire-leak-…". */
  constructor(subject: string) {
    this.path = Deno.makeTempDirSync({ prefix: `userwire-${subject}-` });
  }

  toString(): string {
    return this.path;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}
