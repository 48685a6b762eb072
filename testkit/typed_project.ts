/** A project in TypeScript that uses the package for npm by its types, for one compiler or another to check. */

/** Written as somebody would who reads the types and nothing else. */
const PROGRAM = `
import { useMessages, useUserwire } from "userwire/react";
import { connect, type Message, RefusedError, storedIn } from "userwire";
import { createServer, UserwireError, verifyWebhook } from "userwire/server";
import type { Publisher } from "userwire/publisher";

interface Order { order: number }
export async function page(token: () => Promise<string>, storage: { getItem(k: string): string | null; setItem(k: string, v: string): void }) {
  await using client = connect<Order>("https://push.example.com", { token, store: storedIn(storage, "alice"), pingS: 60 });
  const off: () => void = client.on("message", (message: Message<Order>) => message.data.order.toFixed());
  client.on("error", (error) => error instanceof RefusedError && error.code === "unauthorized");
  client.on("gap", (gap) => gap.why === "epoch" ? gap.count satisfies null : gap.count satisfies number);
  client.pause();
  client.resume();
  for await (const { data } of client) return data.order + 1;
  off();
  // @ts-expect-error -- no such event
  client.on("nothing", () => {});
  // @ts-expect-error -- a user or a token
  connect("https://push.example.com", {});
}
export function Component({ token }: { token: () => Promise<string> }): string {
  const { state, error } = useUserwire("https://push.example.com", { token, account: "alice" });
  const [first] = useMessages<Order>({ filter: ({ data }) => data.order > 0, limit: 3 });
  return state + error?.message + first?.data.order.toFixed();
}
export async function backend() {
  const userwire = createServer({ url: "https://push.example.com", key: "k" });
  const { id, sockets } = await userwire.send("alice", { order: 7 }, { ttlS: 60, expectOnline: true });
  const one: boolean = await userwire.online("alice");
  const all: Record<string, number> = await userwire.online(["alice"]);
  const { unknown } = await userwire.sendToGroup("team", { order: 7 }, { except: "bob", store: "online" });
  const { version } = await userwire.groups.put("team", ["alice"], { ifVersion: 0 });
  const { nodes } = await userwire.broadcast("sale", { ttlS: 60 });
  const { items: [oldest] } = await userwire.history("alice", { after: 1 });
  const { events } = await userwire.ticket("alice", { reuse: true });
  // @ts-expect-error -- nobody is asked whether they are online
  await userwire.broadcast(1, { expectOnline: true });
  const { type } = await verifyWebhook({ "webhook-id": "i" }, "{}", ["whsec_"]);
  // @ts-expect-error -- seconds are a number
  await userwire.send("alice", 1, { ttlS: "60" });
  return [id satisfies string, sockets satisfies number | undefined, one, all, UserwireError, unknown + version + nodes, type, oldest?.group, events];
}
// What Node's own types would declare.
declare global { interface AbortSignal { readonly aborted: boolean } }
export async function direct(publisher: Publisher) {
  const { seq } = await publisher.send("alice", Uint8Array.of(1), { waitAckMs: 1 });
  return seq satisfies number | undefined;
}
`;

/** What a page and a backend have of their own: a browser's `WebSocket` and `fetch`, given as options. */
const WITH_DOM = `
import { connect } from "userwire";
import { createServer } from "userwire/server";
connect("https://push.example.com", { user: "alice", WebSocket });
createServer({ url: new URL("https://push.example.com"), fetch });
`;

export interface TypedProject {
  readonly moduleResolution: "bundler" | "node16" | "nodenext";
  /** Libraries of the compiler, such as `es2022` and `dom`. */
  readonly lib: readonly string[];
  /** Packages whose types are global. @default none */
  readonly types?: readonly string[];
}

/** Writes the project beside the `node_modules` that it finds the package in. */
export async function writeTypedProject(
  folder: string,
  { moduleResolution, lib, types = [] }: TypedProject,
): Promise<void> {
  const files = lib.includes("dom") ? ["program.ts", "with_dom.ts"] : ["program.ts"];
  const compilerOptions = {
    ...{ target: "es2022", lib, types, moduleResolution },
    module: moduleResolution === "bundler" ? "esnext" : moduleResolution,
    ...{ strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, noEmit: true },
  };
  await Deno.writeTextFile(`${folder}/package.json`, '{"private": true, "type": "module"}');
  await Deno.writeTextFile(`${folder}/tsconfig.json`, JSON.stringify({ compilerOptions, files }));
  await Deno.writeTextFile(`${folder}/program.ts`, PROGRAM);
  await Deno.writeTextFile(`${folder}/with_dom.ts`, WITH_DOM);
}
