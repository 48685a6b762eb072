/** The units of systemd and `deploy/Dockerfile`, as far as they can be tried without a running systemd and an engine. */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import manifest from "../../deno.json" with { type: "json" };
import { SETTINGS } from "../../src/config/settings.ts";
import { loadConfig } from "../../testkit/config.ts";
import { KEY } from "../../testkit/closed.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { ProcessService } from "../../testkit/process_service.ts";

const ROOT = new URL("../../", import.meta.url);
const UNIT = new URL("deploy/userwire@.service", ROOT);
const TARGET = new URL("deploy/userwire.target", ROOT);
/** Where both say that the project is. */
const HOME = "/opt/userwire/";
const decoder = new TextDecoder();

/** Every value that a name has in the unit, in order. */
function valuesIn(unit: string, name: string): string[] {
  return [...unit.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value!);
}

/** The program that a path of the unit or the image stands for. */
async function assertProgram(path: string): Promise<void> {
  assert(path.startsWith(HOME), path);
  const { isFile, mode } = await Deno.stat(new URL(path.slice(HOME.length), ROOT));
  assert(isFile && (mode! & 0o111) === 0o111, `${path} can be run`);
}

async function hasSystemd(): Promise<boolean> {
  const look = () => new Deno.Command("systemd-analyze", { args: ["--version"] }).output();
  return await look().then(({ success }) => success, () => false);
}

const isSystemdHere = await hasSystemd();
if (!isSystemdHere) console.warn("The units are not checked: there is no systemd-analyze here");

Deno.test({
  name:
    "systemd understands every line of deploy/userwire@.service and deploy/userwire.target, and finds few rights",
  ignore: !isSystemdHere,
  async fn() {
    const dir = await Deno.makeTempDir({ prefix: "userwire-unit-" });
    const analyze = (...args: string[]) => new Deno.Command("systemd-analyze", { args }).output();
    try {
      const [node, target] = [`${dir}/userwire@8765.service`, `${dir}/userwire.target`];
      // A unit names programs without quotes: the project may be anywhere, also where spaces are.
      await Deno.symlink(fileURLToPath(ROOT), `${dir}/home`);
      for (const [from, to] of [[UNIT, node], [TARGET, target]] as const) {
        await Deno.writeTextFile(to, (await Deno.readTextFile(from)).replaceAll(HOME, `${dir}/home/`));
      }
      const { code, stderr } = await analyze("verify", node, target);
      // Of a line that it passes over it only says so.
      assertEquals([code, decoder.decode(stderr)], [0, ""]);
      // Of 100; a unit without such lines has 96.
      const security = await analyze("security", "--offline=true", "--threshold=20", "--no-pager", node);
      assertEquals(security.code, 0, decoder.decode(security.stdout));
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
});

Deno.test("deploy/userwire@.service starts a program that exists, with settings that exist, and room for its sockets", async () => {
  const unit = await Deno.readTextFile(UNIT);
  const [start, ...others] = valuesIn(unit, "ExecStart");
  assertEquals(others, []);
  await assertProgram(start!.split(" ")[0]!);
  const names = valuesIn(unit, "Environment").map((pair) => pair.split("=")[0]);
  const known = ["DENO_DIR", ...Object.values(SETTINGS).map(({ env }) => env)];
  assertEquals(names.filter((name) => !known.includes(name!)), []);

  const { maxConnections, drainS } = loadConfig({ env: {} });
  const [files] = valuesIn(unit, "LimitNOFILE").map(Number);
  assertGreater(files! * 0.9, 2 * maxConnections);
  assert(files! <= 32_768, "the service looks for its limit up to there");
  assertGreater(Number(valuesIn(unit, "TimeoutStopSec")[0]), drainS + 2);
});

Deno.test("The command of deploy/userwire@.service listens on its port and has its name, whatever all nodes share", async () => {
  using port = OwnPort.take();
  const [start] = valuesIn(await Deno.readTextFile(UNIT), "ExecStart");
  const args = start!.replaceAll("%i", `${port}`).replaceAll("%H", "host").split(" ").slice(1);
  const shared = { PORT: "1", USERWIRE_NODE: "shared" };
  await using service = await ProcessService.start(shared, { through: "bin", args });
  const { node, url } = await service.logged("listening");
  assertEquals([node, url], [`host:${port}`, `http://127.0.0.1:${port}/`]);
  assertEquals([...Deno.readDirSync(service.logDir)].map(({ name }) => name), [`userwire-host_${port}.log`]);
});

Deno.test("The program answers the signals of deploy/userwire@.service as it says", async () => {
  const unit = await Deno.readTextFile(UNIT);
  await using service = await ProcessService.start({ USERWIRE_DRAIN_S: "0" }, { through: "bin" });
  const [, reload] = /^\/bin\/sh -c "kill -(\w+) \$MAINPID"$/.exec(valuesIn(unit, "ExecReload")[0]!)!;
  service.signal(`SIG${reload}` as Deno.Signal);
  await service.logged("reloaded");
  service.signal(valuesIn(unit, "KillSignal")[0]! as Deno.Signal);
  assertEquals((await service.ended()).code, 0);
  assertEquals(valuesIn(unit, "Restart"), ["on-failure"]);
});

/** A stage of the Dockerfile: its instructions, and what follows each. */
type Stage = readonly (readonly [instruction: string, rest: string])[];

/** By their names. */
function stagesOf(dockerfile: string): Map<string, Stage> {
  const text = dockerfile.replaceAll(/^#.*\n/gm, "").replaceAll("\\\n", " ");
  return new Map(
    text.split(/^(?=FROM )/m).filter((stage) => stage.startsWith("FROM ")).map((stage) => {
      const steps = Array.from(
        stage.matchAll(/^([A-Z]+) (.*)$/gm),
        ([, name, rest]) => [name!, rest!] as const,
      );
      return [/ AS (\w+)$/.exec(steps[0]![1])![1]!, steps];
    }),
  );
}

Deno.test("What deploy/Dockerfile copies is all that the program needs, and its command runs there", async () => {
  const stages = stagesOf(await Deno.readTextFile(new URL("deploy/Dockerfile", ROOT)));
  const all = (stage: string, name: string) =>
    stages.get(stage)!.filter(([instruction]) => instruction === name).map(([, rest]) => rest);
  const [, version] = /needs Deno (\d+\.\d+) /.exec(await Deno.readTextFile(new URL("bin/userwire", ROOT)))!;
  assertEquals(all("deno", "FROM").map((base) => base.replace(/\.\d+ AS \w+$/, "")), [
    `denoland/deno:bin-${version}`,
  ]);
  const dir = await Deno.makeTempDir({ prefix: "userwire-image-" });
  try {
    const copy = async (stage: string) => {
      for (const step of all(stage, "COPY").filter((step) => !step.startsWith("--from="))) {
        const words = step.split(" ");
        const to = words.pop()!;
        for (const from of words) {
          // A folder's content goes into the folder, a file into "./" or where it says.
          const target = to === "./" ? `${dir}/${from}` : `${dir}/${to}`;
          await Deno.mkdir(new URL(".", `file://${target}`), { recursive: true });
          const source = fileURLToPath(new URL(from, ROOT));
          const { success } = await new Deno.Command("cp", { args: ["-R", source, target] }).output();
          assert(success, step);
        }
      }
    };
    const run = async (stage: string) => {
      const [step, ...others] = all(stage, "RUN").map((step) => step.split(" "));
      assertEquals([step![0], others], ["deno", []]);
      return await new Deno.Command(Deno.execPath(), { args: step!.slice(1), cwd: dir }).output();
    };
    await copy("fetch");
    const { code, stderr } = await run("fetch");
    assertEquals(code, 0, decoder.decode(stderr));

    const [entry, ...args] = JSON.parse(all("sources", "ENTRYPOINT")[0]!) as string[];
    await assertProgram(entry!);
    assertEquals(args, []);
    const set = Object.fromEntries(all("base", "ENV")[0]!.split(" ").map((pair) => pair.split("=")));
    assertEquals(Object.keys(set), ["HOST", "LOG_DIR", "LOG_FORMAT"]);
    assertEquals(all("base", "EXPOSE"), [String(loadConfig({ env: {} }).port)]);
    await using service = await ProcessService.start({ HOST: set.HOST!, USERWIRE_API_KEYS: KEY.line }, {
      through: "bin",
      root: new URL(`file://${dir}/`),
    });
    assertEquals((await service.logged("listening")).version, manifest.version);
    const check = (port: string) => {
      const [, text] = /^.*? CMD (\[.*\])$/.exec(all("base", "HEALTHCHECK")[0]!)!;
      const [program, ...args] = JSON.parse(text!) as string[];
      return new Deno.Command(program!, { args, env: { PORT: port }, stdout: "null", stderr: "null" })
        .output();
    };
    const { port } = new URL(service.url);
    assertEquals((await check(port)).code, 0);
    service.signal("SIGTERM");
    assertEquals((await service.ended()).code, 0);
    assert((await check(port)).code !== 0, "nobody is there any more");

    await copy("compile");
    const compiled = await run("compile");
    if (!compiled.success) assertMatch(decoder.decode(compiled.stderr), /^error: Can't get denort /);
    else assert((await Deno.stat(`${dir}/dist/userwire`)).isFile);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
