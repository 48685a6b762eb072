/** The text of the Redis functions, for who loads them by hand. */
import { functionLibrary, type FunctionSettings, sendScript } from "../history/function_library.ts";
import { PLAIN, SHARDED } from "../redis/commands.ts";

/** @param form As functions or as a script, for one Redis or for a cluster. */
export function functionText(
  settings: FunctionSettings,
  { isEval, isCluster }: { isEval: boolean; isCluster: boolean },
): string {
  const words = isCluster ? SHARDED : PLAIN;
  return isEval ? sendScript(words, settings) : functionLibrary(words, settings);
}
