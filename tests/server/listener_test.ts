/** Where a service listens, as its URL names it, and a listener that is ended while it can't listen. */
import { assertEquals } from "@std/assert";
import { Listener } from "../../src/server/listener.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { Service } from "../../testkit/service.ts";

function hasIpv6(): boolean {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}

Deno.test("The URL of a service that listens everywhere can be opened", async () => {
  await using service = await Service.start({ HOST: "0.0.0.0", USERWIRE_OPEN: "true" });
  assertEquals(service.server.url, `http://localhost:${service.server.port}/`);
});

Deno.test({
  name: "The URL of a service on an IPv6 address can be opened",
  ignore: !hasIpv6(),
  async fn() {
    await using service = await Service.start({ HOST: "::1" });
    const { url, port } = service.server;
    assertEquals(url, `http://[::1]:${port}/`);
    assertEquals(await (await fetch(`${url}healthz`)).json(), { status: "ok" });
  },
});

for (const how of ["end", "retire"] as const) {
  Deno.test(`A listener that waits to listen anew stops that on ${how}()`, async () => {
    const handler = () => new Response();
    const listener = new Listener({ host: "127.0.0.1", port: 0, tls: undefined, handler, onStop() {} });
    const log = memoryLog();
    // Its port is taken: by itself.
    const recovering = listener.recover(new Error("no more files"), { log, url: "here" });
    listener[how]();
    assertEquals(await withDeadline(recovering, 10_000, "the listener to stop trying"), true);
    assertEquals(log.records.map(({ event }) => event), [
      "not listening any more: listens anew as soon as it can",
    ]);
    await listener.shutdown();
    await listener.finished;
  });
}
