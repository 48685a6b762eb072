/**
 * What the contract of a broker is checked on, and the questions that all its tests ask.
 */
import { assertEquals } from "@std/assert";
import type { Broker } from "../../src/broker/broker.ts";

/** A broker to be tested, and what surrounds it. */
export interface BrokerUnderTest {
  readonly broker: Broker;
  /** Another broker on the same server, as a second node has; left out where there can be none. */
  readonly peer?: Broker;
  /** How many subscriptions of a channel are counted from outside of any broker. */
  readonly countOutside?: (channel: string) => Promise<number>;
  /** Ends all of it. Called once, also after the test has closed the brokers. */
  dispose(): Promise<void>;
}

/** Declares one test; the channel is its own, so that tests may share a server. */
export type DeclareTest = (
  claim: string,
  body: (t: BrokerUnderTest, channel: string) => Promise<void>,
) => void;

/** The other node where there is one: what it sends has travelled. */
export function sender({ broker, peer }: BrokerUnderTest): Broker {
  return peer ?? broker;
}

/** What a broker says for so many subscriptions of its own and of its peer: where it counts processes, two at most. */
export function counted({ counted }: Broker, own: number, peers = 0): number {
  return counted === "nodes" ? Math.min(own, 1) + Math.min(peers, 1) : own + peers;
}

/** The count as the broker under test sees it. */
export async function countOf({ broker }: BrokerUnderTest, channel: string): Promise<number> {
  const [count] = await broker.counts([channel]);
  return count!;
}

/** The count as seen without the broker under test. */
export async function countElsewhere(
  { peer, countOutside }: BrokerUnderTest,
  channel: string,
): Promise<number> {
  return countOutside ? await countOutside(channel) : (await peer!.counts([channel]))[0]!;
}

/** Everybody must count the same. */
export async function assertCount(
  t: BrokerUnderTest,
  channel: string,
  own: number,
  peers = 0,
): Promise<void> {
  const said = counted(t.broker, own, peers);
  assertEquals(await countOf(t, channel), said);
  if (t.peer) assertEquals(await t.peer.counts([channel]), [said]);
  if (t.countOutside) assertEquals(await t.countOutside(channel), said);
}
