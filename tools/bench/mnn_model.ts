/**
 * A GGUF file in MNN's own format, by MNN's own exporter (PyPI llmexport, which needs PyTorch): the weights are
 * dequantised to a Hugging Face folder and quantised again in blocks of 32 with as many bits.
 */
import { dtypes, type WeightInfo } from "@mllm/core";
import { inspectModel } from "@mllm/models";
import { writeHfFolder } from "./hf_folder.ts";
import { output, pythonEnvironment } from "./process.ts";

/** llmexport 0.0.5 with versions that it works with. */
const EXPORTER = ["llmexport==0.0.5", "torch==2.15.0", "transformers==5.24.0", "onnx==1.23.2"];

/** MNN quantises to 4 or 8 bits; symmetric where the type has no minimum. */
export function quantisationOf(weights: ReadonlyMap<string, WeightInfo>): string[] {
  const bits = (name: string) => {
    const { dtype } = weights.get(name)!;
    const { blockBytes, blockElements } = dtypes[dtype];
    return blockBytes * 8 / blockElements > 5 ? 8 : 4;
  };
  const inner = "model.layers.0.mlp.up_proj.weight";
  const head = weights.has("lm_head.weight") ? "lm_head.weight" : "model.embed_tokens.weight";
  const symmetric = /^q\d_0$/.test(weights.get(inner)!.dtype);
  return [
    ...["--quant_bit", String(bits(inner)), "--quant_block", "32", "--lm_quant_bit", String(bits(head))],
    ...(symmetric ? ["--sym"] : []),
  ];
}

/** The folder of the converted model; made in `folder` when it is not there. Takes some minutes then. */
export async function convertForMnn(model: string, folder: string, runtime: string): Promise<string> {
  const name = model.replace(/^.*[\\/]/, "").replace(/\.gguf$/, "");
  const target = `${folder}/models/${name}-mnn`;
  if (await Deno.stat(`${target}/config.json`).then(() => true, () => false)) return target;
  const python = await pythonEnvironment(`${folder}/mnn-export`, [runtime, ...EXPORTER]);
  console.error(`bench:peers: converting ${name} for MNN …`);
  await Deno.mkdir(`${folder}/models`, { recursive: true });
  const work = await Deno.makeTempDir({ dir: `${folder}/models` });
  try {
    await writeHfFolder(model, `${work}/hf`);
    // Its modules import each other as top-level ones: it runs as a script, not as a package.
    const find = "import importlib.util as u; print(u.find_spec('llmexport').submodule_search_locations[0])";
    const script = `${(await output(python, ["-c", find], folder)).trim()}/llmexport.py`;
    const quantisation = quantisationOf((await inspectModel(model)).checkpoint.weights);
    await output(python, [
      script,
      "--path",
      `${work}/hf`,
      "--dst_path",
      `${work}/mnn`,
      "--export",
      "mnn",
      ...quantisation,
    ], work);
    await Deno.rename(`${work}/mnn`, target);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return target;
}
