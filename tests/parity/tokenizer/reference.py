"""Makes the fixtures beside this file: a small CLIP vocabulary and what transformers' CLIPTokenizer does with it.

    python tests/parity/tokenizer/reference.py

Needs transformers. Made with transformers 5.23.0 and tokenizers 0.23.3.

With a folder as argument it makes the same cases there with OpenAI's own vocabulary, which open_clip ships and
which is too large to keep here.
"""

import gzip
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import CLIPTokenizer as Reference

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

CORPUS = """
a photo of a smiling woman with curly red hair, wearing round glasses
a photo of an old man with a grey beard, in the style of van gogh
the portrait of a young girl; her father's hat isn't hers, they've said
a watercolour painting of two people on a beach at sunset, highly detailed
portrait d'une femme âgée à côté d'un café, très élégante, naïve et façonnée
ein großer mann mit müden augen über der straße
комната с портретом женщины, женщина в комнате
東京の女性の写真、女性の肖像 写真
1920s photo 1080p, 8k, 35mm film!!! ... --- (detailed) (portrait)
""".strip().splitlines()

TEXTS = [
    "",
    " ",
    "a photo of a smiling woman",
    "A PHOTO of a Smiling  Woman,\twith\ncurly   hair",
    "the father's hat isn't hers; they've, we'll, I'm, you're, he'd, 'tis, rock'n'roll ''s '' 'S",
    "1920s 8k 1080p 35mm 3.14 ½ ² Ⅷ ٣",
    "!!! ... --- (detailed)!?!? @#$%^&*_+=[]{}|\\/<>~`\"",
    "# ## ### #hashtag",
    "café cafe\u0301 naïve nai\u0308ve ÂGÉE À",
    "große STRASSE ẞ ŉ İstanbul ısparta ΣΊΣΥΦΟΣ ὈΔΥΣΣΕΎΣ ǅ",
    "Комната с портретом ЖЕНЩИНЫ",
    "東京の女性の写真",
    "한국어 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "हिन्दी में चित्र",
    "صورة امرأة",
    "👩‍👩‍👧 👍🏽 🇨🇭 smiling😀woman ❤️",
    "zero\u200bwidth\u00a0space\u3000ideographic\u2028line\u0085next",
    "control\u0000\u0001\u007fcharacters\u00ad",
    "ﬁ ﬀ Å Å Ω",
    "<|startoftext|> a photo <|endoftext|> of<|endoftext|>a woman",
    "<|ENDOFTEXT|> <|StartOfText|> <|endoftext| <|endoftext",
    "x" * 300,
    "a photo of a woman " * 40,
    "portrait,portrait;portrait portraits portraitportrait",
    "a\u0301\u0302\u0323 \u0301leading mark",
    "𝔣𝔯𝔞𝔨𝔱𝔲𝔯 𝟘𝟙𝟚",
]


def small_vocabulary():
    """A vocabulary of 700 tokens, learned with the tokenizers library."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([line.lower() for line in CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    # The trainer adds only the marked bytes that it has seen.
    tokens = alphabet + [byte + "</w>" for byte in alphabet]
    known = set(tokens)
    tokens += [token for token in model["vocab"] if token not in known]
    tokens += [BOS, EOS]
    return {token: i for i, token in enumerate(tokens)}, merges


def openai_vocabulary():
    """OpenAI's vocabulary: merges from open_clip's file, ids as in its `SimpleTokenizer`."""
    import open_clip.tokenizer as original

    simple = original.SimpleTokenizer()
    with gzip.open(original.default_bpe()) as file:
        lines = file.read().decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = {BOS if t == "<start_of_text>" else EOS if t == "<end_of_text>" else t: i
                  for t, i in simple.encoder.items()}
    return vocabulary, [tuple(line.split()) for line in lines]


def save(folder, vocabulary, merges, files, special):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n")
    lines = ["#version: 0.2"] + [" ".join(merge) for merge in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    # Not from_pretrained: transformers 5 drops every merge that begins with '#'.
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, **special)
    assert isinstance(tokenizer, Reference)
    cases = []
    for text in TEXTS:
        for length in (77, 8):
            ids = tokenizer(text, padding="max_length", truncation=True, max_length=length)["input_ids"]
            cases.append({"text": text, "context_length": length, "ids": ids})
    (folder / "cases.json").write_text(json.dumps(cases) + "\n")


if len(sys.argv) > 1:
    if len(sys.argv) > 2:
        TEXTS += json.loads(Path(sys.argv[2]).read_text())
    save(Path(sys.argv[1]), *openai_vocabulary(), {}, {})
    sys.exit()

from tokenizers import AddedToken  # noqa: E402

here = Path(__file__).parent
vocabulary, merges = small_vocabulary()
save(here / "plain", vocabulary, merges, {}, {})

# As in Stable Diffusion 2: padding with "!", named by special_tokens_map.json against tokenizer_config.json; and
# special tokens that are looked for after lower-casing.
def added(content):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


files = {
    "tokenizer_config.json": {"pad_token": EOS, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"},
    "special_tokens_map.json": {
        "bos_token": added(BOS),
        "eos_token": added(EOS),
        "pad_token": "!",
        "unk_token": added(EOS),
    },
}
token = lambda content: AddedToken(content, normalized=True, special=True)  # noqa: E731
special = dict(bos_token=token(BOS), eos_token=token(EOS), unk_token=token(EOS), pad_token="!")
save(here / "padding", vocabulary, merges, files, special)
