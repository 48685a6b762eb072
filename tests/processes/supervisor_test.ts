/** Several processes on one port, as real ones with a real Redis: what they are together. */
import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { KEY } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Supervised } from "../../testkit/supervised.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** Sends by a connection of its own, which leads to any of the processes. */
async function send(url: string, user: string, data: unknown): Promise<{ sockets: number }> {
  using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  const response = await fetch(new URL(`v1/users/${user}/messages`, url), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(data),
    client,
  });
  return await response.json();
}

redisTest(
  "Two processes on one port, to whose users it does not matter which of them they meet",
  async (t) => {
    await using redis = await RedisServer.start();
    await using both = await Supervised.start({ REDIS_URL: redis.url, USERWIRE_NODE: "web:1" });
    await using sockets = new AsyncDisposableStack();
    const clients: Awaited<ReturnType<typeof openClient>>[] = [];
    const count = await both.openOnBoth("alice", (client) => clients.push(sockets.use(client)));

    await t.step(
      "what one of them writes is in a file of its own, and says which it is on the console",
      () => {
        const files = [...Deno.readDirSync(both.service.logDir)].map(({ name }) => name).sort();
        assertEquals(files, ["userwire-web_1.log", "userwire-web_1_1.log", "userwire-web_1_2.log"]);
        const listening = both.service.records.filter(({ event }) => event === "listening");
        assertEquals(listening.map(({ process, node }) => [process, node]).sort(), [
          [1, "web:1#1"],
          [2, "web:1#2"],
        ]);
      },
    );

    await t.step("a send through any of them reaches the sockets of both", async () => {
      const sends = async () => {
        const text = await (await fetch(new URL("metrics", both.opsUrl))).text();
        const samples = parseMetrics(text);
        return [1, 2].map((k) => samples.get(`userwire_sends_total{process="${k}",outcome="reached"}`)!);
      };
      let n = 0;
      for (; n < 40 && (await sends()).includes(0); n++) {
        assertEquals((await send(both.url, "alice", n)).sockets, count);
      }
      assert(!(await sends()).includes(0), "both have sent");
      for (const client of clients) {
        for (let i = 0; i < n; i++) assertEquals(await client.next(), `${i}`);
      }
      const { processes } = await both.readiness();
      assertEquals(processes.map(({ node }) => /#\d$/.exec(node!)![0]), ["#1", "#2"]);
    });

    await t.step(
      "any of them lists a user's connections and the nodes, and closes one wherever it is",
      async () => {
        using any = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
        const call = async (path: string, method = "GET") => {
          const response = await fetch(new URL(path, both.url), { method, client: any });
          assertEquals(response.status, 200, path);
          return await response.json();
        };
        const own: Awaited<ReturnType<typeof openClient>>[] = [];
        const conns: unknown[] = [];
        const list = async (): Promise<{ conn: string; node: string }[]> =>
          (await call("v1/users/bob/connections")).items;
        while (new Set((await list()).map(({ node }) => node)).size < 2) {
          const client = sockets.use(await openClient(both.service.socketUrl("bob"), "userwire.v1"));
          own.push(client);
          conns.push((await client.nextJson()).conn);
          assertLess(own.length, 20, "connections are spread over the processes");
        }
        for (let times = 0; times < 6; times++) {
          assertEquals((await list()).map(({ conn }) => conn).sort(), conns.toSorted());
          const { items: nodes } = await call("v1/nodes");
          assertEquals(nodes.map(({ node }: { node: string }) => node), ["web:1#1", "web:1#2"]);
        }
        for (const [i, conn] of conns.entries()) {
          assertEquals(await call(`v1/users/bob/connections/${conn}`, "DELETE"), { closed: 1 });
          assertEquals((await own[i]!.closed).code, 4403);
        }
      },
    );

    await t.step("one that is killed is replaced, and the sockets of the other live on", async () => {
      const { processes } = await both.readiness();
      const left = processes.find(({ process }) => process === 2)!.connections!;

      Deno.kill(both.pidOf(1), "SIGKILL");
      const { process, signal } = await both.service.logged("process ended: it is started again");
      assertEquals([process, signal], [1, "SIGKILL"]);
      await until(
        async () => (await send(both.url, "alice", "still here")).sockets === left,
        "those of the other",
      );
      await both.areReady(2);
      const numbers = (await both.readiness()).processes.map(({ process }) => process);
      assertEquals(numbers, [1, 2]);
      let open = 0;
      for (const client of clients) open += Number(client.waiting.length > 0);
      assertEquals([open, count > left], [left, true], "each of them got it");
      assert(both.service.records.every(({ event }) => event !== "processes shutting down"));
    });
  },
);

redisTest(
  "auto starts a process for each core; they share a port with TLS too, and take a new certificate",
  async () => {
    await using redis = await RedisServer.start();
    await using certificates = await Certificates.make();
    using folder = new TempFolder("processes");
    const write = async (name: string) => {
      await Deno.copyFile(certificates.cert(name), `${folder}/cert`);
      await Deno.copyFile(certificates.key(name), `${folder}/key`);
    };
    await write("server");
    await using all = await Supervised.start({
      REDIS_URL: redis.url,
      USERWIRE_PROCESSES: "auto",
      USERWIRE_TLS_CERT: `${folder}/cert`,
      USERWIRE_TLS_KEY: `${folder}/key`,
    });
    await all.areReady(navigator.hardwareConcurrency);
    assertMatch(all.url, /^https:/);
    using http = Deno.createHttpClient({ caCerts: [certificates.ca], poolMaxIdlePerHost: 0 });
    const get = async () => await (await fetch(new URL("healthz", all.url), { client: http })).json();
    assertEquals(await get(), { status: "ok" });
    await write("other");
    all.service.signal("SIGHUP");
    for (let process = 1; process <= navigator.hardwareConcurrency; process++) {
      await all.service.logged("certificate replaced: clients are told to come back", undefined, { process });
    }
    assertEquals(await get(), { status: "ok" });
  },
);

redisTest("The limits of sockets are divided, and rounded up", async () => {
  await using redis = await RedisServer.start();
  await using both = await Supervised.start({
    REDIS_URL: redis.url,
    USERWIRE_MAX_CONNECTIONS: "5",
    USERWIRE_MAX_CONNECTIONS_PER_USER: "0",
  });
  await using sockets = new AsyncDisposableStack();
  let refused = 0, open = 0;
  for (; open < 6 || refused < 8; open++) {
    try {
      sockets.use(await openClient(both.service.socketUrl("alice")));
    } catch {
      refused++;
      open--;
    }
    assert(refused < 200, "some went to each");
  }
  const { processes } = await both.readiness();
  assertEquals(processes.map(({ connections }) => connections), [3, 3]);
});

redisTest("/metrics and /readyz are those of all, and as open as those of one", async (t) => {
  await using redis = await RedisServer.start();
  const { key: sending, line } = newKey("sender", { scopes: ["send"] });
  await using both = await Supervised.start({
    REDIS_URL: redis.url,
    USERWIRE_API_KEYS: `${KEY.line},${line}`,
  });
  const get = async (path: string, key?: string, base = both.opsUrl, method = "GET") => {
    const response = await fetch(new URL(path, base), {
      method,
      headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
    });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };

  await t.step("a text that a strict reader takes, with each sample of each process", async () => {
    const { status, headers, text } = await get("metrics", KEY.key);
    assertEquals(status, 200, text);
    assertMatch(headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
    const samples = parseMetrics(text);
    for (const k of [1, 2]) {
      assertEquals(samples.get(`userwire_connections{process="${k}",mode="v1"}`), 0);
      assertEquals(samples.get(`userwire_send_duration_seconds_bucket{process="${k}",le="+Inf"}`), 0);
      assertGreater(samples.get(`process_start_time_seconds{process="${k}"}`)!, 1e9);
    }
  });

  await t.step("a key is needed, with the scope", async () => {
    for (
      const [key, status, code] of [[undefined, 401, "unauthorized"], [sending, 403, "forbidden"]] as const
    ) {
      const answer = await get("metrics", key);
      assertEquals([answer.status, JSON.parse(answer.text).code], [status, code]);
      assertEquals(answer.headers.has("www-authenticate"), status === 401);
    }
  });

  await t.step("readiness needs none, and names each process", async () => {
    const { status, ready, processes } = await both.readiness();
    assertEquals([status, ready, processes.map(({ process, ready }) => [process, ready])], [200, true, [[
      1,
      true,
    ], [
      2,
      true,
    ]]]);
    assertEquals((await get("healthz")).text, '{"status":"ok"}');
  });

  await t.step("what it does not have, and other methods, are refused", async () => {
    assertEquals((await get("v1/users/alice", KEY.key)).status, 404);
    assertEquals((await get("metrics", KEY.key, both.opsUrl, "POST")).status, 405);
  });

  await t.step("a page of another site, whose name leads here, gets nothing", async () => {
    const port = Number(new URL(both.opsUrl).port);
    using conn = await Deno.connect({ hostname: "127.0.0.1", port });
    await conn.write(
      new TextEncoder().encode("GET /readyz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
    );
    assertMatch(await new Response(conn.readable).text(), /^HTTP\/1.1 421 /);
  });

  await t.step("on the port that they share the numbers of a random one are not shown", async () => {
    const { status, text } = await get("metrics", KEY.key, both.url);
    assertEquals([status, JSON.parse(text).code], [404, "not_found"]);
    assertStringIncludes(text, "USERWIRE_OPS_PORT");
    assertEquals((await get("readyz", undefined, both.url)).status, 200);
  });

  await t.step("a process that hangs is named, and holds nobody up for long", async () => {
    Deno.kill(both.pidOf(2), "SIGSTOP");
    try {
      const { status, processes } = await both.readiness();
      assertEquals([status, processes.map(({ ready }) => ready)], [200, [true, false]]);
      assertEquals(processes[1]!.why, "The process does not answer");
      const samples = parseMetrics((await get("metrics", KEY.key)).text);
      assertEquals([1, 2].map((k) => samples.has(`process_start_time_seconds{process="${k}"}`)), [
        true,
        false,
      ]);
    } finally {
      Deno.kill(both.pidOf(2), "SIGCONT");
    }
  });
});
