"""Makes beside.json: for each case the files that a tokenizer's folder holds besides, or instead of, `plain`'s vocab.json and
merges.txt, and what transformers' CLIPTokenizer makes of texts with that folder, and diffusers' pipelines of prompts.

    python tests/parity/tokenizer/beside.py

Needs transformers and diffusers. Made with diffusers 0.42.1, transformers 5.24.0 and tokenizers 0.23.3.
"""

import json
import tempfile
from pathlib import Path

from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
HERE = Path(__file__).parent
vocabulary = json.loads((HERE / "plain/vocab.json").read_text())
merges = [tuple(line.split(" ")) for line in (HERE / "plain/merges.txt").read_text().splitlines()[1:]]
# transformers 5 drops such merges where it reads merges.txt itself.
assert not any(left.startswith("#") for left, _ in merges)
SIZE = len(vocabulary)
BESIDE_TEXTS = [
    "",
    "a photo of a smiling woman",
    "A <cat-toy> and a <Cat-Toy>, on the<cat-toy>beach",
    "two  <cat-toy>  with [PAD] and ! <|endoftext|> <new person> end",
    "word wordy _word word! words",
    "a photo of a woman " * 12,
]


def flags(content, **more):
    base = {"content": content, "lstrip": False, "rstrip": False, "normalized": True, "single_word": False, "special": False}
    return base | more


def tokenizer_json(**more):
    """tokenizer.json as transformers 5 saves it, with the pairs of merges apart."""
    with tempfile.TemporaryDirectory() as folder:
        CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
        return json.loads((Path(folder) / "tokenizer.json").read_text()) | more


def added_tokens(*tokens):
    file = tokenizer_json()
    return file["added_tokens"] + [token | {"id": SIZE + i} for i, token in enumerate(tokens)]


def joined(file):
    """Pairs of merges as older files have them."""
    model = file["model"] | {"merges": [" ".join(merge) for merge in file["model"]["merges"]]}
    return file | {"model": model}


bare = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE"} | {
    key: tokenizer_json()["model"][key] for key in ("vocab", "merges")}}
decoder = {str(SIZE): flags("<cat-toy>"), str(SIZE + 1): flags("<Cat-Toy>", normalized=False)}
strips = [flags("<cat-toy>", lstrip=True, rstrip=True), flags("word", single_word=True)]
CASES = {
    "padding of the map": {"special_tokens_map.json": {"pad_token": "!"}},
    "padding of the config": {"tokenizer_config.json": {"pad_token": "!", "model_max_length": 77}},
    "padding of the config beside a decoder": {
        "tokenizer_config.json": {"pad_token": "!", "added_tokens_decoder": {}},
        "special_tokens_map.json": {"pad_token": "a"},
    },
    "a new padding token": {"special_tokens_map.json": {"pad_token": "[PAD]"}},
    "words of Textual Inversion": {"added_tokens.json": {"<cat-toy>": SIZE, "<new person>": SIZE + 1}},
    "a word of several vectors": {"added_tokens.json": {"<cat-toy>": SIZE, "<cat-toy>_1": SIZE + 1, "<cat-toy>_2": SIZE + 2}},
    "an upper-case word": {"added_tokens.json": {"<Cat-Toy>": SIZE}},
    "a special word": {
        "added_tokens.json": {"<Cat-Toy>": SIZE},
        "tokenizer_config.json": {"additional_special_tokens": ["<Cat-Toy>"]},
    },
    "words of the decoder": {"tokenizer_config.json": {"added_tokens_decoder": decoder}},
    "words with their spaces": {"tokenizer_config.json": {
        "added_tokens_decoder": {str(SIZE + i): token for i, token in enumerate(strips)}}},
    "a shorter length": {"tokenizer_config.json": {"model_max_length": 20, "tokenizer_class": "CLIPTokenizer"}},
    "do_lower_case": {"tokenizer_config.json": {"do_lower_case": False}},
    "other ends": {"tokenizer_config.json": {"bos_token": "<|endoftext|>", "eos_token": "!"}},
    "another mask": {"tokenizer_config.json": {"mask_token": "<cat-toy>"}},
    "tokenizer.json": {"tokenizer.json": tokenizer_json(), "vocab.json": None, "merges.txt": None},
    "tokenizer.json with pairs in one": {"tokenizer.json": joined(tokenizer_json()), "vocab.json": None, "merges.txt": None},
    "tokenizer.json with nothing but a model": {"tokenizer.json": bare, "vocab.json": None, "merges.txt": None},
    "tokenizer.json with words": {
        "tokenizer.json": tokenizer_json(added_tokens=added_tokens(*strips)), "vocab.json": None, "merges.txt": None},
    "tokenizer.json with words beside a vocabulary": {
        "tokenizer.json": tokenizer_json(added_tokens=added_tokens(flags("<cat-toy>")))},
    "tokenizer.json with a template": {
        "tokenizer.json": tokenizer_json(post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": EOS, "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in (BOS, EOS)},
        }), "vocab.json": None, "merges.txt": None},
}
described = []
for name, files in CASES.items():
    with tempfile.TemporaryDirectory() as folder:
        for file in ("vocab.json", "merges.txt"):
            (Path(folder) / file).write_text((HERE / "plain" / file).read_text())
        for file, content in files.items():
            if content is None:
                (Path(folder) / file).unlink()
            else:
                (Path(folder) / file).write_text(json.dumps(content))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    length = min(tokenizer.model_max_length, 77)
    ids = [tokenizer(text, padding="max_length", truncation=True, max_length=length)["input_ids"] for text in BESIDE_TEXTS]
    # The model of tokenizer.json is `plain`'s: the test puts it in.
    for content in files.values():
        if content and "model" in content:
            joins = isinstance(content["model"]["merges"][0], str)
            content["model"] = content["model"] | {"vocab": "PLAIN", "merges": "PLAIN JOINED" if joins else "PLAIN"}
    prompts = [TextualInversionLoaderMixin().maybe_convert_prompt(text, tokenizer) for text in BESIDE_TEXTS]
    described.append({"name": name, "files": files, "ids": ids, "prompts": prompts})
rows = ",\n".join(json.dumps(case) for case in described)
(HERE / "beside.json").write_text('{"texts": ' + json.dumps(BESIDE_TEXTS) + ', "cases": [\n' + rows + "\n]}\n")
