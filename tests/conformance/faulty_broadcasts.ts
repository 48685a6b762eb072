/** The broadcasts of the faulty client: as the protocol has them, but for the fault that it is given. */
import type { Host } from "./faulty_requests.ts";

type Fields = Record<string, unknown>;

export class Broadcasts {
  readonly #host: Host;
  /** The position among them. */
  #position: string | undefined;

  constructor(host: Host) {
    this.#host = host;
  }

  /** What to come back with. */
  get all(): string | undefined {
    const { has } = this.#host;
    if (has("broadcast-resume") || has("broadcast-resume-from-hi")) return undefined;
    return this.#position ?? (has("broadcast-without-history") ? "b.0" : undefined);
  }

  startAt(all: unknown): void {
    if (this.#position === undefined && all !== undefined) this.#position = String(all);
  }

  onMessage({ seq = null, tag, data, enc }: Fields): void {
    const { has, write } = this.#host;
    if (typeof seq === "number" && this.#position !== undefined) {
      const [epoch, number] = this.#position.split(".");
      if (seq <= Number(number) && !has("broadcast-duplicates")) return;
      this.#moveTo(`${epoch}.${seq}`, tag);
    }
    write({ broadcast: seq, ...(enc === "base64" && !has("broadcast") ? { base64: data } : { data }) });
  }

  onGap({ from, to, count, why, pos, tag }: Fields): void {
    const { has, write } = this.#host;
    if (!has("broadcast-gap")) write({ bgap: why, from, to, count });
    if (!has("broadcast-resume-after-gap")) this.#moveTo(String(pos), tag);
  }

  #moveTo(position: string, tag: unknown): void {
    this.#position = tag === undefined ? position : `${position}.${tag}`;
  }
}
