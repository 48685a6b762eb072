/** The wiring of the HTTP API: what its calls are answered with. */
import type { Config } from "../config/settings.ts";
import type { Engine } from "../engine/engine.ts";
import { oneAtATime } from "../http/api/doctor.ts";
import type { Finding } from "../http/api/shapes.ts";
import { EventStreams } from "../http/event_stream.ts";
import type { UpgradeOptions } from "../http/handshake.ts";
import { createRouter, type Router, type RouterOptions } from "../http/router.ts";
import { StatsStreams } from "../http/stats_streams.ts";
import type { OpenFiles } from "../metrics/open_files.ts";
import type { Samples } from "../metrics/samples.ts";
import type { OwnHost } from "../net/own_host.ts";
import { publicAddress } from "../net/public_url.ts";
import type { WarningsWatch } from "../redis/commands.ts";
import type { Broadcasts } from "../session/broadcasts.ts";
import type { Registry } from "../session/registry.ts";

/**
 * Looks at the set-up of a node that serves, for `GET /v1/doctor`.
 * @param nodes How many nodes share its Redis.
 * @param files Those of its process.
 */
export type Look = (nodes: number, files: Pick<OpenFiles, "limit">) => Promise<readonly Finding[]>;

/** The name by which a supervisor calls its processes. */
export const OPS_HOST: OwnHost = { protocol: "http:", hostname: "localhost", port: "", direct: "localhost" };

type Shared = "publisher" | "auth" | "names" | "metrics" | "log" | "levels" | "draining";

/** What calls share with sockets. */
interface Parts extends Pick<RouterOptions, Shared> {
  readonly config: Config;
  readonly node: string;
  readonly engine: Engine;
  readonly watch: WarningsWatch | undefined;
  readonly files: OpenFiles;
  readonly broadcasts: Broadcasts;
  readonly connections: Registry;
  readonly hasOpsSocket: boolean;
}

interface CallsOptions extends Pick<RouterOptions, "nodes" | "readiness" | "isEnding" | "version"> {
  readonly parts: Parts;
  readonly upgrades: UpgradeOptions;
  readonly samples: Samples;
  readonly look: Look | undefined;
}

export interface Calls {
  readonly router: Router;
  /** Ends the streams of numbers. */
  endStats(): void;
  close(): void;
}

export function openCalls(
  { parts, upgrades, samples, look, nodes, readiness, isEnding, version }: CallsOptions,
): Calls {
  const { config, node, auth, engine, files, connections, metrics, publisher } = parts;
  const stats = new StatsStreams({
    ...{ auth, samples, readiness, nodes, isEnding },
    about: { node, version, webhooks: config.webhookUrl !== undefined },
  });
  const streams = new EventStreams({
    ...{ ...config, upgrades, metrics, registry: connections, broker: engine.broker },
    receipts: publisher.receipts,
  });
  const router = createRouter({
    ...config,
    ...parts,
    ...{ readiness, stats, streams, nodes, isEnding, version },
    look: look && oneAtATime((nodes) => look(nodes, files)),
    showMetrics: config.metrics,
    opsHost: parts.hasOpsSocket ? OPS_HOST : undefined,
    socketUrlFor: publicAddress(config.publicUrl),
  });
  return {
    router,
    endStats: () => stats.close(),
    close() {
      stats.close();
      router.close();
    },
  };
}
