/** Dimensions of a dense Qwen model. */
export interface ModelShape {
  architecture: "qwen2" | "qwen3";
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  contextLength: number;
  tied: boolean;
}

/** Shapes by name: published models, and small ones for tests; `odd` has rows that divide by no block or tile. */
export const shapes: Readonly<Record<string, ModelShape>> = {
  "qwen3-0.6b": {
    architecture: "qwen3",
    vocabSize: 151936,
    hiddenSize: 1024,
    intermediateSize: 3072,
    layers: 28,
    heads: 16,
    kvHeads: 8,
    headDim: 128,
    contextLength: 40960,
    tied: true,
  },
  "qwen3-1.7b": {
    architecture: "qwen3",
    vocabSize: 151936,
    hiddenSize: 2048,
    intermediateSize: 6144,
    layers: 28,
    heads: 16,
    kvHeads: 8,
    headDim: 128,
    contextLength: 40960,
    tied: true,
  },
  "qwen2.5-0.5b": {
    architecture: "qwen2",
    vocabSize: 151936,
    hiddenSize: 896,
    intermediateSize: 4864,
    layers: 24,
    heads: 14,
    kvHeads: 2,
    headDim: 64,
    contextLength: 32768,
    tied: true,
  },
  tiny: {
    architecture: "qwen3",
    vocabSize: 512,
    hiddenSize: 64,
    intermediateSize: 192,
    layers: 3,
    heads: 4,
    kvHeads: 2,
    headDim: 32,
    contextLength: 512,
    tied: true,
  },
  "tiny-untied": {
    architecture: "qwen2",
    vocabSize: 480,
    hiddenSize: 96,
    intermediateSize: 160,
    layers: 2,
    heads: 6,
    kvHeads: 2,
    headDim: 16,
    contextLength: 512,
    tied: false,
  },
  odd: {
    architecture: "qwen3",
    vocabSize: 331,
    hiddenSize: 74,
    intermediateSize: 130,
    layers: 3,
    heads: 9,
    kvHeads: 3,
    headDim: 10,
    contextLength: 300,
    tied: false,
  },
  "odd-qwen2": {
    architecture: "qwen2",
    vocabSize: 397,
    hiddenSize: 65,
    intermediateSize: 97,
    layers: 2,
    heads: 5,
    kvHeads: 1,
    headDim: 14,
    contextLength: 257,
    tied: true,
  },
};
