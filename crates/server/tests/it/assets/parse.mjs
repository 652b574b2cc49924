// Reads the streams BASE/0 .. BASE/COUNT-1 with Chromium's EventSource, or with eventsource-parser where CHROMIUM is empty:
// parse.mjs NODE_DIR CHROMIUM BASE COUNT NAMES. NAMES are those that an event may have, as JSON; empty is none.
// Prints [[[name, data, id], ...], ...]: of the browser the stream's last id, of the parser the event's own.
import { createRequire } from "node:module";
import { inTab } from "./chromium.mjs";

const [folder, executablePath, base, count, names] = process.argv.slice(2);
const require = createRequire(`${folder}/`);

async function parse(number) {
  const { createParser } = require("eventsource-parser");
  const read = [];
  const parser = createParser({ onEvent: (e) => read.push([e.event ?? "", e.data, e.id ?? ""]) });
  const response = await fetch(`${base}/${number}`);
  // It takes the first byte order mark away.
  const decoder = new TextDecoder();
  for await (const chunk of response.body) parser.feed(decoder.decode(chunk, { stream: true }));
  return read;
}

async function browse(numbers) {
  return inTab(folder, executablePath, async (tab) => {
    await tab.goto(base);
    const listen = ([number, names]) =>
      new Promise((resolve) => {
        const read = [];
        const source = new EventSource(`/${number}`);
        for (const name of names)
          source.addEventListener(name || "message", (e) => read.push([name, e.data, e.lastEventId]));
        // The stream has ended.
        source.onerror = () => {
          source.close();
          resolve(read);
        };
      });
    const all = [];
    for (const number of numbers) all.push(await tab.evaluate(listen, [number, JSON.parse(names)]));
    return all;
  });
}

const numbers = [...Array(Number(count)).keys()];
const all = executablePath ? await browse(numbers) : await Promise.all(numbers.map(parse));
await new Promise((done) => process.stdout.write(JSON.stringify(all), done));
process.exit(0);
