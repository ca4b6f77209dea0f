"use strict";
// Charts: <div class="chart" data-twin="url of the JSON twin" data-series="path.to.series">
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dig = (value, path) => path.split(".").reduce((at, key) => at[key], value);
async function draw(box) {
  const { title, x, lines } = dig(await (await fetch(box.dataset.twin)).json(), box.dataset.series);
  const colours = [ink("--accent"), ink("--bad"), ink("--warn"), ink("--ok")];
  const axis = { stroke: ink("--muted"), grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line") } };
  const series = [{}, ...lines.map((line, i) => ({ label: line.name, stroke: colours[i % 4], width: 1.5, dash: line.dash, points: { show: x.length < 3 } }))];
  const options = { width: box.clientWidth || 320, height: 180, title, series, axes: [axis, { ...axis, size: 56 }] };
  const plot = new uPlot(options, [x, ...lines.map((line) => line.y)], box);
  new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: 180 })).observe(box);
}
document.querySelectorAll(".chart").forEach((box) => draw(box).catch(() => { box.textContent = "no data yet"; }));

// The command palette: "/" opens it, typing filters, Enter follows the first.
const palette = document.getElementById("palette");
if (palette) {
  const input = palette.querySelector("input");
  const items = [...palette.querySelectorAll("li")];
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase();
    items.forEach((item) => { item.hidden = !item.textContent.toLowerCase().includes(words); });
  });
  input.addEventListener("keydown", (event) => {
    const first = items.find((item) => !item.hidden);
    if (event.key === "Enter" && first) { event.preventDefault(); location.href = first.firstElementChild.href; }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(input|textarea|select)$/i.test(document.activeElement.tagName)) {
      event.preventDefault();
      palette.showModal();
      input.focus();
    }
  });
}

// Talking: a form's answer comes as server-sent events: pieces of text, the sources, then the whole turn as HTML.
async function* sent(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const parts = (rest + read.value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const [kind, data] = part.split("\n");
      yield [kind.slice(7), JSON.parse(data.slice(6))];
    }
  }
}
async function talk(form, turns, main) {
  const fields = new URLSearchParams(new FormData(form));
  const [stopper, button, stop] = [new AbortController(), form.querySelector("button"), main.querySelector(".stop")];
  const turn = turns.appendChild(document.createElement("article"));
  turn.className = "turn";
  turn.innerHTML = '<div class="said"><p class="question"><span class="muted">you</span> </p><p class="answer"></p></div><div></div>';
  turn.querySelector(".question").append(fields.get("question") || "");
  const answer = turn.querySelector(".answer");
  button.disabled = true;
  stop.hidden = false;
  stop.onclick = () => stopper.abort();
  try {
    const headers = { accept: "text/event-stream" };
    const response = await fetch(form.action, { method: "POST", body: fields, headers, signal: stopper.signal });
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error || response.status);
    let whole = false;
    for await (const [kind, data] of sent(response.body)) {
      if (kind === "text") answer.textContent += data.text;
      if (kind === "sources") turn.lastElementChild.innerHTML = data.html;
      if (kind === "turn") {
        turn.outerHTML = data.html;
        whole = true;
        main.elements.history.value = data.history;
        if (form === main) form.elements.question.value = "";
      }
    }
    if (!whole) throw new Error("it broke off, as a server does that is stopped; ask again");
    if (form !== main) form.remove();
  } catch (error) {
    const word = error.name === "AbortError" ? "stopped: not part of the conversation" : `no answer: ${error.message}`;
    const told = turn.firstElementChild.appendChild(document.createElement("p"));
    told.className = "state warn";
    told.textContent = word;
  }
  button.disabled = false;
  stop.hidden = true;
}
document.addEventListener("submit", (event) => {
  const turns = document.getElementById("turns");
  if (!turns || !event.target.matches("form.talk")) return;
  event.preventDefault();
  talk(event.target, turns, turns.parentElement.querySelector(":scope > form.talk"));
});
