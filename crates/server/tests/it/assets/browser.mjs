// Reads a stream with Chromium's own EventSource: browser.mjs NODE_DIR CHROMIUM MODE PAGE URL COUNT. Prints [[id, event], ...].
// In mode "follow" the page opens its EventSource once and leaves everything that happens to the browser.
import { inTab } from "./chromium.mjs";

const [folder, executablePath, , page, url, count] = process.argv.slice(2);
await inTab(folder, executablePath, async (tab) => {
  // A page of the server's own, so that the stream is of the same origin.
  await tab.goto(`${page}/problems/invalid`);
  const read = await tab.evaluate(
    ([url, count]) =>
      new Promise((resolve, reject) => {
        const read = [];
        const source = new EventSource(url);
        const timer = setTimeout(() => reject(new Error(`only ${read.length} events; readyState ${source.readyState}`)), 55_000);
        source.onmessage = (e) => {
          read.push([e.lastEventId, JSON.parse(e.data)]);
          if (read.length === count) {
            clearTimeout(timer);
            source.close();
            resolve(read);
          }
        };
        source.onerror = () => {
          if (source.readyState === EventSource.CLOSED) reject(new Error("the browser has given up"));
        };
      }),
    [url, Number(count)],
  );
  await new Promise((done) => process.stdout.write(JSON.stringify(read), done));
});
