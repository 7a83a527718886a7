"""Makes the fixtures of tests/parity/sampling.rs with diffusers: schedulers.json, a list of cases with their configs and
timesteps, and io.safetensors with the samples. Model outputs and noise are those of `formula`, which the test repeats.

    pip install torch diffusers safetensors && python tests/parity/sampling/reference.py
"""

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
    schedulers,
)
from safetensors.torch import save_file

HERE = Path(__file__).parent
SHAPE = (1, 2, 2, 3)
STEPS = (1, 2, 5, 25)
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
torch.set_num_threads(1)


def formula(k):
    """A deterministic stand-in for a network's output or noise, number k."""
    i = np.arange(int(np.prod(SHAPE)), dtype=np.float64)
    return torch.from_numpy(np.sin(1.7 * i + 0.9 * k + 0.3).reshape(SHAPE)).float()


drawn = [0]


def injected(shape, **_):
    """In place of diffusers' randn_tensor: noise number 1000 + step."""
    assert tuple(shape) == SHAPE
    return formula(1000 + drawn[0])


for module in ("euler_ancestral_discrete", "euler_discrete", "ddim", "dpmsolver_multistep", "lcm", "tcd"):
    getattr(schedulers, f"scheduling_{module}").randn_tensor = injected


def run(cls, config, steps, strength=None):
    scheduler = cls(**config)
    scheduler.set_timesteps(steps)
    timesteps, first = scheduler.timesteps, 0
    if strength is not None:
        first = max(steps - min(int(steps * strength), steps), 0)
        # As diffusers' image-to-image: Heun has two evaluations, and timesteps, for a step.
        first *= scheduler.order
        timesteps = timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    if strength is not None:
        sample = scheduler.add_noise(formula(-1), formula(-2), timesteps[:1])
    else:
        sample = formula(-1) * scheduler.init_noise_sigma
    scaled = None
    for i, t in enumerate(timesteps):
        drawn[0] = i
        scaled = scheduler.scale_model_input(sample, t)
        # The output depends on the input, as a network's does.
        output = 0.5 * formula(i) + 0.5 * torch.tanh(scaled)
        sample = scheduler.step(output, t, sample).prev_sample
    return timesteps, scaled, sample


def configs():
    for spacing, prediction in itertools.product(
        ("linspace", "leading", "trailing"), ("epsilon", "v_prediction", "sample")
    ):
        base = {**LATENT, "timestep_spacing": spacing, "prediction_type": prediction, "steps_offset": 1}
        if prediction != "sample":
            yield EulerAncestralDiscreteScheduler, base
        yield DDIMScheduler, {**base, "clip_sample": False, "set_alpha_to_one": False}
        for karras in (False, True):
            yield EulerDiscreteScheduler, {**base, "use_karras_sigmas": karras}
            yield DPMSolverMultistepScheduler, {**base, "use_karras_sigmas": karras}
    for prediction in ("epsilon", "v_prediction", "sample"):
        yield LCMScheduler, {"prediction_type": prediction}
    zero = {**LATENT, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    cosine = {"beta_schedule": "squaredcos_cap_v2"}
    yield EulerAncestralDiscreteScheduler, zero
    yield DDIMScheduler, {**zero, "clip_sample": False}
    yield DDIMScheduler, {}  # diffusers' defaults: linear, clipped to 1
    yield DDIMScheduler, {**LATENT, "clip_sample_range": 0.6}
    yield EulerDiscreteScheduler, {**LATENT, "final_sigmas_type": "sigma_min"}
    yield EulerDiscreteScheduler, {**LATENT, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 8.0}
    yield DPMSolverMultistepScheduler, {**LATENT, "final_sigmas_type": "sigma_min"}
    yield DPMSolverMultistepScheduler, {**LATENT, "solver_order": 1}
    yield DPMSolverMultistepScheduler, {**LATENT, "final_sigmas_type": "sigma_min", "euler_at_final": True}
    yield DPMSolverMultistepScheduler, {**cosine, "lambda_min_clipped": -5.1}
    yield DPMSolverMultistepScheduler, {**cosine, "lambda_min_clipped": -5.1, "use_karras_sigmas": True}
    yield LCMScheduler, {"clip_sample": True, "clip_sample_range": 0.4, "timestep_scaling": 0.01}
    # Those below came later: the cases above keep their names.
    for spacing, prediction, karras in itertools.product(
        ("linspace", "leading", "trailing"), ("epsilon", "v_prediction", "sample"), (False, True)
    ):
        base = {**LATENT, "timestep_spacing": spacing, "prediction_type": prediction, "steps_offset": 1}
        yield HeunDiscreteScheduler, {**base, "use_karras_sigmas": karras}
        yield UniPCMultistepScheduler, {**base, "use_karras_sigmas": karras}
    yield HeunDiscreteScheduler, {}  # diffusers' defaults
    yield HeunDiscreteScheduler, {**LATENT, "clip_sample": True, "clip_sample_range": 0.7}
    yield UniPCMultistepScheduler, {}
    yield UniPCMultistepScheduler, zero
    yield UniPCMultistepScheduler, cosine
    low = {**LATENT, "final_sigmas_type": "sigma_min"}
    for order in (1, 2, 3):
        yield UniPCMultistepScheduler, {**LATENT, "solver_order": order}
        yield UniPCMultistepScheduler, {**low, "solver_order": order, "solver_type": "bh1"}
    yield UniPCMultistepScheduler, low
    yield UniPCMultistepScheduler, {**low, "solver_order": 3, "lower_order_final": False}
    yield UniPCMultistepScheduler, {**low, "use_karras_sigmas": True}
    yield UniPCMultistepScheduler, {**LATENT, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 8.0}
    yield UniPCMultistepScheduler, {**LATENT, "disable_corrector": [0, 2, 4], "solver_order": 3}
    for prediction in ("epsilon", "v_prediction", "sample"):
        yield TCDScheduler, {"prediction_type": prediction}
    yield TCDScheduler, zero | {"original_inference_steps": 100}
    yield TCDScheduler, {"beta_schedule": "linear", "num_train_timesteps": 500, "original_inference_steps": 25}


def main():
    cases, tensors = [], {}
    for cls, config in configs():
        runs = [(steps, None) for steps in STEPS] + [(10, 0.7)]
        for steps, strength in runs:
            timesteps, scaled, sample = run(cls, config, steps, strength)
            name = f"{len(cases):04}"
            assert torch.isfinite(sample).all(), (cls, config, steps)
            cases.append(
                {
                    "name": name,
                    "config": {"_class_name": cls.__name__, **config},
                    "steps": steps,
                    "strength": strength,
                    "timesteps": [float(t) for t in timesteps],
                }
            )
            tensors[f"{name}.scaled"] = scaled
            tensors[f"{name}.sample"] = sample
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "schedulers.json").write_text(f"[\n{lines}\n]\n")
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, HERE / "io.safetensors")
    print(len(cases), "cases")


main()
