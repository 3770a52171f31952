// Conversations through the official `openai` package for Node, as `tests/clients/sdk.rs` runs them.
//
//     node cases.mjs CASE BASE_URL
//
// Each case asserts what the client sees and prints `ok CASE`. The only change that a user makes is the default
// header with the session id; what the upstream and the store saw is checked in Rust.

import assert from "node:assert/strict";
import OpenAI from "openai";

const client = (url, session, options = {}) =>
  new OpenAI({
    baseURL: `${url}/v1`,
    apiKey: "sk-test",
    defaultHeaders: session ? { "x-session-id": session } : {},
    ...options,
  });

const user = (content) => ({ role: "user", content });
const said = (reply) => reply.choices[0].message.content;

const add = {
  type: "function",
  function: {
    name: "add",
    description: "Adds two numbers.",
    parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } } },
    parse: JSON.parse,
    function: ({ a, b }) => String(a + b),
  },
};

async function collect(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  return text;
}

const cases = {
  // Three turns, each of which sends only its own message.
  async chat(url) {
    const openai = client(url, "node-chat");
    const answers = [];
    for (const text of ["one", "two", "three"]) {
      answers.push(said(await openai.chat.completions.create({ model: "m", messages: [user(text)] })));
    }
    assert.deepEqual(answers, [
      "You said 1 thing: one",
      "You said 2 things; the last was: two",
      "You said 3 things; the last was: three",
    ]);
  },

  // The same with streams, by both of the package's interfaces.
  async stream(url) {
    const openai = client(url, "node-stream");
    const chunks = await openai.chat.completions.create({ model: "m", stream: true, messages: [user("one")] });
    assert.equal(await collect(chunks), "You said 1 thing: one");
    const runner = openai.chat.completions.stream({ model: "m", messages: [user("two")] });
    assert.equal(await runner.finalContent(), "You said 2 things; the last was: two");
  },

  // The package's own runner: it calls the tool and resends the loop's messages each time.
  async tool_loop(url) {
    const openai = client(url, "node-tools");
    const runner = openai.chat.completions.runTools({ model: "m", messages: [user("2 + 3?")], tools: [add] });
    assert.equal(await runner.finalContent(), "It is 5.");
    const next = await openai.chat.completions.create({ model: "m", messages: [user("Sure?")] });
    assert.equal(said(next), "You said 2 things; the last was: Sure?");
  },

  // The same with streams.
  async tool_loop_stream(url) {
    const openai = client(url, "node-tools-stream");
    const request = { model: "m", stream: true, messages: [user("2 + 3?")], tools: [add] };
    assert.equal(await openai.chat.completions.runTools(request).finalContent(), "It is 5.");
    const next = await openai.chat.completions.create({ model: "m", messages: [user("Sure?")] });
    assert.equal(said(next), "You said 2 things; the last was: Sure?");
  },

  // The session by request instead of by client.
  async headers_per_request(url) {
    const openai = client(url, null);
    for (const session of ["node-a", "node-b"]) {
      for (const expected of ["You said 1 thing: hi", "You said 2 things; the last was: hi"]) {
        const options = { headers: { "x-session-id": session } };
        const request = { model: "m", messages: [user("hi")] };
        assert.equal(said(await openai.chat.completions.create(request, options)), expected);
      }
    }
  },

  // The upstream stays open after `[DONE]`; the client stops at `finish_reason`, and asks again at once.
  async close_at_done(url) {
    const openai = client(url, "node-done");
    for (let turn = 1; turn <= 100; turn++) {
      const request = { model: "m", stream: true, messages: [user(`turn ${turn}`)] };
      const stream = await openai.chat.completions.create(request);
      let text = "";
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta?.content ?? "";
        if (chunk.choices[0]?.finish_reason) break;
      }
      const things = turn === 1 ? "1 thing:" : `${turn} things; the last was:`;
      assert.equal(text, `You said ${things} turn ${turn}`);
    }
  },

  // The first reply is dropped on its way; the package asks again by itself.
  async retry_after_a_dropped_reply(url) {
    const openai = client(url, "node-retry", { maxRetries: 2 });
    const one = await openai.chat.completions.create({ model: "m", messages: [user("one")] });
    assert.equal(said(one), "You said 1 thing: one");
    const two = await openai.chat.completions.create({ model: "m", messages: [user("two")] });
    assert.equal(said(two), "You said 2 things; the last was: two");
  },
};

const [name, url] = process.argv.slice(2);
await cases[name](url);
console.log(`ok ${name}`);
process.exit(0);
