/** `userwire doctor` and `serve --check`, on what needs nobody else: settings, machine, files. Each fault is a real one. */
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { generateKeyPairSync } from "node:crypto";
import { newKey } from "../../src/auth/keys.ts";
import { lookAtFiles } from "../../src/doctor/files.ts";
import type { Finding } from "../../src/doctor/finding.ts";
import { lookAtSystem, type Machine } from "../../src/doctor/system.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { serveOther, Terminal } from "../../testkit/cli_terminal.ts";
import { loadConfig } from "../../testkit/config.ts";
import { newPair, Signer } from "../../testkit/key_signer.ts";
import { Service } from "../../testkit/service.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

const MACHINE: Machine = { deno: "2.9.6", openFiles: undefined, localPorts: [1024, 65_535] };
const SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2";

/** What the command finds, as JSON. */
async function doctor(env: Record<string, string>, args: string[] = []) {
  const io = new Terminal();
  const code = await io.run(["doctor", "--json", ...args], { PORT: "0", ...env });
  assertEquals(io.stderr, "");
  const { findings } = JSON.parse(io.stdout) as { findings: Finding[] };
  return { code, findings, text: io.stdout };
}

/** Those of a check that are not as they should be. */
function wrong(findings: readonly Finding[], check: string): string[] {
  return findings.filter((one) => one.check === check && one.state !== "ok")
    .map(({ state, says, remedy }) => `${state}: ${says} → ${remedy}`);
}

Deno.test("serve --check says all that is wrong with the settings, starts nothing, and exits with 2", async () => {
  using folder = new TempFolder("doctor");
  const io = new Terminal();
  const env = {
    PORT: "70000",
    USERWIRE_JWT_SECRET: "short",
    USERWIRE_TLS_CERT: "x",
    LOG_DIR: `${folder}/logs`,
  };
  assertEquals(await io.run(["serve", "--check", "--history", "x"], env), 2);
  assertEquals(io.stderr, "");
  for (
    const name of [
      "PORT must be",
      "--history must be",
      "USERWIRE_JWT_SECRET must have at least 32",
      "set both",
    ]
  ) {
    assert(io.stdout.includes(name), `${name} in ${io.stdout}`);
  }
  assertMatch(io.stdout, /^✗ settings: PORT must be .* but is "70000": correct it, or leave it out/m);
  assertNotMatch(io.stdout, /redis:|short/);
  assertEquals([...Deno.readDirSync(folder.path)], []);
});

Deno.test("A set-up in which all is well has only ✓, and exit code 0", async () => {
  using folder = new TempFolder("doctor");
  const { line } = newKey("shop", { scopes: ["send"] });
  const args = ["--port=0", `--log-dir=${folder}`, "--max-connections=100", "--redis-url=redis://h"];
  const io = new Terminal();
  const code = await io.run(["serve", "--check", ...args], {
    USERWIRE_API_KEYS: line,
    USERWIRE_JWT_SECRET: SECRET,
  });
  assertEquals(code, 0, io.stdout);
  for (const one of io.stdout.trim().split("\n")) assertMatch(one, /^✓ /);
  assertMatch(io.stdout, /USERWIRE_API_KEYS \(variable\)/);
  assertMatch(io.stdout, /PORT \(flag\)/);
  assertNotMatch(io.stdout, /hunter2/);
});

Deno.test("Open mode, wide origins and missing keys are warnings that say what they open", async () => {
  const open = await doctor({ USERWIRE_ALLOWED_ORIGINS: "*,https://*.example.com" });
  assertEquals(open.code, 1);
  assertMatch(wrong(open.findings, "keys")[0]!, /any program on this machine may .* → .*userwire key new/);
  const origins = wrong(open.findings, "origins");
  assertEquals(origins.length, 2);
  assertMatch(origins[0]!, /has \*: pages of every site/);
  const tokens = await doctor({ USERWIRE_JWT_SECRET: SECRET });
  assertMatch(wrong(tokens.findings, "keys")[0]!, /nobody may send by HTTP/);
});

Deno.test("A machine that is too small or too old for its settings is said to be, with the figures that suit", async (t) => {
  const look = async (machine: Partial<Machine>, env = {}) =>
    await lookAtSystem(
      loadConfig({ env: { PORT: "0", REDIS_URL: "redis://h", USERWIRE_MAX_CONNECTIONS: "10000", ...env } }),
      { ...MACHINE, ...machine },
    );
  await t.step("Deno", async () => {
    for (const deno of ["2.8.9", "1.46.0"]) {
      assertMatch(wrong(await look({ deno }), "deno")[0]!, /^fault: .* older than 2\.9 → install Deno 2\.9/);
    }
    for (const deno of ["2.9.0", "2.10.1", "3.0.0"]) assertEquals(wrong(await look({ deno }), "deno"), []);
  });
  await t.step("open files", async () => {
    const [small] = wrong(await look({ openFiles: 1_024 }), "open files");
    assertMatch(
      small!,
      /warning: .* may open 1024, .* take 21000 → .*ulimit -n 21000.*USERWIRE_MAX_CONNECTIONS to 487$/,
    );
    assertEquals(wrong(await look({ openFiles: 21_000 }), "open files"), []);
    const shared = { USERWIRE_SUBSCRIPTIONS: "shared" };
    assertEquals(wrong(await look({ openFiles: 11_000 }, shared), "open files"), []);
  });
  await t.step("local ports", async () => {
    const few = { localPorts: [40_000, 40_199] as const };
    assertMatch(wrong(await look(few), "local ports")[0]!, /there are 200 .* → widen net\.ipv4/);
    for (const env of [{ USERWIRE_SUBSCRIPTIONS: "shared" }, { REDIS_URL: "unix:///run/redis.sock" }]) {
      assertEquals(wrong(await look(few, env), "local ports"), []);
    }
  });
});

Deno.test("A port is free, has a node already, or is taken by somebody else", async () => {
  const look = async (port: string | number) =>
    (await lookAtSystem(loadConfig({ env: { PORT: String(port) } }), MACHINE)).find(({ check }) =>
      check === "port"
    )!;
  await using service = await Service.start();
  await using other = serveOther(() => new Response("hello"));
  assertMatch((await look(0)).says, /free/);
  assertMatch((await look(service.server.port)).says, /^a node serves on http:/);
  const taken = await look(new URL(other.url).port);
  assertEquals(taken.state, "fault");
  assertMatch(taken.says, /is in use on 127\.0\.0\.1: stop what listens there/);
});

Deno.test("Files: a log folder that can't be written, certificates that end, secrets that others can read", async (t) => {
  using folder = new TempFolder("doctor");
  await using made = await Certificates.make();
  const look = (env: Record<string, string>) => lookAtFiles(loadConfig({ env }));
  await t.step("the folder of the log", () => {
    Deno.writeTextFileSync(`${folder}/file`, "");
    const [found] = wrong(look({ LOG_DIR: `${folder}/file/logs` }), "log folder");
    assertMatch(found!, /^fault: .* can't be written: .* → set LOG_DIR/);
    assertMatch(look({ LOG_DIR: `${folder}/deep/logs` })[0]!.says, /can be made/);
    assertEquals([...Deno.readDirSync(folder.path)].map(({ name }) => name), ["file"]);
  });
  await t.step("certificates", () => {
    // Made for two days.
    const env = { USERWIRE_TLS_CERT: made.cert("server"), USERWIRE_TLS_KEY: made.key("server") };
    assertMatch(wrong(look(env), "certificate")[0]!, /^warning: USERWIRE_TLS_CERT ends on 20\d\d-.*SIGHUP/);
    using clock = new TurnedClock();
    clock.setWallClock(3 * 86_400_000);
    assertMatch(wrong(look(env), "certificate")[0]!, /^fault: USERWIRE_TLS_CERT ended on 20/);
    clock.setWallClock(-6 * 86_400_000);
    assertMatch(wrong(look(env), "certificate")[0]!, /^fault: USERWIRE_TLS_CERT is not valid yet/);
  });
  await t.step("rights", () => {
    const path = `${folder}/redis-url`;
    Deno.writeTextFileSync(path, "redis://:hunter2@h");
    Deno.chmodSync(path, 0o644);
    assertMatch(
      wrong(look({ REDIS_URL_FILE: path }), "rights")[0]!,
      /every user .* can read .*redis-url.* → .*chmod o-r/,
    );
    Deno.chmodSync(path, 0o640);
    assertEquals(wrong(look({ REDIS_URL_FILE: path }), "rights"), []);
  });
});

Deno.test("Token keys: whether they come, which there are, and whether they can be used", async (t) => {
  const { jwk } = await newPair();
  await using signer = new Signer({ ...jwk, kid: "main" });
  const env = { USERWIRE_JWKS_URL: signer.url };
  await t.step("they come", async () => {
    const { findings } = await doctor(env);
    assertEquals(wrong(findings, "jwks"), []);
    assertMatch(findings.find(({ check }) => check === "jwks")!.says, /keys are published: "main"/);
  });
  await t.step("one of them can't be used", async () => {
    signer.publish({ ...jwk, kid: "main" }, 7);
    const { code, findings } = await doctor(env);
    assertEquals(code, 1);
    assertEquals(wrong(findings, "jwks").length, 1, JSON.stringify(findings));
  });
  await t.step("there is none", async () => {
    signer.publish();
    const { code, findings } = await doctor(env);
    assertEquals(code, 2);
    assertMatch(wrong(findings, "jwks").join(), /fault: no key that verifies signatures/);
  });
  await t.step("what answers is no key set", async () => {
    signer.answer = () => new Response("<html>");
    assertMatch(
      wrong((await doctor(env)).findings, "jwks")[0]!,
      /fault: USERWIRE_JWKS_URL can't be used: .*JSON/,
    );
  });
  await t.step("nobody answers", async () => {
    await using gone = serveOther(() => new Response());
    const url = gone.url;
    await gone[Symbol.asyncDispose]();
    assertMatch(wrong((await doctor({ USERWIRE_JWKS_URL: url })).findings, "jwks")[0]!, /^fault: /);
  });
});

Deno.test("What keeps the doctor from looking is a fault like others, also as JSON, and never a warning", async () => {
  const { code, findings } = await doctor({}, ["--config", "/nowhere/userwire.json"]);
  assertEquals([code, findings.length], [2, 1]);
  assertMatch(
    wrong(findings, "doctor")[0]!,
    /^fault: --config \/nowhere\/userwire\.json can't be read: there is no such/,
  );
  const { code: other, findings: none } = await doctor({}, ["--url", "nowhere"]);
  assertEquals([other, none.length], [2, 1]);
  assertMatch(wrong(none, "doctor")[0]!, /^fault: --url must be an http:/);
});

Deno.test("A public key where the private one belongs is said by the settings, and never shown", async () => {
  const { privateKey } = generateKeyPairSync("ed25519", {
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
  const { code, findings, text } = await doctor({ USERWIRE_JWT_PUBLIC_KEY: privateKey });
  assertEquals(code, 2);
  assertMatch(wrong(findings, "settings")[0]!, /give the public half/);
  assert(!text.includes(privateKey.split("\n")[1]!));
});
