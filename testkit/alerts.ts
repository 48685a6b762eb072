/** The alert rules of `deploy/monitoring/alerts.yml`. */
import { parseAllDocuments } from "../tests/packages/yaml.ts";

/** Where they lie. */
export const ALERTS = new URL("../deploy/monitoring/alerts.yml", import.meta.url);

export interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: "page" | "ticket" };
  readonly annotations: { readonly summary: string };
}

export interface AlertGroup {
  readonly name: string;
  readonly rules: readonly Alert[];
}

export async function readGroups(): Promise<AlertGroup[]> {
  const [document, ...more] = parseAllDocuments(await Deno.readTextFile(ALERTS));
  if (document === undefined || more.length + document.errors.length > 0) {
    throw new Error("alerts.yml is no YAML");
  }
  return document.toJS().groups;
}

export async function readAlerts(): Promise<Alert[]> {
  return (await readGroups()).flatMap(({ rules }) => rules);
}
