"""The network of the playground: the stored ResNet-20 as ONNX, with a gate for the layers of each block and one for its shortcut.

relu(gate · F(x) + gate · shortcut(x)): a gate of 0 takes that part away, 1 leaves it as it is. Written node by node, so PyTorch is not
needed here; a test compares the scores with PyTorch's. Kernels stay float16 in the file.
"""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

STAGES, BLOCKS = 3, 3


def build(weights, path):
    """weights: an .npz of models.cifar_resnet(20), see utils/weights.py. Writes the network to path.

    Inputs: image (1, 3, 32, 32), normalised as data.BatchLoader does it; layers and shortcuts, (9,) each. Output: scores (1, 10).
    """
    nodes, constants = [], []

    def constant(name, values):
        constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(kind, *inputs, **attributes):
        output = f"{kind}{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def kernel(name):
        return node("Cast", constant(name, weights[name]), to=TensorProto.FLOAT)

    def conv(x, name, stride=1):
        return node("Conv", x, kernel(f"{name}.weight"), pads=[1, 1, 1, 1], strides=[stride, stride])

    def norm(x, name):
        parts = [constant(f"{name}.{part}", weights[f"{name}.{part}"]) for part in ("weight", "bias", "running_mean", "running_var")]
        return node("BatchNormalization", x, *parts, epsilon=1e-5)

    def gated(x, gates, number):
        return node("Mul", x, node("Gather", gates, f"number{number}"))

    for number in range(STAGES * BLOCKS):
        constant(f"number{number}", np.int64(number))
    for name, values in (("two", [2, 2]), ("begin", [0, 0]), ("end", [32, 32]), ("axes", [2, 3])):
        constant(name, np.int64(values))
    x = node("Relu", norm(conv("image", "stem.0"), "stem.1"))
    for number in range(STAGES * BLOCKS):
        stage, place = divmod(number, BLOCKS)
        name, halved = f"stages.{stage}.{place}", stage > 0 and place == 0
        inside = node("Relu", norm(conv(x, f"{name}.conv1", 2 if halved else 1), f"{name}.bn1"))
        inside = norm(conv(inside, f"{name}.conv2"), f"{name}.bn2")
        around = x
        if halved:  # option A: every second pixel, and channels of zeros after the others
            around = node("Slice", x, "begin", "end", "axes", "two")
            around = node("Pad", around, constant(f"zeros{number}", np.int64([0, 0, 0, 0, 0, 8 * 2**stage, 0, 0])))
        x = node("Relu", node("Add", gated(inside, "layers", number), gated(around, "shortcuts", number)))
    x = node("Flatten", node("GlobalAveragePool", x))
    bias = constant("head.2.bias", weights["head.2.bias"].astype(np.float32))
    nodes.append(helper.make_node("Gemm", [x, kernel("head.2.weight"), bias], ["scores"], transB=1))
    inputs = [("image", [1, 3, 32, 32]), ("layers", [STAGES * BLOCKS]), ("shortcuts", [STAGES * BLOCKS])]
    graph = helper.make_graph(
        nodes,
        "resnet20",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
