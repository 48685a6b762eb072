/** Faults of nodes: killed, drained and forgotten, full, started in circles, without a certificate. */
import { assert, assertEquals } from "@std/assert";
import { readConfig } from "../../../src/config/settings.ts";
import { lookAtAll } from "../../../src/doctor/doctor.ts";
import type { Look } from "../../../src/server/calls.ts";
import { Certificates } from "../../../testkit/certificates.ts";
import { until } from "../../../testkit/deadline.ts";
import { ProcessService } from "../../../testkit/process_service.ts";
import { OwnPort } from "../../../testkit/own_port.ts";
import { RawSocket } from "../../../testkit/raw_socket.ts";
import { RedisServer } from "../../../testkit/redis_server.ts";
import { Service } from "../../../testkit/service.ts";
import { TempFolder } from "../../../testkit/temp_folder.ts";
import { openClient } from "../../../testkit/ws_client.ts";
import { consoleOf, linesOf, readyz, userwire } from "./night.ts";
import { doctor, type Fault, nodes, USERS } from "./fault.ts";

/** Of the node that runs out of them. */
const FILES = 300;

export const NODE_FAULTS: readonly Fault[] = [
  {
    name: "A node is killed, and then the other",
    fires: ["UserwireNodeDown", "UserwireNoNodeReady"],
    may: ["UserwireNodesGone"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [one, other] = [
        night.use(await ProcessService.start(env)),
        night.use(await ProcessService.start(env)),
      ];
      await night.read(one.url, other.url);
      const before = await userwire(`nodes --url ${other.url}`);
      one.signal("SIGKILL");
      const { labels } = await night.fires("UserwireNodeDown");
      assertEquals(labels.instance, new URL(one.url).host);
      let after = before;
      await until(
        async () => (after = await userwire(`nodes --url ${other.url}`)).trim().split("\n").length === 1,
        "the dead node to be gone",
        30_000,
        () => after,
      );
      assert(before.trim().split("\n").length === 2, before);
      assert(!night.fired.has("UserwireNoNodeReady"));
      const shown = await consoleOf(other.url);
      assertEquals(JSON.parse(shown.split("\n")[0]!).nodes.length, 1, shown);
      other.signal("SIGKILL");
      await night.fires("UserwireNoNodeReady");
      const silent = await fetch(new URL("/readyz", other.url)).then(
        (it) => it.text(),
        () => "nothing answers",
      );
      return [
        ["userwire nodes, on another", new RegExp(`:${new URL(other.url).port}: `), after],
        ["console", /"nodes":\[\{[^{}]*\}\]/, shown],
        ["readyz", /nothing answers/, silent],
      ];
    },
  },
  {
    name: "A node was drained, and forgotten",
    fires: ["UserwireNotReady"],
    may: ["UserwireNodesGone"],
    async play(night) {
      const [node, other] = await nodes(night, 2, {});
      await night.read(node!.server.url, other!.server.url);
      await userwire(`drain --url ${node!.server.url}`);
      await night.fires("UserwireNotReady");
      const seen = await readyz(node!);
      await userwire(`drain --cancel --url ${node!.server.url}`);
      await night.ends("UserwireNotReady");
      return [["readyz", /"ready":false,"why":"The node is draining"/, seen]];
    },
  },
  {
    name: "A certificate ends",
    fires: ["UserwireCertificateEnded", "UserwireCertificateEnding"],
    async play(night) {
      const certificates = night.use(await Certificates.make());
      await certificates.renew("server", 0);
      const env = {
        USERWIRE_TLS_CERT: certificates.cert("server"),
        USERWIRE_TLS_KEY: certificates.key("server"),
      };
      const look: Look = (nodes, files) => lookAtAll(readConfig({ env }), nodes, files);
      const node = night.use(await Service.start(env, { look }));
      await night.read(node.server.url);
      await night.fires("UserwireCertificateEnded");
      const ended = await doctor(env);
      // No client of ours would take that certificate.
      const shown = await consoleOf("http://localhost", (url) => node.server.app.answerOps(new Request(url)));
      await certificates.renew("server", 7);
      const renewed = await doctor(env);
      assert(night.fired.has("UserwireCertificateEnded"), "what is served goes on ending");
      node.server.reload();
      await night.ends("UserwireCertificateEnded");
      await night.fires("UserwireCertificateEnding");
      await certificates.renew("server", 90);
      node.server.reload();
      await night.ends("UserwireCertificateEnding");
      return [
        ["doctor", /✗ certificate: USERWIRE_TLS_CERT ended on/, ended],
        ["console", /"certificate"[^{}]*USERWIRE_TLS_CERT ended on/, shown],
        ["doctor, with one of a week on the disk", /! certificate: USERWIRE_TLS_CERT ends on/, renewed],
      ];
    },
  },
  {
    name: "A node is full",
    fires: ["UserwireFull"],
    async play(night) {
      const [node] = await nodes(night, 1, { USERWIRE_MAX_CONNECTIONS: "3" });
      await night.open(node!, USERS.slice(0, 3));
      await night.read(node!.server.url);
      await using refused = await RawSocket.open(node!.socketUrl("one"));
      assertEquals(refused.answer.status, 503);
      await night.fires("UserwireFull");
      const shown = await userwire(`nodes --url ${node!.server.url}`);
      return [["userwire nodes", /3 sockets/, shown], [
        "lines",
        /handshake refused .*full/,
        linesOf(node!, "handshake refused"),
      ]];
    },
  },
  {
    name: "Files run out, and the log's folder is gone",
    fires: ["UserwireOpenFiles", "UserwireLogLinesLost"],
    may: ["UserwireFull", "UserwireNotReady", "UserwireNoNodeReady", "UserwireHandshakesRefused"],
    async play(night) {
      const folder = night.use(new TempFolder("night"));
      const env = { LOG_DIR: `${folder}/logs`, LOG_LEVEL: "debug" };
      const node = night.use(await ProcessService.start(env, { openFiles: FILES }));
      await night.read(node.url);
      const metrics = await (await fetch(new URL("metrics", node.url))).text();
      const open = Number(/\nuserwire_open_files (\d+)/.exec(metrics)![1]);
      for (let n = open; n < FILES * 0.85; n++) night.use(await openClient(node.socketUrl(`user${n}`)));
      await night.fires("UserwireOpenFiles");
      await Deno.remove(env.LOG_DIR, { recursive: true });
      await Deno.writeTextFile(env.LOG_DIR, "");
      // Lines fill the memory that is kept for them.
      const long = "x".repeat(1_000);
      night.steadily(10, async () => {
        await (await fetch(new URL(`nowhere?${long}`, node.url), {
          headers: { "x-request-id": long.slice(0, 128) },
        })).text();
      });
      await night.fires("UserwireLogLinesLost");
      return [["doctor", /✗ log folder: .*can't be written/, await doctor(env)]];
    },
  },
  {
    name: "A node is started in circles",
    fires: ["UserwireRestarting"],
    may: ["UserwireNodeDown", "UserwireNoNodeReady"],
    async play(night) {
      const port = night.use(OwnPort.take());
      const start = async () => night.use(await ProcessService.start({ PORT: `${port}` }));
      let node = await start();
      await night.read(node.url);
      for (let n = 0; n < 3; n++) {
        node.signal("SIGKILL");
        await node.ended();
        node = await start();
        await night.seen("userwire_ready", 2);
      }
      await night.fires("UserwireRestarting");
      const metrics = await (await fetch(new URL("metrics", node.url))).text();
      return [["the panel Up for", /process_start_time_seconds \d+/, metrics]];
    },
  },
];
