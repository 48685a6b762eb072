/**
 * Frames as server-sent events (`text/event-stream`), each with the place that its reader has reached. Browsers repeat
 * the id of the last event when they connect again, so the id is what a socket would resume from: the position, and
 * behind a comma that among the broadcasts. Pure.
 */
import type { BroadcastGapFrame, GapFrame, HiFrame } from "./frames.ts";
import { formatPosition, parsePosition, type Position } from "./position.ts";

/** Where a reader of a stream stands. */
export interface Place {
  readonly own: Position | undefined;
  /** Among the broadcasts. */
  readonly all: Position | undefined;
}

/** A frame that has a number: whose sequence it is, the number, and the tag. Both stand before what a sender wrote. */
const NUMBERED = /^\{"t":"([mb])",(?:"r":1,)?(?:"ack":1,)?"seq":(\d+)(?:,"tag":"([\w-]{8})")?/;
const TYPE_AT = '{"t":"'.length;
const LINE_END = /\r\n?|\n/g;

/** @returns Undefined when it is no id of an event. */
export function parseEventId(id: string): Place | undefined {
  const [own = "", all = "", ...rest] = id.split(",");
  const place = { own: parsePosition(own), all: parsePosition(all) };
  const isRead = rest.length === 0 && (place.own || own === "") && (place.all || all === "");
  return isRead && (place.own || place.all) ? place : undefined;
}

function formatEventId({ own, all }: Place): string {
  const text = own ? formatPosition(own) : "";
  return all ? `${text},${formatPosition(all)}` : text;
}

/** Writes the events of one stream. */
export class EventWriter {
  #place: Place = { own: undefined, all: undefined };

  /** The event of a frame, which `formatFrame` or a publisher wrote. */
  event(frame: string): string {
    const type = frame.slice(TYPE_AT, frame.indexOf('"', TYPE_AT));
    const id = this.#advance(type, frame) ? `id: ${formatEventId(this.#place)}\n` : "";
    // A sender's JSON may have ends of lines between its values; in a stream each begins a field.
    const data = /[\r\n]/.test(frame) ? frame.replace(LINE_END, "\ndata: ") : frame;
    return `event: ${type}\n${id}data: ${data}\n\n`;
  }

  /** Whether the frame says or moves the place. */
  #advance(type: string, frame: string): boolean {
    const before = this.#place;
    switch (type) {
      case "hi": {
        const { pos, tag, all } = JSON.parse(frame) as HiFrame;
        this.#place = { own: placeOf(pos, tag), all: placeOf(all, undefined) };
        break;
      }
      case "gap":
      case "bgap": {
        const { pos, tag } = JSON.parse(frame) as GapFrame | BroadcastGapFrame;
        this.#place = { ...before, [type === "gap" ? "own" : "all"]: placeOf(pos, tag) };
        break;
      }
      case "m":
      case "b": {
        const [, , seq, tag] = NUMBERED.exec(frame) ?? [];
        const whose = type === "m" ? "own" : "all";
        const position = before[whose];
        if (seq === undefined || !position) return false;
        this.#place = { ...before, [whose]: { epoch: position.epoch, seq: Number(seq), tag } };
        break;
      }
      default:
        return false;
    }
    return this.#place.own !== undefined || this.#place.all !== undefined;
  }
}

function placeOf(pos: string | undefined, tag: string | undefined): Position | undefined {
  const position = pos === undefined ? undefined : parsePosition(pos);
  return position && { ...position, tag: tag ?? position.tag };
}

/** A comment, which readers pass over: a sign of life, also for what lies in between. */
export const COMMENT = ": p\n\n";

/** Says how long to wait before connecting again. */
export function retryField(ms: number): string {
  return `retry: ${Math.round(ms)}\n\n`;
}
