"""Makes the fixtures of tests/parity/weighted.rs: prompts with weights, breaks, more tokens than fit and learnt words, read by transformers'
CLIPTextModel as AUTOMATIC1111's web UI documents it (its wiki: Features, "Attention/emphasis", "Infinite prompt length", "BREAK keyword",
"Textual Inversion"; "CLIP skip"), written anew here.

    pip install torch transformers safetensors && python tests/parity/weighted/reference.py

The text encoder and the tokenizer are those of tests/parity/prompt/model, whose 16 positions stand for CLIP's 77. `cases.json` has the
prompts, `io.safetensors` their states, `embeddings/` a learnt word in each layout of a file. Made with torch 2.11.0 and transformers 5.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
MODEL = HERE.parent / "prompt/model"
CONTEXT, WIDTH = 16, 12
ROOM, REACH = CONTEXT - 2, 20
torch.manual_seed(5)
torch.set_num_threads(1)

vocabulary = json.loads((MODEL / "tokenizer/vocab.json").read_text())
lines = (MODEL / "tokenizer/merges.txt").read_text().splitlines()
merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
encoder = CLIPTextModel.from_pretrained(MODEL / "text_encoder", dtype=torch.float32).eval()
clip = getattr(encoder, "text_model", encoder)
START, END, COMMA = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"], vocabulary[",</w>"]


def letters(prompt):
    """A weight for each letter of the prompt that is read; a break is None."""
    out, opened = [], []
    at = 0
    while at < len(prompt):
        here = prompt[at]
        number = re.match(r":\s*([-+]?[0-9.]+)\s*\)", prompt[at:])
        kinds = [kind for kind, _ in opened]
        if here == "\\":
            out += [[c, 1.0] for c in prompt[at + 1 : at + 2] if c in "()[]\\"]
            at += 2 if prompt[at + 1 : at + 2] in set("()[]\\") else 1
            continue
        factor = None
        if here in "([":
            opened.append((here, len(out)))
        elif number and "(" in kinds:
            factor, kind = float(number[1]), "("
            at += len(number[0]) - 1
        elif here == ")" and "(" in kinds:
            factor, kind = 1.1, "("
        elif here == "]" and "[" in kinds:
            factor, kind = 1 / 1.1, "["
        elif here in ")]:":
            out.append([here, 1.0])
        else:
            run = re.match(r"[^\\()\[\]:]+", prompt[at:])[0]
            for i, text in enumerate(re.split(r"\s*\bBREAK\b\s*", run)):
                out += ([None] if i else []) + [[c, 1.0] for c in text]
            at += len(run)
            continue
        if factor is not None:
            last = max(i for i, (other, _) in enumerate(opened) if other == kind)
            _, start = opened.pop(last)
            scale(out[start:], factor)
        at += 1
    for wanted in "([":
        for kind, start in opened:
            if kind == wanted:
                scale(out[start:], 1.1 if kind == "(" else 1 / 1.1)
    return out


def scale(part, factor):
    for letter in part:
        if letter is not None:
            letter[1] *= factor


def stretches(prompt):
    """Words of one weight; a break is None."""
    out = []
    for letter in letters(prompt):
        if letter is None:
            out.append(None)
        elif out and out[-1] is not None and out[-1][1] == letter[1]:
            out[-1][0] += letter[0]
        else:
            out.append(list(letter))
    return out


def tokens_of(text, learnt):
    """Ids, and the vectors of a word that was learnt as one item."""
    if not text:
        return []
    words = sorted(learnt, key=len, reverse=True)
    if not words:
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    found = re.split("(" + "|".join(r"(?<!\w)" + re.escape(word) + r"(?!\w)" for word in words) + ")", text, flags=re.I)
    by_name = {word.lower(): learnt[word] for word in words}
    out = []
    for i, part in enumerate(found):
        out += [by_name[part.lower()]] if i % 2 else tokens_of(part, {})
    return out


def chunks(prompt, learnt):
    done, now, comma = [], [], None

    def size():
        return sum(1 if isinstance(item[0], int) else len(item[0]) for item in now)

    for stretch in stretches(prompt):
        if stretch is None:
            done, now, comma = done + [now], [], None
            continue
        text, weight = stretch
        for item in tokens_of(text, learnt):
            length = 1 if isinstance(item, int) else len(item)
            if isinstance(item, int) and item == COMMA:
                comma = size()
            elif isinstance(item, int) and size() == ROOM and comma is not None and ROOM - comma <= REACH:
                split, seen = 0, 0
                while seen <= comma:
                    seen += 1 if isinstance(now[split][0], int) else len(now[split][0])
                    split += 1
                done, now, comma = done + [now[:split]], now[split:], None
            if size() + length > ROOM:
                done, now, comma = done + [now], [], None
            now.append((item, weight))
    return done + [now] if now or not done else done


@torch.no_grad()
def states(prompt, clip_skip, pad, learnt):
    out = []
    for chunk in chunks(prompt, learnt):
        ids, weights, vectors = [START], [1.0], {}
        for item, weight in chunk:
            for vector in [None] if isinstance(item, int) else item:
                if vector is not None:
                    vectors[len(ids)] = vector
                ids.append(item if vector is None else 0)
                weights.append(weight)
        ids = (ids + [END] + [pad] * CONTEXT)[:CONTEXT]
        weights = torch.tensor((weights + [1.0] * CONTEXT)[:CONTEXT])
        table = clip.embeddings.token_embedding

        def learn(_, __, embedded):
            for place, vector in vectors.items():
                embedded[0, place] = vector
            return embedded

        hook = table.register_forward_hook(learn)
        said = encoder(input_ids=torch.tensor([ids]), output_hidden_states=True)
        hook.remove()
        z = clip.final_layer_norm(said.hidden_states[-clip_skip])
        weighed = z * weights[None, :, None]
        out.append(weighed * (z.mean() / weighed.mean()))
    return torch.cat(out, 1)


def random(*shape):
    return 0.3 * torch.randn(shape)


shutil.rmtree(HERE / "embeddings", ignore_errors=True)
(HERE / "embeddings").mkdir()
known = {"webui": random(3, WIDTH), "Authors": random(2, WIDTH), "params": random(1, WIDTH), "<cat-toy>": random(WIDTH)}
known["<two words>"] = random(2, WIDTH)
about = {"string_to_token": {"*": 265}, "name": "another", "step": 7, "sd_checkpoint": None, "sd_checkpoint_name": "x"}
torch.save(about | {"string_to_param": {"*": known["webui"]}}, HERE / "embeddings/webui.pt")
torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": known["Authors"]}}, HERE / "embeddings/Authors.pt")
save_file({"emb_params": known["params"]}, HERE / "embeddings/params.safetensors")
torch.save({"<cat-toy>": known["<cat-toy>"]}, HERE / "embeddings/learned_embeds.bin")
save_file({"<two words>": known["<two words>"]}, HERE / "embeddings/learned_embeds.safetensors")
save_file({"clip_l": random(1, WIDTH), "clip_g": random(1, WIDTH)}, HERE / "embeddings/xl.safetensors")
rows = {name: vectors if vectors.dim() == 2 else vectors[None] for name, vectors in known.items()}

plain = "A portrait of an old man"
long = "a man, a hat, a very old portrait of an old man, oil painting, a hat and a coat, a man in a hat of old"
cases = [
    (plain, 1, None, []),
    ("", 1, None, []),
    ("a (man:1.4) in [a hat]", 1, None, []),
    ("((an old man) [[hat], (coat:0.3)]:1.5) a (man", 1, None, []),
    (r"a man \(old\) (\[hat\]:1.3) \\ a:b :1.2)", 1, None, []),
    ("a (man:-0.5), hat [of", 1, None, []),
    ("(interleaved [brackets) are] odd", 1, None, []),
    ("a man BREAK a (hat BREAK coat:1.3)BREAK", 1, None, []),
    (long, 1, None, []),
    ("(" + long + ":1.2) " + long.replace(",", ""), 1, None, []),
    (plain, 2, None, []),
    ("an (old:1.3) man", 2, None, []),
    (plain, 1, "!", []),
    (long, 2, "!", []),
    ("a WebUI, authors (params:1.2) man", 1, None, ["webui", "Authors", "params"]),
    ("a <cat-toy>, (<two words> and <CAT-TOY>:0.7) cats", 1, "!", ["<cat-toy>", "<two words>"]),
    ("a man of an old hat in a coat of a webui, authors webui man", 2, None, ["webui", "Authors"]),
    ("webuis are no (webui)s", 1, None, ["webui"]),
]
io, told = {}, []
for i, (prompt, clip_skip, pad, words) in enumerate(cases):
    name = f"{i:02}"
    io[name] = states(prompt, clip_skip, END if pad is None else vocabulary[pad], {word: rows[word] for word in words})
    assert torch.isfinite(io[name]).all()
    told.append({"name": name, "prompt": prompt, "clip_skip": clip_skip, "pad": pad, "embeddings": words})
save_file({name: value.contiguous() for name, value in io.items()}, HERE / "io.safetensors")
(HERE / "cases.json").write_text(json.dumps(told, indent=1) + "\n")
print({name: list(value.shape) for name, value in io.items()})
