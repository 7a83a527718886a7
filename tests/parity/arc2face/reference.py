"""Makes the fixtures of tests/parity/arc2face.rs with transformers: a text encoder with random weights reads identities in
the place of the word "id" of "photo of a id person", as foivospar/Arc2Face does.

    pip install torch transformers safetensors && python tests/parity/arc2face/reference.py

The vocabulary is that of tests/parity/tokenizer/plain, with the word "id" as one more token. Made with torch 2.11.0 and
transformers 5.23.0.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
CONTEXT = 16
torch.manual_seed(0)
torch.set_num_threads(1)


def tokenizer():
    plain = HERE.parent / "tokenizer/plain"
    vocabulary = json.loads((plain / "vocab.json").read_text())
    merges = (plain / "merges.txt").read_text()
    vocabulary["id</w>"] = len(vocabulary)
    merges = merges.rstrip("\n") + "\ni d</w>\n"
    folder = HERE / "tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text(merges)
    pairs = [tuple(line.split()) for line in merges.splitlines() if line and not line.startswith("#version")]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs), vocabulary


tokens, vocabulary = tokenizer()
model = CLIPTextModel(CLIPTextConfig(
    vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=CONTEXT, hidden_act="quick_gelu", eos_token_id=vocabulary["<|endoftext|>"],
)).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            parameter *= 4
        if name.endswith("bias") or "norm" in name:
            parameter += 0.2 * torch.randn_like(parameter)
        parameter.copy_(parameter.half().float())
folder = HERE / "text_encoder"
folder.mkdir(exist_ok=True)
config = model.config.to_dict() | {"architectures": ["CLIPTextModel"]}
(folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
# Published checkpoints hold the class's weights under `text_model.`; transformers 5 leaves that out.
named = {f"text_model.{name.removeprefix('text_model.')}": v for name, v in model.state_dict().items()}
save_file({name: v.half().contiguous() for name, v in named.items()}, folder / "model.safetensors")


def encode(text):
    padded = tokens(text, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
    return padded.input_ids


identities = torch.nn.functional.normalize(torch.randn(3, 24))
[word] = tokens.encode("id", add_special_tokens=False)
input_ids = encode("photo of a id person").repeat(3, 1)
assert (input_ids == word).sum() == 3
embedding = next(m for name, m in model.named_modules() if name.endswith("token_embedding"))


def in_place_of_the_word(module, given, embedded):
    embedded = embedded.clone()
    embedded[input_ids == word] = torch.nn.functional.pad(identities, (0, 32 - 24))
    return embedded


with torch.no_grad():
    nobody = model(input_ids=encode("")).last_hidden_state
    hook = embedding.register_forward_hook(in_place_of_the_word)
    states = model(input_ids=input_ids).last_hidden_state
    hook.remove()
    plain = model(input_ids=input_ids).last_hidden_state
assert (states - plain).abs().max() > 0.01
save_file({"id_embeds": identities, "tokens": states.contiguous(), "nobody": nobody.contiguous()}, HERE / "io.safetensors")
