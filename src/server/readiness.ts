/** Whether a node should get traffic, and what else is to be said of it: `/readyz`, and the gauges of the same. */
import type { Auth } from "../auth/auth.ts";
import type { Engine } from "../engine/engine.ts";
import type { OpenFiles } from "../metrics/open_files.ts";
import type { WarningsWatch } from "../redis/commands.ts";
import type { Broadcasts } from "../session/broadcasts.ts";
import type { Draining } from "../session/draining.ts";
import type { Registry } from "../session/registry.ts";
import type { RouterOptions } from "../http/router.ts";

interface ReadinessParts {
  readonly node: string;
  readonly engine: Engine;
  readonly auth: Auth;
  readonly broadcasts: Broadcasts;
  readonly connections: Registry;
  readonly draining: Draining;
  readonly files: OpenFiles;
  readonly watch: WarningsWatch | undefined;
}

/** @returns What asks all parts, each time. */
export function readinessOf(parts: ReadinessParts, isEnding: () => boolean): RouterOptions["readiness"] {
  const { node, engine, auth, broadcasts, connections, draining, files, watch } = parts;
  return () => {
    const why = isEnding()
      ? "The node is shutting down"
      : draining.isOn
      ? "The node is draining"
      : engine.unready() ?? broadcasts.unready() ?? (files.areScarce ? files.reason : undefined);
    const warnings = [...engine.faults(), ...broadcasts.faults(), ...watch?.warnings ?? []];
    return {
      ready: why === undefined,
      ...(why !== undefined && { why }),
      broker: engine.broker.kind,
      node,
      open: auth.isOpen,
      connections: connections.size,
      ...(warnings.length > 0 && { warnings }),
    };
  };
}
