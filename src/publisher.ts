/** The publisher by the path under which it has always been imported. Everything of it is in `publisher/`. */
export * from "./publisher/publisher.ts";
