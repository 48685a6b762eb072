/** The publisher by the path under which a backend imports it. Everything of it is in `publisher/`. */
export * from "./publisher/mod.ts";
