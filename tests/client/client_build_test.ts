/** The built client: that it is the one in the source, that it is small, and that the service hands it out. */
import { assert, assertEquals } from "@std/assert";
import { buildClient } from "../../deploy/client.ts";
import { assets } from "../../src/web/assets.ts";
import { Service } from "../../testkit/service.ts";

const MAX_GZIPPED_BYTES = 8 * 1024;
/** What it loads late, by its paths. */
const LATE = ["/event_stream.js", "/requests.js"];

async function gzippedBytes(text: string): Promise<number> {
  const stream = new Response(text).body!.pipeThrough(new CompressionStream("gzip"));
  return (await new Response(stream).bytes()).length;
}

Deno.test("Built client is the one in the source", async () => {
  const built = await buildClient();
  for (const [name, text] of Object.entries(built)) {
    const kept = await Deno.readTextFile(new URL(`../../src/web/${name}`, import.meta.url));
    assert(text === kept, `src/web/${name} is not what src/client/ builds to: run "deno task client"`);
  }
});

Deno.test("Built client is one module of at most 8 KiB, gzipped, that imports nothing but what it needs late", async () => {
  const [text, ...late] = ["/client.js", ...LATE].map((path) => assets.get(path)!.body);
  const bytes = await gzippedBytes(text!);
  assert(bytes <= MAX_GZIPPED_BYTES, `It has ${bytes} bytes`);
  const alone = LATE.reduce((rest, path) => rest!.replace(`import(".${path}")`, ""), text);
  for (const one of [alone!, ...late]) {
    assertEquals(one.match(/\bimport\b|\brequire\b|\bDeno\b|\bprocess\b|node:|npm:/g), null);
  }
});

Deno.test("Built client exports what the source exports", async () => {
  const [built, source] = await Promise.all([
    import("../../src/web/client.js"),
    import("../../src/client/mod.ts"),
  ]);
  assertEquals(Object.keys(built).sort(), Object.keys(source).sort());
});

Deno.test("Service serves the client to its own page and to those of sites that may connect", async () => {
  await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: "https://app.example" });
  for (const path of ["/client.js", ...LATE]) {
    for (const headers of [{}, { origin: "https://app.example" }] as { origin?: string }[]) {
      const response = await service.fetch(path, { headers });
      assertEquals(response.status, 200);
      assertEquals(response.headers.get("content-type"), "text/javascript; charset=utf-8");
      // Modules of other sites are fetched with CORS.
      assertEquals(response.headers.get("access-control-allow-origin"), headers.origin ?? "*");
      assertEquals(await response.text(), assets.get(path)!.body);
    }
  }
  const refused = await service.fetch("/client.js", { headers: { origin: "https://other.example" } });
  assertEquals(refused.status, 403);
  await refused.body?.cancel();
  const page = await service.fetch("/page.js");
  assertEquals(page.headers.get("access-control-allow-origin"), null);
  await page.body?.cancel();
});
