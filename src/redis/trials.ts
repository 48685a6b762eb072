/** What scripts are tried with, so that a Redis that refuses one is known before a user meets it. */
import type { PubSubWords } from "./pubsub_words.ts";
import { seldomOf } from "./rights.ts";
import type { Script, ScriptForm } from "./script.ts";

/** A script, and what it is tried with. */
export interface Trial {
  readonly form: ScriptForm;
  readonly keys: readonly string[];
  readonly args: readonly string[];
}

export interface Trials {
  readonly tag: string;
  readonly scripts: readonly Trial[];
  /** Of the commands of all scripts those that no trial comes to. */
  readonly seldom: readonly string[];
}

/** @param tag Of this process alone, see `ScriptOptions.probe`. */
export function trialsOf(scripts: readonly Script[], words: PubSubWords, tag: string): Trials {
  // Of those that do not say how, one: without keys it is only seen whether scripts may be called at all.
  const silent = scripts.find(({ probe }) => probe === undefined);
  const tried = scripts.filter((script) => script.probe !== undefined || script === silent);
  return {
    tag,
    scripts: tried.map((script) => {
      const { keys, args } = script.probe?.(tag) ?? { keys: [], args: [] };
      return { form: script.in(words), keys, args };
    }),
    seldom: seldomOf(scripts.map((script) => script.in(words))),
  };
}
