/** Whether text is JSON, and whether that is an object. */
import { InvalidFrameError } from "./errors.ts";

/** Whether the text is one JSON value. */
export function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** @throws {InvalidFrameError} when it is no JSON object. */
export function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InvalidFrameError("A frame must be JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InvalidFrameError("A frame must be a JSON object");
  }
  return value as Record<string, unknown>;
}
