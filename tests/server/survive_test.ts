/** What nobody catches: a service writes it down and goes on. In a process of its own, which it would end. */
import { assertEquals } from "@std/assert";
import { stretched } from "../../testkit/deadline.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

const ROOT = new URL("../../", import.meta.url);

Deno.test("Service outlives exceptions that nobody catches, also those that can't be read", async () => {
  using folder = new TempFolder("survive");
  const dir = folder.path;
  const program = `
    import { loadConfig } from "./testkit/config.ts";
    import { serve } from "./src/server/run.ts";
    const dir = ${JSON.stringify(dir)};
    const stop = new AbortController();
    const env = { PORT: "0", USERWIRE_NODE: "faulty", USERWIRE_DRAIN_S: "0", LOG_DIR: dir };
    const ended = serve(loadConfig({ env, flags: {} }), { stop: stop.signal });
    Promise.reject(Object.create(null));
    setTimeout(() => { throw Object.create(null); });
    setTimeout(() => { throw new Error("plain"); });
    const count = () => Deno.readTextFileSync(dir + "/userwire-faulty.log").split("unexpected error").length - 1;
    do await new Promise((resolve) => setTimeout(resolve, 5)); while (count() < 3);
    stop.abort();
    Deno.exit(await ended);
  `;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "-"],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const kill = setTimeout(() => child.kill("SIGKILL"), stretched(60_000));
  const output = child.output().finally(() => clearTimeout(kill));
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(program));
  await writer.close();
  const { code, stderr } = await output;
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const text = await Deno.readTextFile(`${dir}/userwire-faulty.log`);
  const records = text.trimEnd().split("\n").map((line) => JSON.parse(line));
  const unexpected = records.filter(({ event }) => event === "unexpected error");
  assertEquals(unexpected.map(({ reason }) => reason).sort(), ["[unreadable]", "[unreadable]", "plain"]);
  assertEquals(records.at(-1)?.event, "stopped");
});
