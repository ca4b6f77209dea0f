// The official SDKs against a gateway; prints what they made of its answers.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const url = process.argv[2];
const options = { apiKey: "sk-test", maxRetries: 0 };
const openai = new OpenAI({ ...options, baseURL: `${url}/v1` });
const claude = new Anthropic({ ...options, baseURL: url });
const messages = [{ role: "user", content: "hi" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const status = async (work) => work().then(() => 200, (error) => error.status);
const found = {};

const chat = await openai.chat.completions.create({ model: "chat", messages });
found.chat = chat.choices[0].message.content;
found.streamed = "";
const stream = await openai.chat.completions.create({
  model: "chat", messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  found.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) found.usage = chunk.usage.total_tokens;
}
const runner = openai.chat.completions.stream({ model: "chat", messages, tools });
const call = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0].function;
found.tool = [call.name, call.arguments];
found.embedding = Array.from((await openai.embeddings.create({ model: "chat", input: "ab" })).data[0].embedding);
const response = await openai.responses.create({ model: "chat", input: "hi" });
found.response = response.output_text;
const kinds = [];
for await (const event of await openai.responses.create({ model: "chat", input: "hi", stream: true })) {
  kinds.push(event.type);
}
found.responseEvents = [kinds[0], kinds.at(-1)];
found.retrieved = (await openai.responses.retrieve(response.id)).output_text;
await openai.responses.delete(response.id);
found.deleted = await status(() => openai.responses.retrieve(response.id));
found.models = (await openai.models.list()).data.map((model) => model.id);
const stranger = new OpenAI({ apiKey: "wrong", maxRetries: 0, baseURL: `${url}/v1` });
found.wrongKey = await status(() => stranger.models.list());

const asked = { model: "chat", max_tokens: 20, messages };
found.message = (await claude.messages.create(asked)).content[0].text;
found.messageStreamed = (await claude.messages.stream(asked).finalMessage()).content[0].text;
const used = await claude.messages.stream({ ...asked, tools: [{ name: "weather", input_schema: parameters }] }).finalMessage();
found.toolUse = used.content[0].input;
found.counted = (await claude.messages.countTokens({ model: "chat", messages })).input_tokens;
found.unknownModel = await status(() => claude.messages.create({ ...asked, model: "nope" }));
console.log(JSON.stringify(found));
