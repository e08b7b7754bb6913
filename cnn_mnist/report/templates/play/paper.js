"use strict";
// Drawing: the paper, what the network sees of it, and undo.

const BOX = 20, CENTRE = 14; // MNIST fits a digit into 20x20 and centres its mass
const MOST_UNDONE = 30;
const paper = $("paper"), context = paper.getContext("2d", { willReadFrequently: true });
let image = new Float32Array(SIDE * SIDE);
let isDrawn = true; // else a test image lies there, and the next stroke begins a drawing
let pen = null; // {id, place} while a stroke is drawn
const before = [];
const listeners = []; // called with every new image

const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const ink = (value) => Array(3).fill(255 * (1 - value));
function viridis(value) {
  const place = 4 * Math.min(Math.max(value, 0), 1), k = Math.min(3, Math.floor(place)), part = place - k;
  return VIRIDIS[k].map((low, c) => low + part * (VIRIDIS[k + 1][c] - low));
}
const redOrBlue = (value) => (value > 0 ? [255, 255 * (1 - value), 255 * (1 - value)] : [255 * (1 + value), 255 * (1 + value), 255]);

/** Draw values on a canvas, one pixel each. */
function paint(canvas, values, width, colour, height = width) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const target = canvas.getContext("2d"), picture = target.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const [red, green, blue] = colour(values[i]);
    picture.data.set([red, green, blue, 255], 4 * i);
  }
  target.putImageData(picture, 0, 0);
}

function wipe() {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, paper.width, paper.height);
}

/** The paper as the network sees it: its ink scaled into 20x20 by areas, its centre of mass at index 14. */
function framed() {
  const { width, height } = paper, { data } = context.getImageData(0, 0, width, height);
  const inkAt = (y, x) => 1 - data[4 * (y * width + x)] / 255;
  let top = height, left = width, bottom = -1, right = -1;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (inkAt(y, x) > 0.5) {
    top = Math.min(top, y); bottom = Math.max(bottom, y); left = Math.min(left, x); right = Math.max(right, x);
  }
  const found = new Float32Array(SIDE * SIDE);
  if (bottom < 0) return found;
  const tall = bottom + 1 - top, wide = right + 1 - left, scale = BOX / Math.max(tall, wide);
  const rows = Math.max(1, Math.round(tall * scale)), columns = Math.max(1, Math.round(wide * scale));
  const small = new Float32Array(rows * columns);
  let mass = 0, atRow = 0, atColumn = 0;
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
    const y0 = top + Math.floor((row * tall) / rows), y1 = Math.max(y0 + 1, top + Math.floor(((row + 1) * tall) / rows));
    const x0 = left + Math.floor((column * wide) / columns), x1 = Math.max(x0 + 1, left + Math.floor(((column + 1) * wide) / columns));
    let sum = 0;
    for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) sum += inkAt(y, x);
    const value = sum / ((y1 - y0) * (x1 - x0));
    small[row * columns + column] = value;
    mass += value; atRow += value * row; atColumn += value * column;
  }
  const down = Math.min(SIDE - rows, Math.max(0, Math.round(CENTRE - atRow / mass)));
  const across = Math.min(SIDE - columns, Math.max(0, Math.round(CENTRE - atColumn / mass)));
  for (let i = 0; i < small.length; i++) found[(down + Math.floor(i / columns)) * SIDE + across + (i % columns)] = small[i];
  return found;
}

function remember() {
  before.push({ picture: context.getImageData(0, 0, paper.width, paper.height), image, isDrawn });
  if (before.length > MOST_UNDONE) before.shift();
  $("undo").disabled = false;
}

function undo() {
  const last = before.pop();
  if (!last) return;
  $("undo").disabled = before.length === 0;
  context.putImageData(last.picture, 0, 0);
  ({ isDrawn } = last);
  setImage(last.image);
}

function setImage(pixels) {
  image = Float32Array.from(pixels);
  for (const listener of listeners) listener();
}

/** Take an image of 784 grey values instead of a drawing. */
function take(pixels) {
  remember();
  isDrawn = false;
  const small = document.createElement("canvas");
  paint(small, pixels, SIDE, ink);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, paper.width, paper.height);
  setImage(pixels);
}

let isDue = false;
/** Look at the drawing once in the next frame, however many strokes come before it. */
function look() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (isDrawn) setImage(framed());
  });
}

function placeOf(event) {
  const box = paper.getBoundingClientRect();
  return [((event.clientX - box.left) * paper.width) / box.width, ((event.clientY - box.top) * paper.height) / box.height];
}

/** Ink from the pen's last place to the next one; a dot where they are the same. */
function strokeTo(next) {
  context.strokeStyle = context.fillStyle = "#000";
  context.lineWidth = Number($("pen").value);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.arc(...next, context.lineWidth / 2, 0, 2 * Math.PI);
  context.fill();
  context.beginPath();
  context.moveTo(...pen.place);
  context.lineTo(...next);
  context.stroke();
  pen.place = next;
  look();
}

paper.addEventListener("pointerdown", (event) => {
  if (pen || !event.isPrimary || event.button !== 0) return;
  remember();
  if (!isDrawn) wipe();
  isDrawn = true;
  paper.setPointerCapture(event.pointerId);
  pen = { id: event.pointerId, place: placeOf(event) };
  strokeTo(pen.place);
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pen?.id) return;
  for (const one of event.getCoalescedEvents?.() ?? [event]) strokeTo(placeOf(one));
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, (event) => {
    if (event.pointerId === pen?.id) pen = null;
  });
}
$("clear").addEventListener("click", () => {
  remember();
  wipe();
  isDrawn = true;
  look();
});
$("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
});
