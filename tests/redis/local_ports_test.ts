/**
 * With dedicated subscriptions each socket takes one of the ports that this machine has for connections to Redis. Tried
 * where there are few of them: in a network namespace of its own, which Linux gives to whoever may have one.
 */
import { assertEquals, assertLess } from "@std/assert";
import { fileURLToPath } from "node:url";
import { findRedisServer } from "../../testkit/programs.ts";
import { type Outcome, PORTS, SOCKETS } from "./few_ports.ts";

const PROGRAM = fileURLToPath(new URL("few_ports.ts", import.meta.url));
const NO_PORTS = "Redis is not available: this machine has no free port left for connections to it: " +
  "widen net.ipv4.ip_local_port_range";

/** Runs a shell's words in a namespace with loopback only. */
async function isolated(words: string): Promise<Deno.CommandOutput> {
  const args = ["-rn", "sh", "-euc", `ip link set lo up; ${words}`];
  return await new Deno.Command("unshare", { args, stdin: "null" }).output();
}

const isHere = await isolated("test -w /proc/sys/net/ipv4/ip_local_port_range")
  .then(({ success }) => success, () => false);
if (!isHere) {
  console.warn(
    "The test of used up ports is skipped: it needs Linux, unshare, ip, and the right to a namespace",
  );
}

Deno.test({
  name:
    "When the ports to Redis are used up, sockets are refused and told so, and what the pages advise helps",
  ignore: !isHere || findRedisServer() === undefined,
  async fn() {
    const { stdout, stderr } = await isolated(`exec '${Deno.execPath()}' run -A --no-lock '${PROGRAM}'`);
    const text = new TextDecoder().decode(stdout);
    if (text === "") throw new Error(new TextDecoder().decode(stderr));
    const { dedicated, shared, unix, atStart } = JSON.parse(text) as
      & Record<"dedicated" | "shared" | "unix", Outcome>
      & { atStart: string };

    const { open, refused, told, logged, later } = dedicated;
    assertEquals([open + refused, told, logged], [SOCKETS, [NO_PORTS], [NO_PORTS]]);
    assertLess(open, PORTS, "one is for commands");
    assertLess(PORTS - open, 20);
    assertEquals(later, refused, "with a wider range all are let in, without a restart");

    const all: Outcome = { open: SOCKETS, refused: 0, told: [], logged: [] };
    assertEquals({ shared, unix }, { shared: all, unix: all });

    assertEquals(atStart, NO_PORTS);
  },
});
