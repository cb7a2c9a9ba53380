"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/* The list of classes: order, search, filter. */

const sections = [...document.querySelectorAll(".class")];
const numberOf = (element, key, missing) =>
  element.dataset[key] === "" ? missing : Number(element.dataset[key]);
const byNumber = (a, b) => Number(a.dataset.number) - Number(b.dataset.number);
const ORDERS = {
  gain: (a, b) => numberOf(b, "gain", -Infinity) - numberOf(a, "gain", -Infinity),
  loss: (a, b) => numberOf(a, "gain", Infinity) - numberOf(b, "gain", Infinity),
  prob: (a, b) => numberOf(a, "prob", -1) - numberOf(b, "prob", -1),
  number: (a, b) => Number(a.dataset.number ?? a.dataset.trial) - Number(b.dataset.number ?? b.dataset.trial),
  name: (a, b) => (a.dataset.name ?? "").localeCompare(b.dataset.name ?? ""),
};
const FILTERS = {
  all: () => true,
  best: (card) => card.classList.contains("best"),
  up: (card) => numberOf(card, "gain", -1) > 0,
  "not-up": (card) => numberOf(card, "gain", 1) <= 0,
  failed: (card) => "failed" in card.dataset,
};

function arrange() {
  const order = ORDERS[byId("sort").value];
  /* Two infinities give NaN, which || takes for a tie as it takes 0. */
  const sorted = [...sections].sort((a, b) => order(a, b) || byNumber(a, b));
  for (const section of sorted) {
    const cards = [...section.querySelectorAll(".trial")];
    cards.sort((a, b) => order(a, b) || Number(a.dataset.trial) - Number(b.dataset.trial));
    section.querySelector(".cards").append(...cards);
  }
  byId("list").append(...sorted);
}

function show() {
  const wanted = byId("search").value.trim().toLowerCase();
  const passes = FILTERS[byId("filter").value];
  let classes = 0;
  let trials = 0;
  for (const section of sections) {
    const name = `${section.dataset.number} ${section.dataset.name}`.toLowerCase();
    const found = name.includes(wanted);
    let shown = 0;
    for (const card of section.querySelectorAll(".trial")) {
      card.hidden = !(found && passes(card));
      shown += !card.hidden;
    }
    section.hidden = shown === 0;
    classes += shown > 0;
    trials += shown;
  }
  byId("shown").textContent =
    `${classes} of ${sections.length} classes, ${trials} of ${data.trials.length} trials`;
}

byId("sort").addEventListener("change", arrange);
byId("filter").addEventListener("change", show);
byId("search").addEventListener("input", show);
document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());

/* The large view of one trial. */

const large = byId("large");
let current = 0;

/** A strip of frames in a canvas; `at` draws one of them once the strip is there. */
class Strip {
  constructor(canvas) {
    this.canvas = canvas;
    this.image = null;
    this.frame = 0;
  }
  load(address, frames) {
    this.frames = frames;
    const image = new Image();
    this.image = image;
    image.addEventListener("load", () => {
      if (this.image === image) {
        this.draw();
      }
    });
    image.src = address;
  }
  at(frame, text) {
    this.frame = frame;
    this.canvas.setAttribute("aria-label", text);
    this.draw();
  }
  draw() {
    if (!this.image?.naturalWidth) {
      return;
    }
    const width = this.image.naturalWidth / this.frames;
    const height = this.image.naturalHeight;
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.getContext("2d").drawImage(
      this.image, this.frame * width, 0, width, height, 0, 0, width, height);
  }
}

const original = new Strip(byId("latent-original"));
const latent = new Strip(byId("latent-trial"));
const embedding = new Strip(byId("embedding-trial"));
byId("latent").max = data.latentFrames - 1;
byId("embedding").max = data.embeddingFrames - 1;

function moveLatent() {
  const frame = byId("latent").valueAsNumber;
  const from = Math.floor(frame / data.latentSteps) + 1;
  const between = frame % data.latentSteps;
  const where = between === 0
    ? `number ${from}`
    : `${Math.round((100 * between) / data.latentSteps)} % from number ${from} to ${from + 1}`;
  const name = data.classes[data.trials[current].class].name;
  byId("latent-at").textContent = where;
  byId("latent").setAttribute("aria-valuetext", where);
  original.at(frame, `${name} as trained, latent ${where}`);
  latent.at(frame, `${name}, trial ${data.trials[current].index}, latent ${where}`);
}

function moveEmbedding() {
  const frame = byId("embedding").valueAsNumber;
  const of = data.classes[data.trials[current].class];
  const from = of.hasOriginal ? "as trained" : "the mean of all classes";
  const share = Math.round((100 * frame) / (data.embeddingFrames - 1));
  const where = frame === 0
    ? from
    : share === 100 ? "this trial" : `${share} % of the way from ${from} to this trial`;
  byId("embedding-at").textContent = where;
  byId("embedding").setAttribute("aria-valuetext", where);
  embedding.at(frame, `${of.name}, ${data.embeddingImages} images, ${where}`);
}

/** The curves of a class's trials, `chosen` in front. */
function drawCurves(figure, key, trials, chosen) {
  const values = trials.flatMap((trial) => trial[key].filter((value) => value !== null));
  figure.hidden = !chosen[key].some((value) => value !== null);
  if (figure.hidden) {
    return;
  }
  const low = Math.min(...values);
  const high = Math.max(...values);
  const line = (trial) => {
    const drawn = document.createElementNS(SVG, "polyline");
    const last = Math.max(1, trial[key].length - 1);
    const points = trial[key].map((value, i) =>
      value === null ? "" : `${4 + (292 * i) / last},${108 - (100 * (value - low)) / (high - low || 1)}`);
    drawn.setAttribute("points", points.join(" "));
    drawn.classList.toggle("this", trial === chosen);
    return drawn;
  };
  const others = trials.filter((trial) => trial !== chosen);
  figure.querySelector("g").replaceChildren(...others.map(line), line(chosen));
  figure.querySelector(".high").textContent = high.toFixed(2);
  figure.querySelector(".low").textContent = low.toFixed(2);
}

function cardOf(number) {
  return document.querySelector(`.trial[data-trial="${number}"]`);
}

function fill(number) {
  current = number;
  const trial = data.trials[number];
  const of = data.classes[trial.class];
  byId("large-title").textContent = `${of.name}, trial ${trial.index}`;
  byId("latent-panel").hidden = !trial.latents;
  byId("embedding-panel").hidden = !trial.embeddings;
  byId("no-strips").hidden = Boolean(trial.latents || trial.embeddings);
  byId("latent-own").hidden = !of.latents;
  if (of.latents) {
    original.load(of.latents, data.latentFrames);
  }
  if (trial.latents) {
    latent.load(trial.latents, data.latentFrames);
    moveLatent();
  }
  if (trial.embeddings) {
    embedding.load(trial.embeddings, data.embeddingFrames);
    moveEmbedding();
  }
  const trials = data.trials.filter((other) => other.class === trial.class);
  drawCurves(byId("log-prob-figure"), "logProb", trials, trial);
  drawCurves(byId("distance-figure"), "distance", trials, trial);
  byId("curves").hidden = byId("log-prob-figure").hidden;
  const figures = cardOf(number).querySelector(".figures, .failure");
  byId("large-figures").replaceChildren(figures.cloneNode(true));
  const shown = [...document.querySelectorAll(".trial:not([hidden])")];
  const at = shown.indexOf(cardOf(number));
  byId("previous").dataset.to = shown[at - 1]?.dataset.trial ?? "";
  byId("next").dataset.to = at < 0 ? "" : shown[at + 1]?.dataset.trial ?? "";
  byId("previous").disabled = byId("previous").dataset.to === "";
  byId("next").disabled = byId("next").dataset.to === "";
}

function open(number) {
  byId("latent").value = 0;
  byId("embedding").value = data.embeddingFrames - 1;
  fill(number);
  large.showModal();
}

document.addEventListener("click", (event) => {
  const chosen = event.target.closest(".open, .mark[data-trial]");
  if (chosen) {
    open(Number(chosen.closest("[data-trial]").dataset.trial));
  } else if (event.target === large) {
    large.close();
  }
});
byId("latent").addEventListener("input", moveLatent);
byId("embedding").addEventListener("input", moveEmbedding);
byId("close").addEventListener("click", () => large.close());
for (const id of ["previous", "next"]) {
  byId(id).addEventListener("click", (event) => fill(Number(event.currentTarget.dataset.to)));
}

arrange();
