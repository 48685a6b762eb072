/** Files and folders that settings name: the folder of the log, certificates, and who else can read what is secret. */
import { X509Certificate } from "node:crypto";
import { dirname, resolve } from "node:path";
import { endOfCertificate } from "../config/pem.ts";
import { type Config, SETTINGS } from "../config/settings.ts";
import { messageOf } from "../protocol/errors.ts";
import { fault, type Finding, ok, warning } from "./finding.ts";

/** A certificate that ends sooner is warned of, in days. */
const SOON_DAYS = 21;
const DAY_MS = 86_400_000;
/** Rights of users who are neither the owner nor in the file's group, to read. */
const OTHERS_READ = 0o004;

export function lookAtFiles(config: Config): Finding[] {
  return [lookAtLogFolder(config.logDir), ...lookAtCertificates(config), ...lookAtRights(config)];
}

/** Whether files can be made there, or in the folder in which it would be made. Leaves nothing behind. */
function lookAtLogFolder(given: string): Finding {
  const wanted = resolve(given);
  let folder = wanted;
  while (!isThere(folder) && dirname(folder) !== folder) folder = dirname(folder);
  try {
    Deno.removeSync(Deno.makeTempFileSync({ dir: folder, prefix: ".userwire-doctor-" }));
    return ok("log folder", `${wanted} ${folder === wanted ? "can be written" : "can be made"}`);
  } catch (error) {
    return fault(
      "log folder",
      `${wanted} can't be written: ${messageOf(error)}`,
      "set LOG_DIR to a folder in which this user may make files",
    );
  }
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

function lookAtCertificates(config: Config): Finding[] {
  return (["tlsCert", "redisCa", "redisCert"] as const).flatMap((key): Finding[] => {
    const path = config[key];
    const { env } = SETTINGS[key];
    if (path === undefined) return [];
    let pem: string;
    let certificate: X509Certificate;
    try {
      pem = Deno.readTextFileSync(path);
      certificate = new X509Certificate(pem);
    } catch {
      // The settings have said it.
      return [];
    }
    const nowMs = Date.now();
    const endMs = endOfCertificate(pem);
    const end = new Date(endMs).toISOString().slice(0, 10);
    const renew = `put a new one at ${path}, then send the service SIGHUP`;
    if (endMs <= nowMs) return [fault("certificate", `${env} ended on ${end}`, renew)];
    if (Date.parse(certificate.validFrom) > nowMs) {
      return [fault("certificate", `${env} is not valid yet`, `see whether the clock is right, or ${renew}`)];
    }
    if (endMs < nowMs + SOON_DAYS * DAY_MS) return [warning("certificate", `${env} ends on ${end}`, renew)];
    return [ok("certificate", `${env} is valid until ${end}`)];
  });
}

/** Files that hold a secret and that everybody on this machine can read. */
function lookAtRights(config: Config): Finding[] {
  return (["tlsKey", "redisKey", "redisUrlFile"] as const).flatMap((key): Finding[] => {
    const path = config[key];
    try {
      if (path === undefined || ((Deno.statSync(path).mode ?? 0) & OTHERS_READ) === 0) return [];
    } catch {
      return [];
    }
    const says = `${SETTINGS[key].env}: every user of this machine can read ${path}, which holds a secret`;
    return [warning("rights", says, `take that right away: chmod o-r ${path}`)];
  });
}
