"use strict";
const $ = (id) => document.getElementById(id);
const content = JSON.parse($("content").textContent);
const SIDE = 28;
const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

function softmax(logits) {
  const highest = Math.max(...logits), powers = Array.from(logits, (value) => Math.exp(value - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}
const largest = (values) => values.indexOf(Math.max(...values));

function checkedPixels(pixels) {
  if (pixels.length !== SIDE * SIDE) throw new RangeError(`an image has ${SIDE * SIDE} pixels, got ${pixels.length}`);
  const image = Float32Array.from(pixels);
  if (!image.every(Number.isFinite)) throw new RangeError("an image's pixels must be finite numbers");
  return image;
}

function checkedWhole(name, value, low, high) {
  if (!Number.isInteger(value) || value < low || value > high)
    throw new RangeError(`${name} must be a whole number from ${low} to ${high}, got ${value}`);
  return value;
}

/** A worker that runs a network; `ask` returns a promise. */
class NetworkWorker {
  constructor({ weights, description }) {
    this.waiting = new Map();
    this.number = 0;
    this.worker = new Worker(URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject, onStep } = this.waiting.get(data.id);
      if ("step" in data) return onStep?.(data);
      this.waiting.delete(data.id);
      if ("error" in data) reject(new Error(data.error));
      else resolve(data.result);
    };
    this.worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "the worker cannot be started"));
      this.waiting.clear();
    };
    this.ready = this.ask("load", [decoded(weights).buffer, description]);
  }

  ask(kind, values, onStep) {
    const id = ++this.number;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onStep });
      this.worker.postMessage({ id, kind, values });
    });
  }
}

/** A network: one worker answers while you draw, another one does what takes longer. */
class RemoteNetwork {
  constructor(described) {
    Object.assign(this, { maps: described.maps, stride: described.stride });
    this.quick = new NetworkWorker(described);
    this.slow = new NetworkWorker(described);
    this.ready = Promise.all([this.quick.ready, this.slow.ready]);
  }

  /** The logits of 784 numbers in [0, 1], row by row. */
  async logits(pixels) {
    return this.quick.ask("logits", [checkedPixels(pixels)]);
  }

  /** Feature maps, channels first, as `maps` describes them, and the logits: {maps, logits}. */
  async activations(pixels) {
    return this.quick.ask("activations", [checkedPixels(pixels)]);
  }

  /** The gradient, by the image, of the sum of the logits times `weights`. */
  async gradient(pixels, weights) {
    return this.quick.ask("gradient", [checkedPixels(pixels), weights]);
  }

  /** The filter of a channel of one of the `maps`: {values, shape}, (channel in, row, column). */
  async filter(layer, channel) {
    return this.quick.ask("filter", [layer, channel]);
  }

  /** The probability of `label` and the predicted class with a grey patch at each position, row by row. */
  async occlusion(pixels, label, { window = 8, stride = 1, fill = 0.5 } = {}) {
    checkedWhole("label", label, 0, content.classes.length - 1);
    checkedWhole("window", window, 1, SIDE);
    checkedWhole("stride", stride, 1, SIDE);
    const found = await this.slow.ask("occlusion", [checkedPixels(pixels), label, { window, stride, fill }]);
    return { probability: Array.from(found.probability), predicted: Array.from(found.predicted) };
  }

  /** Projected gradient descent; options: target, targeted, epsilon, steps, stepSize, start. */
  async attack(pixels, options, onStep) {
    checkedWhole("target", options.target, 0, content.classes.length - 1);
    const values = [checkedPixels(pixels), { ...options, shown: Boolean(onStep) }];
    const { pixels: image, ...rest } = await this.slow.ask("attack", values, onStep);
    return { pixels: Array.from(image), ...rest };
  }
}

const networks = content.networks.map((one) => new RemoteNetwork(one));
[window.network, window.other] = networks;
