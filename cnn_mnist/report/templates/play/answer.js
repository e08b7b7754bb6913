"use strict";
// What the worker answers to the page.

let network;

const ANSWERS = {
  load(bytes, description) {
    network = "operations" in description ? new LayeredNetwork(bytes, description) : new Network(bytes, description.kernel, description.numClasses);
    network.forward(new Float32Array(SIDE * SIDE));
    return true;
  },
  logits: (pixels) => Array.from(network.forward(pixels).logits),
  occlusion: (...values) => network.occlusion(...values),
  activations: (pixels) => network.activations(pixels),
  filter: (...values) => network.filter(...values),
  gradient(pixels, weights) {
    const s = network.state();
    network.forward(pixels, s);
    return network.gradient(s, weights);
  },
};

self.onmessage = ({ data: { id, kind, values } }) => {
  const onStep = (step, image, logits) => self.postMessage({ id, step, pixels: image.slice(), logits: Array.from(logits) });
  try {
    const result = kind === "attack" ? attack(network, ...values, values[1].shown ? onStep : undefined) : ANSWERS[kind](...values);
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: String(error) });
  }
};
