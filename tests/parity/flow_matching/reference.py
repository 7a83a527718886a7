"""Makes the fixtures of tests/parity/flow_matching.rs with diffusers' FlowMatchEulerDiscreteScheduler: cases.json, a list of
configs with their timesteps, and io.safetensors with the sample after every step. Model outputs and noise are those of
`formula`, which the test repeats.

    pip install torch diffusers safetensors && python tests/parity/flow_matching/reference.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from diffusers.schedulers import scheduling_flow_match_euler_discrete as module
from safetensors.torch import save_file

HERE = Path(__file__).parent
SHAPE = (1, 2, 2, 3)
torch.set_num_threads(1)


def formula(k):
    """A deterministic stand-in for a network's output or noise, number k."""
    i = np.arange(int(np.prod(SHAPE)), dtype=np.float64)
    return torch.from_numpy(np.sin(1.7 * i + 0.9 * k + 0.3).reshape(SHAPE)).float()


drawn = [0]
module.randn_tensor = lambda shape, **_: formula(1000 + drawn[0])


def run(config, tokens, steps, strength):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    if tokens is None:
        scheduler.set_timesteps(steps)
    else:
        # As Flux2KleinPipeline.
        sigmas = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(sigmas=sigmas, mu=compute_empirical_mu(tokens, steps))
    first = 0
    if strength is not None:
        first = int(max(steps - min(steps * strength, steps), 0))
    timesteps = scheduler.timesteps[first:]
    scheduler.set_begin_index(first)
    sample = formula(-1)
    if strength is not None:
        sample = scheduler.scale_noise(formula(-1), timesteps[:1], formula(-2))
    samples = [sample]
    for i, t in enumerate(timesteps):
        drawn[0] = i
        # The output depends on the input, as a network's does.
        output = 0.5 * formula(i) + 0.5 * torch.tanh(sample)
        sample = scheduler.step(output, t, sample, return_dict=False)[0]
        samples.append(sample)
    return timesteps, torch.cat(samples)


def configs():
    # As the published scheduler_config.json of FLUX.2 klein: only what differs from the defaults counts.
    klein = {"shift": 3.0, "use_dynamic_shifting": True}
    for tokens in (16, 1024, 4096, 5000):
        yield klein, tokens
        yield {**klein, "time_shift_type": "linear"}, tokens
    yield {**klein, "shift_terminal": 0.02}, 1024
    yield {**klein, "use_karras_sigmas": True}, 1024
    yield {**klein, "stochastic_sampling": True}, 1024
    for tokens in (None, 1024):
        yield {}, tokens
        yield {"shift": 3.0}, tokens
        yield {"shift": 0.4, "num_train_timesteps": 500}, tokens
    yield {"shift": 3.0, "stochastic_sampling": True}, None
    yield {"shift": 3.0, "use_karras_sigmas": True}, None
    yield {"shift": 2.0, "shift_terminal": 0.1}, None


def main():
    cases, tensors = [], {}
    for config, tokens in configs():
        for steps, strength in [(1, None), (2, None), (4, None), (50, None), (10, 0.75), (10, 0.7)]:
            if steps == 1 and "shift_terminal" in config:
                continue  # 0 / 0 in diffusers; refused here
            name = f"{len(cases):03}"
            timesteps, samples = run(config, tokens, steps, strength)
            assert torch.isfinite(samples).all(), (config, tokens, steps)
            cases.append(
                {
                    "name": name,
                    "config": {"_class_name": "FlowMatchEulerDiscreteScheduler", **config},
                    "tokens": tokens,
                    "steps": steps,
                    "strength": strength,
                    "timesteps": [float(t) for t in timesteps],
                }
            )
            tensors[name] = samples.float().contiguous()
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    save_file(tensors, HERE / "io.safetensors")
    print(len(cases), "cases")


main()
