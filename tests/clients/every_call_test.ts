/**
 * Each client for backends has every call of the HTTP API that a backend may need. All are made, to a server that writes
 * down what comes, and that is compared with the service's document: so a new call is a line in each of them, or one in the
 * list of what backends do without.
 */
import { assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { createServer } from "../../clients/npm/server.ts";
import { done } from "../../testkit/npm_package.ts";
import { findPhp, hasPythonWebsockets, PYTHON } from "../../testkit/programs.ts";
import { Service } from "../../testkit/service.ts";

const CLIENTS = fileURLToPath(new URL("../../clients/", import.meta.url));

const PYTHON_PROGRAM = `
import sys, userwire

sender = userwire.Sender(sys.argv[1])
sender.send("u", 1)
sender.batch([{"to": "u", "data": 1}])
sender.send_to_group("g", 1)
sender.broadcast(1)
sender.online("u")
sender.online(["u"])
sender.history("u")
sender.ticket("u")
sender.kick("u")
sender.connections("u")
sender.close_connection("u", "c")
sender.revoke("u")
sender.groups.put("g", ["u"])
sender.groups.add("g", ["u"])
sender.groups.get("g")
sender.groups.members("g")
sender.groups.delete("g")
sender.groups.of("u")
sender.groups.leave_all("u")
`;

const PHP_PROGRAM = `
require '${CLIENTS}php/Userwire.php';
$userwire = new Userwire($argv[1]);
$userwire->send('u', 1);
$userwire->batch([['to' => 'u', 'data' => 1]]);
$userwire->sendToGroup('g', 1);
$userwire->broadcast(1);
$userwire->online('u');
$userwire->online(['u']);
$userwire->history('u');
$userwire->ticket('u');
$userwire->kick('u');
$userwire->connections('u');
$userwire->closeConnection('u', 'c');
$userwire->revoke('u');
$userwire->groups->put('g', ['u']);
$userwire->groups->add('g', ['u']);
$userwire->groups->get('g');
$userwire->groups->members('g');
$userwire->groups->delete('g');
$userwire->groups->of('u');
$userwire->groups->leaveAll('u');
`;

async function callAll(url: string): Promise<void> {
  const userwire = createServer({ url });
  const { groups } = userwire;
  await userwire.send("u", 1);
  await userwire.sendBatch([{ to: "u", message: 1 }]);
  await userwire.sendToGroup("g", 1);
  await userwire.broadcast(1);
  await userwire.online("u");
  await userwire.online(["u"]);
  await userwire.history("u");
  await userwire.ticket("u");
  await userwire.kick("u");
  await userwire.connections("u");
  await userwire.closeConnection("u", "c");
  await userwire.revoke("u");
  await groups.put("g", ["u"]);
  await groups.add("g", ["u"]);
  await groups.get("g");
  await groups.members("g");
  await groups.delete("g");
  await groups.of("u");
  await groups.leaveAll("u");
}

/** What operators call, clients, or nobody who has the other calls. */
const OTHERS = [
  ...["getHealth", "getReadiness", "getMetrics", "getNodes", "getStats", "getFindings"],
  ...["startDrain", "getDrain", "stopDrain", "getLogLevel", "setLogLevel"],
  ...["openStream", "sendFrame"],
  ...["headUser", "addMember", "removeMember"],
];

/** Whatever is asked for, it is in there. */
const ANSWER = {
  ...{ id: "i", nodes: 1, closed: 1, online: 0, users: 0, added: 0, removed: 0, version: 1, results: [] },
  ...{ ticket: "t", url: "u", events: "e", epoch: "e", first: 0, last: 0, items: [], groups: [] },
};

/** The operations that a client calls. */
async function calledBy(operations: ReadonlyMap<string, string>, use: (url: string) => Promise<unknown>) {
  const called = new Set<string>();
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    await request.text();
    const call = `${request.method} ${new URL(request.url).pathname}`;
    for (const [id, pattern] of operations) if (new RegExp(`^${pattern}$`).test(call)) called.add(id);
    return Response.json(ANSWER);
  });
  await use(`http://127.0.0.1:${server.addr.port}`);
  return [...called].sort();
}

Deno.test("Each client for backends has every call that a backend may need", async (t) => {
  await using service = await Service.start();
  const { paths } = await (await service.fetch("/openapi.json")).json();
  const operations = new Map<string, string>();
  for (const [path, methods] of Object.entries<Record<string, { operationId: string }>>(paths)) {
    for (const [method, { operationId }] of Object.entries(methods)) {
      if (operationId === undefined) continue;
      operations.set(operationId, `${method.toUpperCase()} ${path.replaceAll(/\{\w+\}/g, "[^/]+")}`);
    }
  }
  assertEquals(OTHERS.filter((id) => !operations.has(id)), []);
  const expected = [...operations.keys()].filter((id) => !OTHERS.includes(id)).sort();
  await t.step("userwire/server", async () => assertEquals(await calledBy(operations, callAll), expected));
  await t.step({
    name: "Python",
    ignore: !hasPythonWebsockets(),
    async fn() {
      const use = (url: string) =>
        done(PYTHON, ["-c", PYTHON_PROGRAM, url], { env: { PYTHONPATH: `${CLIENTS}python` } });
      assertEquals(await calledBy(operations, use), expected);
    },
  });
  const php = findPhp();
  await t.step({
    name: "PHP",
    ignore: php === undefined,
    async fn() {
      assertEquals(
        await calledBy(operations, (url) => done(php!, ["-r", PHP_PROGRAM, "--", url])),
        expected,
      );
    },
  });
});
