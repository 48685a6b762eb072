/** How findings of the doctor are shown: lines or JSON, and an exit code. */
import type { Finding } from "../doctor/doctor.ts";
import { exitCodeOf, inWords } from "../doctor/finding.ts";
import type { Shell } from "./shell.ts";

/** Prints findings, and says by the exit code how bad the worst of them is. */
export function report(shell: Shell, findings: readonly Finding[], json?: true): void {
  shell.exitCode = exitCodeOf(findings);
  shell.io.out(json ? `${JSON.stringify({ findings })}\n` : findings.map(inWords).join(""));
}
