"""Makes the fixtures of tests/parity/onnx.rs: a small iresnet and a small YuNet as several exporters write them, and the same
graphs with one thing changed.

    python tests/parity/onnx/reference.py

Needs torch, onnx, onnxscript, onnxconverter-common and onnxruntime. Made with torch 2.11.0 and onnxruntime 1.25.1. `NET_CASE.onnx`
are read, and give what `io.safetensors` holds under that name: onnxruntime's outputs. `refused.json` lists changes of a file's
bytes (where, how many are taken away, which are put there) that make another network of it, and the words that must say so.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnxconverter_common import float16
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / "face"), str(HERE.parent / "yunet")]
from iresnet import ImprovedResNet  # noqa: E402

torch.manual_seed(0)
torch.set_num_threads(1)

# The detector's reference makes its own fixtures when it is run: only its classes are wanted.
scope = {"__file__": str(HERE.parent / "yunet/reference.py")}
exec((HERE.parent / "yunet/reference.py").read_text().split("OUTPUTS =")[0], scope)
OUTPUTS = [f"{name}_{stride}" for name in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]

face = ImprovedResNet(layers=[1, 2, 1, 1], channels=[4, 4, 4, 6, 6], embedding_size=8, image_size=32).eval()
yunet = scope["YuNet"](channels=[3, 2, 3, 4, 4, 4, 4], shared_convs=1).eval()
for model in (face, yunet):
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.3, 1.5)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.2, 0.6)
pixels = {"face": torch.rand(1, 3, 32, 32) * 2 - 1, "yunet": torch.rand(1, 3, 64, 32) * 2 - 1}
io = {f"{net}.pixels": value for net, value in pixels.items()}
models = {}


def keep(net, case, model):
    """Writes a model that is read, with what onnxruntime makes of it."""
    name = f"{net}_{case}"
    onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = pixels[net].numpy()
    if session.get_inputs()[0].type == "tensor(float16)":
        given = given.astype(np.float16)
    outputs = session.run(None, {session.get_inputs()[0].name: given})
    for i, output in enumerate(outputs):
        io[f"{name}.{i}"] = torch.from_numpy(output.astype(np.float32))
    models[name] = model
    return model


def exported(net, model, **options):
    path = HERE / "exported.onnx"
    if options.get("dynamo"):
        torch.onnx.export(model, (pixels[net],), path, external_data=False, verbose=False, **options)
    else:
        torch.onnx.export(model, pixels[net], path, dynamo=False, **options)
    out = onnx.load(path)
    path.unlink()
    # Where the exporter stood when it made a node: long, and nobody's business.
    for node in out.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for part in (out, out.graph, *out.graph.value_info, *out.graph.input, *out.graph.output):
        del part.metadata_props[:]
    del out.graph.value_info[:]
    return out


def copy(model):
    out = onnx.ModelProto()
    out.CopyFrom(model)
    return out


def set_attribute(node, name, value):
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def nodes(model, op):
    return [node for node in model.graph.node if node.op_type == op]


def tensor(model, name):
    return next(t for t in model.graph.initializer if t.name == name)


def change(model, name, made):
    tensor(model, name).CopyFrom(numpy_helper.from_array(made(numpy_helper.to_array(tensor(model, name))), name))


# ---- exporters -------------------------------------------------------------------------------------------------------
plain = keep("face", "plain", exported("face", face, opset_version=11))
loose = keep("face", "unfolded", exported(
    "face", face, opset_version=13, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE))
keep("face", "dynamo", exported("face", face, dynamo=True))
keep("face", "dynamo_plain", exported("face", face, dynamo=True, optimize=False))
keep("face", "half", float16.convert_float_to_float16(copy(plain), keep_io_types=False))
blocked = ["BatchNormalization", "PRelu", "Gemm"]
keep("face", "half_in_parts", float16.convert_float_to_float16(copy(plain), keep_io_types=True, op_block_list=blocked))
one = exported("yunet", yunet, opset_version=11, input_names=["input"], output_names=OUTPUTS)
keep("yunet", "plain", one)
axes = {"input": {0: "n", 2: "h", 3: "w"}}
keep("yunet", "axes", exported("yunet", yunet, opset_version=17, input_names=["input"], dynamic_axes=axes))
keep("yunet", "unfolded", exported(
    "yunet", yunet, opset_version=11, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE))
keep("yunet", "dynamo", exported("yunet", yunet, dynamo=True))
keep("yunet", "dynamo_plain", exported("yunet", yunet, dynamo=True, optimize=False))
blocked = ["Sigmoid", "Relu", "Resize"]
keep("yunet", "half", float16.convert_float_to_float16(copy(models["yunet_dynamo"]), keep_io_types=True, op_block_list=blocked))

# ---- one thing changed, and obeyed -----------------------------------------------------------------------------------
model = copy(plain)
(gemm,) = nodes(model, "Gemm")
change(model, gemm.input[1], lambda w: np.ascontiguousarray(w.T))
for name, value in dict(alpha=0.5, beta=3.0, transB=0).items():
    set_attribute(gemm, name, value)
keep("face", "gemm", model)

model = copy(plain)
(gemm,) = nodes(model, "Gemm")
change(model, gemm.input[1], lambda w: np.ascontiguousarray(w.T))
at = list(model.graph.node).index(gemm)
pair = [helper.make_node("MatMul", list(gemm.input[:2]), ["product"]),
        helper.make_node("Add", [gemm.input[2], "product"], list(gemm.output))]
model.graph.node.remove(gemm)
for i, node in enumerate(pair):
    model.graph.node.insert(at + i, node)
keep("face", "product", model)

# Another ε, in normalisations that stay and in one that a convolution could have taken; a convolution's own bias before one.
model = copy(loose)
for i, node in enumerate(nodes(model, "BatchNormalization")):
    set_attribute(node, "epsilon", 0.1 if i % 2 else 0.001)
convolution = nodes(model, "Conv")[1]
bias = numpy_helper.from_array(np.linspace(-1, 1, 4, dtype=np.float32), "its_bias")
model.graph.initializer.append(bias)
convolution.input.append("its_bias")
keep("face", "epsilon", model)

# Tensors that Constant nodes state, one that is an Identity's, one slope for all channels, and auto_pad instead of pads.
model = copy(plain)
stated = [tensor(model, name) for name in ("bn2.weight", "bn2.bias")]
for i, value in enumerate(stated):
    model.graph.node.insert(i, helper.make_node("Constant", [], [value.name], value=numpy_helper.from_array(
        numpy_helper.to_array(value), value.name)))
    model.graph.initializer.remove(value)
last = nodes(model, "BatchNormalization")[-1]
model.graph.node.insert(0, helper.make_node("Identity", [last.input[3]], ["alias"]))
last.input[3] = "alias"
slopes = nodes(model, "PRelu")[1]
change(model, slopes.input[1], lambda s: s[:1])
first = nodes(model, "Conv")[0]
set_attribute(first, "pads", None)
set_attribute(first, "auto_pad", "SAME_UPPER")
at = list(model.graph.node).index(nodes(model, "Flatten")[0])
model.graph.node.insert(at, helper.make_node("Dropout", [model.graph.node[at].input[0]], ["dropped"]))
model.graph.node[at + 1].input[0] = "dropped"
keep("face", "constants", model)

# Shortcuts first, and halves written as integers.
model = copy(plain)
for node in nodes(model, "Add"):
    node.input[:] = list(node.input)[::-1]
half = float16.convert_float_to_float16(model, keep_io_types=True)
for value in half.graph.initializer:
    if value.data_type == TensorProto.FLOAT16:
        numbers = numpy_helper.to_array(value).view(np.uint16).ravel()
        value.ClearField("raw_data")
        value.int32_data[:] = [int(n) for n in numbers]
keep("face", "integers", half)

# ---- one thing changed, and refused ----------------------------------------------------------------------------------
refused = []


def edits(before, after):
    """Two places: the length of the graph, and the one part that differs."""
    out = []
    start = next(i for i, (a, b) in enumerate(zip(before, after)) if a != b)
    ends = []
    for data in (before, after):
        end = start
        while data[end] & 0x80:
            end += 1
        ends.append(end + 1)
    if len(before) != len(after):
        out.append([start, ends[0] - start, after[start : ends[1]].hex()])
    else:
        ends = [start, start]
    a, b = before[ends[0] :], after[ends[1] :]
    first = next(i for i, (x, y) in enumerate(zip(a, b)) if x != y)
    tail = 0
    while tail < min(len(a), len(b)) - first and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    out.append([ends[0] + first, len(a) - tail - first, b[first : len(b) - tail].hex()])
    made = bytearray(before)
    for at, gone, put in reversed(out):
        made[at : at + gone] = bytes.fromhex(put)
    assert bytes(made) == after
    return out


def refuse(base, words, op, change, which=0):
    model = copy(models[base])
    change(nodes(model, op)[which])
    before, after = models[base].SerializeToString(), model.SerializeToString()
    refused.append({"base": base, "edits": edits(before, after), "words": words})


def attribute(name, value):
    return lambda node: set_attribute(node, name, value)


def renamed(op, domain=""):
    def change(node):
        node.op_type, node.domain = op, domain

    return change


FACE = [
    ("Gemm", "transA", 1, 0), ("Conv", "strides", [2, 2], 1), ("Conv", "strides", [1, 1], 2), ("Conv", "dilations", [2, 2], 1),
    ("Conv", "pads", [0, 0, 0, 0], 1), ("Conv", "pads", [0, 0, 2, 2], 0), ("Conv", "group", 2, 1), ("Conv", "auto_pad", "SAME_UPPER", 2),
    ("Conv", "kernel_shape", [5, 5], 0), ("BatchNormalization", "training_mode", 1, 0),
    ("BatchNormalization", "spatial", 0, 0), ("Flatten", "axis", 2, 0), ("Conv", "shuffle", 1, 0), ("PRelu", "alpha", 0.5, 0),
]
for op, name, value, which in FACE:
    refuse("face_plain", [op, name], op, attribute(name, value), which)
refuse("face_plain", ["LeakyRelu", "PRelu"], "PRelu", renamed("LeakyRelu"), 1)
refuse("face_plain", ["com.example::Conv", "Conv"], "Conv", renamed("Conv", "com.example"), 0)
refuse("face_plain", ["Conv", "pads"], "Conv", attribute("auto_pad", "VALID"), 0)
refuse("face_plain", ["Sub"], "Add", renamed("Sub"), 1)
refuse("face_dynamo", ["Conv", "strides"], "Conv", attribute("strides", [3, 3]), 2)
refuse("face_half_in_parts", ["Cast"], "Cast", attribute("to", TensorProto.INT8), 1)
refuse("face_unfolded", ["PRelu", "slopes"], "Unsqueeze", attribute("axes", [0, 1]))
YUNET = [
    ("Conv", "strides", [1, 1], 0), ("Conv", "dilations", [2, 2], 2), ("Conv", "group", 1, 2), ("MaxPool", "strides", [1, 1], 0),
    ("MaxPool", "kernel_shape", [3, 3], 1), ("MaxPool", "ceil_mode", 1, 0), ("MaxPool", "pads", [1, 1, 0, 0], 3),
    ("Resize", "mode", "linear", 0), ("Resize", "nearest_mode", "ceil", 1),
    ("Resize", "coordinate_transformation_mode", "align_corners", 0), ("Transpose", "perm", [0, 3, 2, 1], 5),
]
for op, name, value, which in YUNET:
    refuse("yunet_plain", [op, name], op, attribute(name, value), which)
refuse("yunet_plain", ["LeakyRelu", "Relu"], "Relu", renamed("LeakyRelu"), 3)
refuse("yunet_plain", ["AveragePool", "MaxPool"], "MaxPool", renamed("AveragePool"), 2)
refuse("yunet_plain", ["Tanh"], "Sigmoid", renamed("Tanh"), 1)
refuse("yunet_plain", ["Mul", "Add"], "Add", renamed("Mul"), 0)
refuse("yunet_dynamo", ["Resize", "antialias"], "Resize", attribute("antialias", 1), 0)
# Slopes that lie along the width of a map, which has as many columns as there are channels.
model = copy(models["face_plain"])
first = nodes(model, "PRelu")[0].input[1]
change(model, first, lambda s: s.reshape(-1))
before, after = models["face_plain"].SerializeToString(), model.SerializeToString()
refused.append({"base": "face_plain", "edits": edits(before, after), "words": ["PRelu", "slopes"]})

lines = ",\n".join(json.dumps(case) for case in refused)
(HERE / "refused.json").write_text(f"[\n{lines}\n]\n")
save_file({name: value.contiguous() for name, value in io.items()}, HERE / "io.safetensors")
for file in HERE.iterdir():
    if file.is_file():
        file.chmod(0o644)
print(len(models), "read,", len(refused), "refused")
