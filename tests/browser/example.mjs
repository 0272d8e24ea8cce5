/** The page of examples/fastapi_chat.py in a real browser: `node example.mjs '["the rule"]' http://… chromium`. */
import { chromium } from "playwright-core";
import { check, main } from "./harness.mjs";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];

check("two people sign in and talk", async (url, executablePath) => {
  const browser = await chromium.launch({ executablePath, args: FLAGS, headless: true });
  const come = async (name) => {
    const tab = await (await browser.newContext()).newPage();
    tab.setDefaultTimeout(20_000);
    await tab.goto(url);
    await tab.waitForSelector("text=write your name to sign in"); // closed with 4500, and says so
    await tab.fill("#text", name);
    await tab.press("#text", "Enter");
    await tab.waitForFunction((name) => document.getElementById("user").textContent === name, name);
    await tab.waitForSelector("[placeholder='say something']");
    return tab;
  };
  try {
    const [ada, zoe] = [await come("Ada L."), await come("Zoë")];
    await ada.fill("#text", "hello");
    await ada.press("#text", "Enter");
    await zoe.waitForSelector("text=Ada L.: hello");
    await zoe.waitForFunction(() => document.getElementById("members").textContent === "Ada L., Zoë");
  } finally {
    await browser.close();
  }
});

await main();
