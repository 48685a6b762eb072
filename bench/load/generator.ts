/**
 * The load generator as a process of its own: one JSON object a line in, one out. The first line is the setup; each
 * that follows names a scenario with its options, and is answered with the result or with `{"error": …}`. It ends
 * when its standard input does.
 *
 * Started by `load_process.ts`. It measures what a client sees; the servers are looked at from there.
 */
import { linesOf } from "./lines.ts";
import { Scenarios } from "./scenarios.ts";

/** What can be asked for. */
export type Scenario = Exclude<keyof Scenarios, "close">;

/** One line in, after the setup. */
export interface Order {
  readonly scenario: Scenario;
  readonly options: unknown;
}

/** One line out. */
export type Answer = { readonly result: unknown } | { readonly error: string };

async function run(): Promise<void> {
  const lines = linesOf(Deno.stdin.readable);
  const setup = await lines.next();
  if (setup.done) return;
  const scenarios = await Scenarios.open(JSON.parse(setup.value));
  answer({ result: "ready" });
  for await (const line of lines) {
    const { scenario, options } = JSON.parse(line) as Order;
    try {
      answer({ result: await scenarios[scenario](options as never) });
    } catch (error) {
      answer({ error: error instanceof Error ? error.stack ?? error.message : String(error) });
    }
  }
  scenarios.close();
}

function answer(answer: Answer): void {
  console.log(JSON.stringify(answer));
}

if (import.meta.main) {
  await run();
  Deno.exit(0); // sockets that are still open must not hold it
}
