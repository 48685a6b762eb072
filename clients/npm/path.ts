/** Addresses of calls: names and queries in the form that the HTTP API has for them. */
import { InvalidMessageError } from "../../src/protocol/errors.ts";

export const JSON_TYPE = "application/json";

/** @throws {InvalidMessageError} for what is no user's name, and would lead to another call. */
export function userPath(user: string): string {
  return `/v1/users/${encoded(user, "user")}`;
}

/** @throws {InvalidMessageError} for what is no group's name. */
export function groupPath(group: string): string {
  return `/v1/groups/${encoded(group, "group")}`;
}

/** @throws {InvalidMessageError} for what is no user's name, or no connection's id. */
export function connectionPath(user: string, conn: string): string {
  return `${userPath(user)}/connections/${encoded(conn, "connection")}`;
}

function encoded(name: string, what: string): string {
  if (typeof name !== "string" || name === "") {
    throw new InvalidMessageError(`The ${what} must be a string that is not empty`);
  }
  if (name === "." || name === "..") {
    const way = what === "user" ? "send by sendBatch, or rename it" : "rename it";
    throw new InvalidMessageError(`No address can name the ${what} "${name}": ${way}`);
  }
  return encodeURIComponent(name);
}

/** With its "?", unless there is nothing in it. */
export function query(fields: Record<string, string | number | undefined>): string {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return given.length === 0
    ? ""
    : `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}
