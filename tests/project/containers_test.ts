/**
 * The files for containers, by their schemas and against each other: `deploy/Dockerfile`, `deploy/compose.yaml`,
 * `deploy/kubernetes/`. docs/containers.md says how they were run.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { fileURLToPath } from "node:url";
import { SETTINGS } from "../../src/config/settings.ts";
import { CLOSED } from "../../testkit/closed.ts";
import { loadConfig } from "../../testkit/config.ts";
import { Service } from "../../testkit/service.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { Ajv, composeSchema } from "../packages/compose_spec.ts";
import { validate } from "../packages/dockerfile_utils.ts";
import * as models from "../packages/kubernetes_models.ts";
import { parseAllDocuments } from "../packages/yaml.ts";

const ROOT = new URL("../../", import.meta.url);
const DEPLOY = new URL("deploy/", ROOT);
const { drainS, maxConnections, port } = loadConfig({ env: {} });
/** What comes after the drain, in seconds. */
const END_S = 2;
const KNOWN = Object.values(SETTINGS).map(({ env }) => env as string);

/** What a file of deploy/ says. */
async function read(path: string): Promise<string> {
  return await Deno.readTextFile(new URL(path, DEPLOY));
}

// deno-lint-ignore no-explicit-any -- what YAML holds is checked by its schema first
type Value = any;

async function readYaml(path: string): Promise<Value> {
  const documents = parseAllDocuments(await read(path), { merge: true });
  assertEquals([documents.length, documents[0]!.errors], [1, []], path);
  return documents[0]!.toJS();
}

/** Faults of the user of an image: settings that there are none of. */
function unknown(names: readonly string[]): string[] {
  return names.filter((name) => !KNOWN.includes(name));
}

Deno.test("deploy/Dockerfile has no instruction that a linter would complain of", async () => {
  assertEquals(validate(await read("Dockerfile")), []);
  assertEquals(validate("FROM debian\nRNU true\n").length, 1);
});

Deno.test("deploy/compose.yaml follows the schema of Compose, and its parts agree", async () => {
  const compose = await readYaml("compose.yaml");
  // Names of its parts, which newer editions of JSON Schema write in another way, and its edition.
  const isOld = (key: string, value: unknown) =>
    (key === "id" || key === "$schema") && typeof value === "string";
  const schema = JSON.parse(
    JSON.stringify(composeSchema),
    (key, value) => isOld(key, value) ? undefined : value,
  );
  const check = new Ajv({ strict: false, validateFormats: false }).compile(schema);
  const isValid: boolean = check(compose);
  assert(isValid, JSON.stringify(check.errors));
  assertEquals(check({ services: { one: { imge: "x" } } }), false, "the schema knows no such key");

  const { services, secrets } = compose;
  const addressOf = (name: string) => services[name].networks.inside.ipv4_address;
  const nodes = Object.keys(services).filter((name) => services[name].image === "userwire");
  assertEquals(nodes, ["node1", "node2", "node3"]);
  for (const name of nodes) {
    const { environment, stop_grace_period, ulimits, read_only, tmpfs } = services[name];
    assertEquals(unknown(Object.keys(environment)), []);
    assertEquals(environment.USERWIRE_TRUSTED_PROXIES, addressOf("haproxy"));
    assertGreater(parseInt(stop_grace_period), drainS + END_S);
    assertGreater(ulimits.nofile * 0.9, 2 * maxConnections);
    assert(read_only && tmpfs[0].startsWith("/var/log/userwire:"));
  }
  const { BIND: _, ...listed } = services.haproxy.environment;
  assertEquals(Object.values(listed), nodes.map((name) => `${addressOf(name)}:${port}`));
  const config = await read("haproxy.cfg");
  for (const name of Object.keys(listed)) assert(config.includes(`"\${${name}}"`), name);

  const mounted = Object.values<Value>(services).flatMap(({ volumes = [] }) => volumes as string[])
    .filter((volume) => volume.startsWith("./")).map((volume) => volume.split(":")[0]!);
  assertGreater(mounted.length, 5);
  for (const path of mounted) assert((await Deno.stat(new URL(path, DEPLOY))).isFile, path);
  const made = await Deno.readTextFile(new URL("docs/containers.md", ROOT));
  for (const { file } of Object.values<Value>(secrets)) {
    assert(made.includes(`deploy/${file.slice(2)}`), `docs/containers.md says how to make ${file}`);
  }
});

/** What all files of deploy/kubernetes/ hold, by their kinds. */
async function readKubernetes(): Promise<Record<keyof typeof models, Value>> {
  const names = Array.from(Deno.readDirSync(new URL("kubernetes/", DEPLOY)), ({ name }) => name).sort();
  const resources = await Promise.all(names.map((name) => readYaml(`kubernetes/${name}`)));
  return Object.fromEntries(resources.map((resource) => [resource.kind, resource])) as Awaited<
    ReturnType<typeof readKubernetes>
  >;
}

Deno.test("deploy/kubernetes has what Kubernetes knows, and nothing else", async () => {
  const resources = await readKubernetes();
  assertEquals(Object.keys(resources).sort(), Object.keys(models).sort());
  for (const [kind, Model] of Object.entries(models)) {
    const resource = resources[kind as keyof typeof models];
    new Model(resource).validate();
    assertEquals(resource.apiVersion, new Model().apiVersion);
  }
  // Whoever mistypes a field that may be left out is not told so by the schemas; the types do.
  const program = (values: Record<string, Value>) =>
    [
      `import * as models from "${new URL("../packages/kubernetes_models.ts", import.meta.url)}";`,
      "type Of<Model> = Model extends new (data?: infer Data) => unknown ? Data : never;",
      ...Object.entries(values).map(([kind, { apiVersion: _, kind: __, ...value }]) =>
        `export const ${kind} = ${JSON.stringify(value)} satisfies Of<typeof models.${kind}>;`
      ),
    ].join("\n");
  using folder = new TempFolder("kubernetes");
  const mistyped = structuredClone(resources);
  mistyped.Deployment.spec.template.spec.terminationGracePeriod = 30;
  // Both at once: the types of Kubernetes take seconds to read.
  await Deno.writeTextFile(`${folder}/all.ts`, program(resources));
  await Deno.writeTextFile(`${folder}/mistyped.ts`, program(mistyped));
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["check", "--no-lock", "--config", fileURLToPath(new URL("deno.json", ROOT))],
      ...[`${folder}/all.ts`, `${folder}/mistyped.ts`],
    ],
    env: { NO_COLOR: "1" },
  }).output();
  const faults = new TextDecoder().decode(stderr);
  assertEquals([code, faults.includes(`at file://${folder}/all.ts`)], [1, false], faults);
  assert(faults.includes(`terminationGracePeriod"' does not exist in type`), faults);
});

Deno.test("The files of deploy/kubernetes agree with each other, with the image and with the drain", async () => {
  const { Deployment, HorizontalPodAutoscaler, Ingress, NetworkPolicy, PodDisruptionBudget, Service } =
    await readKubernetes();
  const { metadata, spec } = Deployment.spec.template;
  const [container, ...others] = spec.containers;
  assertEquals(others, []);
  assertEquals(unknown(container.env.map(({ name }: Value) => name)), []);
  const drain = container.env.find(({ name }: Value) => name === "USERWIRE_DRAIN_S");
  const [, before] = container.lifecycle.preStop.exec.command.map(Number);
  assertGreater(spec.terminationGracePeriodSeconds, before + Number(drain.value) + END_S);

  assertEquals(container.ports, [{ name: "http", containerPort: port }]);
  for (const probe of ["readinessProbe", "livenessProbe", "startupProbe"]) {
    assertEquals(container[probe].httpGet.port, "http");
  }
  assertEquals(Service.spec.ports, [{ name: "http", port, targetPort: "http" }]);
  assertEquals(NetworkPolicy.spec.ingress[0].ports, [{ protocol: "TCP", port }]);
  const { service } = Ingress.spec.rules[0].http.paths[0].backend;
  assertEquals(service, { name: Service.metadata.name, port: { name: "http" } });

  const { labels } = metadata;
  assertEquals(
    [
      Deployment.spec.selector.matchLabels,
      Service.spec.selector,
      PodDisruptionBudget.spec.selector.matchLabels,
      NetworkPolicy.spec.podSelector.matchLabels,
    ],
    Array(4).fill(labels),
  );
  const { scaleTargetRef, metrics } = HorizontalPodAutoscaler.spec;
  assertEquals(scaleTargetRef, {
    apiVersion: Deployment.apiVersion,
    kind: "Deployment",
    name: Deployment.metadata.name,
  });
  assert(Number(metrics[0].pods.target.averageValue) < maxConnections);

  // The image says by which number it runs, and where it writes.
  const dockerfile = await read("Dockerfile");
  assert(dockerfile.includes(`\nUSER ${spec.securityContext.runAsUser}\n`));
  assert(dockerfile.includes(`LOG_DIR=${container.volumeMounts[0].mountPath} `));
});

Deno.test("The autoscaler asks for a metric that there is", async () => {
  await using service = await Service.start({ ...CLOSED, USERWIRE_METRICS: "on" });
  const served = await (await fetch(new URL("/metrics", service.server.url))).text();
  const { HorizontalPodAutoscaler } = await readKubernetes();
  const { name } = HorizontalPodAutoscaler.spec.metrics[0].pods.metric;
  assert(served.includes(`\n# TYPE ${name} gauge\n`), name);
});
