"""Makes the fixture of tests/parity/consistency.rs with diffusers: a DDIM step back by a fiftieth of the schedule, and the
consistency function, for each kind of prediction.

    pip install torch diffusers safetensors && python tests/parity/consistency/reference.py
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, LCMScheduler
from safetensors.torch import save_file

HERE = Path(__file__).parent
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TIMESTEPS = [19, 39, 499, 999]
torch.manual_seed(0)
torch.set_num_threads(1)

sample, output = torch.randn(2, len(TIMESTEPS), 2, 3, 4)
tensors = {"sample": sample, "output": output}
for prediction in ("epsilon", "v_prediction", "sample"):
    ddim = DDIMScheduler(**LATENT, prediction_type=prediction, clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(50)
    solved, consistent = [], []
    for i, t in enumerate(TIMESTEPS):
        one = slice(i, i + 1)
        solved.append(ddim.step(output[one], t, sample[one]).prev_sample)
        lcm = LCMScheduler(**LATENT, prediction_type=prediction, clip_sample=False)
        lcm.set_timesteps(timesteps=[t])
        consistent.append(lcm.step(output[one], torch.tensor(t), sample[one]).denoised)
    tensors[f"solved.{prediction}"] = torch.cat(solved)
    tensors[f"consistent.{prediction}"] = torch.cat(consistent)
save_file(tensors, HERE / "io.safetensors")
