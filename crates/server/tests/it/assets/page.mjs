// Opens a sign-in link with Chromium and waits until the page shows events: page.mjs NODE_DIR CHROMIUM LINK COUNT KIND...
// Prints {"rows","kinds","status","address"}.
import { inTab } from "./chromium.mjs";

const [folder, executablePath, link, count, ...kinds] = process.argv.slice(2);
await inTab(folder, executablePath, async (tab) => {
  const faults = [];
  tab.on("pageerror", (e) => faults.push(String(e)));
  tab.on("console", (m) => m.type() === "error" && faults.push(m.text()));
  await tab.goto(link);
  await tab.waitForFunction(
    ([count, kinds]) => {
      const has = (kind) => document.querySelectorAll(`[data-kind="${kind}"] li`).length > 0;
      return document.querySelectorAll("#events tr").length >= count && kinds.every(has);
    },
    [Number(count), kinds],
  );
  const shown = await tab.evaluate(() => ({
    rows: document.querySelectorAll("#events tr").length,
    status: document.querySelector("#status").dataset.state,
    address: location.href,
  }));
  process.stdout.write(JSON.stringify({ ...shown, faults }));
});
