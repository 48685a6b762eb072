/** Positions: where a reader stands in a user's history, as clients keep and show it. */

/** Where a reader stands: the last message it has, inside an epoch. */
export interface Position {
  readonly epoch: string;
  readonly seq: number;
  /** Tag of that message, by which it is known that the number was not given out a second time. */
  readonly tag?: string | undefined;
}

/** Writes where a position is, without its proof: `<epoch>.<seq>`. */
export function formatPlace({ epoch, seq }: Position): string {
  return `${epoch}.${seq}`;
}

/** Writes a position: `<epoch>.<seq>.<tag>`, or without a tag where there is none. */
export function formatPosition(position: Position): string {
  return position.tag ? `${formatPlace(position)}.${position.tag}` : formatPlace(position);
}

/** Reads a position, with or without a tag; undefined when it is none. */
export function parsePosition(text: string): Position | undefined {
  const match = /^([A-Za-z0-9_-]{1,32})\.(\d{1,15})(?:\.([A-Za-z0-9_-]{8}))?$/.exec(text);
  if (!match) return undefined;
  const [, epoch, seq, tag] = match;
  return { epoch: epoch!, seq: Number(seq), ...(tag !== undefined && { tag }) };
}
