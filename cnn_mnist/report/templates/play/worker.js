"use strict";
// The report's network in typed arrays, for a Web Worker: logits, activations, occlusion, gradients.
// Images are 28x28, feature maps lie channels last: index ((row * width) + column) * channels + channel.

const SIDE = 28, CHANNELS = 32, HALF = 14, QUARTER = 7, HIDDEN = 500;

class Network {
  /** bytes: see `Rounded.content` in play.py. kernel: height and width of the filters. */
  constructor(bytes, kernel, numClasses) {
    this.kernel = kernel;
    this.numClasses = numClasses;
    const outputs = [CHANNELS, CHANNELS, HIDDEN, numClasses];
    const inputs = [kernel * kernel, kernel * kernel * CHANNELS, QUARTER * QUARTER * CHANNELS, HIDDEN];
    let place = 0;
    const floats = (count) => {
      const found = new Float32Array(bytes, place, count);
      place += 4 * count;
      return found;
    };
    const biases = outputs.map(floats), scales = outputs.map(floats);
    const matrices = outputs.map((width, k) => {
      const levels = new Int16Array(bytes, place, inputs[k] * width), values = new Float32Array(levels.length);
      place += 2 * levels.length;
      for (let i = 0; i < values.length; i++) values[i] = levels[i] * scales[k][i % width];
      return values;
    });
    this.layers = biases.map((bias, k) => ({ bias, weight: matrices[k], width: outputs[k] }));
    // For the gradient, the second convolution also as (row, column, channel out, channel in).
    const { weight } = this.layers[1], turned = new Float32Array(weight.length);
    for (let p = 0; p < kernel * kernel; p++)
      for (let i = 0; i < CHANNELS; i++)
        for (let o = 0; o < CHANNELS; o++)
          turned[(p * CHANNELS + o) * CHANNELS + i] = weight[(p * CHANNELS + i) * CHANNELS + o];
    this.turned = turned;
  }

  /** Everything that a forward pass computes. */
  state() {
    return {
      image: new Float32Array(SIDE * SIDE),
      pool1: new Float32Array(HALF * HALF * CHANNELS), from1: new Int8Array(HALF * HALF * CHANNELS),
      pool2: new Float32Array(QUARTER * QUARTER * CHANNELS), from2: new Int8Array(QUARTER * QUARTER * CHANNELS),
      sum: new Float32Array(HIDDEN), hidden: new Float32Array(HIDDEN), logits: new Float32Array(this.numClasses),
    };
  }

  /** Convolution, 2x2 max-pool and ReLU, in the pooled rectangle [top, bottom) x [left, right) alone.
      `from`: which of the four places was largest, or -1 where the ReLU cut it off. */
  convolve(layer, input, side, depth, output, from, top, left, bottom, right) {
    const { weight, bias } = layer, kernel = this.kernel, margin = kernel >> 1, half = side >> 1;
    const sums = new Float32Array(CHANNELS);
    for (let row = top; row < bottom; row++) for (let column = left; column < right; column++) {
      const out = (row * half + column) * CHANNELS;
      output.fill(0, out, out + CHANNELS);
      from.fill(-1, out, out + CHANNELS);
      for (let corner = 0; corner < 4; corner++) {
        const y = 2 * row + (corner >> 1) - margin, x = 2 * column + (corner & 1) - margin;
        sums.set(bias);
        for (let i = Math.max(0, -y); i < kernel && y + i < side; i++)
          for (let j = Math.max(0, -x); j < kernel && x + j < side; j++) {
            const start = ((y + i) * side + x + j) * depth;
            for (let c = 0; c < depth; c++) {
              const value = input[start + c];
              if (value === 0) continue;
              const w = ((i * kernel + j) * depth + c) * CHANNELS;
              for (let o = 0; o < CHANNELS; o++) sums[o] += value * weight[w + o];
            }
          }
        for (let o = 0; o < CHANNELS; o++) if (sums[o] > output[out + o]) {
          output[out + o] = sums[o];
          from[out + o] = corner;
        }
      }
    }
  }

  /** From the hidden layer's sums to the logits. */
  finish(s) {
    const { weight, bias, width } = this.layers[3];
    s.logits.set(bias);
    for (let h = 0; h < HIDDEN; h++) {
      const value = s.hidden[h] = Math.max(0, s.sum[h]);
      if (value > 0) for (let k = 0; k < width; k++) s.logits[k] += value * weight[h * width + k];
    }
    return s.logits;
  }

  /** Add `value` times the weights of an input to the hidden layer's sums. */
  add(sum, input, value) {
    const { weight } = this.layers[2], start = input * HIDDEN;
    for (let h = 0; h < HIDDEN; h++) sum[h] += value * weight[start + h];
  }

  /** The logits of 784 grey values in [0, 1], row by row. */
  forward(pixels, s = this.state()) {
    s.image.set(pixels);
    this.convolve(this.layers[0], s.image, SIDE, 1, s.pool1, s.from1, 0, 0, HALF, HALF);
    this.convolve(this.layers[1], s.pool1, HALF, CHANNELS, s.pool2, s.from2, 0, 0, QUARTER, QUARTER);
    s.sum.set(this.layers[2].bias);
    for (let i = 0; i < s.pool2.length; i++) if (s.pool2[i] !== 0) this.add(s.sum, i, s.pool2[i]);
    this.finish(s);
    return s;
  }

  /** Add to the second convolution's sums what the change of one value of `pool1` brings. */
  spread(sums, row, column, channel, change) {
    const { weight } = this.layers[1], kernel = this.kernel, margin = kernel >> 1;
    for (let i = 0; i < kernel; i++) {
      const y = row - i + margin;
      if (y < 0 || y >= HALF) continue;
      for (let j = 0; j < kernel; j++) {
        const x = column - j + margin;
        if (x < 0 || x >= HALF) continue;
        const out = (y * HALF + x) * CHANNELS, w = ((i * kernel + j) * CHANNELS + channel) * CHANNELS;
        for (let o = 0; o < CHANNELS; o++) sums[out + o] += change * weight[w + o];
      }
    }
  }

  /** The probability of `label` and the predicted class with a grey patch at each position, row by row.
      Only what the patch changes is computed again. */
  occlusion(pixels, label, { window = 8, stride = 1, fill = 0.5 } = {}) {
    const base = this.forward(pixels), s = this.forward(pixels);
    const before = new Float32Array(HALF * HALF * CHANNELS); // the second convolution, before max-pool and ReLU
    for (let place = 0; place < HALF * HALF; place++) before.set(this.layers[1].bias, place * CHANNELS);
    base.pool1.forEach((value, k) => {
      const place = Math.floor(k / CHANNELS);
      if (value !== 0) this.spread(before, Math.floor(place / HALF), place % HALF, k % CHANNELS, value);
    });
    const sums = before.slice();
    const pooled2 = (i, j, c) => { // ReLU and 2x2 max-pool of the sums
      const first = (2 * i * HALF + 2 * j) * CHANNELS + c, below = first + HALF * CHANNELS;
      return Math.max(0, sums[first], sums[first + CHANNELS], sums[below], sums[below + CHANNELS]);
    };
    base.sum.set(this.layers[2].bias); // in the order of additions of `before`, so that what is unchanged is equal
    base.pool2.forEach((_, k) => {
      const place = Math.floor(k / CHANNELS);
      base.pool2[k] = pooled2(Math.floor(place / QUARTER), place % QUARTER, k % CHANNELS);
      if (base.pool2[k] !== 0) this.add(base.sum, k, base.pool2[k]);
    });
    const margin = this.kernel >> 1, places = Math.floor((SIDE - window) / stride) + 1;
    const probability = new Float32Array(places * places), predicted = new Int32Array(places * places);
    const pooled = (from, to, size) => [Math.max(0, (from - margin) >> 1), Math.min(size, (to + margin + 1) >> 1)];
    for (let row = 0; row < places; row++) for (let column = 0; column < places; column++) {
      const y = row * stride, x = column * stride;
      for (let i = y; i < y + window; i++) s.image.fill(fill, i * SIDE + x, i * SIDE + x + window);
      const [top1, bottom1] = pooled(y, y + window, HALF), [left1, right1] = pooled(x, x + window, HALF);
      this.convolve(this.layers[0], s.image, SIDE, 1, s.pool1, s.from1, top1, left1, bottom1, right1);
      for (let i = top1; i < bottom1; i++) for (let j = left1; j < right1; j++) for (let c = 0; c < CHANNELS; c++) {
        const k = (i * HALF + j) * CHANNELS + c, change = s.pool1[k] - base.pool1[k];
        if (change !== 0) this.spread(sums, i, j, c, change);
      }
      const [top2, bottom2] = pooled(top1, bottom1, QUARTER), [left2, right2] = pooled(left1, right1, QUARTER);
      s.sum.set(base.sum);
      for (let i = top2; i < bottom2; i++) for (let j = left2; j < right2; j++) for (let c = 0; c < CHANNELS; c++) {
        const k = (i * QUARTER + j) * CHANNELS + c, change = pooled2(i, j, c) - base.pool2[k];
        if (change !== 0) this.add(s.sum, k, change);
      }
      const logits = this.finish(s), place = row * places + column;
      probability[place] = softmax(logits)[label];
      predicted[place] = largest(logits);
      for (let i = y; i < y + window; i++) s.image.set(base.image.subarray(i * SIDE + x, i * SIDE + x + window), i * SIDE + x);
      restore(s.pool1, base.pool1, HALF, top1, left1, bottom1, right1);
      restore(sums, before, HALF, 2 * top2, 2 * left2, 2 * bottom2, 2 * right2);
    }
    return { probability, predicted };
  }

  /** The gradient, by the image, of the logits weighted by `weights`, after a forward pass into `s`. */
  gradient(s, weights) {
    const { weight: last, width } = this.layers[3], { weight: first } = this.layers[2];
    const active = [], slopes = [];
    for (let h = 0; h < HIDDEN; h++) if (s.sum[h] > 0) {
      let slope = 0;
      for (let k = 0; k < width; k++) slope += weights[k] * last[h * width + k];
      active.push(h);
      slopes.push(slope);
    }
    const atPool1 = new Float32Array(s.pool1.length), atImage = new Float32Array(SIDE * SIDE);
    const kernel = this.kernel, margin = kernel >> 1, { turned } = this, filters = this.layers[0].weight;
    for (let row = 0; row < QUARTER; row++) for (let column = 0; column < QUARTER; column++)
      for (let o = 0; o < CHANNELS; o++) {
        const place = (row * QUARTER + column) * CHANNELS + o, corner = s.from2[place];
        if (corner < 0) continue;
        let slope = 0;
        for (let a = 0; a < active.length; a++) slope += slopes[a] * first[place * HIDDEN + active[a]];
        const y = 2 * row + (corner >> 1) - margin, x = 2 * column + (corner & 1) - margin;
        for (let i = Math.max(0, -y); i < kernel && y + i < HALF; i++)
          for (let j = Math.max(0, -x); j < kernel && x + j < HALF; j++) {
            const start = ((y + i) * HALF + x + j) * CHANNELS, w = ((i * kernel + j) * CHANNELS + o) * CHANNELS;
            for (let c = 0; c < CHANNELS; c++) atPool1[start + c] += slope * turned[w + c];
          }
      }
    for (let row = 0; row < HALF; row++) for (let column = 0; column < HALF; column++)
      for (let o = 0; o < CHANNELS; o++) {
        const place = (row * HALF + column) * CHANNELS + o, corner = s.from1[place], slope = atPool1[place];
        if (corner < 0 || slope === 0) continue;
        const y = 2 * row + (corner >> 1) - margin, x = 2 * column + (corner & 1) - margin;
        for (let i = Math.max(0, -y); i < kernel && y + i < SIDE; i++)
          for (let j = Math.max(0, -x); j < kernel && x + j < SIDE; j++)
            atImage[(y + i) * SIDE + x + j] += slope * filters[(i * kernel + j) * CHANNELS + o];
      }
    return atImage;
  }

  /** The filter of a channel of the first (0) or the second (1) convolution, as (channel in, row, column). */
  filter(layer, channel) {
    const { weight } = this.layers[layer], shape = [layer ? CHANNELS : 1, this.kernel, this.kernel], [depth, tall, wide] = shape;
    const values = Float32Array.from({ length: depth * tall * wide }, (_, i) => {
      const c = Math.floor(i / (tall * wide)), place = i % (tall * wide);
      return weight[(place * depth + c) * CHANNELS + channel];
    });
    return { values, shape };
  }

  /** The feature maps after each convolution's pooling, channels first, and the logits. */
  activations(pixels) {
    const { pool1, pool2, logits } = this.forward(pixels);
    return { maps: [pool1, pool2].map(channelsFirst), logits: Array.from(logits) };
  }
}

function channelsFirst(values) {
  const each = values.length / CHANNELS;
  return Float32Array.from({ length: values.length }, (_, i) => values[(i % each) * CHANNELS + Math.floor(i / each)]);
}

/** Projected gradient descent within `epsilon` of every pixel, until the image is classified as `target`, or,
    with `targeted` false, as anything but `target`. `start`: where it begins; the image itself if left out. */
function attack(network, pixels, { target, targeted = true, epsilon = 0.3, steps = 100, stepSize = 0.01, start = pixels }, shown = () => {}) {
  const image = Float32Array.from(start), s = network.state(), weights = new Float32Array(network.numClasses);
  const trace = [];
  let step = 0;
  for (; ; step++) {
    const logits = network.forward(image, s).logits;
    trace.push(softmax(logits)[target]);
    const isOver = (largest(logits) === target) === targeted;
    shown(step, image, logits);
    if (isOver || step === steps) break;
    // What is climbed is the target's logit - log sum exp of the others: never flat where float32 says 1.
    const others = softmax(logits.map((value, k) => (k === target ? -Infinity : value)));
    for (let k = 0; k < weights.length; k++) weights[k] = (targeted ? 1 : -1) * (k === target ? 1 : -others[k]);
    const gradient = network.gradient(s, weights);
    for (let i = 0; i < image.length; i++) {
      const moved = image[i] + stepSize * Math.sign(gradient[i]);
      const low = Math.max(0, pixels[i] - epsilon), high = Math.min(1, pixels[i] + epsilon);
      image[i] = Math.min(high, Math.max(low, moved));
    }
  }
  return { pixels: image, logits: Array.from(s.logits), steps: step, trace };
}

function restore(to, from, side, top, left, bottom, right) {
  for (let i = top; i < bottom; i++) {
    const start = (i * side + left) * CHANNELS, end = (i * side + right) * CHANNELS;
    to.set(from.subarray(start, end), start);
  }
}

function softmax(logits) {
  const highest = Math.max(...logits), powers = Array.from(logits, (value) => Math.exp(value - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}

function largest(values) {
  let best = 0;
  for (let k = 1; k < values.length; k++) if (values[k] > values[best]) best = k;
  return best;
}
