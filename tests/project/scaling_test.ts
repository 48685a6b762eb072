/**
 * The arithmetic of docs/scaling.md, against figures worked out by hand. That the page holds the tables of today is a test
 * of docs_test.ts.
 */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  DEFAULTS,
  INPUTS,
  type Kind,
  limits,
  nearest,
  plan,
  scaling,
  throughput,
} from "../../deploy/scaling.ts";

function limit(sockets: number, kind: Kind, name: string, inputs = DEFAULTS) {
  const found = limits(plan(sockets, kind, inputs), inputs).find((one) => one.name.startsWith(name));
  assert(found, name);
  return { value: found.value, isOver: found.value > found.limit };
}

Deno.test("Nodes and masters are as many as sockets, messages and memory ask for, and a cluster has three at least", () => {
  const masters = (sockets: number, kind: Kind, inputs = DEFAULTS) => {
    const { masters, mastersFor } = plan(sockets, kind, inputs);
    return [masters, mastersFor];
  };
  assertEquals(masters(50_000, "dedicated"), [1, "nothing more"]);
  assertEquals(masters(50_001, "dedicated"), [3, "connections"]);
  assertEquals(masters(1_000_000, "dedicated"), [20, "connections"]);
  // 1,000,000 × 19 KiB × 2 = 36.2 GiB, 16 on each
  assertEquals(masters(1_000_000, "shared"), [3, "memory"]);
  // 100,000 messages/s × 66 µs = 6.6 cores, half a core on each
  const chatty = { ...DEFAULTS, perMinute: 6 };
  assertEquals(masters(1_000_000, "shared", chatty), [14, "messages"]);

  assertEquals(plan(100_000, "dedicated").nodes, 4);
  assertEquals(plan(100_001, "dedicated").nodes, 5);
  // 1,000,000 messages/s × 88.9 µs = 88.9 cores, half a core each
  assertEquals(plan(1_000_000, "dedicated", { ...DEFAULTS, perMinute: 60 }).nodes, 178);
});

Deno.test("Ports of a machine are used up where its sockets go to too few masters", () => {
  const ports = "ports of a machine to one master";
  // 4 nodes × (25,000 / 3 + 1 + 0.75 × 60 in TIME_WAIT)
  assertEquals(limit(100_000, "dedicated", ports), { value: 33_518, isOver: true });
  assertEquals(limit(100_000, "dedicated", ports, { ...DEFAULTS, perMaster: 25_000 }).isOver, false);
  assertEquals(limit(100_000, "dedicated", ports, { ...DEFAULTS, nodesPerMachine: 2 }).isOver, false);
  assertEquals(limit(100_000, "dedicated", ports, { ...DEFAULTS, ports: 64_512 }).isOver, false);
  assertEquals(limit(100_000, "shared", ports), { value: 188, isOver: false });
  assertEquals(limit(1_000_000, "shared", "ports of a proxy", { ...DEFAULTS, perNode: 30_000 }).isOver, true);
});

Deno.test("A master's connections are its sockets, four of each node, the bus, and what stays free", () => {
  const { connectionsPerMaster, busConnections, maxclients, redisFiles } = plan(1_000_000, "dedicated");
  assertEquals(connectionsPerMaster, 50_000 + 4 * 40);
  assertEquals(busConnections, 2 * 39);
  assertEquals([maxclients, redisFiles], [Math.ceil(50_238 / 0.99), Math.ceil(50_238 / 0.99) + 32]);
  // One subscription of each node, 12 of the four together; 16 are left free at least.
  const alone = plan(100_000, "shared");
  assertEquals([alone.masters, alone.connectionsPerMaster, alone.maxclients], [1, 12, 28]);
  assertEquals(limit(10_000_000, "dedicated", "connections of the cluster's bus"), {
    value: 798,
    isOver: true,
  });
});

Deno.test("A failed master refuses its users for the vote and the dials", () => {
  const { failure } = plan(1_000_000, "dedicated");
  assertEquals([failure.users, failure.dials, failure.dialsPerNode], [50_000, 50_000, 1_250]);
  assertAlmostEquals(failure.restoreS, 50_000 / 4_700);
  assertAlmostEquals(failure.refusedS, 2 + 2.1 + 50_000 / 4_700);
  assertEquals(failure.refusedMessages, Math.round(50_000 / 60 * failure.refusedS));
  assertEquals(limit(1_000_000, "dedicated", "dials at once"), { value: 64 * 40, isOver: true });
  // Nodes may be what takes its time, too.
  assertAlmostEquals(plan(1_000_000, "dedicated", { ...DEFAULTS, dialsPerS: 50 }).failure.restoreS, 25);
  // Subscriptions that are not back by then count for nobody: sends go on, and no sum grows.
  const slow = { ...DEFAULTS, acceptsPerS: 1_000 };
  assertAlmostEquals(plan(1_000_000, "dedicated", slow).failure.refusedS, 2 + 2.1 + 30);
  assertEquals(limit(1_000_000, "dedicated", "seconds until subscriptions", slow).isOver, true);

  const shared = plan(100_000, "shared").failure;
  assertEquals([shared.users, shared.dials, shared.dialsPerNode], [100_000, 4, 1]);
  assertAlmostEquals(shared.refusedS, 2 + 2.1 + 1.5);
});

Deno.test("The mesh of nodes and masters, the map and the bus grow as they should", () => {
  const p = plan(10_000_000, "dedicated");
  assertEquals([p.nodes, p.masters, p.redisNodes], [400, 200, 400]);
  assertAlmostEquals(p.nodeIdle, 200 * 0.0022);
  assertAlmostEquals(p.masterIdle, 400 * 0.0011);
  assertEquals([p.mapReadsPerS, p.mapBytesPerS], [400, 400 * 400 * 112]);
  // 399 others, pinged and answered within a second; 40 nodes are told of in each.
  assertEquals(p.busBytesPerS, 2 * 399 * (2_256 + 104 * 40));
  const slower = plan(10_000_000, "dedicated", { ...DEFAULTS, nodeTimeoutS: 4 });
  assertEquals(slower.busBytesPerS, p.busBytesPerS / 2);
  const { mapReadsPerS, busBytesPerS, busConnections } = plan(20_000, "shared");
  assertEquals([mapReadsPerS, busBytesPerS, busConnections], [0, 0, 0]);
  assertEquals(nearest(p), "dials at once after a master failed");
});

Deno.test("Memory is that of processes, sockets and the kernel, and at Redis that of histories and connections", () => {
  const p = plan(100_000, "dedicated");
  const nodeKib = 25_000 * 19.6 + (101 + 1.6 * 3) * 1024;
  assertAlmostEquals(p.gibPerMachine, 4 * (nodeKib * 2 + 25_000 * 2 * 3.5) / 1024 ** 2);
  assertAlmostEquals(p.gibPerMaster, (100_000 / 3 * 19 + 33_350 * 8.7) * 2 / 1024 ** 2);
  assertEquals(p.filesPerNode, 52_500);
});

Deno.test("Messages a second of a core are what one message takes, with and without a history", () => {
  const perS = Object.fromEntries(throughput().map(({ name, perS }) => [name, Math.round(perS)]));
  assertEquals(perS["a core of a node, dedicated, HTTP, with history"], 11_249);
  assertEquals(perS["a master, with history"], 15_152);
  assertEquals(perS["a master, without history"], 55_556);
});

Deno.test("Every input is a flag that counts, is explained, and is checked", () => {
  const byDefault = scaling([]);
  const help = scaling(["--help"]);
  for (const [key, { value, from }] of Object.entries(INPUTS)) {
    const flag = `--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    assertStringIncludes(help, `  ${flag} N`);
    assert(from !== "");
    const tables = (text: string) => text.split("### What it takes\n")[1];
    // So little, or so much, that it must show somewhere.
    const changed = [value / 1_000, value * 1_000].map((other) => scaling([flag, String(other)]));
    assert(changed.some((text) => tables(text) !== tables(byDefault)), `${flag} changes nothing`);
  }
  assertStringIncludes(scaling(["--sockets", "250000", "--per-node", "10000"]), "| nodes | 25 | 25 |");
  assertThrows(() => scaling(["--per-node", "0"]), Error, '--per-node must be a number above 0, but is "0"');
  assertThrows(() => scaling(["--per-nod", "1"]), Error, "--per-nod");
});
