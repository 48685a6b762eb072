/**
 * The conformance kit: clients that keep the rules pass, and for each rule a client that breaks it is found out. Most
 * run in this process, all cases at once; the command itself is tried with a few.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import type { Case } from "../../conformance/case.ts";
import type { StartProgram } from "../../conformance/program.ts";
import { CASES, run, type Verdict } from "../../conformance/run.ts";
import { drive } from "../../conformance/drivers/javascript.ts";
import { readPage } from "../../testkit/pages.ts";
import { hasPythonWebsockets } from "../../testkit/programs.ts";
import { startFaulty } from "./faulty_client.ts";
import { PythonHost } from "./python_host.ts";

const PATIENT_MS = 20_000;
/** Where what is waited for can't come. */
const HASTY_MS = 500;
/** The only ones that take long, and so go at another pace. */
const TIMED = [
  ...["backs-off", "backs-off-when-let-in", "backs-off-anew", "silence", "quiet"],
];
const PACE = 0.2;
const AT_ONCE = 16;
/** Of a client that was not found out among others. */
const TRIES = 3;

function faultsOf(verdicts: readonly Verdict[]): string[] {
  return verdicts.filter(({ fault }) => fault !== undefined).map(({ case: { name }, fault }) =>
    `${name}: ${fault}`
  );
}

/** @param startAt What starts the program at a pace. */
async function assertKept(
  startAt: (pace: number) => StartProgram,
  cases: readonly Case[] = CASES,
): Promise<void> {
  const isTimed = ({ name }: Case) => TIMED.includes(name);
  const others = cases.filter((one) => !isTimed(one));
  const common = { patienceMs: PATIENT_MS, atOnce: cases.length };
  const verdicts = await run(others, { ...common, start: startAt(1), pace: 1 });
  // By themselves, lest a busy machine is taken for a silent server.
  verdicts.push(...await run(cases.filter(isTimed), { ...common, start: startAt(PACE), pace: PACE }));
  assertEquals(faultsOf(verdicts), []);
}

/** The client library, in this process. */
const startLibrary: StartProgram = (env, onChange) => {
  const lines: Record<string, unknown>[] = [];
  const client = drive(env, (line) => {
    lines.push(line);
    onChange();
  });
  client.on("error", () => {});
  const program = { lines, hasEnded: false, trouble: "", end: async () => void await client.close() };
  client.closed.then(() => {
    program.hasEnded = true;
    onChange();
  });
  return program;
};

Deno.test("The client library keeps every rule that a browser lets it know of", () => {
  return assertKept(() => startLibrary, CASES.filter(({ needsStatus }) => !needsStatus));
});

Deno.test({
  name: "The Python client keeps every rule",
  ignore: !hasPythonWebsockets(),
  async fn() {
    await using atRealPace = new PythonHost(1);
    await using atOwnPace = new PythonHost(PACE);
    await assertKept((pace) => (pace === 1 ? atRealPace : atOwnPace).start);
  },
});

Deno.test("A client of another making keeps every rule", () => assertKept(() => startFaulty()));

Deno.test("For each rule a client that breaks it is found out", async () => {
  const findsOut = async (one: Case) => {
    // Waits are compared with what chance can do; the fewer there are, the longer they must be.
    const pace = one.name.startsWith("backs-off") && one.name !== "backs-off-anew" ? 1 : PACE;
    const options = { start: startFaulty(one.name), patienceMs: HASTY_MS, pace, atOnce: 1 };
    const [verdict] = await run([one], options);
    return verdict!.fault === undefined ? [one] : [];
  };
  const missed: Case[] = [];
  for (let i = 0; i < CASES.length; i += AT_ONCE) {
    missed.push(...(await Promise.all(CASES.slice(i, i + AT_ONCE).map(findsOut))).flat());
  }
  // Who comes too early may have come late because so many others came, or because the machine stood still. By themselves they
  // can't hide each time.
  const hidden: string[] = [];
  for (const one of missed) {
    let tries = 0, isHidden = true;
    while (isHidden && tries++ < TRIES) isHidden = (await findsOut(one)).length > 0;
    if (isHidden) hidden.push(one.name);
  }
  assertEquals(hidden, []);
});

Deno.test("Each case has a name of its own, and a section of the page that is there", async () => {
  const names = CASES.map(({ name }) => name);
  assertEquals(new Set(names).size, names.length);
  const page = await readPage("docs/protocol.md");
  const sections = Array.from(
    page.matchAll(/^#+ (.+)$/gm),
    ([, heading]) => heading!.toLowerCase().replaceAll(" ", "-"),
  );
  assertEquals(CASES.filter(({ section }) => !sections.includes(section)), []);
  const kit = await readPage("docs/conformance.md");
  assertEquals(
    names.filter((name) => !kit.includes(`\`${name}\``)),
    [],
    "docs/conformance.md names them all",
  );
});

async function conform(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const main = fileURLToPath(new URL("../../conformance/main.ts", import.meta.url));
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", main, ...args],
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("The command runs a program, and says which rules it breaks and where they stand", async (t) => {
  const driver = fileURLToPath(new URL("../../conformance/drivers/javascript.ts", import.meta.url));
  const program = ["--", Deno.execPath(), "run", "-A", "--no-check", driver];
  await t.step("none", async () => {
    const { code, stdout, stderr } = await conform("--only", "username,gap", "--hides-status", ...program);
    assertEquals(code, 0, stdout + stderr);
    assertStringIncludes(stdout, "2 rules kept, 0 broken");
  });
  await t.step("one, without --", async () => {
    // It writes what it likes, and ends.
    const { code, stdout } = await conform(
      "--only",
      "subprotocol",
      "--patience",
      "1",
      "sh",
      "-c",
      "echo hello",
    );
    assertEquals(code, 1);
    assertStringIncludes(
      stdout,
      "BROKEN  subprotocol: offers the subprotocol userwire.v1, and no other but its token\n",
    );
    assertStringIncludes(stdout, "it has ended");
    assertStringIncludes(stdout, "docs/protocol.md#connecting\n");
    assertStringIncludes(stdout, "0 rules kept, 1 broken");
  });
  await t.step("a call that is wrong", async () => {
    for (
      const [args, fault] of [
        [["--only", "nonsense", "--", "true"], 'There is no rule "nonsense"'],
        [["--without", "gaps", "--", "true"], '--without takes broadcasts and requests, not "gaps"'],
        [["--pace", "0", "--", "true"], "--pace must be a number above 0"],
        [["--only", "gap", "--", "no-such-program"], 'There is no program "no-such-program"'],
        [["--list", "--wrong"], "--wrong"],
        [[], "Name the program after --"],
      ] as const
    ) {
      const { code, stderr } = await conform(...args);
      assertEquals(code, 2);
      assertStringIncludes(stderr, fault);
    }
    const { code, stdout } = await conform("--list");
    assertEquals(code, 0);
    assert(stdout.trim().split("\n").length === CASES.length);
  });
});
