/** What is read out of the answers of a cluster's nodes, and what is made of answers that do not say the same. */
import { assert, assertEquals } from "@std/assert";
import {
  ClusterMap,
  type ClusterNode,
  type Keeper,
  parseEndpoints,
  parseNodes,
} from "../../src/redis/cluster_map.ts";
import { formatRanges, parseRanges, SLOTS } from "../../src/redis/slots.ts";
import { Chance } from "../../testkit/random.ts";

const ASKED = { hostname: "asked.example", port: 7_000 };
/** Ids as short as a test can be read. */
const idOf = (name: string) => name.repeat(40).slice(0, 40);
const [A, B, C, D] = ["a", "b", "c", "d"].map(idOf) as [string, string, string, string];

/** As Redis 7.0.15 answers. */
const NODES_7_0 = `
${A} 127.0.0.1:30004@31004 slave ${B} 0 1426238317239 4 connected
${B} 127.0.0.1:30001@31001 master - 0 1426238316232 2 connected 5461-10922 [93-<-${C}]
${C} 127.0.0.1:30002@31002 myself,master - 0 0 3 connected 0-5460 12000 10923-11999 [77->-${B}] [78-<-${B}]
${D} 127.0.0.1:30003@31003 master,fail - 1426238316232 1426238315232 1 disconnected 16383
`;

function read(text: string, byName = false): string[] {
  return parseNodes(text, ASKED, { byName }).map(({ id, place, masterId, epoch, ranges }) =>
    `${id[0]} ${place.hostname} ${place.port} ${masterId?.[0] ?? "-"} ${epoch} ${formatRanges(ranges)}`
  );
}

Deno.test("CLUSTER NODES of Redis 7.0 is read; slots on their way are where they come from", () => {
  assertEquals(read(NODES_7_0), [
    "a 127.0.0.1 30004 b 4 ",
    "b 127.0.0.1 30001 - 2 5461-10922",
    "c 127.0.0.1 30002 - 3 0-5460,12000,10923-11999",
    "d 127.0.0.1 30003 - 1 16383",
  ]);
  assertEquals(read(NODES_7_0.replaceAll("\n", "\r\n")), read(NODES_7_0));
  assertEquals(read(""), []);
});

Deno.test("CLUSTER NODES of Redis 7.2 is read: a node's name only where its certificate is for that", () => {
  const text = `
${A} 10.0.0.1:6379@16379,one.example,tls-port=0,shard-id=${D} myself,master - 0 0 1 connected 0-5460
${B} 10.0.0.2:6379@16379,,tls-port=0,shard-id=${D} slave ${A} 0 1426238317239 1 connected
${C} 2001:db8::3:6379@16379,three.example master - 0 1426238316232 3 connected 5461
`;
  assertEquals(read(text), [
    "a 10.0.0.1 6379 - 1 0-5460",
    "b 10.0.0.2 6379 a 1 ",
    "c 2001:db8::3 6379 - 3 5461",
  ]);
  assertEquals(read(text, true), [
    "a one.example 6379 - 1 0-5460",
    "b 10.0.0.2 6379 a 1 ",
    "c three.example 6379 - 3 5461",
  ]);
});

Deno.test("Of CLUSTER NODES a node without an address is left out, and one that does not know its own is where it was asked", () => {
  const text = `
${A} :7000@17000 myself,master - 0 0 1 connected 0-1
${B} :0@0 master,noaddr - 0 0 2 disconnected 2-3
${C} 127.0.0.1:30009@31009 handshake - 0 0 0 disconnected
${D} 127.0.0.1:30003@31003 slave,noaddr ${A} 0 0 1 disconnected
`;
  assertEquals(read(text), ["a asked.example 7000 - 1 0-1"]);
});

Deno.test("Nodes are where clients are to find them: by the name or the address that they prefer", () => {
  const text = `
${A} 10.0.0.1:6379@16379,one.example myself,master - 0 0 1 connected 0-5460
${B} 10.0.0.2:6379@16379,two.example slave ${A} 0 0 1 connected
${C} 10.0.0.3:6379@16379, master - 0 0 3 connected 5461
${D} :6379@16379 master,fail - 0 0 4 disconnected 5462
`;
  const reply: Parameters<typeof parseEndpoints>[0] = [
    [0, 5460, ["one.example", 7001, A], ["two.example", 7002, B]],
    [5461, 5461, ["?", 7003, C]],
  ];
  const placesOf = (reply: Parameters<typeof parseEndpoints>[0]) =>
    parseNodes(text, ASKED, { byName: false, endpoints: parseEndpoints(reply, ASKED) })
      .map(({ place: { hostname, port } }) => `${hostname}:${port}`);
  assertEquals(placesOf(reply), ["one.example:7001", "two.example:7002", "10.0.0.3:6379"]);
  // A node that leaves it to the client says null, or nothing.
  for (const none of [null, ""]) {
    assertEquals(placesOf([[0, 5460, [none, 7001, A]]])[0], `${ASKED.hostname}:7001`);
  }
});

/** A master, or a replica with its master, at a place of its own. */
function node(
  id: string,
  epoch: number,
  ranges: string,
  more: { of?: string; at?: string } = {},
): ClusterNode {
  return {
    id,
    place: { hostname: more.at ?? `${id}.example`, port: 6_379 },
    masterId: more.of,
    epoch,
    ranges: parseRanges(ranges),
  };
}

const replica = (id: string, of: string, epoch: number) => node(id, epoch, "", { of });

/** A map whose keepers are named after the node that was their first master, and what was made for it. */
class World {
  readonly made: string[] = [];
  readonly keepers = new Map<string, Keeper>();
  readonly map = new ClusterMap<string>((keeper) => {
    const name = `${keeper.master.id}${this.keepers.has(keeper.master.id) ? "'" : ""}`;
    this.made.push(name);
    this.keepers.set(name, keeper);
    return name;
  });

  /** @returns What was reported. */
  learn(...nodes: ClusterNode[]): { moved: readonly string[]; slots: string } {
    const change = this.map.learn(nodes);
    if (!change) return STRANGE;
    const { moved, slots } = change;
    return { moved, slots: [...slots].toSorted((one, other) => one - other).join(" ") };
  }

  /** Who keeps what, and where that is. */
  get all(): Record<string, string> {
    return Object.fromEntries(
      this.map.keepers().map((name) => [
        `${name} at ${this.keepers.get(name)!.master.place.hostname}`,
        formatRanges(this.map.rangesOf(name)),
      ]),
    );
  }

  idsOf(name: string): string {
    return [...this.keepers.get(name)!.ids].toSorted().join(" ");
  }
}

const NOTHING = { moved: [], slots: "" };
/** The answer was of another cluster. */
const STRANGE = { moved: ["?"], slots: "?" };
/** Two masters with a replica each. */
const FIRST = [node("a", 1, "0-99"), node("b", 2, "100-199"), replica("ar", "a", 1), replica("br", "b", 2)];

Deno.test("ClusterMap has nothing before the first answer, and reports no move with it", () => {
  const world = new World();
  assertEquals([world.map.of(0), world.map.keepers(), world.map.unkept], [undefined, [], SLOTS]);
  assertEquals(world.learn(...FIRST), NOTHING);
  assertEquals(world.all, { "a at a.example": "0-99", "b at b.example": "100-199" });
  assertEquals([world.map.of(99), world.map.of(100), world.map.of(200)], ["a", "b", undefined]);
  assertEquals([world.map.unkept, world.idsOf("a"), world.idsOf("b")], [SLOTS - 200, "a ar", "b br"]);
  assertEquals([world.learn(...FIRST), world.made], [NOTHING, ["a", "b"]]);
});

Deno.test("ClusterMap takes slots that had no master for no move", () => {
  const world = new World();
  world.learn(...FIRST);
  assertEquals(world.learn(node("a", 1, "0-99 300"), FIRST[1]!), NOTHING);
  assertEquals(world.map.rangesOf("a"), [[0, 99], [300, 300]]);
  assertEquals(world.map.rangesOf("nobody"), []);
});

Deno.test("ClusterMap reports just the slots that moved, and what was true before changes nothing", () => {
  const world = new World();
  world.learn(...FIRST);
  const after = [node("a", 1, "0-89"), node("b", 3, "90-199"), replica("ar", "a", 1), replica("br", "b", 3)];
  assertEquals(world.learn(...after), { moved: [], slots: "90 91 92 93 94 95 96 97 98 99" });
  const all = world.all;
  assertEquals(all, { "a at a.example": "0-89", "b at b.example": "90-199" });
  assertEquals([world.learn(...FIRST), world.all], [NOTHING, all]);
  assertEquals([world.learn(...after), world.all], [NOTHING, all]);
});

Deno.test("ClusterMap has it the same in whichever order answers come", () => {
  const answers = [
    FIRST,
    [node("a", 1, "0-89"), node("b", 3, "90-199"), replica("ar", "a", 1), replica("br", "b", 3)],
    // A failover of the one, and the other gives a slot back.
    [node("ar", 4, "0-90"), node("b", 3, "91-199"), replica("a", "ar", 4), replica("br", "b", 3)],
  ];
  for (const order of [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]) {
    const world = new World();
    for (const i of order) world.learn(...answers[i]!);
    assertEquals(Object.values(world.all), ["0-90", "91-199"], `${order}`);
    assertEquals(Object.keys(world.all).map((name) => name.split(" at ")[1]), ["ar.example", "b.example"]);
    assertEquals(world.made.length, 2, `${order}: ${world.made}`);
  }
});

Deno.test("ClusterMap does not lead to and fro where nodes differ in the place of a master", () => {
  const world = new World();
  const at = (name: string) => node("a", 1, "0-99", { at: name });
  const isAt = () => Object.keys(world.all)[0];
  world.learn(at("10.0.0.1"));
  // An address that has changed is followed at once.
  assertEquals(world.learn(at("a.example")), { moved: ["a"], slots: "" });
  for (let i = 0; i < 50; i++) {
    for (const name of ["10.0.0.1", "a.example", "10.0.0.1"]) assertEquals(world.learn(at(name)), NOTHING);
  }
  assertEquals(isAt(), "a at a.example");
  world.keepers.get("a")!.doubt();
  assertEquals(world.learn(at("10.0.0.1")), { moved: ["a"], slots: "" });
  assertEquals([world.learn(at("a.example")), isAt()], [NOTHING, "a at 10.0.0.1"]);
  // When nobody says it any more it is not the place.
  let answers = 0;
  while (isAt() !== "a at a.example" && answers < 100) {
    world.learn(at("a.example"));
    answers++;
  }
  assert(answers > 3 && answers < 30, `${answers}`);
});

Deno.test("ClusterMap keeps a keeper through failovers there and back", () => {
  const world = new World();
  world.learn(...FIRST);
  const failed = [node("a", 1, ""), node("ar", 3, "0-99"), FIRST[1]!, FIRST[3]!];
  assertEquals(world.learn(...failed), { moved: ["a"], slots: "" });
  assertEquals(world.all, { "a at ar.example": "0-99", "b at b.example": "100-199" });
  assertEquals(world.idsOf("a"), "a ar"); // it will be a replica
  assertEquals([world.learn(...failed), world.learn(...FIRST)], [NOTHING, NOTHING]);
  assertEquals(world.all["a at ar.example"], "0-99");
  const back = [replica("a", "ar", 3), node("ar", 3, "0-99"), FIRST[1]!, FIRST[3]!];
  assertEquals([world.learn(...back), world.idsOf("a")], [NOTHING, "a ar"]);
  assertEquals(world.learn(node("a", 4, "0-99"), replica("ar", "a", 4), FIRST[1]!), {
    moved: ["a"],
    slots: "",
  });
  assertEquals([world.all["a at a.example"], world.made], ["0-99", ["a", "b"]]);
});

Deno.test("ClusterMap keeps a keeper whose new master was a replica that not every node had heard of", () => {
  const unheard = [FIRST[0]!, FIRST[1]!, node("ar", 0, ""), FIRST[3]!];
  const failed = [replica("a", "ar", 3), node("ar", 3, "0-99"), FIRST[1]!, FIRST[3]!];
  const justNow = [node("a", 1, ""), ...failed.slice(1)];
  for (
    const answers of [
      [FIRST, unheard, failed],
      [FIRST, unheard, justNow],
      [FIRST, [FIRST[0]!, FIRST[1]!, FIRST[3]!], justNow],
      [FIRST, ...new Array(12).fill(unheard), justNow],
      // It has been one since the last answer only.
      [unheard, failed],
      [[FIRST[0]!, FIRST[1]!], failed],
    ]
  ) {
    const world = new World();
    for (const answer of answers.slice(0, -1)) world.learn(...answer);
    assertEquals(world.learn(...answers.at(-1)!), { moved: ["a"], slots: "" });
    assertEquals([world.made, world.idsOf("a")], [["a", "b"], "a ar"]);
  }
  // One of which nobody has said for long that it is a replica, or that now has slots beside its master, is another's.
  const parted = [node("a", 1, "0-89"), node("ar", 3, "90-99"), FIRST[1]!, FIRST[3]!];
  for (
    const answers of [
      [FIRST, ...new Array(13).fill(unheard), justNow],
      [FIRST, unheard, parted],
    ]
  ) {
    const world = new World();
    for (const answer of answers) world.learn(...answer);
    assertEquals(world.made, ["a", "b", "ar"]);
  }
});

Deno.test("ClusterMap reports a master that has another address, and goes by what a failover left of its slots", () => {
  const world = new World();
  world.learn(...FIRST);
  const elsewhere = node("a", 1, "0-99", { at: "other.example" });
  assertEquals(world.learn(elsewhere, FIRST[1]!), { moved: ["a"], slots: "" });
  assertEquals(Object.keys(world.all), ["a at other.example", "b at b.example"]);
  assertEquals(world.learn(elsewhere, FIRST[1]!), NOTHING);
  world.learn(elsewhere, FIRST[1]!, replica("ar", "a", 1));
  // Another node at the same place, and the former master is not known any more.
  const after = node("ar", 3, "0-99", { at: "other.example" });
  assertEquals(world.learn(after, FIRST[1]!), { moved: ["a"], slots: "" });
  assertEquals(world.idsOf("a"), "ar");
});

Deno.test("ClusterMap has no keeper without slots, and makes none for one that nobody knows to keep any", () => {
  const world = new World();
  const added = [...FIRST, node("c", 0, "")];
  world.learn(...added);
  assertEquals(world.made, ["a", "b"]);
  const moved = [node("a", 1, "0-99"), node("b", 2, ""), node("c", 3, "100-199")];
  assertEquals(world.learn(...moved).slots.split(" ").length, 100);
  assertEquals([world.map.keepers(), world.made], [["a", "c"], ["a", "b", "c"]]);
  // What was true before is nobody's.
  assertEquals([world.learn(...added), world.map.keepers(), world.made], [NOTHING, ["a", "c"], [
    "a",
    "b",
    "c",
  ]]);
});

Deno.test("ClusterMap follows a replica to another master, and one that becomes a master of its own", () => {
  const world = new World();
  world.learn(...FIRST);
  world.learn(FIRST[0]!, FIRST[1]!, replica("ar", "b", 2), FIRST[3]!);
  assertEquals([world.idsOf("a"), world.idsOf("b")], ["a", "ar b br"]);
  assertEquals(world.learn(FIRST[0]!, node("ar", 3, "100-199"), replica("b", "ar", 3)), {
    moved: ["b"],
    slots: "",
  });
  assertEquals(world.all, { "a at a.example": "0-99", "b at ar.example": "100-199" });
  // It was never seen without slots.
  for (const isFirst of [true, false]) {
    const world = new World();
    world.learn(...FIRST);
    const [own, rest] = [node("br", 3, "190-199"), node("b", 2, "100-189")];
    const now = [FIRST[0]!, ...(isFirst ? [own, rest] : [rest, own])];
    const change = world.learn(...now);
    assertEquals(change, { moved: [], slots: "190 191 192 193 194 195 196 197 198 199" });
    assertEquals(world.all, {
      "a at a.example": "0-99",
      "b at b.example": "100-189",
      "br at br.example": "190-199",
    });
    for (const answer of [FIRST, now]) assertEquals(world.learn(...answer), NOTHING);
  }
});

Deno.test("ClusterMap puts together what two nodes know that have not heard of each other's change", () => {
  const begin = [node("a", 1, "0-99"), node("b", 2, "100-199"), node("c", 3, "200-299"), node("d", 4, "")];
  // The one saw slot 0 go from a to d; the other, which has not heard of that, saw slot 200 go from c to a.
  const one = [node("a", 1, "1-99"), begin[1]!, begin[2]!, node("d", 5, "0")];
  const other = [node("a", 6, "0-99 200"), begin[1]!, node("c", 3, "201-299"), begin[3]!];
  const both = [node("a", 6, "1-99 200"), begin[1]!, node("c", 3, "201-299"), node("d", 5, "0")];
  for (const order of [[one, other], [other, one]]) {
    const world = new World();
    world.learn(...begin);
    for (const answer of order) world.learn(...answer);
    // Of a slot that one knows to be given away nobody says the contrary who has heard of that.
    for (let i = 0; i < 12; i++) world.learn(...both);
    assertEquals(world.all, {
      "a at a.example": "1-99,200",
      "b at b.example": "100-199",
      "c at c.example": "201-299",
      "d at d.example": "0",
    });
    assertEquals([world.learn(...one), world.learn(...other), world.map.of(0)], [NOTHING, NOTHING, "d"]);
  }
});

Deno.test("ClusterMap does not go back for a node that has never heard of who keeps it now", () => {
  const world = new World();
  world.learn(...FIRST);
  const now = [node("c", 3, "0-99"), node("br2", 4, "100-199"), node("a", 1, ""), replica("b", "br2", 4)];
  world.learn(...FIRST, replica("br2", "b", 2));
  world.learn(...now);
  const all = world.all;
  for (let i = 0; i < 30; i++) world.learn(...now);
  assertEquals([world.learn(...FIRST), world.all], [NOTHING, all]);
});

Deno.test("ClusterMap knows a slot that has come back by the later claim, whatever is said of the earlier ones", () => {
  const world = new World();
  const then = [node("a", 1, "0-99"), node("d", 0, "")];
  const away = [node("a", 1, "1-99"), node("d", 5, "0")];
  for (const answer of [then, away, [node("a", 6, "0-99"), node("d", 5, "")]]) world.learn(...answer);
  for (const answer of [then, away, away]) assertEquals(world.learn(...answer), NOTHING);
  assertEquals(world.all, { "a at a.example": "0-99" });
});

Deno.test("ClusterMap takes a cluster that was made anew at the same places, whatever its epochs", () => {
  const world = new World();
  const ours = [node("a", 7, "0-99"), node("b", 8, "100-199")];
  world.learn(...ours);
  const anew = [
    node("x", 1, "0-149", { at: "a.example" }),
    node("y", 2, "150-199", { at: "b.example" }),
  ];
  // Just one node may have been taken out: as long as another knows the cluster, it is there.
  for (let answers = 0; answers < 30; answers++) {
    assertEquals(world.learn(...anew), STRANGE);
    if (answers % 3 === 2) assertEquals(world.learn(...ours), NOTHING);
  }
  let answers = 0;
  while (world.learn(...anew) === STRANGE && answers < 100) answers++;
  assert(answers > 3 && answers < 30, `${answers}`);
  assertEquals(world.all, { "x at a.example": "0-149", "y at b.example": "150-199" });
});

Deno.test("ClusterMap goes by no node that was taken out, alone or among others, with the id it had", () => {
  const ours = [...FIRST, node("c", 3, "200-299")];
  const lost = "c is of another cluster now, at newer epochs";
  for (
    const [what, answer] of [
      ["a replica alone", [node("ar", 0, "")]],
      ["a master alone", [node("a", 1, "")]],
      ["a replica among others", [node("ar", 50, ""), node("x", 51, "0-299")]],
      [lost, [node("c", 52, "0-99"), node("x", 51, "100-299")]],
    ] as const
  ) {
    const world = new World();
    world.learn(...ours);
    const before = world.all;
    // What is alone is never our cluster, however long nobody else answers.
    const count = answer.some(({ ranges }) => ranges.length > 0) ? 10 : 50;
    for (let i = 0; i < count; i++) assertEquals(world.learn(...answer), STRANGE, what);
    assertEquals([world.all, world.learn(...ours)], [before, NOTHING], what);
  }
  // Of two masters one that is alone knows half; but it keeps nothing.
  const world = new World();
  world.learn(...FIRST);
  assertEquals(world.learn(node("a", 1, "")), STRANGE);
  // Replicas that have taken over are ours, also when all their masters were forgotten.
  assertEquals(world.learn(node("ar", 9, "0-99"), node("br", 10, "100-199")).moved, ["a", "b"]);
});

Deno.test("ClusterMap gives slots of a master that was taken out to whoever has them, sooner or later", () => {
  const world = new World();
  world.learn(...FIRST);
  // Master b was lost and forgotten; its slots were given to a by hand, which changes no epoch.
  let answers = 0;
  while (world.map.of(100) !== "a" && answers < 100) {
    world.learn(node("a", 1, "0-199"));
    answers++;
  }
  assert(answers > 1, "One answer is enough");
  assertEquals(world.all, { "a at a.example": "0-199" });
});

/**
 * A cluster as its nodes see it: each hears of the others' slots and epochs from themselves alone, one at a time, as by the
 * bus, and goes by the epochs.
 */
class Gossip {
  readonly #chance: Chance;
  readonly #names: readonly string[];
  /** What each master says of itself: its epoch, slots, and which node of its own is the master. */
  readonly truth: Map<string, { epoch: number; slots: Set<number>; turn: number }>;
  /** Of each node: what it heard of each, and whose it takes each slot for. */
  readonly #views = new Map<
    string,
    { heard: Map<string, { epoch: number; turn: number }>; owners: string[] }
  >();
  #epoch = 0;

  constructor(chance: Chance, names: readonly string[], slots: number) {
    this.#chance = chance;
    this.#names = names;
    this.truth = new Map(
      names.map((name) => [name, { epoch: ++this.#epoch, slots: new Set<number>(), turn: 0 }]),
    );
    for (let slot = 0; slot < slots; slot++) this.truth.get(names[slot % 3]!)!.slots.add(slot);
    for (const name of names) this.#views.set(name, { heard: new Map(), owners: [] });
    this.allHear();
  }

  /** A slot goes to another master, or a replica takes over. */
  change(): void {
    const from = this.#pick([...this.truth.values()].filter(({ slots }) => slots.size > 0));
    if (this.#chance.below(4) === 0) {
      from.turn++;
      from.epoch = ++this.#epoch;
      return;
    }
    const to = this.#pick([...this.truth.values()].filter((one) => one !== from));
    const slot = this.#pick([...from.slots]);
    from.slots.delete(slot);
    to.slots.add(slot);
    // As SETSLOT does: who has the highest epoch keeps it.
    if (to.epoch !== this.#epoch) to.epoch = ++this.#epoch;
  }

  /** One node hears of another from that itself. */
  hear(by = this.#pick(this.#names), of = this.#pick(this.#names)): void {
    const { heard, owners } = this.#views.get(by)!;
    const { epoch, slots, turn } = this.truth.get(of)!;
    heard.set(of, { epoch, turn });
    for (const slot of slots) {
      const before = owners[slot];
      const isClaimed = before !== undefined && this.truth.get(before)!.slots.has(slot);
      if (!isClaimed || heard.get(before)!.epoch <= epoch) owners[slot] = of;
    }
  }

  allHear(): void {
    for (const by of this.#names) for (const of of this.#names) this.hear(by, of);
  }

  /** What a node answers. */
  answer(by = this.#pick(this.#names)): ClusterNode[] {
    const { heard, owners } = this.#views.get(by)!;
    return [...heard].flatMap(([name, { epoch, turn }]) => {
      const ids = [`${name}0`, `${name}1`] as const;
      const ranges = owners.flatMap((owner, slot) => owner === name ? [slot] : []).join(" ");
      const [master, other] = turn % 2 === 0 ? ids : [ids[1], ids[0]];
      return [node(master, epoch, ranges), replica(other, master, epoch)];
    });
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#chance.below(from.length)]!;
  }
}

Deno.test("All ClusterMaps that hear of the end agree with it, whatever they heard before and in which order", async () => {
  await Chance.run(async (chance) => {
    for (let round = 0; round < 25; round++) {
      const gossip = new Gossip(chance, ["a", "b", "c", "d"], 12);
      const worlds = Array.from({ length: 3 }, () => new World());
      // Answers that are under way, maybe for long.
      const late: ClusterNode[][] = [];
      for (let step = 0; step < 60; step++) {
        if (chance.below(3) === 0) gossip.change();
        for (let i = chance.below(4); i > 0; i--) gossip.hear();
        late.push(gossip.answer());
        for (const world of worlds) {
          if (chance.below(3) > 0) world.learn(...late[chance.below(late.length)]!);
        }
        if (late.length > 6) late.shift();
      }
      gossip.allHear();
      const wanted = Object.fromEntries(
        [...gossip.truth].filter(([, { slots }]) => slots.size > 0).map(([name, { turn, slots }]) => [
          `${name}${turn % 2}.example`,
          [...slots].toSorted((one, other) => one - other).join(),
        ]),
      );
      for (const world of worlds) {
        let changes = 0;
        for (let i = 0; i < 30; i++) {
          const { moved, slots } = world.learn(...gossip.answer());
          if (i >= 20) changes += moved.length + slots.length;
        }
        const has = Object.fromEntries(
          world.map.keepers().map((name) => [
            world.keepers.get(name)!.master.place.hostname,
            world.map.rangesOf(name).flatMap(([first, last]) =>
              Array.from({ length: last - first + 1 }, (_, i) => first + i)
            ).join(),
          ]),
        );
        assertEquals([has, changes], [wanted, 0]);
      }
    }
    await Promise.resolve();
  });
});
