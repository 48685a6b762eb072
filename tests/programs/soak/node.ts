/**
 * One node of the service for the soak: the real server in a process of its own, which tells what it holds when
 * it is asked. Asked how? A line on standard input: "report" collects garbage first and then tells the memory and the
 * sockets; "stop", or the end of the input, shuts it down. So it never outlives the soak.
 *
 *     deno run -A --v8-flags=--expose-gc tests/programs/soak/node.ts '{"REDIS_URL": "…"}' name
 */
import { loadConfig } from "../../../testkit/config.ts";
import { openLog } from "../../../src/log/open.ts";
import { startServer } from "../../../src/server/server.ts";
import { lines } from "./lines.ts";

/** What a node holds. Sizes in bytes. */
export interface Report {
  readonly heapUsed: number;
  readonly rss: number;
  /** Sessions that are not closing. */
  readonly sessions: number;
  /** Sockets that were asked to close and have not. */
  readonly closing: number;
}

declare const gc: () => void;

async function main(settings: string, name: string): Promise<void> {
  const config = loadConfig({ env: JSON.parse(settings) });
  // The console is the soak's line to us.
  const { logLevel: level, logDir: dir } = config;
  const log = openLog({ level, dir, name, format: "json", console: false });
  const server = await startServer(config, { log });
  console.log(JSON.stringify({ url: server.url }));

  const { connections } = server.app;
  for await (const line of lines(Deno.stdin.readable)) {
    if (line === "stop") break;
    // Twice, with a turn of the loop in between: what the first one finalizes is collected by the second.
    for (let i = 0; i < 2; i++) {
      gc();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const { heapUsed, rss } = Deno.memoryUsage();
    const report: Report = { heapUsed, rss, sessions: connections.size, closing: connections.closing };
    console.log(JSON.stringify(report));
  }
  await server.shutdown();
  log.close();
}

if (import.meta.main) {
  await main(Deno.args[0]!, Deno.args[1]!);
  // As main.ts does: a client that was reset during its handshake leaves something in Deno that never ends.
  Deno.exit(0);
}
