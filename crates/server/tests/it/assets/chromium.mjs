// Runs something in a tab of Chromium, and closes the browser whatever comes of it.
import { createRequire } from "node:module";

// `folder` is where playwright-core is installed.
export async function inTab(folder, executablePath, run) {
  const { chromium } = createRequire(`${folder}/`)("playwright-core");
  const browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    const tab = await browser.newPage();
    tab.setDefaultTimeout(60_000);
    return await run(tab);
  } finally {
    await browser.close();
  }
}
