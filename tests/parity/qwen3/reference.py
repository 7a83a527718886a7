"""Makes the fixtures of tests/parity/qwen3.rs with transformers' Qwen3: one folder per case, holding config.json, the weights
(random, rounded to f16 to keep the files small) and io.safetensors (inputs and outputs, f32). Prompts' states are made by
Flux2KleinPipeline's own function.

    pip install torch diffusers transformers safetensors && python tests/parity/qwen3/reference.py
"""

import json
from pathlib import Path

import torch
from diffusers import Flux2KleinPipeline
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

HERE = Path(__file__).parent
SIZES = dict(vocab_size=50, hidden_size=24, intermediate_size=40, head_dim=8, max_position_embeddings=16)
torch.set_num_threads(1)


def build(cls, seed, **config):
    torch.manual_seed(seed)
    model = cls(Qwen3Config(**SIZES, **config)).eval()
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith("bias") or "norm" in name:
                parameter += 0.3 * torch.randn_like(parameter)
            else:  # 0.02 is small: so are then the effects of what is to be compared
                parameter *= 8
            parameter.copy_(parameter.half().float())
    return model


class Given:
    """In the place of a tokenizer: ids and mask of the fixture."""

    def __init__(self, rows):
        self.rows = iter(rows)

    def apply_chat_template(self, messages, **_):
        return messages

    def __call__(self, text, **_):
        ids, real = next(self.rows)
        mask = [1] * real + [0] * (len(ids) - real)
        return {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([mask])}


@torch.no_grad()
def save(case, model, layers, rows):
    folder = HERE / case
    folder.mkdir(exist_ok=True)
    states = Flux2KleinPipeline._get_qwen3_prompt_embeds(
        model, Given(rows), [""] * len(rows), hidden_states_layers=layers
    )
    config = model.config.to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items() if "lm_head" not in name}
    save_file(weights, folder / "model.safetensors")
    io = {
        "input_ids": torch.tensor([ids for ids, _ in rows]).float(),
        "real": torch.tensor([real for _, real in rows]).float(),
        "layers": torch.tensor(layers).float(),
        "states": states.contiguous(),
    }
    save_file(io, folder / "io.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


ROWS = [
    ([3, 17, 42, 9, 9, 30, 1, 0, 0, 0], 7),
    ([5, 49, 2, 0, 0, 0, 0, 0, 0, 0], 3),
    ([11, 12, 13, 14, 15, 16, 17, 18, 19, 20], 10),
]
# As in klein: a causal language model, of which a third of the layers is not needed.
klein = build(
    Qwen3ForCausalLM,
    0,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    rope_theta=1000000.0,
    tie_word_embeddings=True,
)
save("klein", klein, [1, 2, 3], ROWS)
# The rarer config values, the last layer's state, and layers out of order.
rare = build(
    Qwen3Model,
    1,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    attention_bias=True,
    hidden_act="gelu",
    rms_norm_eps=1e-2,
    rope_parameters={"rope_theta": 100.0, "rope_type": "default"},
)
save("rare", rare, [3, 1], ROWS[:2])
