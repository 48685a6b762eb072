/** What the stages of `deno task scale` have in common, and one of them: a Redis that has room for few. */
import { until } from "../testkit/deadline.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { LoadProcess } from "./load_process.ts";
import { RedisWatch } from "./redis_watch.ts";
import { portOf, startUserwire } from "./systems.ts";

export interface Surroundings {
  readonly dir: string;
  readonly own: (started: AsyncDisposable) => void;
  readonly findings: Findings;
}

/** Prints what is found, and keeps what is wrong. */
export class Findings {
  readonly violations: string[] = [];

  /** A line of the report. */
  say(what: string, text: string): void {
    console.log(`  ${what.padEnd(20)}${text}`);
  }

  expect(isSo: boolean, claim: string): void {
    if (!isSo) this.violations.push(claim);
  }
}

/** Handshakes at one time. */
const AT_ONCE = 64;
const SMALL_MAX_CLIENTS = 300;
const TOO_MANY = 400;
const AGAIN = 50;
/** The service asks Redis every second how full it is. */
const ROOM_MS = 5_000;

/** A Redis with room for few: 503 for whoever comes too late, and commands go on. */
export async function refusals({ dir, own, findings }: Surroundings): Promise<void> {
  await using stack = new AsyncDisposableStack();
  own(stack);
  console.log(`\nrefusals: ${TOO_MANY} sockets want in, and Redis takes ${SMALL_MAX_CLIENTS} connections`);
  const redis = stack.use(await RedisServer.start({ args: ["--maxclients", String(SMALL_MAX_CLIENTS)] }));
  const watch = stack.use(await RedisWatch.connect(redis.port));
  const service = stack.use(startUserwire({
    dir: await Deno.makeTempDir({ dir }),
    env: { PORT: "0", REDIS_URL: redis.url },
  }));
  const port = await portOf(service);
  const load = stack.use(
    LoadProcess.start({ ports: [port], by: "publish", redisPort: redis.port, bytes: 128 }),
  );

  const { opened, refused, broken } = await load.run("openUsers", { users: TOO_MANY, atOnce: AT_ONCE });
  findings.say("opened", `${opened}; refused: ${JSON.stringify(refused)}; broken: ${broken}`);
  findings.expect(
    opened > 0 && opened < SMALL_MAX_CLIENTS && refused[503] === TOO_MANY - opened && broken === 0,
    `refusals: of ${TOO_MANY} sockets ${opened} opened, refused were ${
      JSON.stringify(refused)
    }, not all others with 503`,
  );
  const rejected = await watch.info("stats", "rejected_connections");
  findings.say("rejected by Redis", String(rejected));
  findings.expect(rejected === 0, `refusals: Redis itself had to reject ${rejected} connections`);

  const url = `http://127.0.0.1:${port}`;
  const sent = await fetch(`${url}/v1/users/u0/messages`, { method: "POST", body: "hello" });
  const { sockets } = await sent.json();
  const ready = await fetch(`${url}/readyz`);
  await ready.body?.cancel();
  findings.say("commands", `a send reaches ${sockets} socket, /readyz answers ${ready.status}`);
  findings.expect(sent.status === 200 && sockets === 1, `refusals: a send was answered with ${sent.status}`);
  findings.expect(ready.status === 200, `refusals: /readyz answered ${ready.status}`);

  await load.run("closeUsers", {});
  let again = 0;
  await until(
    async () => {
      again +=
        (await load.run("openUsers", { users: AGAIN - again, firstUser: again, atOnce: AGAIN })).opened;
      return again === AGAIN;
    },
    "new sockets to be let in again",
    ROOM_MS,
  ).catch(() => {});
  findings.say("let in afterwards", `${again} of ${AGAIN}`);
  findings.expect(again === AGAIN, `refusals: only ${again} of ${AGAIN} new sockets were let in afterwards`);
}
