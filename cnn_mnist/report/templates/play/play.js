"use strict";
const $ = (id) => document.getElementById(id);
const content = JSON.parse($("content").textContent);
const SIDE = 28, BOX = 20, CENTRE = 14; // MNIST fits a digit into 20x20 and centres its mass
const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** A network in a worker of its own. Every method returns a promise. */
class RemoteNetwork {
  constructor({ weights, kernel }) {
    this.waiting = new Map();
    this.number = 0;
    this.worker = new Worker(URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject, shown } = this.waiting.get(data.id);
      if ("step" in data) return shown?.(data);
      this.waiting.delete(data.id);
      "error" in data ? reject(new Error(data.error)) : resolve(data.result);
    };
    this.ready = this.ask("load", [decoded(weights).buffer, kernel, content.classes.length]);
  }
  ask(kind, values, shown) {
    const id = ++this.number;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, shown });
      this.worker.postMessage({ id, kind, values });
    });
  }
  /** The logits of 784 numbers in [0, 1], row by row. */
  logits(pixels) { return this.ask("logits", [checked(pixels)]); }
  /** The probability of `label` and the predicted class for each position of a grey patch, row by row. */
  async occlusion(pixels, label, { window = 8, stride = 1, fill = 0.5 } = {}) {
    const found = await this.ask("occlusion", [checked(pixels), label, { window, stride, fill }]);
    return { probability: Array.from(found.probability), predicted: Array.from(found.predicted) };
  }
  activations(pixels) { return this.ask("activations", [checked(pixels)]); }
  /** The gradient, by the image, of the sum of the logits times `weights`. */
  gradient(pixels, weights) { return this.ask("gradient", [checked(pixels), weights]); }
  /** Projected gradient descent: {target, targeted, epsilon, steps, stepSize, start}. */
  async attack(pixels, options, shown) {
    const { pixels: image, ...rest } = await this.ask("attack", [checked(pixels), { ...options, shown: !!shown }], shown);
    return { pixels: Array.from(image), ...rest };
  }
}

function checked(pixels) {
  if (pixels.length !== SIDE * SIDE) throw new RangeError(`an image has ${SIDE * SIDE} pixels, got ${pixels.length}`);
  return Float32Array.from(pixels);
}

const networks = content.networks.map((one) => new RemoteNetwork(one));
[window.network, window.other] = networks;
const chosen = () => Number(document.querySelector("input[name=network]:checked")?.value ?? 0);

function softmax(logits) {
  const highest = Math.max(...logits), powers = logits.map((value) => Math.exp(value - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}
const largest = (values) => values.indexOf(Math.max(...values));
const perCent = (value) => `${(100 * value).toFixed(1)} %`;

// ---- pictures ----------------------------------------------------------------------------------------------------

const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const ink = (value) => Array(3).fill(255 * (1 - value));
function viridis(value) {
  const place = 4 * Math.min(Math.max(value, 0), 1), k = Math.min(3, Math.floor(place)), part = place - k;
  return VIRIDIS[k].map((low, c) => low + part * (VIRIDIS[k + 1][c] - low));
}
const redOrBlue = (value) => (value > 0 ? [255, 255 * (1 - value), 255 * (1 - value)] : [255 * (1 + value), 255 * (1 + value), 255]);

/** Draw values on a canvas, one pixel each. */
function paint(canvas, values, side, colour) {
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d"), picture = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    const [red, green, blue] = colour(values[i]);
    picture.data.set([red, green, blue, 255], 4 * i);
  }
  context.putImageData(picture, 0, 0);
}

// ---- drawing -----------------------------------------------------------------------------------------------------

const paper = $("paper"), context = paper.getContext("2d", { willReadFrequently: true });
let image = new Float32Array(SIDE * SIDE), last = null, isDrawn = false;

function wipe() {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, paper.width, paper.height);
}

/** The paper as the network sees it: its ink scaled into 20x20 by areas, its centre of mass at index 14. */
function framed() {
  const { width, height } = paper, { data } = context.getImageData(0, 0, width, height);
  let top = height, left = width, bottom = -1, right = -1;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (data[4 * (y * width + x)] < 128) {
    top = Math.min(top, y); bottom = Math.max(bottom, y); left = Math.min(left, x); right = Math.max(right, x);
  }
  const found = new Float32Array(SIDE * SIDE);
  if (bottom < 0) return found;
  const scale = BOX / Math.max(bottom + 1 - top, right + 1 - left);
  const tall = Math.max(1, Math.round((bottom + 1 - top) * scale)), wide = Math.max(1, Math.round((right + 1 - left) * scale));
  const small = new Float32Array(tall * wide), counts = new Float32Array(tall * wide);
  for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) {
    const place = Math.min(tall - 1, Math.floor((y - top) * scale)) * wide + Math.min(wide - 1, Math.floor((x - left) * scale));
    small[place] += 1 - data[4 * (y * width + x)] / 255;
    counts[place] += 1;
  }
  let mass = 0, atRow = 0, atColumn = 0;
  for (let i = 0; i < small.length; i++) {
    small[i] /= Math.max(1, counts[i]);
    mass += small[i]; atRow += small[i] * Math.floor(i / wide); atColumn += small[i] * (i % wide);
  }
  const down = Math.min(SIDE - tall, Math.max(0, Math.round(CENTRE - atRow / mass)));
  const across = Math.min(SIDE - wide, Math.max(0, Math.round(CENTRE - atColumn / mass)));
  for (let i = 0; i < small.length; i++) found[(down + Math.floor(i / wide)) * SIDE + across + (i % wide)] = small[i];
  return found;
}

function at(event) {
  const box = paper.getBoundingClientRect();
  return [((event.clientX - box.left) * paper.width) / box.width, ((event.clientY - box.top) * paper.height) / box.height];
}

function stroke(event) {
  const next = at(event);
  context.strokeStyle = "#000";
  context.lineWidth = Number($("pen").value);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...(last ?? next));
  context.lineTo(...next);
  context.stroke();
  last = next;
  isDrawn = true;
  look();
}

paper.addEventListener("pointerdown", (event) => {
  if (!isDrawn) wipe();
  paper.setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
paper.addEventListener("pointermove", (event) => {
  if (!event.buttons) return;
  for (const one of event.getCoalescedEvents?.() ?? [event]) stroke(one);
});
$("clear").addEventListener("click", () => {
  wipe();
  isDrawn = true;
  look();
});

/** Take an image of 784 grey values instead of a drawing. */
function take(pixels) {
  image = Float32Array.from(pixels);
  isDrawn = false; // the next stroke begins a drawing
  const small = document.createElement("canvas");
  paint(small, image, SIDE, ink);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, paper.width, paper.height);
  changed();
}

let isDue = false;
/** Look at the drawing once in the next frame, however many strokes come before it. */
function look() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (!isDrawn) return;
    image = framed();
    changed();
  });
}

// ---- answers -----------------------------------------------------------------------------------------------------

const rows = content.networks.map(({ name }) => {
  const bars = document.createElement("div");
  bars.className = "bars";
  const heading = document.createElement("h3");
  heading.textContent = content.networks.length > 1 ? name : "Probability";
  bars.append(heading);
  $("answers").append(bars);
  return content.classes.map((label) => {
    const row = document.createElement("div"), meter = document.createElement("meter");
    const before = document.createElement("span"), after = document.createElement("span");
    row.className = "bar";
    before.textContent = label;
    meter.setAttribute("aria-label", label);
    row.append(before, meter, after);
    bars.append(row);
    return { row, meter, after };
  });
});

function show(k, probability) {
  const best = largest(probability);
  rows[k].forEach(({ row, meter, after }, label) => {
    row.classList.toggle("best", label === best);
    meter.value = probability[label];
    after.textContent = perCent(probability[label]);
  });
}

/** Run an asynchronous task, again if it was asked for meanwhile, and never twice at a time. */
function latest(task) {
  let isRunning = false, isWanted = false;
  return async () => {
    isWanted = true;
    if (isRunning) return;
    isRunning = true;
    try {
      while (isWanted) {
        isWanted = false;
        await task();
      }
    } finally {
      isRunning = false;
    }
  };
}

let best = 0, idle = 0;
const isBlank = () => !image.some((value) => value > 0);

const answer = latest(async () => {
  const pixels = image;
  const all = (await Promise.all(networks.map((one) => one.logits(pixels)))).map(softmax);
  all.forEach((probability, k) => show(k, probability));
  best = largest(all[chosen()]);
  const says = all.map((probability, k) => {
    const name = content.networks.length > 1 ? `${content.networks[k].name}: ` : "";
    return `${name}${content.classes[largest(probability)]} (${perCent(Math.max(...probability))})`;
  });
  $("says").textContent = isBlank() ? "The paper is empty." : says.join("; ");
});

function changed() {
  paint($("seen"), image, SIDE, ink);
  answer();
  clearTimeout(idle);
  idle = setTimeout(examine, 150);
}

/** What takes longer than a frame: once nothing has been drawn for a moment. */
async function examine() {
  await answer();
  hide();
  inside();
}

// ---- inside ------------------------------------------------------------------------------------------------------

const maps = [1, 2].map((layer) =>
  Array.from({ length: 32 }, (_, channel) => {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `channel ${channel} of convolution ${layer}`);
    canvas.title = `channel ${channel}`;
    $(`maps${layer}`).append(canvas);
    return canvas;
  }),
);

const inside = latest(async () => {
  const found = await networks[chosen()].activations(image);
  [[found.pool1, 14], [found.pool2, 7]].forEach(([values, side], layer) => {
    const most = Math.max(1e-9, values.reduce((a, b) => Math.max(a, b), 0));
    maps[layer].forEach((canvas, channel) => {
      const one = Float32Array.from({ length: side * side }, (_, i) => values[i * 32 + channel] / most);
      paint(canvas, one, side, ink);
    });
  });
});

// ---- occlusion ---------------------------------------------------------------------------------------------------

let occluded = null;
const number = (id) => Number($(id).value);

const hide = latest(async () => {
  const window = number("window"), fill = number("fill"), label = best, pixels = image;
  const found = await networks[chosen()].occlusion(pixels, label, { window, fill });
  const side = SIDE - window + 1;
  occluded = { ...found, window, fill, label, pixels, side };
  paint($("map"), found.probability, side, viridis);
  $("map-class").textContent = content.classes[label];
  const lowest = found.probability.indexOf(Math.min(...found.probability));
  patch(lowest, "The patch that hurts most");
});

function patch(place, says) {
  const { window, fill, pixels, side, probability, predicted, label } = occluded;
  const shown = Float32Array.from(pixels), top = Math.floor(place / side), left = place % side;
  for (let y = top; y < top + window; y++) shown.fill(fill, y * SIDE + left, y * SIDE + left + window);
  paint($("patched"), shown, SIDE, ink);
  const seen = content.classes[predicted[place]];
  $("patch-says").textContent = `${says}: probability of ${content.classes[label]} ${perCent(probability[place])}, classified as ${seen}`;
}

$("map").addEventListener("pointermove", (event) => {
  if (!occluded) return;
  const box = $("map").getBoundingClientRect(), { side } = occluded;
  const row = Math.floor(((event.clientY - box.top) / box.height) * side), column = Math.floor(((event.clientX - box.left) / box.width) * side);
  if (row >= 0 && row < side && column >= 0 && column < side) patch(row * side + column, "Here");
});
for (const id of ["window", "fill", "epsilon"]) {
  $(id).addEventListener("input", () => {
    $(`${id}-value`).textContent = $(id).value;
    if (id !== "epsilon") hide();
  });
}
document.querySelectorAll("input[name=network]").forEach((one) => one.addEventListener("change", examine));

// ---- attack ------------------------------------------------------------------------------------------------------

const STEPS = 100;
let result = null;

function drawTrace(trace) {
  const canvas = $("trace"), chart = canvas.getContext("2d"), { width, height } = canvas;
  chart.clearRect(0, 0, width, height);
  chart.strokeStyle = "#1b4f72";
  chart.lineWidth = 2;
  chart.beginPath();
  trace.forEach((value, k) => chart.lineTo(4 + (k / Math.max(10, trace.length - 1)) * (width - 8), height - 4 - value * (height - 8)));
  chart.stroke();
}

$("attack").addEventListener("click", async () => {
  $("attack").disabled = true;
  try {
    const target = number("target"), epsilon = number("epsilon"), pixels = image, k = chosen(), trace = [];
    const display = (moved) => {
      paint($("changed"), moved, SIDE, ink);
      paint($("change"), moved.map((value, i) => (value - pixels[i]) / epsilon), SIDE, redOrBlue);
      drawTrace(trace);
    };
    const found = await networks[k].attack(pixels, { target, epsilon, steps: STEPS, stepSize: Math.min(0.01, epsilon / 8) }, ({ pixels: moved, logits }) => {
      trace.push(softmax(logits)[target]);
      display(moved);
    });
    result = found.pixels;
    const name = content.classes[target], seen = largest(found.logits);
    const says = [seen === target
      ? (found.steps === 0 ? `It is classified as ${name} already.` : `Classified as ${name} after ${found.steps} steps.`)
      : `It withstood ${STEPS} steps: classified as ${content.classes[seen]}.`];
    for (const [other, one] of networks.entries()) if (other !== k) {
      const answered = largest(await one.logits(found.pixels));
      says.push(`The other network classifies the changed image as ${content.classes[answered]}.`);
    }
    $("attack-says").textContent = says.join(" ");
    $("keep").disabled = false;
  } finally {
    $("attack").disabled = false;
  }
});
$("keep").addEventListener("click", () => take(result));

// ---- test images -------------------------------------------------------------------------------------------------

content.samples.forEach(({ label, pixels }) => {
  const button = document.createElement("button"), canvas = document.createElement("canvas");
  const values = Float32Array.from(decoded(pixels), (value) => value / 255);
  button.type = "button";
  button.setAttribute("aria-label", `test image, ${content.classes[label]}`);
  paint(canvas, values, SIDE, ink);
  button.append(canvas);
  button.addEventListener("click", () => take(values));
  $("samples").append(button);
});

wipe();
Promise.all(networks.map((one) => one.ready)).then(() => {
  $("attack").disabled = false;
  take(Float32Array.from(decoded(content.samples[Math.min(7, content.samples.length - 1)].pixels), (value) => value / 255));
  document.documentElement.dataset.ready = "true";
});
