/** The demo page in a real browser: `node page.mjs '["the rule"]' http://… chromium`. */
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { check, main } from "./harness.mjs";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const TIMEOUT = 20_000;

let browser = null; // one for all, with a new, empty profile; a context for each tab
let rooms = 0;

/**
 * A check of the page: the body is given a function that opens it, as somebody, in a room that no
 * other check uses, and the room's name.
 */
function page(rule, body) {
  check(rule, async (url, executablePath) => {
    browser ??= chromium.launch({ executablePath, args: FLAGS, headless: true });
    const complaints = [], contexts = [], room = `room-${++rooms}`;
    const open = async (name, options = {}) => {
      const context = await (await browser).newContext({ viewport: { width: 1180, height: 860 }, ...options });
      contexts.push(context);
      context.setDefaultTimeout(TIMEOUT);
      const tab = await context.newPage();
      tab.on("console", (line) => line.type() === "log" || complaints.push(`${line.type()}: ${line.text()}`));
      tab.on("pageerror", (error) => complaints.push(String(error)));
      tab.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
      await tab.addInitScript(([name, room]) => {
        sessionStorage.setItem("name", name);
        sessionStorage.setItem("channels", sessionStorage.getItem("channels") ?? JSON.stringify([room]));
      }, [name, room]);
      await tab.goto(url);
      await ready(tab);
      return tab;
    };
    try {
      await body(open, room);
      assert.deepEqual(complaints, []);
    } finally {
      await Promise.all(contexts.map((context) => context.close()));
    }
  });
}

const ready = (tab) => tab.waitForSelector('#state[data-state="ready"]');
const shows = (tab, selector, text) => tab.locator(selector, { hasText: text }).first().waitFor();
const texts = (tab, selector) => tab.locator(selector).allTextContents();
const number = async (tab, id) => Number(await tab.textContent(`#${id}`));
async function say(tab, text) {
  await tab.fill("#text", text);
  await tab.click("#send");
}

page("it loads without complaints, and asks no other host for anything", async (open, room) => {
  const tab = await open("Ada");
  const hosts = await tab.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => new URL(name).host));
  const own = await tab.evaluate(() => location.host);
  assert.deepEqual([...new Set(hosts)], [own]);
  assert.equal(await tab.textContent("#title"), room);
  assert.equal(await tab.textContent("#state"), "Connected");
});

page("a message shows in another tab, under its author's name", async (open) => {
  const ada = await open("Ada"), bob = await open("Bob");
  await say(ada, "hello <b>Bob</b>");
  await shows(bob, "#messages li", "hello <b>Bob</b>");
  await shows(bob, "#messages .by", "Ada");
  await shows(ada, "#messages .mine", "hello");
  assert.equal(await ada.inputValue("#text"), "");
});

page("presence names everybody in the channel, and drops who leaves", async (open) => {
  const ada = await open("Ada"), bob = await open("Bob");
  await shows(ada, "#members li", "Bob");
  await shows(bob, "#members li", "Ada");
  assert.deepEqual(await texts(ada, "#members li"), ["Ada (you)", "Bob"]);
  await bob.close();
  await ada.locator("#members li", { hasText: "Bob" }).waitFor({ state: "detached" });
});

page("history shows what was said before the page was there", async (open) => {
  const ada = await open("Ada");
  for (const text of ["one", "two", "three"]) await say(ada, text);
  await shows(ada, "#messages .text", "three");
  await ada.reload();
  await ready(ada);
  await shows(ada, "#messages .text", "three");
  const bob = await open("Bob");
  await shows(bob, "#messages .text", "three");
  for (const tab of [ada, bob]) assert.deepEqual(await texts(tab, "#messages .text"), ["one", "two", "three"]);
});

page("channels are joined by name, counted while in the background, and left", async (open, room) => {
  const ada = await open("Ada"), bob = await open("Bob");
  for (const tab of [ada, bob]) {
    await tab.fill("#channel", "tests:room");
    await tab.click("#enter");
    await shows(tab, "#title", "tests:room");
  }
  await shows(ada, "#members li", "Bob");
  await ada.click(`#channels [data-channel="${room}"]`);
  await say(bob, "psst");
  await shows(ada, '#channels [data-channel="tests:room"] b', "1");
  assert.deepEqual(await texts(ada, "#messages .text"), []);
  await ada.click('#channels [data-channel="tests:room"]');
  await shows(ada, "#messages .text", "psst");
  await ada.click("#leave");
  await bob.locator("#members li", { hasText: "Ada" }).waitFor({ state: "detached" });
  assert.equal(await ada.textContent("#title"), room);
});

page("another name is another user, in the same channels", async (open) => {
  const ada = await open("Ada"), bob = await open("Bob");
  await shows(bob, "#members li", "Ada");
  await ada.fill("#name", "Grace");
  await ada.press("#name", "Enter");
  await shows(bob, "#members li", "Grace");
  await bob.locator("#members li", { hasText: "Ada" }).waitFor({ state: "detached" });
  await say(ada, "it is me");
  await shows(bob, "#messages .by", "Grace");
});

for (const amount of [20, 90])
  page(`pulling the plug for ${amount} messages: as many received as sent, no duplicates, no gaps`, async (open) => {
    const tab = await open("Ada");
    await tab.selectOption("#amount", String(amount));
    await tab.click("#plug");
    await shows(tab, "#state", "Unplugged");
    await say(tab, "written while away");
    await tab.waitForFunction(() => Number(document.getElementById("sent").textContent) > 3);
    assert.equal(await number(tab, "received"), 0);
    await shows(tab, "#messages .pending", "written while away");
    await shows(tab, "#verdict", `All ${amount} arrived, in order`);
    const counters = ["sent", "received", "duplicates", "gaps"].map((id) => number(tab, id));
    assert.deepEqual(await Promise.all(counters), [amount, amount, 0, 0]);
    const ticks = await texts(tab, "#messages .tick .text");
    assert.deepEqual(ticks, Array.from({ length: amount }, (_, n) => `tick ${n + 1} of ${amount}`));
    await shows(tab, "#messages .mine:not(.pending) .text", "written while away");
    await ready(tab);
    if (amount > 20) return; // the other one is pulled twice
    await tab.click("#plug");
    await shows(tab, "#state", "Unplugged");
    await shows(tab, "#verdict", `All ${amount} arrived, in order`);
  });

page("away for more than the channel keeps: the page is told of the gap", async (open) => {
  const tab = await open("Ada");
  await tab.selectOption("#amount", "150");
  await tab.click("#plug");
  await shows(tab, "#verdict", "a gap, not a silence");
  const counters = ["sent", "received", "duplicates", "gaps"].map((id) => number(tab, id));
  assert.deepEqual(await Promise.all(counters), [150, 100, 0, 1]);
  await shows(tab, "#messages .warn", "50 messages can no longer be had");
});

page("on a phone nothing is wider than the screen, before and after a pulled plug", async (open) => {
  const tab = await open("A name of twenty chars..", { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  const narrow = async () => {
    const [wide, width] = await tab.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.equal(width, 360);
    assert.ok(wide <= 360, `the page is ${wide} wide`);
    const [row, last] = await Promise.all([".counters", "#amount"].map((selector) => tab.locator(selector).boundingBox()));
    assert.ok(last.x + last.width <= row.x + row.width + 1, "#amount stands out of its card");
  };
  await tab.fill("#channel", "a-channel-with-a-rather-long-name-that-does-not-fit-into-the-line");
  await tab.tap("#enter");
  await say(tab, "W".repeat(200));
  await shows(tab, "#messages .text", "WWW");
  await narrow();
  await tab.selectOption("#amount", "150");
  await tab.tap("#plug");
  await shows(tab, "#state", "Unplugged");
  await narrow();
  await shows(tab, "#verdict", "a gap");
  await narrow();
  for (const id of ["plug", "send", "enter", "leave"]) {
    const { height } = await tab.locator(`#${id}`).boundingBox();
    assert.ok(height >= 24, `#${id} is ${height} high: too small for a finger`);
  }
});

page("it is dark where the system is, and readable in both", async (open) => {
  const luminance = (tab, selector, property) => tab.locator(selector).first().evaluate((element, property) => {
    const [r, g, b] = getComputedStyle(element)[property].match(/[\d.]+/g).map((part) => {
      const value = Number(part) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }, property);
  for (const colorScheme of ["light", "dark"]) {
    const tab = await open("Ada", { colorScheme });
    const paper = await luminance(tab, "body", "backgroundColor"), card = await luminance(tab, ".card", "backgroundColor");
    assert.equal(paper < 0.2, colorScheme === "dark");
    for (const selector of ["#title", "#link", ".why", "#members li", ".suggested", ".counters dt", "#leave"]) {
      const ink = await luminance(tab, selector, "color");
      const contrast = (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05);
      assert.ok(contrast >= 4.5, `${selector} has a contrast of ${contrast.toFixed(1)} in ${colorScheme}`);
    }
    const ink = await luminance(tab, "#plug", "color"), ground = await luminance(tab, "#plug", "backgroundColor");
    assert.ok((Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05) >= 4.5, `#plug in ${colorScheme}`);
  }
});

page("everything can be reached by keyboard and has a name", async (open) => {
  const tab = await open("Ada"), reached = new Set();
  for (let presses = 0; presses < 25; presses++) {
    await tab.keyboard.press("Tab");
    reached.add(await tab.evaluate(() => document.activeElement.id));
  }
  for (const id of ["name", "channel", "enter", "leave", "messages", "text", "send", "plug", "amount"])
    assert.ok(reached.has(id), `#${id} is not reached`);
  const nameless = await tab.evaluate(() => [...document.querySelectorAll("input, select, button")]
    .filter((element) => !element.textContent.trim() && !element.labels?.length && !element.ariaLabel).map(({ id }) => id));
  assert.deepEqual(nameless, []);
});

await main({ together: 3 });
