"use strict";
// Chooses what of the page is shown: a sample, a layer and a head, and its question as it is or flipped.

const at = (id) => document.getElementById(id);
let chosen = 0;

function option(select, value, text) {
  const one = document.createElement("option");
  one.value = value;
  one.textContent = text;
  select.append(one);
}

const way = () => (at("flipped").checked && FACTS.samples[chosen].flipped ? "flipped" : "asked");
const same = (a, b) => a.toLowerCase() === b.toLowerCase();

function show() {
  const sample = FACTS.samples[chosen], told = sample[way()];
  at("flipped").disabled = !sample.flipped;
  if (!sample.flipped) at("flipped").checked = false;
  at("question").textContent = told.question;
  at("prediction").textContent = told.prediction || "(nothing)";
  at("source").textContent = told.sources.map((s) => (s === "OCR" ? "read in the picture" : "a fixed word")).join(", ");
  at("gold").textContent = told.gold ? `gold: ${told.gold}` : "no answer is known";
  at("notes").textContent = sample.notes.join(" ");
  at("edges").replaceChildren(...told.edges.map((edge) => {
    const item = document.createElement("li");
    item.textContent = `${edge.text}: ${edge.weight.toFixed(2)}, layer ${edge.layer + 1}, head ${edge.head + 1}`;
    return item;
  }));
  let count = 0;
  for (const drawing of document.querySelectorAll(".drawing")) {
    drawing.hidden = drawing.dataset.sample !== String(chosen) || drawing.dataset.way !== way();
    if (drawing.hidden) continue;
    for (const edge of drawing.querySelectorAll(".edge")) {
      const on = edge.dataset.layer === at("layer").value && edge.dataset.head === at("head").value;
      edge.classList.toggle("chosen", on);
      count += on;
    }
  }
  at("shown").textContent = `${count} ${count === 1 ? "edge" : "edges"} of this head between boxes`;
  document.querySelectorAll("#list button").forEach((button, i) => button.setAttribute("aria-current", String(i === chosen)));
}

FACTS.samples.forEach((sample, i) => {
  const item = document.createElement("li"), button = document.createElement("button"), said = document.createElement("span");
  button.type = "button";
  button.textContent = `${sample.asked.question} `;
  said.textContent = `${sample.asked.prediction || "(nothing)"}`;
  if (sample.asked.gold) {
    const right = same(sample.asked.gold, sample.asked.prediction);
    said.className = right ? "right" : "wrong";
    said.textContent += right ? " ✓" : ` ✗ (${sample.asked.gold})`;
  }
  button.append(said);
  button.addEventListener("click", () => { chosen = i; show(); });
  item.append(button);
  at("list").append(item);
});
[...FACTS.layers].forEach((kind, i) => option(at("layer"), i, `${i + 1}: ${kind === "s" ? "spatial" : "full"}`));
for (let head = 0; head < FACTS.heads; head += 1) {
  option(at("head"), head, FACTS.heads === 12 ? `${head + 1}: ${FACTS.relations[head + 1]}` : `${head + 1}`);
}
const first = FACTS.samples[0].asked.edges[0];
at("layer").value = first ? first.layer : Math.max(0, FACTS.layers.indexOf("s"));
at("head").value = first ? first.head : 0;
at("network").textContent =
  `Layers ${FACTS.layers}. In a spatial layer head h looks along relation h and, with a wider context, its neighbours; ` +
  "an edge goes from the box that looks to the box that is looked at. All attention is in the folder maps.";
for (const id of ["layer", "head", "flipped"]) at(id).addEventListener("change", show);
show();
