/**
 * The Python client with a real service: one process runs all checks, each of which is a step here. That it keeps the
 * rules of the protocol is tested by the conformance kit.
 */
import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { newKey } from "../../src/auth/keys.ts";
import { RequestError } from "../../src/protocol/errors.ts";
import { SECRET } from "../../testkit/closed.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { hasPythonWebsockets, PYTHON } from "../../testkit/programs.ts";
import { Service } from "../../testkit/service.ts";

const CHECKS = fileURLToPath(new URL("python_checks.py", import.meta.url));

Deno.test({
  name: "The Python client, with a service and with servers that misbehave",
  ignore: !hasPythonWebsockets(),
  async fn(t) {
    const key = newKey("python", { scopes: ["send", "read", "groups", "broadcast", "admin"], users: "*|@*" });
    await using service = await Service.start({
      USERWIRE_API_KEYS: key.line,
      USERWIRE_JWT_SECRET: SECRET,
      USERWIRE_MAX_BODY_BYTES: "4194304",
      USERWIRE_JWT_CLOCK_TOLERANCE_S: "0",
    }, {
      onRequest({ user, op, data, signal }) {
        if (op === "echo") return { user, data };
        if (op === "hang") return new Promise((resolve) => signal.addEventListener("abort", resolve));
        throw new RequestError("Not that", "unknown_op", { retryMs: 1_500 });
      },
    });
    await using certificates = await Certificates.make();
    await using strangers = await Certificates.make();
    await using secure = await Service.start({
      USERWIRE_API_KEYS: key.line,
      USERWIRE_JWT_SECRET: SECRET,
      USERWIRE_TLS_CERT: certificates.cert("server"),
      USERWIRE_TLS_KEY: certificates.key("server"),
    });
    const tls = [`https://localhost:${secure.server.port}`, certificates.cert("ca"), strangers.cert("ca")];
    const child = new Deno.Command(PYTHON, {
      args: [CHECKS, service.server.url, key.key, SECRET, ...tls],
      env: { PYTHONASYNCIODEBUG: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const output = child.output();
    const { code, stdout, stderr } = await withDeadline(output, 60_000, "the checks to end").catch(
      (error) => {
        child.kill("SIGKILL");
        throw error;
      },
    );
    const decoder = new TextDecoder();
    const lines = decoder.decode(stdout).trim().split("\n").map((line) => JSON.parse(line));
    for (const { check, fault } of lines) {
      await t.step(check.replaceAll("_", " "), () => {
        if (fault !== undefined) throw new Error(fault);
      });
    }
    const trouble = decoder.decode(stderr);
    assertEquals(code, 0, trouble);
    assert(lines.length > 25, "it found its checks");
  },
});
