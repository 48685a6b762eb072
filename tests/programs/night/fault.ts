/** What a fault of the night is, and what most of them need. */
import { until } from "../../../testkit/deadline.ts";
import { Service } from "../../../testkit/service.ts";
import { type Night, userwire } from "./night.ts";

export interface Fault {
  readonly name: string;
  /** Alerts that must fire. */
  readonly fires: readonly string[];
  /** Alerts that may, since they follow from it. */
  readonly may?: readonly string[];
  /** @returns What the first look showed, of each alert. */
  play(night: Night): Promise<readonly (readonly [look: string, saw: RegExp, shown: string])[]>;
}

export const USERS = Array.from({ length: 12 }, (_, i) => `user${i}`);

/** Nodes with what they share, in this process. */
export async function nodes(night: Night, count: number, env: Record<string, string>): Promise<Service[]> {
  const made: Service[] = [];
  for (let i = 0; i < count; i++) made.push(night.use(await Service.start(env)));
  await until(
    async () => (await Promise.all(made.map((one) => one.readiness()))).every(({ status }) => status === 200),
    "the nodes to be ready",
  );
  return made;
}

export function sendAll(night: Night, service: Service, perSecond = 20): void {
  let n = 0;
  night.steadily(1_000 / perSecond, () => service.send(USERS[n++ % USERS.length]!, n));
}

/** As the doctor of this node would be called. */
export function doctor(env: Record<string, string>): Promise<string> {
  return userwire("doctor --port 0", env);
}
