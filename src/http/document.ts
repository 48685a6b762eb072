/** `/openapi.json`: the document of the HTTP API, written from the calls. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Env } from "./api/call.ts";

/** @returns The document, as JSON. It takes as long as a hundred sends to write. */
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
      description: "Sends messages to named users, whichever instance holds their sockets.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/", description: "The instance, or the balancer, that this document came from" }],
  };
  return JSON.stringify(app.getOpenAPI31Document(head));
}
