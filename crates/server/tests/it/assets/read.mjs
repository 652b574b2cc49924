// Reads a stream with eventsource-parser: read.mjs NODE_DIR URL COUNT. Prints [[id, event], ...].
import { createRequire } from "node:module";

const [folder, url, count] = process.argv.slice(2);
const { createParser } = createRequire(`${folder}/`)("eventsource-parser");
const read = [];
const parser = createParser({
  onEvent(event) {
    if (event.event === undefined) read.push([event.id, JSON.parse(event.data)]);
  },
});
const response = await fetch(url);
const decoder = new TextDecoder();
for await (const chunk of response.body) {
  parser.feed(decoder.decode(chunk, { stream: true }));
  if (read.length >= Number(count)) break;
}
await new Promise((done) => process.stdout.write(JSON.stringify(read), done));
process.exit(0);
