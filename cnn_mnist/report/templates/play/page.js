"use strict";
// What is shown of an image: answers, occlusion, an attack, feature maps.

const perCent = (value) => `${(100 * value).toFixed(1)} %`;
const number = (id) => Number($(id).value);
const chosen = () => Number(document.querySelector("input[name=network]:checked")?.value ?? 0);
const nameOf = (k) => content.networks[k].name;
const capitalised = (text) => text[0].toUpperCase() + text.slice(1);

function fail(error) {
  $("says").textContent = `The page has failed: ${error.message ?? error}`;
}

/** A task that is run again if it was asked for meanwhile, and never twice at a time. */
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
    } catch (error) {
      fail(error);
    } finally {
      isRunning = false;
    }
  };
}

// ---- answers -----------------------------------------------------------------------------------------------------

const rows = content.networks.map(({ name }) => {
  const bars = document.createElement("div"), heading = document.createElement("h3");
  bars.className = "bars";
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

const answer = latest(async () => {
  const pixels = image;
  const all = (await Promise.all(networks.map((one) => one.logits(pixels)))).map(softmax);
  all.forEach((probability, k) => show(k, probability));
  const says = all.map((probability, k) => {
    const name = content.networks.length > 1 ? `${nameOf(k)}: ` : "";
    return `${name}${content.classes[largest(probability)]} (${perCent(Math.max(...probability))})`;
  });
  $("says").textContent = pixels.some((value) => value > 0) ? says.join("; ") : "The paper is empty.";
});

let idle = 0;
listeners.push(() => {
  paint($("seen"), image, SIDE, ink);
  forgetAttack();
  answer();
  clearTimeout(idle);
  idle = setTimeout(examine, 150); // what takes longer than a frame: once nothing has been drawn for a moment
});

function examine() {
  hide();
  inside();
}

document.querySelectorAll("input[name=network]").forEach((one) =>
  one.addEventListener("change", () => {
    forgetAttack();
    examine();
  }),
);

// ---- occlusion ---------------------------------------------------------------------------------------------------

// Ten colours that colour-blind readers can tell apart (Paul Tol's muted scheme); more classes repeat them.
const COLOURS = ["#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#777777"];
const rgb = (label) => [1, 3, 5].map((start) => parseInt(COLOURS[label % COLOURS.length].slice(start, start + 2), 16));
let occluded = null, pointed = 0;

const hide = latest(async () => {
  const window = number("window"), fill = number("fill"), k = chosen(), pixels = image;
  const label = largest(await networks[k].logits(pixels));
  const { stride } = networks[k];
  const found = await networks[k].occlusion(pixels, label, { window, stride, fill });
  const side = Math.floor((SIDE - window) / stride) + 1;
  occluded = { ...found, window, stride, fill, label, pixels, side };
  paint($("map"), found.probability, side, viridis);
  paint($("classes"), found.predicted, side, rgb);
  $("map-class").textContent = content.classes[label];
  $("legend").replaceChildren(...[...new Set(found.predicted)].sort((a, b) => a - b).map((one) => {
    const entry = document.createElement("li"), chip = document.createElement("canvas");
    paint(chip, [one], 1, rgb);
    entry.append(chip, content.classes[one]);
    return entry;
  }));
  point(found.probability.indexOf(Math.min(...found.probability)), "Most damaging patch");
});

/** Show the patch at a position of the map. */
function point(place, says) {
  const { window, stride, fill, pixels, side, probability, predicted, label } = occluded;
  const covered = Float32Array.from(pixels), top = Math.floor(place / side) * stride, left = (place % side) * stride;
  for (let y = top; y < top + window; y++) covered.fill(fill, y * SIDE + left, y * SIDE + left + window);
  paint($("patched"), covered, SIDE, ink);
  pointed = place;
  $("patch-says").textContent =
    `${says}: p(${content.classes[label]}) = ${perCent(probability[place])}, classified as ${content.classes[predicted[place]]}`;
}

for (const id of ["map", "classes"]) {
  $(id).addEventListener("pointermove", (event) => {
    if (!occluded) return;
    const box = $(id).getBoundingClientRect(), { side } = occluded;
    const row = Math.floor(((event.clientY - box.top) / box.height) * side);
    const column = Math.floor(((event.clientX - box.left) / box.width) * side);
    if (row >= 0 && row < side && column >= 0 && column < side) point(row * side + column, "This patch");
  });
}
$("map").addEventListener("keydown", (event) => {
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!move || !occluded) return;
  event.preventDefault();
  const { side } = occluded, row = Math.floor(pointed / side) + move[0], column = (pointed % side) + move[1];
  if (row >= 0 && row < side && column >= 0 && column < side) point(row * side + column, "This patch");
});
for (const id of ["window", "fill"]) {
  $(id).addEventListener("input", () => {
    $(`${id}-value`).textContent = $(id).value;
    hide();
  });
}

// ---- attack ------------------------------------------------------------------------------------------------------

const STEPS = 100;
let result = null;

function forgetAttack() {
  result = null;
  $("attack-says").textContent = "";
  $("keep").disabled = true;
  for (const id of ["changed", "change", "trace"]) $(id).getContext("2d").clearRect(0, 0, $(id).width, $(id).height);
}
$("epsilon").addEventListener("input", () => {
  $("epsilon-value").textContent = $("epsilon").value;
  forgetAttack();
});
$("target").addEventListener("change", forgetAttack);

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
  forgetAttack();
  try {
    const target = number("target"), epsilon = number("epsilon"), pixels = image, k = chosen(), trace = [];
    const isStale = () => pixels !== image || k !== chosen() || target !== number("target") || epsilon !== number("epsilon");
    const options = { target, epsilon, steps: STEPS, stepSize: Math.min(0.01, epsilon / 8) };
    const found = await networks[k].attack(pixels, options, ({ pixels: moved, logits }) => {
      trace.push(softmax(logits)[target]);
      paint($("changed"), moved, SIDE, ink);
      paint($("change"), moved.map((value, i) => (value - pixels[i]) / epsilon), SIDE, redOrBlue);
      drawTrace(trace);
    });
    const others = await Promise.all(networks.map((one) => one.logits(found.pixels)));
    if (isStale()) return;
    const name = content.classes[target], seen = content.classes[largest(found.logits)];
    const says = [seen !== name ? `It withstood ${STEPS} steps: classified as ${seen}.`
      : found.steps === 0 ? `It is classified as ${name} already.` : `Classified as ${name} after ${found.steps} steps.`];
    others.forEach((logits, other) => {
      if (other !== k) says.push(`${capitalised(nameOf(other))} classifies the changed image as ${content.classes[largest(logits)]}.`);
    });
    result = found.pixels;
    $("attack-says").textContent = says.join(" ");
    $("keep").disabled = false;
  } catch (error) {
    $("attack-says").textContent = `The attack has failed: ${error.message}`;
  } finally {
    $("attack").disabled = false;
  }
});
$("keep").addEventListener("click", () => take(result));

// ---- inside ------------------------------------------------------------------------------------------------------

let enlarged = null, layers = []; // [layer, channel]; feature maps of the image, by layer and channel
let tiles = [], shownOf = -1; // canvases by layer and channel, and the network that they are of

/** Make a canvas for each feature map of a network. */
function layOut(k) {
  if (shownOf === k) return;
  shownOf = k;
  layers = [];
  $("maps").replaceChildren();
  tiles = networks[k].maps.map(({ title, channels }, layer) => {
    const heading = document.createElement("h3"), grid = document.createElement("div");
    heading.textContent = title;
    grid.className = "tiles maps";
    $("maps").append(heading, grid);
    return Array.from({ length: channels }, (_, channel) => {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      button.type = "button";
      button.setAttribute("aria-label", `channel ${channel} of convolution ${layer + 1}`);
      button.append(canvas);
      for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => enlarge(layer, channel));
      grid.append(button);
      return canvas;
    });
  });
  for (const id of ["has-maps", "large-figure", "filter-figure"]) $(id).hidden = tiles.length === 0;
  if (tiles.length) enlarge(0, 0);
}

const inside = latest(async () => {
  const pixels = image, k = chosen();
  const found = await networks[k].activations(pixels);
  const weights = found.logits.map((_, label) => Number(label === largest(found.logits)));
  const gradient = await networks[k].gradient(pixels, weights);
  layOut(k);
  const steepest = Math.max(1e-9, ...gradient.map(Math.abs));
  paint($("gradient"), gradient.map((value) => value / steepest), SIDE, redOrBlue);
  $("gradient-class").textContent = content.classes[largest(found.logits)];
  layers = found.maps.map((values, layer) => {
    const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9), { height, width } = networks[k].maps[layer];
    return tiles[layer].map((canvas, channel) => {
      const one = values.subarray(channel * height * width, (channel + 1) * height * width).map((value) => value / most);
      paint(canvas, one, width, signed, height);
      return one;
    });
  });
  paintLarge();
});

/** Positive values as ink, negative ones in blue. */
const signed = (value) => (value < 0 ? redOrBlue(value) : ink(value));

function paintLarge() {
  if (!enlarged || !layers.length) return;
  const [layer, channel] = enlarged, { height, width } = networks[shownOf].maps[layer];
  paint($("large"), layers[layer][channel], width, signed, height);
  $("large").style.aspectRatio = `${width} / ${height}`;
}

/** Show a feature map large, with the filter that made it. */
async function enlarge(layer, channel) {
  const k = shownOf, here = (enlarged = [layer, channel]);
  paintLarge();
  const { values, shape: [depth, tall, wide] } = await networks[k].filter(layer, channel);
  if (enlarged !== here) return;
  const columns = Math.min(depth, 8), gap = depth > 1 ? 1 : 0, most = Math.max(1e-9, ...values.map(Math.abs));
  const width = columns * (wide + gap) - gap, height = Math.ceil(depth / columns) * (tall + gap) - gap;
  const shown = new Float32Array(width * height).fill(NaN);
  values.forEach((value, place) => {
    const c = Math.floor(place / (tall * wide)), i = Math.floor(place / wide) % tall, j = place % wide;
    shown[(Math.floor(c / columns) * (tall + gap) + i) * width + (c % columns) * (wide + gap) + j] = value / most;
  });
  paint($("filter"), shown, width, (value) => (Number.isNaN(value) ? [255, 255, 255] : redOrBlue(value)), height);
  $("filter").style.aspectRatio = `${width} / ${height}`;
  $("large-says").textContent = `Channel ${channel} of convolution ${layer + 1}`;
  $("filter-says").textContent = depth > 1 ? `its filter, on each of ${depth} channels` : "its filter";
}

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
  $("samples").children[Math.min(7, content.samples.length - 1)].click();
  document.documentElement.dataset.ready = "true";
}, fail);
