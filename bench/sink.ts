/**
 * Where results of micro benchmarks go, so that the engine can't find out that nobody wants them and leave the work
 * out. Looks at as little of a result as makes it count.
 */
export class Sink {
  #total = 0;

  take(result: string | number | boolean | Uint8Array | object | undefined): void {
    if (typeof result === "string" || result instanceof Uint8Array) this.#total += result.length;
    else if (typeof result === "number") this.#total += result;
    else if (result) this.#total++;
  }

  get total(): number {
    return this.#total;
  }
}
