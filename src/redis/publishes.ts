/**
 * Publishing, with an exact count. What is published while others are on their way goes out together, in one script: under
 * load that is half the work, for the service and for Redis, and when little is sent nothing waits.
 */
import type { BrokerUnavailableError } from "../errors.ts";
import { Script } from "./script.ts";

/** Not what PUBLISH answers is the count: that has whoever watches by pattern in it. */
export const PUBLISH = new Script(
  `
local counts = {}
for i = 1, #ARGV, 3 do
  local channel, count = ARGV[i], 0
  if ARGV[i + 2] == '' or redis.call('PUBSUB', 'NUMSUB', channel)[2] > 0 then
    -- One that is refused is no reason to refuse the others.
    count = redis.pcall('PUBLISH', channel, ARGV[i + 1])
    if type(count) == 'number' and count > 0 then count = redis.call('PUBSUB', 'NUMSUB', channel)[2] end
  end
  counts[#counts + 1] = count
end
-- Refused is one alone as any script is: so it is found out by trying.
if #counts == 1 and type(counts[1]) == 'table' then return counts[1] end
return counts
`,
  { probe: (tag) => ({ keys: [], args: [tag, "", ""] }) },
);

/** Runs the script: one answer, or one error, for each three arguments. */
export type Evaluate = (args: readonly string[]) => Promise<unknown[]>;

interface Publish {
  readonly channel: string;
  readonly payload: string;
  readonly onlyIfHeard: boolean;
  readonly resolve: (count: number) => void;
  readonly reject: (error: unknown) => void;
}

/** Scripts on their way at one time, if the next one is not full: with fewer Redis would wait for us. */
const AT_ONCE = 2;
/** What makes a script full: for so long Redis does nothing else. */
const FULL_COUNT = 100;
const FULL_CHARS = 64 * 1024;

export class Publishes {
  readonly #evaluate: Evaluate;
  #waiting: Publish[] = [];
  #chars = 0;
  #underWay = 0;

  constructor(evaluate: Evaluate) {
    this.#evaluate = evaluate;
  }

  /** @throws {BrokerUnavailableError} */
  publish(channel: string, payload: string, onlyIfHeard: boolean): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ channel, payload, onlyIfHeard, resolve, reject });
      this.#chars += payload.length;
      const isFull = this.#waiting.length >= FULL_COUNT || this.#chars >= FULL_CHARS;
      if (isFull || this.#underWay < AT_ONCE) this.#next();
    });
  }

  /** Lets go out what waits, so that nothing that is asked of Redis from now on overtakes it. */
  flush(): void {
    if (this.#waiting.length > 0) this.#next();
  }

  #next(): void {
    const page = this.#waiting;
    this.#waiting = [];
    this.#chars = 0;
    this.#underWay++;
    const args: string[] = [];
    for (const { channel, payload, onlyIfHeard } of page) args.push(channel, payload, onlyIfHeard ? "1" : "");
    this.#evaluate(args).then((counts) => {
      this.#onAnswer();
      page.forEach(({ resolve, reject }, i) => {
        const count = counts[i];
        if (count instanceof Error) reject(count);
        else resolve(count as number);
      });
    }, (error: BrokerUnavailableError) => {
      this.#onAnswer();
      for (const { reject } of page) reject(error);
    });
  }

  #onAnswer(): void {
    this.#underWay--;
    if (this.#underWay < AT_ONCE) this.flush();
  }
}
