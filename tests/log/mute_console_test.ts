/**
 * A service whose console takes nothing, as a file on a full disk or a terminal that was closed: it serves on, its log
 * file has every line, and it ends in order.
 */
import { assertEquals } from "@std/assert";
import { until, withDeadline } from "../../testkit/deadline.ts";
import type { LogRecord } from "../../testkit/process_service.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { openClient } from "../../testkit/ws_client.ts";

const ROOT = new URL("../../", import.meta.url);
const START_MS = 30_000;

/** A service that writes to /dev/full, which is a disk without room. It ends, and its log goes, with the test. */
class MuteService implements AsyncDisposable {
  readonly #logDir = Deno.makeTempDirSync({ prefix: "userwire-logs-" });
  readonly #child: Deno.ChildProcess;
  #hasEnded = false;

  constructor(env: Record<string, string>) {
    const { PATH = "", HOME = "", DENO_DIR = `${HOME}/.cache/deno` } = Deno.env.toObject();
    this.#child = new Deno.Command("sh", {
      args: ["-c", 'exec "$0" "$@" >/dev/full 2>&1', Deno.execPath(), "run", "-A", "main.ts"],
      cwd: ROOT,
      clearEnv: true,
      env: {
        ...{ PATH, HOME, DENO_DIR, NO_COLOR: "1" },
        ...{ PORT: "0", USERWIRE_NODE: "mute", LOG_DIR: this.#logDir, ...env },
      },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#child.status.then(() => this.#hasEnded = true);
  }

  /** The whole lines of the log file. */
  records(): LogRecord[] {
    try {
      const text = Deno.readTextFileSync(`${this.#logDir}/userwire-mute.log`);
      return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** Waits until the log file has the event, and returns its record. */
  async logged(event: string): Promise<LogRecord> {
    const find = () => this.records().find((record) => record.event === event);
    const isThere = () => {
      if (this.#hasEnded) throw new Error("The service has ended");
      return find() !== undefined;
    };
    await until(isThere, `the log file to say "${event}"`, START_MS);
    return find()!;
  }

  signal(name: Deno.Signal): void {
    if (!this.#hasEnded) this.#child.kill(name);
  }

  async ended(): Promise<number> {
    return (await withDeadline(this.#child.status, START_MS, "the service to end")).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.signal("SIGKILL");
    await this.ended();
    await Deno.remove(this.#logDir, { recursive: true });
  }
}

redisTest(
  "Service whose console refuses every line serves, warns in its file, and ends with 0 on SIGTERM",
  async () => {
    await using redis = await RedisServer.start();
    await using service = new MuteService({ REDIS_URL: redis.url });
    const url = String((await service.logged("listening")).url);
    const reached = async (text: string): Promise<unknown> => {
      const response = await fetch(new URL("/v1/users/alice/messages", url), { method: "POST", body: text });
      return (await response.json()).sockets;
    };
    const socketUrl = `${url.replace("http:", "ws:")}?username=alice`;
    await using alice = await openClient(socketUrl);
    assertEquals(await reached("hi"), 1);
    assertEquals(await alice.next(), "hi");

    // What warns, in the midst of the work.
    await redis.restart();
    await service.logged("redis unavailable");
    await until(async () => await reached("again") === 1, "a send to reach alice again", START_MS);
    assertEquals(await alice.next(), "again");
    service.signal("SIGHUP"); // which a terminal sends when it is closed
    await service.logged("reloaded");

    service.signal("SIGTERM");
    assertEquals((await alice.closed).code, 1012);
    assertEquals(await service.ended(), 0);
    const events = service.records().map(({ event }) => event);
    assertEquals(events.filter((event) => event === "console can't be written").length, 1);
    assertEquals(events.filter((event) => event === "unexpected error"), []);
    assertEquals(events.at(-1), "stopped");
  },
);
