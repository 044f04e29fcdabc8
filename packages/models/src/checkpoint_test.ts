import { assert, assertEquals, assertRejects } from "@std/assert";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import { encodeGguf, encodeSafetensors, ggufF32, type GgufInput, ggufU32, MllmError } from "@mllm/core";
import { type Checkpoint, openCheckpoint } from "./checkpoint.ts";

let root = "";
beforeAll(() => {
  root = Deno.makeTempDirSync();
});
afterAll(() => Deno.removeSync(root, { recursive: true }));

const config = {
  model_type: "qwen3",
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 10,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
};
const weights = encodeSafetensors([{ name: "model.norm.weight", dtype: "f32", shape: [8], data: new Float32Array(8) }]);

/** Writes a folder: bytes as they are, text as it is, all else as JSON; undefined leaves a file out. */
function folder(name: string, files: Record<string, unknown> = {}): string {
  const path = `${root}/${name}`;
  Deno.mkdirSync(path, { recursive: true });
  const all = { "config.json": config, "tokenizer.json": { model: {} }, "model.safetensors": weights, ...files };
  for (const [file, content] of Object.entries(all)) {
    if (content instanceof Uint8Array) Deno.writeFileSync(`${path}/${file}`, content);
    else if (content !== undefined) {
      Deno.writeTextFileSync(`${path}/${file}`, typeof content === "string" ? content : JSON.stringify(content));
    }
  }
  return path;
}

async function refusal(path: string, code: string, ...texts: string[]): Promise<void> {
  const error = await assertRejects(() => openCheckpoint(path), MllmError);
  assertEquals(error.code, code, error.message);
  for (const text of texts) assert(error.message.includes(text), error.message);
  assert(error.file !== undefined && error.next !== undefined, error.message);
}

describe("openCheckpoint of a Hugging Face folder", () => {
  it("reads all parts", async () => {
    const path = folder("all", {
      "config.json": { ...config, eos_token_id: 5, dtype: "bfloat16" },
      "generation_config.json": { eos_token_id: [7, 5], temperature: 0.6 },
      "tokenizer_config.json": { chat_template: "{{ 1 }}", eos_token: "x" },
    });
    const checkpoint = await openCheckpoint(`${path}/`);
    assertEquals([checkpoint.format, checkpoint.path], ["huggingface", path]);
    assertEquals([checkpoint.config.torch_dtype, checkpoint.config.dtype], ["bfloat16", undefined]);
    assertEquals(checkpoint.eosIds, [5]);
    assertEquals(checkpoint.generationConfig.temperature, 0.6);
    assertEquals(checkpoint.chatTemplate, "{{ 1 }}");
    assertEquals([...checkpoint.weights.keys()], ["model.norm.weight"]);
    assert(checkpoint.tokenizer.kind === "json");
  });

  it("prefers chat_template.jinja, then the default of a list", async () => {
    const list = [{ name: "tool_use", template: "t" }, { name: "default", template: "d" }];
    const files = { "tokenizer_config.json": { chat_template: list } };
    const two = await openCheckpoint(folder("list", files));
    assertEquals([two.chatTemplate, two.ignored.length], ["d", 1]);
    const one = await openCheckpoint(folder("list1", { "tokenizer_config.json": { chat_template: list.slice(0, 1) } }));
    assertEquals(one.chatTemplate, "t");
    const three = await openCheckpoint(folder("jinja", { ...files, "chat_template.jinja": "j" }));
    assertEquals(three.chatTemplate, "j");
    await refusal(
      folder("badlist", { "tokenizer_config.json": { chat_template: [1] } }),
      "invalid_file",
      "chat_template",
    );
  });

  it("brings rope_parameters and rope_scaling into one form", async () => {
    const open = async (name: string, rope: object): Promise<Record<string, unknown>> =>
      (await openCheckpoint(folder(name, { "config.json": { ...config, rope_theta: undefined, ...rope } }))).config;
    const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 };
    const old = await open("rope1", { rope_theta: 1e6, rope_scaling: { ...yarn, rope_type: undefined, type: "yarn" } });
    const recent = await open("rope2", { rope_parameters: { ...yarn, rope_theta: 1e6 } });
    for (const form of [old, recent]) assertEquals([form.rope_theta, form.rope_scaling], [1e6, yarn]);
    const plain = await open("rope3", { rope_parameters: { rope_type: "default", rope_theta: 5e5 } });
    assertEquals([plain.rope_theta, plain.rope_scaling, plain.rope_parameters], [5e5, undefined, undefined]);
    const both = { rope_theta: 1e4, rope_parameters: { rope_theta: 1e6, rope_type: "default" } };
    await refusal(folder("rope4", { "config.json": { ...config, ...both } }), "invalid_file", "rope_theta");
  });

  const broken: [name: string, files: Record<string, unknown>, code: string, ...texts: string[]][] = [
    ["a negative size", { "config.json": { ...config, hidden_size: -8 } }, "invalid_file", "hidden_size is -8"],
    ["an absurd size", { "config.json": { ...config, vocab_size: 1e12 } }, "invalid_file", "vocab_size", "config.json"],
    ["NaN", { "config.json": '{"model_type":"qwen3","hidden_size":NaN}' }, "invalid_file", "at byte 36"],
    ["a config that is a list", { "config.json": [] }, "invalid_file", "not a JSON object"],
    ["an empty config", { "config.json": "" }, "invalid_file", "ends too early"],
    ["no model type", { "config.json": {} }, "invalid_file", "model_type is missing"],
    ["Gemma", { "config.json": { model_type: "gemma3_text" } }, "unsupported", "Gemma comes in a later release"],
    ["an unknown architecture", { "config.json": { model_type: "x9" } }, "unsupported", '"x9"'],
    ["no tokenizer", { "tokenizer.json": undefined }, "not_found", "tokenizer.json"],
    ["no weights", { "model.safetensors": undefined }, "not_found", "no weights"],
    [
      "only pickles",
      { "model.safetensors": undefined, "pytorch_model.bin": "x" },
      "not_found",
      "PyTorch pickles",
    ],
    [
      "shards without index",
      { "model.safetensors": undefined, "a.safetensors": weights, "b.safetensors": weights },
      "not_found",
      "index.json is missing",
    ],
    [
      "an LFS pointer",
      { "model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1" },
      "invalid_file",
      "git lfs pull",
    ],
  ];
  for (const [name, files, code, ...texts] of broken) {
    it(`refuses ${name}`, () => refusal(folder(name.replaceAll(" ", "-"), files), code, ...texts));
  }
});

const tokens = Array.from({ length: 10 }, (_, i) => i === 8 ? "<|im_end|>" : i === 9 ? "<|endoftext|>" : `t${i}`);

function ggufMetadata(arch: string, more: Record<string, GgufInput> = {}): Record<string, GgufInput> {
  return {
    "general.architecture": arch,
    [`${arch}.block_count`]: ggufU32(1),
    [`${arch}.context_length`]: ggufU32(64),
    [`${arch}.embedding_length`]: ggufU32(8),
    [`${arch}.feed_forward_length`]: ggufU32(16),
    [`${arch}.attention.head_count`]: ggufU32(2),
    [`${arch}.attention.head_count_kv`]: ggufU32(1),
    [`${arch}.attention.layer_norm_rms_epsilon`]: ggufF32(1e-6),
    [`${arch}.rope.freq_base`]: ggufF32(1e6),
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": new Int32Array(10).fill(1, 0, 8).fill(3, 8),
    "tokenizer.ggml.eos_token_id": ggufU32(5),
    "tokenizer.ggml.eot_token_id": ggufU32(6),
    "tokenizer.chat_template": "{{ 1 }}",
    ...more,
  };
}

const tensors: Record<string, number[]> = {
  "token_embd.weight": [10, 8],
  "output_norm.weight": [8],
  "blk.0.attn_q.weight": [8, 8],
  "blk.0.attn_q_norm.weight": [4],
  "blk.0.ffn_norm.weight": [8],
};

function gguf(name: string, metadata: Record<string, GgufInput>, shapes = tensors): string {
  const list = Object.entries(shapes).map(([tensor, shape]) => ({
    name: tensor,
    dtype: "f32" as const,
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b)).fill(2),
  }));
  const path = `${root}/${name}.gguf`;
  Deno.writeFileSync(path, encodeGguf({ metadata, tensors: list }));
  return path;
}

describe("openCheckpoint of a GGUF file", () => {
  it("maps names, config, end tokens and the template", async () => {
    const checkpoint = await openCheckpoint(gguf("qwen3", ggufMetadata("qwen3", { "qwen3.strange": true })));
    assertEquals(checkpoint.config, {
      architectures: ["Qwen3ForCausalLM"],
      model_type: "qwen3",
      hidden_size: 8,
      intermediate_size: 16,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 4,
      vocab_size: 10,
      max_position_embeddings: 64,
      rms_norm_eps: 1e-6,
      rope_theta: 1e6,
      hidden_act: "silu",
      tie_word_embeddings: true,
      attention_bias: false,
      eos_token_id: [5, 6, 8, 9],
    });
    assertEquals([...checkpoint.weights.keys()], [
      "model.embed_tokens.weight",
      "model.norm.weight",
      "model.layers.0.self_attn.q_proj.weight",
      "model.layers.0.self_attn.q_norm.weight",
      "model.layers.0.post_attention_layernorm.weight",
    ]);
    assertEquals(checkpoint.eosIds, [5, 6, 8, 9]);
    assertEquals([checkpoint.chatTemplate, checkpoint.ignored], ["{{ 1 }}", ["qwen3.strange"]]);
    assertEquals(checkpoint.tokenizer.kind, "gguf");
  });

  it("maps rotary scaling and untied heads", async () => {
    const open = async (name: string, more: Record<string, GgufInput>, shapes = tensors): Promise<Checkpoint> =>
      await openCheckpoint(gguf(name, ggufMetadata(name.split("-")[0], more), shapes));
    const yarn = await open("qwen2-yarn", {
      "qwen2.rope.scaling.type": "yarn",
      "qwen2.rope.scaling.factor": ggufF32(4),
      "qwen2.rope.scaling.original_context_length": ggufU32(16),
    });
    assertEquals(yarn.config.rope_scaling, { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 });
    const linear = await open("qwen2-linear", {
      "qwen2.rope.scaling.type": "linear",
      "qwen2.rope.scaling.factor": ggufF32(2),
    });
    assertEquals(linear.config.rope_scaling, { rope_type: "linear", factor: 2 });
    const untied = await open("qwen3-untied", {}, { ...tensors, "output.weight": [10, 8] });
    assertEquals([untied.config.rope_scaling, untied.config.tie_word_embeddings], [undefined, false]);
    assert(untied.weights.has("lm_head.weight"));
    await refusal(
      gguf("longrope", ggufMetadata("qwen2", { "qwen2.rope.scaling.type": "longrope" })),
      "unsupported",
      "longrope",
    );
  });

  const meta = (more: Record<string, GgufInput>) => ggufMetadata("qwen3", more);
  const broken: [name: string, path: () => string, code: string, ...texts: string[]][] = [
    ["Gemma", () => gguf("gemma", ggufMetadata("gemma3")), "unsupported", "gemma3", "Gemma comes in a later release"],
    ["Llama", () => gguf("llama", ggufMetadata("llama")), "unsupported", "Llama models come in a later release"],
    ["another architecture", () => gguf("x9", ggufMetadata("x9")), "unsupported", '"x9"'],
    ["mixture of experts", () => gguf("moe", ggufMetadata("qwen3moe")), "unsupported", "qwen3moe", "later release"],
    ["an image projector", () => gguf("clip", ggufMetadata("clip")), "unsupported", "mmproj"],
    ["an adapter", () => gguf("lora", meta({ "general.type": "adapter" })), "unsupported", "LoRA"],
    ["a vocabulary", () => gguf("vocab", meta({}), {}), "invalid_file", "only a vocabulary"],
    ["no architecture", () => gguf("none", {}), "invalid_file", "general.architecture"],
    [
      "0 heads",
      () => gguf("h0", meta({ "qwen3.attention.head_count": ggufU32(0) })),
      "invalid_file",
      "head_count is 0",
    ],
    [
      "a negative count",
      () => gguf("n", meta({ "qwen3.block_count": { type: "i32", value: -1 } })),
      "invalid_file",
      "is -1",
    ],
    ["NaN", () => gguf("nan", meta({ "qwen3.rope.freq_base": ggufF32(NaN) })), "invalid_file", "freq_base is NaN"],
    ["sizes as text", () => gguf("s", meta({ "qwen3.context_length": "64" })), "invalid_file", "context_length"],
    [
      "uneven heads",
      () => gguf("u", meta({ "qwen3.attention.head_count_kv": Int32Array.of(1, 2) })),
      "unsupported",
      "layers",
    ],
    [
      "odd tensors",
      () => gguf("o", meta({}), { ...tensors, "blk.0.strange.weight": [1] }),
      "unsupported",
      "blk.0.strange",
    ],
    ["a layer too many", () => gguf("l", meta({}), { ...tensors, "blk.1.ffn_up.weight": [1] }), "unsupported", "blk.1"],
    ["a wrong vocab_size", () => gguf("v", meta({ "qwen3.vocab_size": ggufU32(11) })), "invalid_file", "10 rows"],
    ["no embedding", () => gguf("e", meta({}), { "output_norm.weight": [8] }), "invalid_file", "token_embd.weight"],
  ];
  for (const [name, path, code, ...texts] of broken) it(`refuses ${name}`, () => refusal(path(), code, ...texts));
});

describe("openCheckpoint of something else", () => {
  const text = (name: string, content: string | Uint8Array) => () => {
    const path = `${root}/${name}`;
    Deno.writeFileSync(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    return path;
  };
  const zeros = new Uint8Array(40);
  const cases: [name: string, path: () => string, code: string, ...texts: string[]][] = [
    ["a missing path", () => `${root}/nothing`, "not_found", "no model there"],
    ["a part of a folder", () => `${folder("part")}/model.safetensors`, "invalid_file", "Give the folder"],
    ["config.json itself", () => `${folder("part")}/config.json`, "invalid_file", "Give the folder"],
    ["a PDF", text("a.pdf", "%PDF-1.7 ........................"), "invalid_file", "PDF"],
    ["a pickle", text("p.bin", Uint8Array.of(0x80, 2, ...zeros)), "invalid_file", "pickle"],
    ["a zipped pickle", text("z.bin", Uint8Array.of(0x50, 0x4b, 3, 4, ...zeros)), "invalid_file", "zip"],
    ["an LFS pointer", text("l.gguf", "version https://git-lfs.github.com/spec/v1\n"), "invalid_file", "git lfs pull"],
    ["a web page", text("w.gguf", "<!DOCTYPE html><html><body>Not found"), "invalid_file", "web page"],
    ["an empty file", text("empty.gguf", ""), "invalid_file", "0 bytes"],
    ["noise", text("noise.gguf", "blah".repeat(50)), "invalid_file", "not a GGUF file"],
    ["an empty folder", () => emptyFolder("void"), "not_found", "no config.json"],
  ];
  for (const [name, path, code, ...texts] of cases) it(`refuses ${name}`, () => refusal(path(), code, ...texts));

  it("opens a folder's only GGUF, asks when there are two", async () => {
    const path = emptyFolder("ggufs");
    Deno.copyFileSync(gguf("one", ggufMetadata("qwen2")), `${path}/one.gguf`);
    assertEquals((await openCheckpoint(path)).format, "gguf");
    Deno.copyFileSync(`${path}/one.gguf`, `${path}/two.gguf`);
    await refusal(path, "not_found", "one.gguf, two.gguf");
  });
});

function emptyFolder(name: string): string {
  Deno.mkdirSync(`${root}/${name}`, { recursive: true });
  return `${root}/${name}`;
}
