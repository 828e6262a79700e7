"use strict";
// Asks the service for pictures and answers. Whatever comes from it is put in as text, drawings as parsed SVG.

const at = (id) => document.getElementById(id);
let picture = "", scene = 0, scenes = 0;

async function call(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("the demo does not answer: has it been ended?");
  }
  const said = await reply.json().catch(() => ({ error: `the demo answered with status ${reply.status}` }));
  if (!reply.ok) throw new Error(said.error || `the demo answered with status ${reply.status}`);
  return said;
}

const post = (path, said) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said) });

// One thing at a time: its buttons wait, and what went wrong is said in one line.
async function doing(work) {
  const buttons = [...document.querySelectorAll("button")];
  buttons.forEach((button) => { button.disabled = true; });
  at("drawing").setAttribute("aria-busy", "true");
  at("error").textContent = "";
  try {
    await work();
  } catch (error) {
    at("error").textContent = error.message;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
    at("drawing").setAttribute("aria-busy", "false");
  }
}

function draw(svg) {
  const root = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
  at("drawing").replaceChildren(document.importNode(root, true));
}

function list(id, texts) {
  at(id).replaceChildren(...texts.map((text) => {
    const item = document.createElement("li");
    item.append(...[text].flat());
    return item;
  }));
}

const soft = (text) => {
  const span = document.createElement("span");
  span.className = "weight";
  span.textContent = text;
  return span;
};

const source = (word) => (word.source === "OCR" ? `read in the picture, token ${word.index}` : "a word of its vocabulary");

function show(found) {
  picture = found.picture;
  draw(found.svg);
  at("question").value = found.question;
  at("result").hidden = true;
  list("notes", []);
}

async function showScene(number) {
  scene = (number + scenes) % scenes;
  show(await call(`api/scene/${scene}`));
  at("which").textContent = `scene ${scene + 1} of ${scenes}`;
}

async function ask() {
  const found = await post("api/ask", { picture, question: at("question").value });
  draw(found.svg);
  at("asked").textContent = found.question;
  at("answer").textContent = found.answer || "(nothing)";
  list("words", found.words.map((word) => `${word.word}: ${source(word)}, score ${word.score.toFixed(3)}`));
  list("notes", found.notes);
  list("edges", found.edges.map((edge) =>
    [edge.text, soft(` ${edge.weight.toFixed(2)}, layer ${edge.layer}, head ${edge.head}`)]));
  at("no-edges").hidden = found.edges.length > 0;
  at("candidates").replaceChildren(...found.candidates.map((step, number) => {
    const line = document.createElement("p");
    const words = step.map((word) => `${word.word} ${word.score.toFixed(3)}`).join(", ");
    line.textContent = `word ${number + 1}: ${words}`;
    return line;
  }));
  at("result").hidden = false;
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(ask);
});

at("flip").addEventListener("click", () => doing(async () => {
  at("question").value = (await post("api/flip", { question: at("question").value })).question;
  await ask();
}));

at("previous").addEventListener("click", () => doing(() => showScene(scene - 1)));
at("next").addEventListener("click", () => doing(() => showScene(scene + 1)));

at("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(async () => {
    const found = await call("api/upload", { method: "POST", body: new FormData(at("upload")) });
    show(found);
    at("which").textContent = "your picture";
    at("result").hidden = false;
    at("asked").textContent = "";
    at("answer").textContent = "Now ask about it.";
    ["words", "edges"].forEach((id) => list(id, []));
    at("candidates").replaceChildren();
    list("notes", found.notes);
    at("question").focus();
  });
});

doing(async () => {
  const start = await call("api/start");
  scenes = start.scenes;
  at("question").maxLength = start.most_characters;
  const spatial = start.layers.includes("s");
  at("network").textContent = spatial
    ? `A network of layers ${start.layers}: in each layer s a head looks along its own spatial relations only.`
    : `A network of layers ${start.layers}: every head sees everything.`;
  at("known-words").textContent = start.words.join(", ");
  at("known").hidden = start.words.length === 0;
  await showScene(0);
});
