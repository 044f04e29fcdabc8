"""One process of `bench:peers` with ik_llama.cpp (PyPI ik-llama-cpp-python): the same as peer_mllm.ts."""

import json
import sys
import time
from importlib.metadata import version

import numpy
from ik_llama_cpp._internals import IkContext, IkModel, make_batch_range


def prompt_ids(count):
    return [1000 + i * 7919 % 30000 for i in range(count)]


def resident_bytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def main(request):
    prompts, generates = request["prompts"], request["generates"]
    model = IkModel(request["model"])
    context = IkContext(model, n_ctx=max([8, *prompts, *generates]) + 64, n_threads=request["threads"])

    def step(ids, position):
        if context.decode(make_batch_range(ids, pos_start=position)) != 0:
            raise RuntimeError("the peer did not decode")
        return int(numpy.argmax(numpy.ctypeslib.as_array(context.get_logits(-1), (model.n_vocab,))))

    def prompt(count):
        context.kv_cache_clear()
        start = time.perf_counter()
        step(prompt_ids(count), 0)
        return time.perf_counter() - start

    def generate(count):
        context.kv_cache_clear()
        token = step([1000], 0)
        start = time.perf_counter()
        for i in range(count):
            token = step([token], i + 1)
        return time.perf_counter() - start

    prompt(8)
    first_token = time.time() * 1000
    loaded_bytes = resident_bytes("VmRSS")
    speeds = {}
    if prompts:
        prompt(min(prompts))  # warm-up
    for count in prompts:
        speeds[f"pp{count}"] = count / prompt(count)
    if generates:
        generate(8)  # warm-up
    for count in generates:
        speeds[f"tg{count}"] = count / generate(count)
    return {
        "version": version("ik-llama-cpp-python"), "detail": "the wheel has AVX2 kernels only",
        "firstTokenEpochMs": first_token, "speeds": speeds, "loadedBytes": loaded_bytes,
        "peakBytes": resident_bytes("VmHWM"),
    }


print("\n" + json.dumps(main(json.loads(sys.argv[1]))), flush=True)
