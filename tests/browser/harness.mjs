/** Runs checks of a file: `node rules.mjs '["the rule", "another"]'`, a line of JSON for each. */
import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const checks = new Map();
const later = globalThis.setTimeout; // a check may replace it
const TIMEOUT = 40_000;

export function check(rule, body) {
  checks.set(rule, body);
}

/**
 * Runs the checks that the command line names, `together` of them at a time, and calls `cleanUp`
 * after each. Ends the process with 1 if one of them failed.
 */
export async function main({ together = 1, cleanUp = () => {} } = {}) {
  const [names, ...rest] = process.argv.slice(2), waiting = JSON.parse(names);
  let failed = false;
  const worker = async () => {
    for (let rule = waiting.shift(); rule !== undefined; rule = waiting.shift()) {
      let error = null;
      const late = new Promise((_, reject) => later(() => reject(new Error("it does not end")), TIMEOUT));
      try {
        await Promise.race([checks.get(rule)(...rest), late]);
      } catch (caught) {
        error = caught.stack ?? String(caught);
      }
      failed ||= error !== null;
      console.log(JSON.stringify({ rule, error }));
      await cleanUp(rule);
    }
  };
  process.on("unhandledRejection", () => {}); // of requests that a check leaves behind
  await Promise.all(Array.from({ length: together }, worker));
  process.exit(failed ? 1 : 0);
}

/** The module under test, under a name that tells node that it is a module. */
export async function everwire() {
  const folder = await mkdtemp(join(tmpdir(), "everwire-"));
  try {
    const copy = join(folder, "everwire.mjs");
    await copyFile(new URL("../../src/everwire/web/everwire.js", import.meta.url), copy);
    return await import(pathToFileURL(copy));
  } finally {
    await rm(folder, { recursive: true });
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

/** What a promise fails with; it must. */
export const failure = (promise) =>
  promise.then(() => { throw new Error("it did not fail"); }, (error) => error);

/** Waits until `condition()` is truthy; says `what` did not come if it does not. */
export async function until(condition, what, timeout = 15_000) {
  for (const end = Date.now() + timeout; Date.now() < end; await pause(10)) {
    const value = condition();
    if (value) return value;
  }
  throw new Error(`${what()} (waited ${timeout} ms)`);
}
