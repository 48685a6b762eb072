/** What a Redis is set to that may lose data of ours, read from what it says of itself. Pure. */
import { readInfo, type ServerInfo } from "./server_info.ts";

const DAY_S = 86_400;
/** So far may its clock be off: that much is forgiven to whoever signs tokens, too, unless set otherwise. */
const CLOCK_MS = 5_000;
const LOST = "revocations, tickets and histories";

/**
 * @param info What INFO answers, or a part of it.
 * @param save When it writes snapshots, as CONFIG GET says it: "" for never; undefined when it does not tell.
 * @param asked When it was asked for INFO, and when the answer came, in Unix ms on our clock.
 * @returns Sentences without a full stop. What is not known is passed over.
 */
export function warningsOf(
  info: string,
  save?: string,
  asked?: { readonly fromMs: number; readonly toMs: number },
): string[] {
  const { field } = readInfo(info);
  const warnings: string[] = [];
  const policy = field("maxmemory_policy");
  if (Number(field("maxmemory") ?? 0) > 0 && policy !== undefined && policy !== "noeviction") {
    warnings.push(
      `Redis may throw ${LOST} away when its memory is full (maxmemory-policy ${policy}): ` +
        "set maxmemory-policy noeviction, see docs/redis.md",
    );
  }
  if (field("aof_enabled") === "0" && (save === undefined ? isNeverSaved(field) : save.trim() === "")) {
    warnings.push(
      `Redis keeps nothing on disk, so ${LOST} are lost when it restarts: set appendonly yes, see docs/redis.md`,
    );
  }
  const serverMs = Number(field("server_time_usec")) / 1_000;
  if (asked && (serverMs > asked.toMs + CLOCK_MS || serverMs < asked.fromMs - CLOCK_MS)) {
    warnings.push(
      `Redis' clock is more than ${CLOCK_MS / 1_000} s ${serverMs > asked.toMs ? "ahead of" : "behind"} ` +
        "this machine's: tickets, revocations and histories end too early or too late: run NTP on both",
    );
  }
  return warnings;
}

/** Whether it has had something to write since its start, more than a day ago, and has written nothing. */
function isNeverSaved(field: ServerInfo["field"]): boolean {
  return Number(field("uptime_in_seconds")) > DAY_S && Number(field("rdb_changes_since_last_save")) > 0 &&
    field("rdb_last_bgsave_time_sec") === "-1" && field("rdb_bgsave_in_progress") === "0";
}
