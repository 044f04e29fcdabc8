/**
 * Texts of the control tokens that end a reply in one family or another, whatever else a model names;
 * llama.cpp keeps a list like it (src/llama-vocab.cpp).
 */
export const endOfTurnTexts: readonly string[] = [
  "<|im_end|>",
  "<|endoftext|>",
  "<|eot_id|>",
  "<|eom_id|>",
  "<|end_of_text|>",
  "<|end|>",
  "<end_of_turn>",
  "<EOT>",
  "<｜end▁of▁sentence｜>",
  "</s>",
];
