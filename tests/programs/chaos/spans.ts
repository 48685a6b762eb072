/** Spans of time, in milliseconds of one clock, in which something was not as usual. */
export class Spans {
  readonly #spans: { readonly fromMs: number; toMs: number }[] = [];

  /** A span begins, unless one is open. */
  begin(nowMs: number): void {
    if (this.#spans.at(-1)?.toMs !== Infinity) this.#spans.push({ fromMs: nowMs, toMs: Infinity });
  }

  /** The open span ends, if there is one. */
  end(nowMs: number): void {
    const last = this.#spans.at(-1);
    if (last?.toMs === Infinity) last.toMs = nowMs;
  }

  /** A span that is known as a whole; it must not begin before those that are there. */
  add(fromMs: number, toMs: number): void {
    this.#spans.push({ fromMs, toMs });
  }

  /** How many of them have a moment in common with this stretch of time. */
  touching(fromMs: number, toMs: number): number {
    return this.#spans.filter((span) => span.fromMs <= toMs && span.toMs >= fromMs).length;
  }
}
