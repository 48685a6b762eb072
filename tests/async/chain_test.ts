/** A line that anybody may leave at any time. */
import { assertEquals } from "@std/assert";
import { Chain, type Linked, UNLINKED } from "../../src/async/chain.ts";
import { Chance } from "../../testkit/random.ts";

interface Guest extends Linked<Guest> {
  readonly name: string;
}

const guest = (name: string): Guest => ({ ...UNLINKED, name });

/** Takes all out, from the front. */
function emptied(chain: Chain<Guest>): string[] {
  const names: string[] = [];
  for (let one; (one = chain.shift());) names.push(one.name);
  return names;
}

Deno.test("A chain gives out who came first, and lets anybody leave", () => {
  const chain = new Chain<Guest>();
  assertEquals([chain.first, chain.shift(), chain.size], [undefined, undefined, 0]);
  const guests = ["a", "b", "c", "d"].map(guest);
  for (const one of guests) chain.add(one);
  const [a, b, c, d] = guests as [Guest, Guest, Guest, Guest];
  assertEquals([chain.first, chain.size], [a, 4]);
  assertEquals([chain.delete(b), chain.delete(b), chain.size], [true, false, 3]);
  assertEquals([chain.delete(d), chain.delete(a), chain.first], [true, true, c]);
  // Who has left may come again, behind the others.
  chain.add(a);
  assertEquals(emptied(chain), ["c", "a"]);
  assertEquals([chain.first, chain.size], [undefined, 0]);
});

Deno.test("Who leaves a chain points at nobody, and stands in no other", () => {
  const [one, other] = [new Chain<Guest>(), new Chain<Guest>()];
  const guests = ["a", "b", "c"].map(guest);
  for (const guest of guests) one.add(guest);
  assertEquals(other.delete(guests[1]!), false);
  one.delete(guests[1]!);
  one.shift();
  for (const { before, after, chain } of guests.slice(0, 2)) {
    assertEquals([before, after, chain], [undefined, undefined, undefined]);
  }
  assertEquals([guests[2]!.before, guests[2]!.after, one.size], [undefined, undefined, 1]);
});

Deno.test("A walk through a chain meets who is there when it comes to them", () => {
  const chain = new Chain<Guest>();
  const [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(guest) as [Guest, Guest, Guest, Guest, Guest];
  for (const one of [a, b, c]) chain.add(one);
  const met: string[] = [];
  for (const one of chain) {
    met.push(one.name);
    if (one === a) {
      chain.delete(a);
      chain.delete(b);
    } else if (one === c) {
      chain.delete(c);
      chain.add(d);
    } else if (one === d) chain.add(e);
  }
  assertEquals([met, [...chain]], [["a", "c", "d", "e"], [d, e]]);
  // Two at a time; one is broken off, and neither stands in the way of what comes later.
  for (const one of chain) {
    if (one === d) { for (const other of chain) if (chain.delete(other)) break; }
    met.push(`again ${one.name}`);
  }
  assertEquals([met.slice(4), [...chain]], [["again d", "again e"], [e]]);
});

Deno.test("A chain is as a list in whichever order they come and go", async () => {
  await Chance.run((chance) => {
    const chain = new Chain<Guest>();
    const list: Guest[] = [];
    for (let step = 0; step < 2_000; step++) {
      if (chance.below(2) === 0 || list.length === 0) {
        const one = guest(String(step));
        chain.add(one);
        list.push(one);
      } else if (chance.below(3) === 0) {
        assertEquals(chain.shift(), list.shift());
      } else {
        const [one] = list.splice(chance.below(list.length), 1);
        assertEquals(chain.delete(one!), true);
      }
      assertEquals([chain.size, chain.first?.name], [list.length, list[0]?.name]);
    }
    assertEquals(emptied(chain), list.map(({ name }) => name));
    return Promise.resolve();
  });
});
