"use strict";
// Opens pages in headless Chromium and says what is wrong with them, as JSON. See test_pages_in_a_browser.py.
// Usage: NODE_PATH=MODULES node check.cjs CHROMIUM SCREENSHOTS|- PAGE.html ...
const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const WIDTHS = [375, 768, 1280];
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const [chromium, screenshots, ...pages] = process.argv.slice(2);

async function measure(page) {
  return page.evaluate(async () => {
    const found = [];
    const root = document.scrollingElement;
    if (root.scrollWidth > root.clientWidth) {
      const wide = [...document.querySelectorAll("body *")]
        .filter((one) => one.getBoundingClientRect().right > root.clientWidth + 1 && !one.closest(".scroll, .card, .skip"))
        .slice(0, 3);
      const names = wide.map((one) => `${one.tagName.toLowerCase()}.${one.getAttribute("class") || ""}`);
      found.push(`overflow: ${root.scrollWidth} > ${root.clientWidth} (${names.join(", ")})`);
    }
    for (const image of document.images) {
      image.loading = "eager";
      await image.decode().catch(() => found.push(`broken image: ${image.alt}`));
    }
    return found;
  });
}

async function interact(page) {
  // A click on every heading of every sortable table, and a word in every filter: rows are neither lost nor doubled.
  return page.evaluate(() => {
    const found = [];
    for (const table of document.querySelectorAll("table[data-sortable]")) {
      const rows = () => [...table.tBodies[0].rows];
      const before = rows().map((row) => row.textContent).sort().join("|");
      const buttons = [...table.tHead.querySelectorAll("button.sort")];
      if (document.scripts.length && rows().length > 1 && !buttons.length) found.push(`not sortable: ${table.caption.textContent}`);
      for (const button of buttons) { button.click(); button.click(); }
      if (rows().map((row) => row.textContent).sort().join("|") !== before) found.push("sorting lost rows");
    }
    for (const field of document.querySelectorAll("input[type=search]")) {
      const rows = [...document.getElementById(field.getAttribute("aria-controls")).tBodies[0].rows];
      const type = (text) => { field.value = text; field.dispatchEvent(new Event("input", { bubbles: true })); };
      type("no row of any table says this");
      if (rows.some((row) => !row.hidden)) found.push("a filter hides nothing");
      type("");
      if (rows.some((row) => row.hidden)) found.push("an empty filter hides rows");
    }
    return found;
  });
}

async function look(browser, file, width, scripts, scheme) {
  const page = await browser.newPage();
  const found = [];
  page.on("console", (line) => { if (["error", "warn"].includes(line.type())) found.push(`console: ${line.text()}`); });
  page.on("pageerror", (error) => found.push(`script: ${error.message}`));
  page.on("request", (request) => {
    if (!/^(data|about):/.test(request.url()) && request.url() !== pathToFileURL(file).href) found.push(`request: ${request.url()}`);
  });
  await page.setViewport({ width, height: 900, deviceScaleFactor: 1 });
  await page.setJavaScriptEnabled(scripts);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(file).href, { waitUntil: "load" });
  found.push(...(await measure(page)));
  if (screenshots !== "-") {
    const name = `${path.basename(path.dirname(file))}-${path.basename(file, ".html")}-${width}-${scheme}${scripts ? "" : "-noscript"}.png`;
    await page.screenshot({ path: path.join(screenshots, name), fullPage: true });
  }
  await page.evaluate(() => { for (const one of document.querySelectorAll("details")) one.open = true; });
  found.push(...(await measure(page)).map((one) => `unfolded, ${one}`));
  if (scripts) {
    found.push(...(await interact(page)));
    await page.evaluate(axe);
    const { violations } = await page.evaluate((tags) => window.axe.run(document, { runOnly: tags, resultTypes: ["violations"] }), TAGS);
    for (const one of violations) found.push(`axe ${one.id} (${one.nodes.length}): ${one.nodes[0].html.slice(0, 160)} | ${one.nodes[0].failureSummary.slice(0, 300)}`);
  } else {
    const dead = await page.$$eval("button, input", (all) => all.length);
    if (dead) found.push(`without scripts: ${dead} controls that do nothing`);
  }
  await page.close();
  return found;
}

async function main() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"];
  const browser = await puppeteer.launch({ executablePath: chromium, headless: true, args });
  const report = [];
  try {
    for (const file of pages) {
      for (const width of WIDTHS) {
        for (const scripts of [true, false]) {
          for (const scheme of ["light", "dark"]) {
            report.push({ page: file, width, scripts, scheme, found: await look(browser, path.resolve(file), width, scripts, scheme) });
          }
        }
      }
    }
  } finally {
    await browser.close();
  }
  process.stdout.write(JSON.stringify(report));
}

main().catch((error) => { console.error(error); process.exit(1); });
