"""Makes the fixtures beside this file: transformers' DETR for segmentation with random weights, as its folders hold it, over
either of its backbones: `transformers` over transformers' own ResNet, `timm` over timm's.

    python tests/parity/segmenter/reference.py

Needs torch, transformers and timm. Made with torch 2.11.0, transformers 5.24.0 and timm 1.0.31.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn
from transformers import DetrConfig, DetrForSegmentation, ResNetConfig
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

HERE = Path(__file__).parent
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
PERSON = 1


@register_model
def resnet_tiny(pretrained=False, **kwargs):
    """timm's ResNet-50, smaller."""
    sizes = dict(block=Bottleneck, layers=(1, 2, 1, 1), channels=(2, 4, 8, 16), stem_width=8)
    return build_model_with_cfg(ResNet, "resnet_tiny", pretrained, **sizes, **kwargs)


def perturb(model):
    """Gives every norm a value of its own, and spreads what the network says over kinds and masks."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm, DetrFrozenBatchNorm2d)):
            with torch.no_grad():
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.2)
        if isinstance(module, DetrFrozenBatchNorm2d):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, nn.Linear):
            # As it is made, every query would say the same.
            gain = 3 if name.endswith(("q_proj", "k_proj")) else 1
            nn.init.normal_(module.weight, 0, gain * module.in_features**-0.5)
    with torch.no_grad():
        model.detr.model.query_position_embeddings.weight.normal_(0, 1)
        # The maps are small where they are spread over many positions.
        model.mask_head.conv1.conv.weight[:, -8:] *= 40
        model.mask_head.output_conv.weight.normal_(0, 1)


def spread(model, pixels):
    """Makes queries differ in what they show and where, as far as what the network says of a picture lets them."""
    with torch.no_grad():
        output = model(pixels)
        classifier, last = model.detr.class_labels_classifier, model.mask_head.output_conv
        centre, scale = output.logits[0].mean(0), 4 / output.logits[0].std(0)
        classifier.weight.mul_(scale[:, None])
        classifier.bias.copy_((classifier.bias - centre) * scale)
        classifier.bias[PERSON] += 4
        last.bias.sub_(output.pred_masks.mean())


def apart(logits, masks):
    """The people's masks: each position to the person that has it most surely, if any has it by more than a half."""
    scores = logits.softmax(-1)
    people = [q for q in range(len(scores)) if scores[q].argmax() == PERSON and scores[q][PERSON] >= 0.85]
    probabilities = masks[people].sigmoid()
    best = probabilities.argmax(0)
    inside = [(best == i) & (probabilities[i] > 0.5) for i in range(len(people))]
    return torch.stack([mask.float() for mask in inside if mask.sum() > 4])


torch.set_num_threads(1)
sizes = dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=40, num_queries=8)
sizes |= dict(encoder_attention_heads=8, decoder_attention_heads=4, id2label={0: "N/A", 1: "person", 2: "cat"})
own = ResNetConfig(
    embedding_size=8,
    hidden_sizes=[8, 16, 32, 64],
    depths=[1, 2, 1, 1],
    out_features=["stage1", "stage2", "stage3", "stage4"],
)
for case, backbone in {
    "transformers": dict(use_timm_backbone=False, backbone=None, backbone_config=own),
    "timm": dict(use_timm_backbone=True, backbone="resnet_tiny"),
}.items():
    torch.manual_seed(5)
    model = DetrForSegmentation(DetrConfig(**backbone, **sizes)).eval()
    perturb(model)
    folder = HERE / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # As facebook/detr-resnet-50-panoptic has it: either spelling is around.
    edges = {"size": {"shortest_edge": 75, "longest_edge": 107}} if case == "timm" else {"size": 75, "max_size": 107}
    (folder / "preprocessor_config.json").write_text(json.dumps(edges) + "\n")
    # Halves round up at every stage; of the preprocessor's own size, so that nothing is resized.
    blobs = nn.functional.interpolate(torch.rand(1, 3, 6, 8) * 255, size=(75, 107), mode="bicubic")[0].clamp(0, 255)
    picture = blobs.to(torch.uint8)
    pixels = ((picture.float() / 255 - MEAN) / STD)[None]
    spread(model, pixels)
    model.save_pretrained(folder)
    with torch.no_grad():
        output = model(pixels)
    logits, masks = output.logits[0], output.pred_masks[0]
    people = apart(logits, masks)
    print(case, [int(person.sum()) for person in people], masks.shape)
    outputs = {"pixel_values": pixels, "picture": picture.float(), "logits": logits, "pred_masks": masks, "people": people}
    save_file({name: value.contiguous() for name, value in outputs.items()}, folder / "io.safetensors")
