/**
 * The package for npm: what it holds and how large that is, that its types need nothing but a library of 2022, and that
 * its parts for backends work. What takes longer, in real projects and other runtimes, is in `deno task test:packages`.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import manifest from "../../deno.json" with { type: "json" };
import { Certificates } from "../../testkit/certificates.ts";
import { until } from "../../testkit/deadline.ts";
import { done, NpmPackage, run } from "../../testkit/npm_package.ts";
import { findProgram } from "../../testkit/programs.ts";
import { writeTypedProject } from "../../testkit/typed_project.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

const npm = await NpmPackage.build();
Deno.test.afterAll(() => npm[Symbol.asyncDispose]());

const COMPILER = "npm:typescript@7.0.2/tsc";
const PROGRAM = fileURLToPath(new URL("../../testkit/publisher_program.js", import.meta.url));

interface PackageJson {
  readonly version: string;
  readonly sideEffects: boolean;
  readonly exports: Record<string, { types: string; default: string } | string>;
  readonly dependencies?: unknown;
  readonly peerDependencies: Record<string, string>;
  readonly peerDependenciesMeta: Record<string, { optional: boolean }>;
}

const packageJson: PackageJson = JSON.parse(await npm.text("package.json"));

Deno.test("The package has what its exports say, installs no other, and is of this version", async () => {
  assertEquals(Object.keys(packageJson.exports), [
    ".",
    "./react",
    "./server",
    "./publisher",
    "./package.json",
  ]);
  for (const part of Object.values(packageJson.exports)) {
    for (const path of typeof part === "string" ? [part] : Object.values(part)) {
      assert((await npm.text(path)).length > 0, path);
    }
  }
  assertEquals(packageJson.version, manifest.version);
  assertEquals([packageJson.sideEffects, packageJson.dependencies], [false, undefined]);
  const peers = Object.keys(packageJson.peerDependencies);
  assertEquals(peers, ["react", "redis"]);
  assert(peers.every((name) => packageJson.peerDependenciesMeta[name]?.optional));
  for (const path of ["README.md", "LICENSE"]) assert((await npm.text(path)).length > 500, path);
});

Deno.test("The client is small, and no part asks for more than its runtimes have", async () => {
  const client = await npm.text("index.js");
  const stream = new Response(client).body!.pipeThrough(new CompressionStream("gzip"));
  const bytes = (await new Response(stream).bytes()).length;
  assert(bytes <= 8 * 1024, `The client has ${bytes} bytes`);
  for (const path of ["index.js", "event_stream.js", "requests.js", "react.js", "server.js"]) {
    const text = await npm.text(path);
    // Bundlers put whole libraries in the place of the latter two; policies of pages forbid the others.
    const strange = text.match(/\bDeno\.|\bnode:|\brequire\(|\bprocess\.|\bBuffer\b|\beval\(|\bFunction\(/g);
    assertEquals(strange, null, path);
  }
  assertEquals(client.match(/\bimport\b.*?\)/g)?.toSorted(), [
    'import("./event_stream.js")',
    'import("./requests.js")',
  ]);
  assertEquals(importsIn(await npm.text("react.js")), ["react", "./index.js"]);
  assertEquals(importsIn(await npm.text("server.js")), []);
  const publisher = await npm.text("publisher.js");
  assertEquals(importsIn(publisher).filter((name) => !name.startsWith("node:")), ["redis"]);
  assertEquals(publisher.match(/\bimport\(.*?\)/g), ['import("redis")']);
  // Node 20 has none of these, and only what stands for Deno may bear its name.
  assertEquals(publisher.match(/^\s*(await )?using |\.withResolvers\(|\bURL\.parse\(/gm), null);
});

function importsIn(text: string): string[] {
  const lines = text.matchAll(/^(?:import|export)\b[^"'`();]*\bfrom ?"([^"]+)"|^import ?"([^"]+)"/gm);
  const names = Array.from(lines, ([, from, bare]) => from ?? bare!);
  return [...new Set(names)].sort().reverse();
}

for (const resolution of ["bundler", "nodenext"] as const) {
  Deno.test(`Its types need no library but that of 2022, found by ${resolution}`, async () => {
    const folder = `${npm.folder}/typed-${resolution}`;
    await Deno.mkdir(`${folder}/node_modules`, { recursive: true });
    await Deno.symlink(`${npm.folder}/npm`, `${folder}/node_modules/userwire`);
    await writeTypedProject(folder, { moduleResolution: resolution, lib: ["es2022"] });
    const args = ["run", "-A", "--no-lock", "--no-config", COMPILER, "-p", folder];
    const { code, stdout, stderr } = await run(Deno.execPath(), args, { env: { NO_COLOR: "1" } });
    assertEquals([code, stdout], [0, ""], stderr);
  });
}

const node = findProgram("node");

/** Runs calls of a publisher in Node. @returns What they came to. */
function publish(redisUrl: string, ...calls: unknown[][]): Promise<unknown[]> {
  return publishWith({}, redisUrl, ...calls);
}

/** @param env What TLS is given, as the program says. */
async function publishWith(
  env: Record<string, string>,
  redisUrl: string,
  ...calls: unknown[][]
): Promise<unknown[]> {
  const texts = calls.map((call) =>
    JSON.stringify(call, (_, value) => value instanceof Uint8Array ? { bytes: [...value] } : value)
  );
  const written = await done(node!, [PROGRAM, npm.url("publisher.js"), redisUrl, ...texts], { env });
  return written.trim().split("\n").map((line) => JSON.parse(line));
}

redisTest("The publisher sends from Node as it does from Deno, and ends with its program", async (t) => {
  assert(node !== undefined, "node is missing: install Node.js");
  // As a project that has installed it: from Deno's cache.
  await Deno.writeTextFile(
    `${npm.folder}/package.json`,
    JSON.stringify({ dependencies: { redis: packageJson.peerDependencies.redis } }),
  );
  await done(Deno.execPath(), ["install", "--quiet"], { cwd: npm.folder });
  await using redis = await RedisServer.start({ unixSocket: true });
  await using service = await Service.start({ REDIS_URL: redis.url });
  await until(async () => (await service.readiness()).status === 200, "the service to be ready");

  await t.step("text, JSON, bytes and a receipt", async () => {
    await using raw = await openClient(service.socketUrl("alice"));
    await using framed = await openClient(service.socketUrl("alice"), "userwire.v1");
    await using carol = await openClient(service.socketUrl("carol"), "userwire.v1");
    assertEquals([(await framed.nextJson()).t, (await carol.nextJson()).t], ["hi", "hi"]);
    const sending = publish(
      redis.url,
      ["send", "alice", { order: 7 }, { idempotencyKey: "k" }],
      ["send", "alice", { order: 7 }, { idempotencyKey: "k" }],
      ["send", "alice", "text"],
      ["send", "alice", Uint8Array.of(0, 255, 128)],
      ["online", ["alice", "bob"]],
      ["send", "carol", "wait", { waitAckMs: 30_000 }],
      ["closeConnections", "alice", { code: 4403, reason: "kicked" }],
    );
    const frames = [];
    for (let i = 0; i < 3; i++) frames.push(await framed.nextJson());
    assertEquals((await carol.nextJson()).data, "wait");
    carol.send(JSON.stringify({ t: "ack", seq: 1 }));
    assertEquals(await raw.next(), '{"order":7}');
    assertEquals(await raw.next(), "text");
    assertEquals(await raw.next(), Uint8Array.of(0, 255, 128));
    assertEquals(frames.map(({ data }) => data), [{ order: 7 }, "text", "AP+A"]);
    assertEquals([(await raw.closed).code, (await framed.closed).code], [4403, 4403]);
    const results = await sending as Record<string, unknown>[];
    assertEquals(results.map((result) => result.sockets ?? result), [2, 2, 2, 2, { alice: 2, bob: 0 }, 1, 2]);
    assertEquals(results.slice(0, 4).map(({ seq, repeated }) => [seq, repeated ?? false]), [
      ...[[1, false], [1, true]],
      ...[[2, false], [3, false]],
    ]);
    assertEquals(results[5]!.acked, 1);
  });

  await t.step("what can't be sent, and who is not there", async () => {
    const results = await publish(
      redis.url,
      ["send", "two words", 1],
      ["send", "bob", 1, { expectOnline: true }],
      ["history", "alice", { after: 2 }],
    ) as Record<string, unknown>[];
    assertEquals(results.map(({ error }) => error), ["InvalidUsernameError", "UserOfflineError", undefined]);
    assertEquals([results[2]!.first, results[2]!.last], [3, 3]);
  });

  await t.step("a Redis that is not there, and one that refuses", async () => {
    const [away] = await publish("redis://127.0.0.1:1", ["send", "alice", 1]) as {
      error: string;
      message: string;
    }[];
    assertEquals(away!.error, "BrokerUnavailableError");
    assertMatch(away!.message, /the connection is refused: nobody listens there/);
    await using locked = await RedisServer.start({ password: "p" });
    const [refused] = await publish(`redis://127.0.0.1:${locked.port}`, ["send", "alice", 1]) as {
      message: string;
    }[];
    assertMatch(refused!.message, /Can't open a publisher: Redis wants a password/);
  });

  await t.step("TLS, with an authority of its own and one that did not sign, and a certificate", async () => {
    await using certificates = await Certificates.make();
    await using strangers = await Certificates.make();
    await using tls = await RedisServer.start({ tls: certificates });
    const url = `rediss://localhost:${tls.peerPort}`;
    const { ca } = certificates;
    type Said = { seq?: number; error?: string; message: string };
    const said = async (env: Record<string, string>, to = url, options = {}) =>
      (await publishWith(env, to, ["send", "alice", 1, options]))[0] as Said;
    // A receipt comes over a connection of another kind.
    assertEquals((await said({ REDIS_CA: ca }, url, { waitAckMs: 1 })).seq, 1);
    // An address, for which no name is shown in the handshake; and what Node itself trusts beside the public authorities.
    const byAddress = url.replace("localhost", "127.0.0.1");
    assertEquals((await said({ NODE_EXTRA_CA_CERTS: certificates.cert("ca") }, byAddress)).seq, 2);
    const { error, message } = await said({ REDIS_CA: strangers.ca });
    assertEquals(error, "BrokerUnavailableError");
    assertMatch(message, /not from an authority trusted here: set REDIS_CA, or redisTls.ca of a publisher/);
    await tls.cli("CONFIG", "SET", "tls-auth-clients", "yes");
    assertMatch((await said({ REDIS_CA: ca })).message, /client certificate.*set REDIS_CERT and REDIS_KEY/);
    const own = { REDIS_CERT: await Deno.readTextFile(certificates.cert("client")) };
    const key = { REDIS_KEY: await Deno.readTextFile(certificates.key("client")) };
    assertEquals((await said({ REDIS_CA: ca, ...own, ...key })).seq, 3);
  });
});
