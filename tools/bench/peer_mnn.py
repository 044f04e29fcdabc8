"""One process of `bench:peers` with MNN (PyPI): the same as peer_mllm.ts, on a model in MNN's own format.

MNN adds up the times of its forward passes itself; here they are taken before and after.
"""

import json
import sys
import time
from importlib.metadata import version

import MNN.llm


def prompt_ids(count):
    return [1000 + i * 7919 % 30000 for i in range(count)]


def resident_bytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def main(request):
    model = MNN.llm.create(request["model"] + "/config.json")
    model.set_config({
        "thread_num": request["threads"], "precision": "low", "memory": "low", "reuse_kv": False, "async": False,
        "sampler_type": "greedy", "use_mmap": False,
    })
    model.load()

    def run(ids, count):
        """Seconds of the prompt and of the `count` tokens after it."""
        model.reset()
        before = model.context
        before = before.prefill_us, before.decode_us
        model._c_obj.generate(ids, count)  # the wrapper has no parameter for the count
        after = model.context
        if after.gen_seq_len < count:
            raise RuntimeError(f"the peer ended after {after.gen_seq_len} of {count} tokens")
        return (after.prefill_us - before[0]) / 1e6, (after.decode_us - before[1]) / 1e6

    run(prompt_ids(8), 1)
    first_token = time.time() * 1000
    loaded_bytes = resident_bytes("VmRSS")
    speeds = {}
    prompts, generates = request["prompts"], request["generates"]
    if prompts:
        run(prompt_ids(min(prompts)), 1)  # warm-up
    for count in prompts:
        speeds[f"pp{count}"] = count / run(prompt_ids(count), 1)[0]
    if generates:
        run([1000], 8)  # warm-up
    for count in generates:
        speeds[f"tg{count}"] = count / run([1000], count)[1]
    return {
        "version": version("MNN"), "detail": "the wheel has AVX2 kernels only", "firstTokenEpochMs": first_token,
        "speeds": speeds, "loadedBytes": loaded_bytes, "peakBytes": resident_bytes("VmHWM"),
    }


print("\n" + json.dumps(main(json.loads(sys.argv[1]))), flush=True)
