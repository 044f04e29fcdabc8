import { MllmError } from "@mllm/core";
import { ConfigReader, readInt, readNumber } from "./config_reader.ts";

type Fields = Record<string, unknown>;

/** Sizes that every decoder has, with the range in which they are believable. */
const sizes: Record<string, [min: number, max: number]> = {
  hidden_size: [1, 1 << 18],
  intermediate_size: [1, 1 << 20],
  num_hidden_layers: [1, 4096],
  num_attention_heads: [1, 1 << 14],
  num_key_value_heads: [1, 1 << 14],
  head_dim: [1, 1 << 14],
  vocab_size: [1, 1 << 24],
  max_position_embeddings: [1, 2 ** 31 - 1],
  sliding_window: [1, 2 ** 31 - 1],
  max_window_layers: [0, 4096],
};

/**
 * Brings a config.json into its classic form: `rope_theta` and `rope_scaling` (with `rope_type`, absent when plain)
 * instead of transformers 5's `rope_parameters`, `torch_dtype` instead of `dtype`; checks the sizes.
 *
 * @throws MllmError `invalid_file` naming file and field for absurd sizes or contradictions between the two forms
 */
export function normalizeConfig(raw: Readonly<Fields>, file: string): Fields {
  const config: Fields = { ...raw };
  rename(config, "dtype", "torch_dtype", file);
  const reader = new ConfigReader(config, file);
  for (const [name, [min, max]] of Object.entries(sizes)) if (reader.has(name)) readInt(reader, name, { min, max });
  const parameters = reader.section("rope_parameters");
  const scaling = reader.section("rope_scaling");
  if (parameters && scaling) {
    const type = (section: ConfigReader) => section.take("rope_type") ?? section.take("type") ?? "default";
    if (type(parameters) !== type(scaling)) reader.fail("rope_parameters", "contradicts rope_scaling");
  }
  const rope = parameters ?? scaling;
  delete config.rope_parameters;
  delete config.rope_scaling;
  if (rope) {
    const { type, rope_type = type, rope_theta, ...rest } = rope.fields;
    if (rope_theta !== undefined && rope_theta !== null) {
      if (reader.has("rope_theta") && config.rope_theta !== rope_theta) {
        rope.fail("rope_theta", "contradicts the rope_theta of the top level");
      }
      config.rope_theta = rope_theta;
    }
    if (rope_type !== undefined && typeof rope_type !== "string") rope.fail("rope_type", "is not a string");
    if (rope_type !== undefined && rope_type !== "default") config.rope_scaling = { rope_type, ...rest };
  }
  if (config.rope_theta !== undefined) {
    readNumber(new ConfigReader(config, file), "rope_theta", { min: 1, max: 1e12 });
  }
  return config;
}

function rename(config: Fields, from: string, to: string, file: string): void {
  const value = config[from];
  delete config[from];
  if (value === undefined || value === null) return;
  if (config[to] !== undefined && config[to] !== null && config[to] !== value) {
    throw new MllmError("invalid_file", `${from} and ${to} contradict each other`, {
      file,
      next: "Remove one of them",
    });
  }
  config[to] = value;
}
