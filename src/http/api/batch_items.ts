/**
 * Reads the items of a batch. The body may have megabytes, so it is taken apart item by item, with others being served in
 * between, and of the payloads nothing is built: JSON goes on as it stands in the body.
 */
import { Buffer } from "node:buffer";
import { z } from "@hono/zod-openapi";
import { membersOf, partsOf } from "../../protocol/json_parts.ts";
import { Slices, SMALL_JSON } from "../json_text.ts";
import { CheckedJson } from "../../publisher/payload.ts";
import type { Payload } from "../../protocol/envelope.ts";
import type { Publisher } from "../../publisher/publisher.ts";
import { RequestFault } from "../problem.ts";
import { check, id, MAX_TTL_S, username } from "./shapes.ts";

export const MAX_BATCH_ITEMS = 1_000;
/** Recipients of one item of a batch, and of a whole batch. */
const MAX_ITEM_RECIPIENTS = 1_000;
const MAX_BATCH_RECIPIENTS = 10_000;

/** An item is checked by itself; that one of the three payloads is there, where it is read. */
export const BatchItem = z.strictObject({
  to: z.union([username, z.array(username).min(1).max(MAX_ITEM_RECIPIENTS)], {
    error: `must be a username or a list of 1 to ${MAX_ITEM_RECIPIENTS} usernames`,
  }),
  data: z.unknown().optional().openapi({
    description: "The payload: any JSON value. Each item has it, or `text`, or `base64`",
    example: { order: 7 },
  }),
  text: z.string().optional().openapi({ description: "Instead of `data`: a payload of text" }),
  base64: z.string().optional().openapi({
    description: "Instead of `data`: a payload of bytes, in base64",
    format: "byte",
  }),
  id: id.optional(),
  ttl: z.number().int().min(1).max(MAX_TTL_S).optional().openapi({
    description: "How long the message is kept for users who are away, in seconds",
  }),
  expect: z.literal("online").optional().openapi({
    description: "Only send to users who are online; for the others nothing is stored",
  }),
});

/** One item of a batch, ready to be sent. */
export interface Item {
  readonly users: readonly string[];
  readonly isList: boolean;
  readonly payload: Payload;
  readonly id: string;
  readonly ttlMs: number | undefined;
  readonly expectOnline: boolean;
}

/** An item has seven; what has many more is not worth listing. */
const MAX_MEMBERS = 20;
/** Longer values of the short fields are wrong, whatever they are. */
const MAX_SHORT = 1_000;

/**
 * Reads a batch.
 * @param body Is known to be JSON.
 * @param options.maxDataBytes Largest payload.
 * @throws {RequestFault}
 */
export async function readBatch(
  body: string,
  publisher: Publisher,
  options: { maxDataBytes: number; maxFanoutBytes: number },
): Promise<Item[]> {
  const slices = new Slices();
  const items: Item[] = [];
  let recipients = 0;
  for (const json of await itemsOf(body, slices)) {
    const turn = json === undefined ? slices.next() : slices.after(json.length);
    if (turn) await turn;
    if (json === undefined) continue;
    if (items.length === MAX_BATCH_ITEMS) {
      throw new RequestFault("invalid_request", `items: must have at most ${MAX_BATCH_ITEMS} items`);
    }
    const read = readItem(json, `items[${items.length}]`, { ...options, publisher, slices });
    const item = read instanceof Promise ? await read : read;
    recipients += item.users.length;
    items.push(item);
  }
  if (items.length === 0) throw new RequestFault("invalid_request", "items: must have at least one item");
  if (recipients > MAX_BATCH_RECIPIENTS) {
    throw new RequestFault(
      "too_large",
      `A batch may reach at most ${MAX_BATCH_RECIPIENTS} users: this one names ${recipients}`,
    );
  }
  const fanoutBytes = items.reduce((sum, { users, payload }) => sum + users.length * bytesOf(payload), 0);
  if (fanoutBytes > options.maxFanoutBytes) {
    throw new RequestFault(
      "too_large",
      `A batch may send at most ${options.maxFanoutBytes} bytes, each payload counted once for each of its users: ` +
        `this one has ${fanoutBytes}. Send it in several, or raise USERWIRE_MAX_FANOUT_BYTES`,
    );
  }
  return items;
}

async function itemsOf(body: string, slices: Slices): Promise<Iterable<string | undefined>> {
  const batch = body.trim();
  if (!batch.startsWith("{")) {
    throw new RequestFault("invalid_request", 'The body must be an object: {"items": […]}');
  }
  let items: string | undefined;
  for (const member of membersOf(batch)) {
    await slices.next();
    if (member === undefined) continue;
    const [name, value] = member;
    if (name !== "items") {
      throw new RequestFault(
        "invalid_request",
        `Unrecognized key: ${JSON.stringify(name.slice(0, MAX_SHORT))}`,
      );
    }
    items = value;
  }
  if (items === undefined || !items.startsWith("[")) {
    throw new RequestFault("invalid_request", "items: must be a list");
  }
  return partsOf(items);
}

interface ItemOptions {
  readonly maxDataBytes: number;
  readonly publisher: Publisher;
  readonly slices: Slices;
}

/**
 * Reads one item: at once, unless it is large.
 * @param json Is known to be JSON.
 * @param at Where it stands, for faults; "" where that is said otherwise.
 * @throws {RequestFault}
 */
export function readItem(json: string, at: string, options: ItemOptions): Item | Promise<Item> {
  if (!json.startsWith("{")) throw new RequestFault("invalid_request", `${at}: must be an object`);
  if (json.length > SMALL_JSON) return readLargeItem(json, at, options);
  const fields = new Fields(at);
  for (const member of membersOf(json)) {
    if (member) fields.add(member, (list) => [...partsOf(list)].map((part) => readShort(part!)));
  }
  return itemOf(fields, at, options);
}

async function readLargeItem(json: string, at: string, options: ItemOptions): Promise<Item> {
  const { slices } = options;
  const fields = new Fields(at);
  for (const member of membersOf(json)) {
    if (member) fields.add(member, () => undefined);
    if (member?.[0] === "to" && member[1].startsWith("[")) fields.to = await recipientsIn(member[1], slices);
    await slices.next();
  }
  return itemOf(fields, at, options);
}

/** The fields of an item; of the payload only that it is there. */
class Fields {
  readonly #at: string;
  #members = 0;
  to: unknown;
  /** As it stands in the text. */
  data: string | undefined;
  others: Record<string, unknown> | undefined;

  constructor(at: string) {
    this.#at = at;
  }

  /** @param listOf Reads a list of recipients. */
  add([name, value]: [name: string, value: string], listOf: (json: string) => unknown): void {
    if (++this.#members > MAX_MEMBERS) {
      throw new RequestFault("invalid_request", `${this.#at}: has too many fields`);
    }
    if (name === "data") this.data = value;
    else if (name === "to") this.to = value.startsWith("[") ? listOf(value) : readShort(value);
    else {(this.others ??= Object.create(null) as Record<string, unknown>)[name.slice(0, MAX_SHORT)] =
        readField(name, value);}
  }

  /** @throws {RequestFault} */
  checked(): z.infer<typeof BatchItem> {
    const { to, data, others } = this;
    // Most have these two alone, of which nothing more is asked.
    if (typeof to === "string" && data !== undefined && !others) return { to };
    const checked = check(BatchItem, {
      ...others,
      ...(to !== undefined && { to }),
      ...(data !== undefined && { data: true }),
    });
    if ("value" in checked) return checked.value;
    const { fault } = checked;
    throw new RequestFault(
      "invalid_request",
      `${this.#at}${/^[\w.[\]]+: /.test(fault) ? "." : ": "}${fault}`,
    );
  }
}

/** @throws {RequestFault} */
function itemOf(fields: Fields, at: string, { maxDataBytes, publisher }: ItemOptions): Item {
  const { to, text, base64, id = crypto.randomUUID(), ttl, expect } = fields.checked();
  // A user named twice gets the message once.
  const users = typeof to === "string" ? [to] : [...new Set(to)];
  for (const user of users) {
    try {
      publisher.channel(user);
    } catch (error) {
      throw new RequestFault("invalid_username", `${at}.to: ${(error as Error).message}`);
    }
  }
  const [field, payload] = payloadIn({ data: fields.data, text, base64 }, at);
  const isLarge = payload.kind === "binary" || 3 * payload.text.length > maxDataBytes;
  if (isLarge && bytesOf(payload) > maxDataBytes) {
    throw new RequestFault(
      "too_large",
      `${at}.${field}: a payload must have at most ${maxDataBytes} bytes: it has ${
        bytesOf(payload)
      }; send less, or ` +
        "raise USERWIRE_MAX_BODY_BYTES",
    );
  }
  return {
    users,
    isList: typeof to !== "string",
    payload,
    id,
    ttlMs: ttl === undefined ? undefined : ttl * 1_000,
    expectOnline: expect !== undefined,
  };
}

/** The value of a field, built only where that is little work; else something that the check refuses. */
function readField(name: string, json: string): unknown {
  if (name === "text" || name === "base64") return json.startsWith('"') ? JSON.parse(json) : null;
  return readShort(json);
}

function readShort(json: string): unknown {
  return json.length <= MAX_SHORT ? JSON.parse(json) : null;
}

/** As many as there may be, and one more. */
async function recipientsIn(json: string, slices: Slices): Promise<unknown[]> {
  const recipients: unknown[] = [];
  for (const part of partsOf(json)) {
    if (part === undefined) {
      await slices.next();
      continue;
    }
    recipients.push(readShort(part));
    if (recipients.length > MAX_ITEM_RECIPIENTS) break;
  }
  return recipients;
}

function payloadIn(
  given: { data: string | undefined; text: string | undefined; base64: string | undefined },
  at: string,
): [field: string, payload: Payload] {
  const { data, text, base64 } = given;
  const isAlone = text === undefined && base64 === undefined;
  if (data !== undefined && isAlone) return ["data", new CheckedJson(data)];
  const [field, ...others] = Object.entries(given).flatMap(([name, value]) =>
    value === undefined ? [] : [name]
  );
  if (field === undefined) {
    throw new RequestFault("invalid_request", `${at}.data: is missing, and so are "text" and "base64"`);
  }
  if (others.length > 0) {
    throw new RequestFault("invalid_request", `${at}.${others[0]}: can't stand beside "${field}"`);
  }
  if (text !== undefined) return [field, { kind: "text", text }];
  try {
    return [field, { kind: "binary", bytes: Uint8Array.fromBase64(base64!) }];
  } catch {
    throw new RequestFault("invalid_request", `${at}.base64: is not base64`);
  }
}

function bytesOf(payload: Payload): number {
  return payload.kind === "binary" ? payload.bytes.length : Buffer.byteLength(payload.text);
}
