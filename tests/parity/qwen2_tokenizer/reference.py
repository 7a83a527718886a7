"""Makes the fixtures of tests/parity/qwen2_tokenizer.rs with transformers' Qwen2Tokenizer: a folder `json` as it saves a
tokenizer, a folder `plain` with vocab.json and merges.txt instead, and texts.json with texts, their ids, and the ids and masks
of the chats that Flux2KleinPipeline makes of them. The vocabulary is learned from the texts.

    pip install transformers tokenizers && python tests/parity/qwen2_tokenizer/reference.py
"""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

HERE = Path(__file__).parent
LENGTH = 40
# What of Qwen3's template a single user's turn reaches.
TEMPLATE = """{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<think>", "</think>", "<tool_call>"]

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "a",
    "A smiling man with a red scarf",
    "a  smiling   man\twith\n\n  a red scarf  ",
    "Image 1 is Anna, image 2 is Bob; they're in Kraków, 1987!",
    "I'LL we'Re you'd 'Tis it'ſ 'S don't",
    "12345 67,890.12 ½ Ⅳ ٣",
    "new\r\nlines\r\n\r\n  and \n spaces \n",
    "trailing spaces   ",
    "signs!!!\n\n??? --- (a) [b] {c}\n\n",
    "é é ﬁ Å",  # composed and decomposed
    "東京の夜、雨のネオン街。",
    "Привет, мир! Ça va? ¿Qué tal?",
    "emoji 👩‍🚀 and 🏳️‍🌈 ok",
    "nbsp\u00a0here\u2003and\u3000there \u0085 x",
    "code: fn main() { println!(\"{}\", x); }",
    "<|im_end|> in a prompt <think>and</think> this<|endoftext|>",
    "<|im_start|",
    "a<tool_call><tool_call>b",
    "\u200bzero\ufeffwidth",
    "a photo of the same person, standing in front of a mountain, studio light, 85mm, f/1.8",
]


def more():
    """Random mixtures of what the words are told apart by."""
    rng = random.Random(0)
    parts = [" ", "  ", "\n", "\r\n", "\t", "a", "Bc", "'s", "'LL", "1", "23", "!", "?!", "ä", "東", "\u3000", "<think>", "'"]
    return ["".join(rng.choice(parts) for _ in range(rng.randint(1, 14))) for _ in range(120)]


def main():
    texts = TEXTS + more()
    bare = Qwen2Tokenizer()
    learner = Tokenizer(models.BPE())
    learner.normalizer = bare.backend_tokenizer.normalizer
    learner.pre_tokenizer = bare.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(TEXTS * 2, trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges)
    tokenizer.add_tokens(SPECIAL, special_tokens=True)
    # As in Qwen3's files.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(HERE / "json")

    plain = HERE / "plain"
    plain.mkdir(exist_ok=True)
    (plain / "vocab.json").write_text(json.dumps(model["vocab"]) + "\n")
    (plain / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    flags = dict(lstrip=False, rstrip=False, single_word=False, normalized=False)
    decoder = {
        str(tokenizer.convert_tokens_to_ids(token)): {"content": token, "special": token in SPECIAL, **flags}
        for token in SPECIAL + ADDED
    }
    config = {"added_tokens_decoder": decoder, "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"}
    (plain / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")

    cases = []
    for text in texts:
        # As Flux2KleinPipeline._get_qwen3_prompt_embeds.
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        padded = tokenizer(chat, padding="max_length", truncation=True, max_length=LENGTH)
        cases.append(
            {
                "text": text,
                "ids": tokenizer(text)["input_ids"],
                "chat": padded["input_ids"],
                "real": sum(padded["attention_mask"]),
                "cut": max(len(tokenizer(chat)["input_ids"]) - LENGTH, 0),
            }
        )
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "texts.json").write_text(f"[\n{lines}\n]\n")
    for file in [*HERE.glob("*.json"), *HERE.glob("*/*")]:
        file.chmod(0o644)
    print(len(cases), "texts,", len(tokenizer), "tokens,", sum(case["cut"] > 0 for case in cases), "cut")


main()
