"use strict";
// Any network of common layers, operation by operation; feature maps lie channels first, as in PyTorch.

const sizeOf = (shape) => shape.reduce((a, b) => a * b, 1);

const FORWARD = {
  conv2d({ weight: [outputs, depth, tall, wide], stride, padding, groups, values, bias, shape: [, height, width] }, [input], output, [[, rows, columns]]) {
    const perGroup = outputs / groups;
    for (let o = 0; o < outputs; o++) {
      output.fill(bias[o], o * height * width, (o + 1) * height * width);
      for (let c = 0; c < depth; c++) {
        const from = (Math.floor(o / perGroup) * depth + c) * rows * columns;
        for (let i = 0; i < tall; i++) for (let j = 0; j < wide; j++) {
          const value = values[((o * depth + c) * tall + i) * wide + j];
          for (let y = 0; y < height; y++) {
            const row = y * stride[0] + i - padding[0];
            if (row < 0 || row >= rows) continue;
            for (let x = 0; x < width; x++) {
              const column = x * stride[1] + j - padding[1];
              if (column >= 0 && column < columns) output[(o * height + y) * width + x] += value * input[from + row * columns + column];
            }
          }
        }
      }
    }
  },
  linear({ weight: [outputs, inputs], values, bias }, [input], output) {
    for (let o = 0; o < outputs; o++) {
      let sum = bias[o];
      for (let i = 0; i < inputs; i++) sum += values[o * inputs + i] * input[i];
      output[o] = sum;
    }
  },
  affine({ scale, bias, shape: [channels] }, [input], output) {
    const each = input.length / channels;
    for (let i = 0; i < input.length; i++) output[i] = input[i] * scale[Math.floor(i / each)] + bias[Math.floor(i / each)];
  },
  relu(_, [input], output) { for (let i = 0; i < input.length; i++) output[i] = Math.max(0, input[i]); },
  tanh(_, [input], output) { for (let i = 0; i < input.length; i++) output[i] = Math.tanh(input[i]); },
  sigmoid(_, [input], output) { for (let i = 0; i < input.length; i++) output[i] = 1 / (1 + Math.exp(-input[i])); },
  same(_, [input], output) { output.set(input); },
  add(_, [one, other], output) { for (let i = 0; i < output.length; i++) output[i] = one[i] + other[i]; },
  mean({ shape: [channels] }, [input], output) {
    const each = input.length / channels;
    for (let c = 0; c < channels; c++) output[c] = input.subarray(c * each, (c + 1) * each).reduce((a, b) => a + b, 0) / each;
  },
  max_pool2d(operation, [input], output, [shape], from) {
    overWindows(operation, shape, (out, place, isFirst) => {
      if (isFirst || input[place] > output[out]) {
        output[out] = input[place];
        from[out] = place;
      }
    });
  },
  avg_pool2d(operation, [input], output, [shape]) {
    const share = 1 / sizeOf(operation.kernel);
    output.fill(0);
    overWindows(operation, shape, (out, place) => { output[out] += share * input[place]; });
  },
};

/** Call with (place in the output, place in the input, whether it is the window's first) for each pixel of each window. */
function overWindows({ kernel, stride, shape: [channels, height, width] }, [, rows, columns], visit) {
  for (let c = 0; c < channels; c++) for (let y = 0; y < height; y++) for (let x = 0; x < width; x++)
    for (let i = 0; i < kernel[0]; i++) for (let j = 0; j < kernel[1]; j++)
      visit((c * height + y) * width + x, (c * rows + y * stride[0] + i) * columns + x * stride[1] + j, i + j === 0);
}

// Each adds to the gradients of its inputs, given that of its output.
const BACKWARD = {
  conv2d({ weight: [outputs, depth, tall, wide], stride, padding, groups, values, shape: [, height, width] }, [slope], slopes, [[, rows, columns]]) {
    const perGroup = outputs / groups;
    for (let o = 0; o < outputs; o++) for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      const value = slopes[(o * height + y) * width + x];
      if (value === 0) continue;
      for (let c = 0; c < depth; c++) for (let i = 0; i < tall; i++) {
        const row = y * stride[0] + i - padding[0];
        if (row < 0 || row >= rows) continue;
        const from = ((Math.floor(o / perGroup) * depth + c) * rows + row) * columns, w = ((o * depth + c) * tall + i) * wide;
        for (let j = 0; j < wide; j++) {
          const column = x * stride[1] + j - padding[1];
          if (column >= 0 && column < columns) slope[from + column] += value * values[w + j];
        }
      }
    }
  },
  linear({ weight: [outputs, inputs], values }, [slope], slopes) {
    for (let o = 0; o < outputs; o++) if (slopes[o] !== 0)
      for (let i = 0; i < inputs; i++) slope[i] += slopes[o] * values[o * inputs + i];
  },
  affine({ scale, shape: [channels] }, [slope], slopes) {
    const each = slopes.length / channels;
    for (let i = 0; i < slopes.length; i++) slope[i] += slopes[i] * scale[Math.floor(i / each)];
  },
  relu(_, [slope], slopes, __, output) { for (let i = 0; i < slopes.length; i++) if (output[i] > 0) slope[i] += slopes[i]; },
  tanh(_, [slope], slopes, __, output) { for (let i = 0; i < slopes.length; i++) slope[i] += slopes[i] * (1 - output[i] ** 2); },
  sigmoid(_, [slope], slopes, __, output) { for (let i = 0; i < slopes.length; i++) slope[i] += slopes[i] * output[i] * (1 - output[i]); },
  same(_, [slope], slopes) { for (let i = 0; i < slopes.length; i++) slope[i] += slopes[i]; },
  add(_, both, slopes) { for (const slope of both) for (let i = 0; i < slopes.length; i++) slope[i] += slopes[i]; },
  mean({ shape: [channels] }, [slope], slopes) {
    const each = slope.length / channels;
    for (let i = 0; i < slope.length; i++) slope[i] += slopes[Math.floor(i / each)] / each;
  },
  max_pool2d(_, [slope], slopes, __, ___, from) { for (let i = 0; i < slopes.length; i++) slope[from[i]] += slopes[i]; },
  avg_pool2d(operation, [slope], slopes, [shape]) {
    const share = 1 / sizeOf(operation.kernel);
    overWindows(operation, shape, (out, place) => { slope[place] += share * slopes[out]; });
  },
};

class LayeredNetwork {
  /** bytes: see `Layers.content` in layers.py; operations and maps as there. */
  constructor(bytes, { operations, maps }) {
    let place = 0;
    const floats = (count) => {
      const found = new Float32Array(bytes, place, count);
      place += 4 * count;
      return found;
    };
    this.maps = maps;
    this.operations = operations.map((operation) => {
      if (operation.op === "affine") return { ...operation, scale: floats(operation.shape[0]), bias: floats(operation.shape[0]) };
      return "weight" in operation ? { ...operation, bias: floats(operation.weight[0]), scale: floats(operation.weight[0]) } : operation;
    });
    for (const operation of this.operations) if ("weight" in operation) {
      const each = sizeOf(operation.weight.slice(1)), levels = new Int16Array(bytes, place, each * operation.weight[0]);
      place += 2 * levels.length;
      operation.values = Float32Array.from(levels, (level, i) => level * operation.scale[Math.floor(i / each)]);
    }
    this.shapes = [[1, SIDE, SIDE], ...operations.map(({ shape }) => shape)];
    this.numClasses = this.shapes.at(-1)[0];
  }

  state() {
    const results = this.shapes.map((shape) => new Float32Array(sizeOf(shape)));
    const from = this.operations.map(({ op, shape }) => (op === "max_pool2d" ? new Int32Array(sizeOf(shape)) : null));
    return { results, from, logits: results.at(-1) };
  }

  forward(pixels, s = this.state()) {
    s.results[0].set(pixels);
    this.operations.forEach((operation, k) => {
      const inputs = operation.from.map((one) => s.results[one]), shapes = operation.from.map((one) => this.shapes[one]);
      FORWARD[operation.op](operation, inputs, s.results[k + 1], shapes, s.from[k]);
    });
    return s;
  }

  occlusion(pixels, label, { window = 8, stride = 1, fill = 0.5 } = {}) {
    const places = Math.floor((SIDE - window) / stride) + 1, s = this.state(), image = Float32Array.from(pixels);
    const probability = new Float32Array(places * places), predicted = new Int32Array(places * places);
    for (let row = 0; row < places; row++) for (let column = 0; column < places; column++) {
      image.set(pixels);
      for (let y = row * stride; y < row * stride + window; y++) image.fill(fill, y * SIDE + column * stride, y * SIDE + column * stride + window);
      const { logits } = this.forward(image, s);
      probability[row * places + column] = softmax(logits)[label];
      predicted[row * places + column] = largest(logits);
    }
    return { probability, predicted };
  }

  gradient(s, weights) {
    const slopes = this.shapes.map((shape) => new Float32Array(sizeOf(shape)));
    slopes.at(-1).set(weights);
    for (let k = this.operations.length - 1; k >= 0; k--) {
      const operation = this.operations[k], shapes = operation.from.map((one) => this.shapes[one]);
      BACKWARD[operation.op](operation, operation.from.map((one) => slopes[one]), slopes[k + 1], shapes, s.results[k + 1], s.from[k]);
    }
    return slopes[0];
  }

  activations(pixels) {
    const { results, logits } = this.forward(pixels);
    return { maps: this.maps.map(({ at }) => results[at]), logits: Array.from(logits) };
  }

  filter(layer, channel) {
    const { weight: [, depth, tall, wide], values } = this.operations[this.maps[layer].convolution], each = depth * tall * wide;
    return { values: values.slice(channel * each, (channel + 1) * each), shape: [depth, tall, wide] };
  }
}
