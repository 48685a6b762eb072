/** A level for each area of the log, changed while it is written. */
import { assertEquals } from "@std/assert";
import { AREAS, LogLevels } from "../../src/log/levels.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

Deno.test("Each area writes lines of its own level and above, from the moment that it is set", () => {
  const sink = memoryLog();
  const levels = new LogLevels(sink, "info");
  const http = levels.in("http");
  const session = levels.in("session");
  const all = () => {
    for (const level of ["debug", "info", "warn", "error"] as const) {
      http[level](`http ${level}`);
      session[level](`session ${level}`);
    }
    return sink.records.splice(0).map(({ event }) => event);
  };
  assertEquals(all(), ["info", "warn", "error"].flatMap((level) => [`http ${level}`, `session ${level}`]));
  levels.set("error", "http");
  levels.set("debug", "session");
  assertEquals(all(), ["session debug", "session info", "session warn", "http error", "session error"]);
  assertEquals([http.level, session.level], ["error", "debug"]);
  levels.set("warn");
  assertEquals(
    levels.all(),
    Object.fromEntries(AREAS.map((area) => [area, "warn"])) as typeof levels.all extends () => infer T ? T
      : never,
  );
});
