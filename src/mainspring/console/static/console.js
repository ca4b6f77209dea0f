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
