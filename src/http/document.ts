/** `/openapi.json`: the document of the HTTP API, written from the calls. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { type Api, authorize, type Env } from "./api/call.ts";

export interface DocumentOptions {
  /** Whether the document is served to all, to callers with a key, or to nobody. */
  readonly openapi: "on" | "key" | "off";
  readonly version: string;
}

export function serveDocument(app: OpenAPIHono<Env>, api: Api, { openapi, version }: DocumentOptions): void {
  if (openapi === "off") return;
  // Written once: anybody may ask for it, and it takes as long as a hundred sends.
  let document: string | undefined;
  app.get("/openapi.json", (c) => {
    if (openapi === "key") authorize(c, api, "any");
    document ??= writeDocument(app, version);
    return c.body(document, 200, { "content-type": "application/json" });
  });
}

export function writeDocument(app: OpenAPIHono<Env>, version: string): string {
  app.openAPIRegistry.registerComponent("securitySchemes", "key", {
    type: "http",
    scheme: "bearer",
    description: "An API key, made by `userwire key new`",
  });
  const head = {
    openapi: "3.1.0",
    info: {
      title: "Userwire",
      version,
      description: "Sends messages to named users, whichever node holds their sockets.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/", description: "The node, or the balancer, that this document came from" }],
  };
  return JSON.stringify(app.getOpenAPI31Document(head));
}
