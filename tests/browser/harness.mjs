/** Runs one check of a file: `node rules.mjs "the rule"`. */
import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const checks = new Map();

export function check(rule, body) {
  checks.set(rule, body);
}

/** Runs the check that the command line names; ends the process with 1 if it fails. */
export async function main() {
  const [rule, ...rest] = process.argv.slice(2);
  try {
    await checks.get(rule)(...rest);
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
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

/** Waits until `condition()` is truthy; says `what` did not come if it does not. */
export async function until(condition, what, timeout = 15_000) {
  for (const end = Date.now() + timeout; Date.now() < end; await pause(10)) {
    const value = condition();
    if (value) return value;
  }
  throw new Error(`${what()} (waited ${timeout} ms)`);
}
