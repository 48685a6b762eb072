/** `--config FILE` and `userwire config`: what the file may say, who wins, what every fault says, and what is hidden. */
import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { readSettingsFile } from "../../src/config/file.ts";
import { ConfigError } from "../../src/protocol/errors.ts";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { loadConfig } from "../../testkit/config.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

/** Writes a file that only its owner may read. */
function write(folder: TempFolder, content: unknown, mode = 0o600): string {
  const path = `${folder}/userwire.json`;
  Deno.writeTextFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  Deno.chmodSync(path, mode);
  return path;
}

async function show(path: string, args: string[] = [], env: Record<string, string> = {}) {
  const io = new Terminal();
  const code = await io.run(["config", "--json", "--config", path, ...args], env);
  return { code, err: io.stderr, settings: code === 0 ? JSON.parse(io.stdout) : undefined };
}

Deno.test("A file says settings in the types of JSON or as text, and its values are read as variables are", () => {
  using folder = new TempFolder("config");
  const path = write(folder, {
    PORT: 9000,
    LOG_LEVEL: "WARN",
    USERWIRE_OPEN: true,
    USERWIRE_PROCESSES: "auto",
    USERWIRE_DRAIN_S: "3",
    USERWIRE_ALLOWED_ORIGINS: ["https://a.example", "https://B.example:443"],
    USERWIRE_TRUSTED_PROXIES: "10.0.0.0/8, fd00::/8",
    REDIS_URL: "redis://localhost",
    LOG_DIR: "",
  });
  const config = loadConfig({ file: readSettingsFile(path) });
  assertEquals(
    [config.port, config.logLevel, config.open, config.processes, config.drainS, config.logDir],
    [9000, "warn", true, "auto", 3, "logs"],
  );
  assertEquals(config.allowedOrigins, ["https://a.example", "https://b.example"]);
  assertEquals(config.trustedProxies, ["10.0.0.0/8", "fd00::/8"]);
});

Deno.test("config shows who says what: flags win over variables, they over the file, that over the default", async (t) => {
  using folder = new TempFolder("config");
  const path = write(folder, { HOST: "127.0.0.2", PORT: 9000, LOG_LEVEL: "debug", USERWIRE_NODE: "file" });
  await t.step("as JSON", async () => {
    const { code, settings } = await show(path, ["--node", "flag"], {
      LOG_LEVEL: "warn",
      USERWIRE_NODE: "env",
    });
    assertEquals(code, 0);
    assertEquals(settings.USERWIRE_NODE, { value: "flag", source: "flag" });
    assertEquals(settings.LOG_LEVEL, { value: "warn", source: "variable" });
    assertEquals(settings.PORT, { value: "9000", source: "file", file: path });
    assertEquals(settings.LOG_DIR, { value: "logs", source: "default" });
    assertEquals(settings.REDIS_URL, { value: null, source: "default" });
  });
  await t.step("an empty value means the default, whoever gave it", async () => {
    const { settings } = await show(path, ["--node="], { PORT: "" });
    assertEquals(settings.PORT, { value: "8765", source: "default" });
    assertEquals(settings.USERWIRE_NODE, { value: null, source: "default" });
  });
  await t.step("as a table", async () => {
    const io = new Terminal();
    assertEquals(await io.run(["config", "--config", path]), 0);
    assertMatch(io.stdout, new RegExp(`^PORT +file ${path} +"9000"$`, "m"));
    assertMatch(io.stdout, /^REDIS_URL +default +\(unset\)$/m);
  });
});

Deno.test("config shows no secret, and of addresses only where they lead", async () => {
  using folder = new TempFolder("config");
  const path = write(folder, {
    REDIS_URL: "redis://user:hunt@er/2?x@redis.internal:6379/0",
    USERWIRE_API_KEYS: `shop:send:*:${"0".repeat(64)}`,
    USERWIRE_JWT_SECRET: "hunter://2hunter2hunter2hunter2hunter2hunter2hunter2",
    USERWIRE_WEBHOOK_URL: "https://hooks.example/hunter2?token=hunter2",
    USERWIRE_WEBHOOK_SECRETS: [`whsec_${btoa("hunter2hunter2hunter2hunter2hunt")}`],
  });
  const found = await show(path);
  assertEquals(found.code, 2); // That password must be encoded: the fault does not show it either.
  assertNotMatch(found.err, /hunt/);
  const env = { REDIS_URL: "redis://user:hunter2@redis.internal:6379/0?x=hunter2" };
  const { code, err, settings } = await show(path, [], {
    ...env,
    REDIS_URL: "redis://u:hunter2@redis.internal:6379/0",
  });
  assertEquals([code, err], [0, ""]);
  assertNotMatch(JSON.stringify(settings), /hunt/);
  assertEquals(settings.REDIS_URL.value, "redis://***@redis.internal:6379/0");
  assertEquals(settings.USERWIRE_WEBHOOK_URL.value, "https://hooks.example/***?***");
  assertEquals(settings.USERWIRE_JWT_SECRET.value, "***");
  assertEquals(settings.USERWIRE_WEBHOOK_SECRETS.value, "***");
});

Deno.test("A file that can't be used is a fault that says what to do, and quotes nothing of it", async (t) => {
  using folder = new TempFolder("config");
  const whole: [string, unknown, RegExp][] = [
    ["no JSON", '{"USERWIRE_JWT_SECRET": hunter2}', /userwire\.json must hold JSON, but does not/],
    [
      "a comma too many",
      '{\n  "PORT": 1,\n}',
      /must hold JSON, but does not from line 3 column 1 on: .* are not JSON/,
    ],
    ["nothing", "", /must hold JSON/],
    ["an array", ["hunter2"], /must hold one object, such as \{"PORT": 8765/],
    ["null", "null", /must hold one object/],
  ];
  for (const [name, content, fault] of whole) {
    await t.step(name, async () => {
      const { code, err } = await show(write(folder, content));
      assertEquals(code, 2);
      assertMatch(err, fault);
      assertNotMatch(err, /hunter2/);
    });
  }
  await t.step("missing, or a folder", async () => {
    const missing = await show(`${folder}/none.json`);
    assertMatch(missing.err, /--config .*none\.json can't be read: there is no such file: correct the path/);
    assertMatch((await show(`${folder}`)).err, /--config .* can't be read: .*[Dd]irectory/);
  });
});

Deno.test("Everything that is wrong in a file comes out at once, beside other faults", async (t) => {
  using folder = new TempFolder("config");
  const faultsOf = (content: unknown, env = {}): readonly string[] => {
    try {
      loadConfig({ env, file: readSettingsFile(write(folder, content)) });
    } catch (error) {
      if (error instanceof ConfigError) return error.faults;
      throw error;
    }
    return [];
  };
  const cases: [string, unknown, RegExp][] = [
    ["a flag's name", { "redis-url": "redis://h" }, /redis-url is not a setting: rename it to REDIS_URL/],
    ["small letters", { port: 1 }, /port is not a setting: rename it to PORT/],
    [
      "a slip",
      { USERWIRE_DRIAN_S: 1 },
      /USERWIRE_DRIAN_S is not a setting: .* rename it to USERWIRE_DRAIN_S/,
    ],
    ["a variable of a command", { USERWIRE_KEY: "k" }, /USERWIRE_KEY is not a setting/],
    ["__proto__", '{"__proto__": 1}', /__proto__ is not a setting/],
    ["null", { PORT: null }, /PORT must be a number, or a text, but is null: give a whole number from 0/],
    ["an object", { HOST: {} }, /HOST must be a text, but is a value of type object/],
    ["true for a number", { PORT: true }, /PORT must be a number, or a text, but is a value of type boolean/],
    ["a number for a text", { LOG_DIR: 5 }, /LOG_DIR must be a text, but is a value of type number/],
    ["a number for yes or no", { USERWIRE_OPEN: 1 }, /USERWIRE_OPEN must be true or false, or a text/],
    ["an array for a text", { HOST: ["a"] }, /HOST must be a text, but is an array/],
    ["a comma in a list", { USERWIRE_JWT_ALGORITHMS: ["HS256,HS512"] }, /an array of texts without commas/],
    [
      "out of range",
      { PORT: 70_000 },
      /PORT in .*userwire\.json must be a whole number from 0 to 65535, but is "70000"/,
    ],
    ["no whole number", { PORT: 1.5 }, /PORT in .* must be a whole number/],
  ];
  for (const [name, content, fault] of cases) {
    await t.step(name, () => {
      const faults = faultsOf(content);
      assertEquals(faults.length, 1, faults.join("\n"));
      assertMatch(faults[0]!, fault);
    });
  }
  assertEquals(faultsOf({ PORT: null, nonsense: 1, LOG_LEVEL: "loud" }, { USERWIRE_DRAIN_S: "x" }).length, 4);
});

Deno.test("A secret in a file that everybody can read is a fault; other settings and addresses without a login are none", () => {
  using folder = new TempFolder("config");
  const faultsOf = (content: unknown, mode: number) => readSettingsFile(write(folder, content, mode)).faults;
  const secrets = { REDIS_URL: "redis://:hunter2@h", USERWIRE_JWT_SECRET: "hunter2", PORT: 1 };
  const [fault, ...others] = faultsOf(secrets, 0o644);
  assertMatch(
    fault!,
    /can be read by every user of this machine and holds REDIS_URL, USERWIRE_JWT_SECRET: .*chmod o-r/,
  );
  assertNotMatch(fault!, /hunter2/);
  assertEquals(others, []);
  assertEquals(faultsOf(secrets, 0o640), []);
  const open = {
    REDIS_URL: "redis://h",
    USERWIRE_JWKS_URL: "https://id.example/keys",
    USERWIRE_JWT_PUBLIC_KEY: "x",
  };
  assertEquals(faultsOf(open, 0o644), []);
  assert(faultsOf({ USERWIRE_API_KEYS: "x" }, 0o604).length === 1);
});
